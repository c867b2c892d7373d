"""The benchmarks of whole jobs run from end to end; of so little text, their figures mean nothing."""

import importlib
import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
from conftest import DATA, ROOT


def result_of(name: str, folder: Path, *options: str) -> Any:
    module = importlib.import_module(f"bench.{name}")
    parser = ArgumentParser()
    module.add_arguments(parser)
    module.run(parser.parse_args([*options, "--megabytes", "1", "--json", str(folder / "out.json")]))
    return json.loads((folder / "out.json").read_text("utf-8"))


def test_what_a_job_costs_beside_sampling_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    options = ["--text", str(DATA / "en.txt"), "--rounds", "2", "--batch-bytes", "400000"]
    result = result_of("retokenize", tmp_path, *options)
    for terms in (*result["rounds"], result["medians"]):
        assert min(terms[name] for name in ("sample", "files", "job", "wall")) > 0
        assert 0 < terms["busy"] <= result["cores"]
    for terms in result["rounds"]:
        left = result["cores"] * terms["job"] / terms["busy"] - terms["files"]
        assert terms["share"] == pytest.approx(terms["sample"] / left)


def test_the_counts_of_a_job_agree_with_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    result = result_of("memory", tmp_path, str(DATA / "en.txt"), str(DATA / "ja.txt"))
    assert result["agree"] == {"bytes": True, "documents": True, "the bar": True}
    assert result["bytes"] >= 1_000_000
    assert result["texts"] == ["en.txt", "ja.txt"]
