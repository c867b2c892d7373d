"""The GPU benchmark runs from end to end; on the host build its figures mean nothing."""

import importlib
import json
import sys
from argparse import ArgumentParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DATA, ROOT
from cuda_on_cpu.host_device import HostDevice, compiler

from gpu_lattice import Tokenizer
from gpu_lattice.backends.cuda_device import device_count
from gpu_lattice.normalizers import NormalizedBatch
from gpu_lattice.text_batch import TextBatch


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("bench.gpu")


def test_every_rate_is_measured(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if compiler() is None:
        pytest.skip("no g++: the CUDA sources cannot be built for this machine")
    monkeypatch.setattr(gpu, "LOADS_PER_THREAD", 1)
    parser = ArgumentParser()
    gpu.add_arguments(parser)
    names = ["ja_whole.tokenizer.json", "bytepiece.json"]
    models = [option for name in names for option in ("--model", str(DATA / name))]
    texts = ["--text", f"English={DATA / 'en.txt'}", "--text", str(DATA / "zh.txt")]
    sizes = ["--size", "2KB", "--largest", "4KB", "--largest-cpu", "1KB", "--rounds", "1"]
    arguments = parser.parse_args([*models, *texts, *sizes, "--json", str(tmp_path / "out.json")])
    assert gpu.run(arguments, HostDevice()) == 0
    result = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert result["machine"]["device"] == {"name": "cuda:host"}
    assert len(result["gathers"]) == 6
    cases = {(row["model"], row["text"]) for row in result["rates"]}
    assert cases == {(model, text) for model in names for text in ("English", "zh")}
    assert len({row["stage"] for row in result["rates"]}) == len(result["rates"]) / 4 == 15
    assert all(row["gb_per_s"] > 0 and len(row["seconds"]) == 1 for row in result["rates"])
    assert all(1 < row["loads_per_byte"] < 10 for row in result["rates"] if row["stage"] == "trie walk")
    assert [sorted(row) for row in result["curve"]] == [
        ["bytes", "cpu", "device", "model", "text"],
        ["bytes", "device", "model", "text"],
    ]
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("cuda:host", "8-byte loads", "forward and sample", "zh", "bytepiece.json"))


def test_without_a_device_there_is_one_line(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if device_count():
        pytest.skip("a CUDA device is here")
    monkeypatch.setattr(sys, "argv", ["bench", "gpu"])
    assert importlib.import_module("bench.__main__").main() == 2
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("name", ["ja_whole.tokenizer.json", "zh_bytes.model"])
def test_inputs_take_turns_without_a_gap(gpu: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(gpu, "ROTATED_BYTES", 2000)
    tokenizer = Tokenizer.from_file(DATA / name, device="cpu")
    unit = tokenizer._normalize(TextBatch.from_texts((DATA / "zh.txt").read_text("utf-8").split("\n")))
    inputs = gpu.rotated(unit, 500)
    assert len(inputs) == 4
    assert all(400 < len(gpu.text_of(batch)) < 1000 for batch in inputs)
    assert all(one.offsets[-1] == following.offsets[0] for one, following in pairwise(inputs))

    def ids(batch: NormalizedBatch) -> list[int]:
        return tokenizer._backend.encode(batch, np.zeros(len(batch), np.bool_)).ids.tolist()

    given = [i for batch in inputs for i in ids(batch)]
    assert given == (ids(unit) * 99)[: len(given)]


@pytest.mark.usefixtures("matplotlib")
def test_the_curve_is_plotted(gpu: Any, tmp_path: Path) -> None:
    gpu._plot([{"bytes": 1000, "device": 0.1, "cpu": 0.01}, {"bytes": 4000, "device": 0.1}], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
