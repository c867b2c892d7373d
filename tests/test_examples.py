"""The examples are short, and run."""

import importlib.util
import json
import re
import runpy
import sys
import warnings
from pathlib import Path

import pytest
from bpe_files import trained
from conftest import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MOST_LINES = 40


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that read a large BPE vocabulary are given a small one."""
    needed = re.search(r"Needs: ([\w, ]+)\.", path.read_text("utf-8"))
    for package in needed[1].split(", ") if needed else []:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    model = tmp_path / "tokenizer.json"
    model.write_text(json.dumps(trained("llama3", 2000)), "utf-8")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [str(path), str(model)])
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


def test_a_mean_over_proposals_is_near_the_sum_over_all_segmentations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "tokenizer.json"
    model.write_text(json.dumps(trained("llama3", 2000)), "utf-8")
    monkeypatch.setattr(sys, "argv", ["bpe_marginal.py", str(model)])
    runpy.run_path(str(ROOT / "examples" / "bpe_marginal.py"))
    for line in capsys.readouterr().out.splitlines():
        mean, exact, canonical = map(float, re.findall(r"-\d+\.\d+", line))
        assert abs(mean - exact) < 0.1
        assert canonical < exact
