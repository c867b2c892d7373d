"""`gpu-lattice bench`: every way gets every text once, in turns; ids are checked; what is missing is said."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import DATA

import gpu_lattice as gl
from gpu_lattice.benchmark import compare as module
from gpu_lattice.benchmark.compare import Way, compare
from gpu_lattice.benchmark.peers import Peer
from gpu_lattice.benchmark.rounds import Case, Timings, in_turns, ratio
from gpu_lattice.cli import main

MODEL = DATA / "en_symbols.model"
TEXT = DATA / "en.txt"


def options(**others: Any) -> dict[str, Any]:
    return {"rounds": 2, "device": "cpu", "threads": 2, "max_bytes": 50_000, "progress": False} | others


def tool(encode: Any) -> Peer:
    return Peer("numpy", encode, encode, is_threaded=False, megabytes=100.0)


def test_every_case_gets_the_texts_of_a_round_once_and_their_order_alternates() -> None:
    calls: list[tuple[str, list[str]]] = []
    cases = [
        Case(name, list, lambda given, name=name: calls.append((name, given)) or given, len, share)
        for name, share in [("a", 1.0), ("b", 0.5)]
    ]
    timings = in_turns(cases, [["x", "yy"], ["zzz", "é"]])
    assert calls == [("b", ["x"]), ("a", ["x", "yy"]), ("a", ["zzz", "é"]), ("b", ["zzz"])]
    assert (timings["a"].num_bytes, timings["b"].num_bytes) == ([3, 5], [1, 3])
    assert timings["a"].num_tokens == [2, 2]
    assert all(len(one.seconds) == 2 and min(one.seconds) > 0 for one in timings.values())


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    one, other = Timings([4, 4, 4], [1, 1, 1], [1.0, 2.0, 4.0]), Timings([2, 2, 2], [1, 1, 1], [1.0, 1.0, 1.0])
    assert ratio(one, other) == 1.0
    assert one.summary()["mb_per_s"] == pytest.approx(2e-6)


def test_our_rates_stand_beside_the_tools_and_all_ids_match() -> None:
    pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    seen = compare(MODEL, [TEXT], **options())
    ways = {row.way for row in seen.rows}
    assert {way.verb for way in ways} == {"sample", "encode"}
    assert {way.threads for way in ways if way.tool == "gpu_lattice"} == {1, 2}
    assert all(row.low <= row.mb_per_s <= row.high for row in seen.rows)
    assert all((row.times is not None) == (row.way.tool == "gpu_lattice") for row in seen.rows)
    assert seen.matching == seen.checked == seen.documents > 0
    assert f"all {seen.documents:,} documents match" in str(seen)
    fields = json.loads(seen.to_json())
    assert {"verb", "tool", "device", "threads", "mb_per_s", "mtokens_per_s", "times"} < set(fields["rows"][0])
    assert [point["documents"] for point in fields["curve"]][:2] == [1, 4]


def test_documents_whose_ids_differ_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = gl.Tokenizer.from_file(MODEL, device="cpu")

    def wrong(documents: list[str], threads: int) -> list[list[int]]:
        return [
            ids if "the" not in text else []
            for text, ids in zip(documents, ours.encode(documents).tolist(), strict=True)
        ]

    monkeypatch.setattr(module, "peer_of", lambda *_: tool(wrong))
    seen = compare(MODEL, [TEXT], **options())
    assert 0 < seen.matching < seen.checked
    assert "documents DIFFER" in seen.check
    sampled = Way("sample", tool(wrong).name, "cpu", 1)
    assert sampled in {row.way for row in seen.rows}


def test_without_the_tool_ours_stands_alone_and_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_lattice.benchmark.peers.version_of", lambda _: None)
    seen = compare(MODEL, [TEXT], **options())
    assert {row.way.tool for row in seen.rows} == {"gpu_lattice"}
    assert all(row.times is None for row in seen.rows)
    assert "pip install sentencepiece" in str(seen)


def test_too_few_documents_for_the_rounds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("one document\n", "utf-8")
    with pytest.raises(ValueError, match="1 documents cannot be divided among 2 rounds"):
        compare(MODEL, [tmp_path / "one.txt"], **options())


def test_the_command_prints_the_table_and_writes_json_and_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    out, picture = tmp_path / "out.json", tmp_path / "out.svg"
    files = ["--json", str(out), "--plot", str(picture)]
    assert main(["bench", str(MODEL), str(TEXT), "--max-bytes", "20KB", "--rounds", "2", *files]) == 0
    shown = capsys.readouterr()
    assert "MB/s" in shown.out
    assert "reading" in shown.err
    assert json.loads(out.read_text("utf-8"))["model"] == MODEL.name
    assert "sample" in picture.read_text("utf-8")


def test_the_command_takes_the_model_in_the_package_and_one_line_for_a_wrong_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "default", str(TEXT), "--max-bytes", "20KB", "--rounds", "1", "--device", "cpu"]) == 0
    assert "the default model" in capsys.readouterr().out
    assert main(["bench", str(tmp_path / "none.model"), str(TEXT)]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("gpu-lattice: ")
