"""The CPU benchmark runs from end to end; of so little text, once, its figures mean nothing."""

import importlib
import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
from bpe_files import trained
from conftest import DATA, ROOT

from gpu_lattice import Tokenizer


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    for peer in ("sentencepiece", "tokenizers"):
        pytest.importorskip(peer, reason=f"{peer} is not installed")
    monkeypatch.syspath_prepend(str(ROOT))
    module = importlib.import_module("bench.cpu")
    monkeypatch.setattr(module, "LEAST_SECONDS", 0.0)
    return module


def test_every_case_is_measured_and_every_ratio_is_of_its_round(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = ArgumentParser()
    bench.add_arguments(parser)
    options = ["--text", str(DATA / "en.txt"), "--rounds", "3", "--json", str(tmp_path / "out.json")]
    bench.run(parser.parse_args(options))
    result = json.loads((tmp_path / "out.json").read_text("utf-8"))
    seconds, ratios = result["seconds"], result["ratios"]
    names = list(seconds)
    assert all(len(rounds) == 3 and min(rounds) > 0 for rounds in seconds.values())
    # What is compared is next to each other.
    assert names.index("sentencepiece sample") < names.index("sample") < names.index("encode")
    assert names.index("encode") < names.index("sentencepiece encode") == len(names) - 1
    of_rounds = [peer / ours for peer, ours in zip(seconds["sentencepiece sample"], seconds["sample"], strict=True)]
    assert ratios["sample / sentencepiece sample"] == pytest.approx(sorted(of_rounds)[1])
    sixteen = [many / one for many, one in zip(seconds["sample, 16 per document"], seconds["sample"], strict=True)]
    assert ratios["time of 16 samples / time of 1"] == pytest.approx(sorted(sixteen)[1])
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*names, *ratios])


def test_a_bpe_model_is_measured_beside_both_of_its_tools(bench: Any, tmp_path: Path) -> None:
    pytest.importorskip("tiktoken", reason="tiktoken is not installed")
    model, out = tmp_path / "tokenizer.json", tmp_path / "out.json"
    model.write_text(json.dumps(trained("llama3", 2000)), "utf-8")
    parser = ArgumentParser()
    bench.add_arguments(parser)
    text = str(DATA / "en.txt")
    bench.run(parser.parse_args(["--model", str(model), "--text", text, "--rounds", "1", "--json", str(out)]))
    result = json.loads(out.read_text("utf-8"))
    assert result["alpha"] == 0
    names = {"sample / tokenizers sample", "encode / tokenizers encode", "encode / tiktoken encode"}
    assert names <= set(result["ratios"])
    peers = importlib.import_module("bench.peers")
    docs = (DATA / "en.txt").read_text("utf-8").split("\n")
    own = Tokenizer.from_file(model, device="cpu").encode(docs, add_special_tokens=False).tolist()
    assert peers.of_tiktoken(str(model))["tiktoken encode"](docs) == own
