"""The benchmark of lattices runs from end to end; of so little work, its figures mean nothing."""

import importlib
import json
from argparse import ArgumentParser
from pathlib import Path

import pytest
from conftest import DATA, ROOT


def test_every_operation_is_measured_beside_that_of_another_checkout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    lattice = importlib.import_module("bench.lattice")
    parser, out = ArgumentParser(), tmp_path / "out.json"
    lattice.add_arguments(parser)
    options = ["--model", str(DATA / "en_nmt_nfkc.model"), "--text", str(DATA / "en.txt"), "--beside", str(ROOT)]
    lattice.run(parser.parse_args([*options, "--bytes", "1000", "--rounds", "1", "--json", str(out)]))
    result, shown = json.loads(out.read_text("utf-8")), capsys.readouterr().out
    assert list(result["median_mb_per_s"]) == list(result["times_the_other"]) == list(lattice.CASES)
    assert all(rate > 0 for rate in result["median_mb_per_s"].values())
    assert all(case in shown for case in lattice.CASES)
