"""The benchmark of exactness runs from end to end, and the report makes tables and pictures of results alone."""

import importlib
import json
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module


# bytepiece leaves its model's file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_distances_are_those_from_the_enumerated_distribution(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = bench("bench.exactness")
    parser, out = ArgumentParser(), tmp_path / "out.json"
    module.add_arguments(parser)
    options = ["--draws", "1000", "--length", "1000", "--long-draws", "1", "--json", str(out)]
    module.run(parser.parse_args(options))
    result, shown = json.loads(out.read_text("utf-8")), capsys.readouterr().out
    for word, found in result["short"].items():
        assert repr(word) in shown
        assert all(0 < distance < 1 for name, row in found.items() if name != "segmentations" for distance in row)
        assert found["gpu_lattice"][1] < 2 * found["expected"][1]
        assert found["Viterbi Sampling"][1] > 1.5 * found["expected"][1]
    shares = result["long"]["shares"]
    assert abs(shares["gpu_lattice"][0] - 0.5) < 0.04


def test_a_distance_counts_what_cannot_be(bench: Any) -> None:
    distance = bench("bench.exactness")._distance
    assert distance({("a",): 0.5, ("b",): 0.5}, Counter({("a",): 2, ("c",): 2})) == 0.5


def test_the_report_fills_blocks_and_knows_their_names(bench: Any) -> None:
    report = bench("bench.report")
    text = "before\n<!-- report: headline -->\nold\n<!-- end of report -->\nafter"
    filled = report.filled(text)
    assert filled.startswith("before\n<!-- report: headline -->\nOn English text that comes only once")
    assert filled.endswith("\n<!-- end of report -->\nafter")
    assert report.filled(filled) == filled
    with pytest.raises(KeyError, match="nothing"):
        report.filled(text.replace("headline", "nothing"))


def test_pictures_are_made_of_results(bench: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    report = bench("bench.report")
    report._exactness_figure(tmp_path / "exactness.svg")
    assert "a perfect sampler" in (tmp_path / "exactness.svg").read_text("utf-8")
    report._lattice_figure(tmp_path / "lattice.svg")
    assert "30 segmentations" in (tmp_path / "lattice.svg").read_text("utf-8")
