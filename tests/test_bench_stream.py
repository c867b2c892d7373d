"""The benchmarks of text that comes once run from end to end; of so little text, their figures mean nothing."""

import importlib
import json
import lzma
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest
from conftest import DATA, ROOT


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("bench.stream")


def arguments(module: Any, *options: str) -> Namespace:
    parser = ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(options)


def test_every_chunk_of_a_stream_is_given_once_to_both_and_ratios_are_of_its_own(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = " ".join(map(str, range(70_000)))  # 409 KB
    stream = tmp_path / "numbers.txt.xz"
    stream.write_bytes(lzma.compress(text.replace("99 ", "99\n").encode()))
    out = tmp_path / "out.json"
    bench.run(arguments(bench, str(stream), str(DATA / "ja.txt"), "--json", str(out)))
    streams = json.loads(out.read_text("utf-8"))["streams"]
    assert list(streams) == ["numbers", "ja"]
    numbers = streams["numbers"]
    assert numbers["bytes"] == len(text) - text.count("99 ")
    assert numbers["chunks"] == 2
    assert sorted(numbers["seconds"]) == ["ours encode", "ours sample", "peer encode", "peer sample"]
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in numbers["seconds"].values())
    for verb, ratio in numbers["ratios"].items():
        pairs = zip(numbers["seconds"][f"peer {verb}"], numbers["seconds"][f"ours {verb}"], strict=True)
        assert ratio == pytest.approx(sum(peer / ours for peer, ours in pairs) / 2)
    assert all(10 < peak < 2000 for peak in numbers["peak_mb"].values())
    shown = capsys.readouterr().out
    assert "numbers " in shown
    assert f"{numbers['ratios']['sample']:.2f}" in shown


def test_offsets_are_compared_with_ids_alone_for_each_model_and_text(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = importlib.import_module("bench.offsets")
    monkeypatch.setattr(offsets, "LEAST_SECONDS", 0.0)
    out = tmp_path / "out.json"
    models = [str(DATA / name) for name in ("en_nmt_nfkc.model", "en_split.tokenizer.json")]
    options = [str(DATA / "en.txt"), str(DATA / "ja.txt"), "--model", *models, "--max-chunks", "2"]
    offsets.run(arguments(offsets, *options, "--json", str(out)))
    ratios = json.loads(out.read_text("utf-8"))["ratios"]
    assert list(ratios) == ["en_nmt_nfkc.model", "en_split.tokenizer.json"]
    assert [list(texts) for texts in ratios.values()] == [["en", "ja"]] * 2
    columns = ["encode, bytes", "encode, characters", "sample, bytes", "sample, characters"]
    for one in (one for texts in ratios.values() for one in texts.values()):
        assert {when: list(figures) for when, figures in one.items()} == {"once": columns, "again": columns}
        assert all(figure > 0 for figures in one.values() for figure in figures.values())
    shown = capsys.readouterr().out
    assert f"{ratios['en_nmt_nfkc.model']['en']['once']['encode, bytes']:.2f} /" in shown


def test_two_checkouts_take_turns(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    turns = importlib.import_module("bench.turns")
    model, text = DATA / "en_symbols.model", DATA / "en.txt"
    options = ["--model", str(model), "--text", str(text), "--rounds", "2", "--seconds", "0.01"]
    turns.run(arguments(turns, str(ROOT), str(ROOT), *options))
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "the same ids"
    assert [line.partition("  ")[0] for line in shown[1:]] == list(turns.CASES)


def test_streams_are_made_again_as_they_were_and_long_lines_come_once(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    make = importlib.import_module("make_streams")
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("a line of more than twenty characters\nshort\nshort\n", "utf-8")
    (folder / "b.txt").write_text("a line of more than twenty characters\n\nend\n", "utf-8")
    (folder / "c.bin").write_bytes(b"\xff\n")
    for out in ("one", "two"):
        options = [str(tmp_path / out), f"english={folder}", f"python={folder}/*.txt", "--max-bytes", "5000"]
        monkeypatch.setattr(sys, "argv", ["make_streams.py", *options])
        make.main()
    names = ["digits.txt.xz", "english.txt.xz", "logs.txt.xz", "newwords.txt.xz", "python.txt.xz"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    lines = lzma.decompress((tmp_path / "one" / "python.txt.xz").read_bytes()).decode().split("\n")
    assert lines == ["a line of more than twenty characters", "short", "short", "end", ""]
    assert 4000 < len(lzma.decompress((tmp_path / "one" / "logs.txt.xz").read_bytes())) <= 5000
