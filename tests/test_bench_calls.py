"""The benchmark of texts per call runs from end to end; of so little work, its figures mean nothing."""

import importlib
import json
from argparse import ArgumentParser
from pathlib import Path

import pytest
from conftest import DATA, ROOT


def test_every_size_is_measured_with_every_tool(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    calls = importlib.import_module("bench.calls")
    parser = ArgumentParser()
    calls.add_arguments(parser)
    out = tmp_path / "out.json"
    model, text = str(DATA / "en_nmt_nfkc.model"), str(DATA / "en.txt")
    options = ["--model", model, "--text", text, "--most", "10", "--rounds", "2", "--seconds", "0.001"]
    calls.run(parser.parse_args([*options, "--json", str(out)]))
    spent = json.loads(out.read_text("utf-8"))["microseconds_per_text"]
    assert list(spent) == ["a str", "1", "10"]
    for one in spent.values():
        assert {
            "ours sample",
            "ours encode",
            "ours encode, offsets",
            "sentencepiece sample",
            "tokenizers encode",
        } <= set(one)
        assert min(one.values()) > 0
    assert "texts per call" in capsys.readouterr().out
