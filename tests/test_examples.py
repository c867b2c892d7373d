"""The examples are short, and run."""

import importlib.util
import re
import runpy
import sys
import warnings
from pathlib import Path

import pytest
from conftest import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MOST_LINES = 40


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    needed = re.search(r"Needs: ([\w, ]+)\.", path.read_text("utf-8"))
    for package in needed[1].split(", ") if needed else []:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [str(path)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_a_prompt_is_healed_and_sampled_training_needs_no_healing(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "token_healing.py"))
    plain, healed, sampled = capsys.readouterr().out.splitlines()
    assert plain.endswith(r"'▁II', ':\n']")
    assert healed.endswith("'▁III']")
    assert sampled.endswith("'▁II', 'I']")
