"""Jobs that people leave running: dealt to several runs, done in epochs, killed and resumed, always the same files."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from gpu_lattice.corpus import progress as progress_module
from gpu_lattice.corpus import ray_engine
from gpu_lattice.corpus.draws import checked_shard, deal, row_ids
from gpu_lattice.corpus.job import Job, Shard
from gpu_lattice.corpus.manifest import MANIFEST, RECORDS, Record
from gpu_lattice.corpus.outputs import FORMATS
from gpu_lattice.corpus.pipeline import run_shards
from gpu_lattice.corpus.retokenize import retokenize
from gpu_lattice.kernels.reference import splitmix
from gpu_lattice.runtime.files import PREFIX, SUFFIX, lock_name, locked
from gpu_lattice.runtime.seeds import epoch_seed
from gpu_lattice.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    longer = [b"he", b"llo", b"hello", b"wor", b"world", b"aa", b"aaa", b"</s>"]
    scores = {bytes([byte]): -5.0 for byte in range(256)} | dict.fromkeys(longer, -6.0)
    return Tokenizer.from_pieces(scores, device="cpu", threads=2)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Six files in two folders, one of them Parquet with row groups."""
    folder = tmp_path / "in"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        texts = [f"hello world {name} {i}" for i in range(40)]
        pq.write_table(pa.table({"text": texts}), folder / name / "train.parquet", row_group_size=4)
        (folder / name / "x.txt").write_text("\n".join(texts[:9]))
        (folder / name / "y.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:5]))
    return folder


def run(inputs: Any, output: Path, tokenizer: Tokenizer, **options: Any) -> Any:
    return retokenize(inputs, output, tokenizer=tokenizer, progress=False, **{"alpha": 0.1, **options})


def content(folder: Path) -> dict[str, str]:
    """Digests of all files, by their paths."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows_of(path: Path) -> list[list[int]]:
    rows: list[list[int]] = pq.read_table(path)["input_ids"].to_pylist()
    return rows


def test_ids_and_seeds_are_those_of_the_reference() -> None:
    key = int.from_bytes(hashlib.blake2b(b"a/b.txt", digest_size=8).digest(), "little")
    rows = np.array([0, 1, 5, 2**40])
    assert row_ids("a/b.txt", rows).view(np.uint64).tolist() == [splitmix(key, int(row)) for row in rows]
    assert [epoch_seed(7, k) for k in range(5)] == [7, *(splitmix(7, k) for k in range(1, 5))]
    assert len({*row_ids("a", np.arange(10**5)).tolist(), *row_ids("b", np.arange(10**5)).tolist()}) == 2 * 10**5


def test_a_file_alone_gives_the_same_tokens(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    run(corpus, tmp_path / "all", tokenizer)
    run(corpus / "b" / "x.txt", tmp_path / "alone", tokenizer, root=corpus)
    alone = tmp_path / "alone" / "b" / "x.parquet"
    assert alone.read_bytes() == (tmp_path / "all" / "b" / "x.parquet").read_bytes()
    # No two rows share draws, in one file or in two.
    same = tmp_path / "same"
    same.mkdir()
    for name in "ab":
        (same / f"{name}.txt").write_text(("hello world " * 20 + "\n") * 50)
    run(same, tmp_path / "drawn", tokenizer)
    drawn = [tuple(row) for name in "ab" for row in rows_of(tmp_path / "drawn" / f"{name}.parquet")]
    assert len(set(drawn)) == 100


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("split_bytes", [1 << 30, 500])
def test_shards_together_are_one_run(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, n: int, split_bytes: int
) -> None:
    run(corpus, tmp_path / "one", tokenizer, split_bytes=split_bytes)
    for i in reversed(range(n)):
        run(corpus, tmp_path / "many", tokenizer, split_bytes=split_bytes, shard=f"{i}/{n}")
    assert content(tmp_path / "many") == content(tmp_path / "one")
    parts = sorted((tmp_path / "one" / "a").glob("train*"))
    assert (len(parts) > 1) == (split_bytes == 500)
    run(corpus, tmp_path / "whole", tokenizer)
    assert [row for part in parts for row in rows_of(part)] == rows_of(tmp_path / "whole" / "a" / "train.parquet")


def test_shards_are_dealt_evenly_and_named_in_range() -> None:
    sizes = random.Random(0).choices(range(1, 1000), k=100)
    dealt = deal(sizes, 7)
    loads = [sum(size for size, run in zip(sizes, dealt, strict=True) if run == i) for i in range(7)]
    assert max(loads) - min(loads) < 100
    assert deal([0] * 8, 4) == [0, 1, 2, 3] * 2
    assert checked_shard((1, 3)) == (1, 3)
    for wrong in ("2/2", "-1/2", "1", "a/b", "1/2/3", (0, 0)):
        with pytest.raises(ValueError, match=r"give I/N, as in 0/2"):
            checked_shard(wrong)


def test_epochs_are_drawn_anew_and_can_be_done_alone(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    summary = run(corpus, tmp_path / "all", tokenizer, epochs=3, seed=9)
    assert summary.documents == 3 * 108
    run(corpus, tmp_path / "one", tokenizer, epoch=1, seed=9)
    assert content(tmp_path / "one" / "epoch-001") == content(tmp_path / "all" / "epoch-001")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["epoch-001"]
    rows = [rows_of(tmp_path / "all" / f"epoch-00{k}" / "a" / "train.parquet") for k in range(3)]
    assert rows[0] != rows[1] != rows[2] != rows[0]
    texts = [f"hello world a {i}" for i in range(40)]
    ids = row_ids("a/train.parquet", np.arange(40))
    assert rows[2] == tokenizer.sample(texts, alpha=0.1, seed=9, epoch=2, doc_ids=ids).tolist()
    metadata = pq.read_schema(tmp_path / "all" / "epoch-002" / "a" / "train.parquet").metadata[b"gpu_lattice"]
    assert json.loads(metadata)["options"]["epoch"] == 2
    assert json.loads(metadata)["options"]["seed"] == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": None, "seed": 0}, "seed is 0, but without alpha"),
        ({"alpha": None, "epochs": 2}, "without alpha there is one best segmentation in every epoch"),
        ({"epochs": 2, "epoch": 2}, "epoch is 2; give an integer from 0 to 1"),
        ({"epochs": 0}, "epochs is 0"),
        ({"resume": True, "overwrite": True}, "choose one"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; choose one of raise, skip, replace"),
        ({"workers": 2}, "give local, or ray and workers"),
        ({"engine": "spark"}, "the engine is 'spark'"),
        ({"format": "npy"}, "the format is 'npy'; choose one of parquet"),
        ({"shard": "2/2"}, "the shard is 2/2"),
        ({"shard": "0/2", "overwrite": True}, "one of several runs cannot replace"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(corpus, tmp_path / "out", tokenizer, **options)
    assert not list(tmp_path.glob("out/*"))


def test_the_manifest_says_how_and_from_what(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    summary = run(corpus, tmp_path / "out", tokenizer, seed=3, report=tmp_path / "report.json")
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["model"] == {"sha256": tokenizer.digest, "kind": "pieces", "vocab_size": 264}
    assert (manifest["options"]["alpha"], manifest["options"]["seed"]) == (0.1, 3)
    assert set(manifest["gpu_lattice"]) == {"library", "draws", "arrow"}
    for file in manifest["inputs"]:
        status = (corpus / file["path"]).stat()
        assert (file["size"], file["time"]) == (status.st_size, status.st_mtime_ns)
    outputs = [file for shard in manifest["shards"] for file in shard["files"]]
    for file in outputs:
        data = (tmp_path / "out" / file["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
    assert sum(shard["documents"] for shard in manifest["shards"]) == summary.documents == 108
    assert sum(shard["tokens"] for shard in manifest["shards"]) == summary.tokens
    assert sum(shard["text_bytes"] for shard in manifest["shards"]) == summary.num_bytes
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["tokens"] == summary.tokens
    assert report["options"] == manifest["options"]
    assert report["outputs"] == [str(tmp_path / "out" / file["path"]) for file in outputs]
    metadata = json.loads(pq.read_schema(tmp_path / "out" / "a" / "x.parquet").metadata[b"gpu_lattice"])
    assert metadata == {name: manifest[name] for name in ("gpu_lattice", "model", "options")} | {"input": "a/x.txt"}


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}, {}])
@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: [manifest],
        lambda manifest: manifest | {"inputs": 7},
        lambda manifest: manifest | {"shards": [{"shard": 0}]},
        lambda manifest: manifest | {"shards": [{"shard": [1], "files": []}]},
        lambda manifest: manifest | {"shards": [{"shard": 0, "files": [{"path": "../precious", "bytes": 1}]}]},
        lambda manifest: manifest | {"shards": [{"shard": 0, "files": [{"path": "/precious", "bytes": 1}]}]},
    ],
)
def test_a_manifest_that_no_run_has_written_is_refused(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, change: Any, options: dict[str, Any]
) -> None:
    """And with `overwrite`, nothing is removed that it lists outside of the folder."""
    run(corpus, tmp_path / "out", tokenizer)
    (tmp_path / "precious").write_bytes(b"x")
    path = tmp_path / "out" / MANIFEST
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=f"{MANIFEST} is not as gpu_lattice writes it; remove it"):
        run(corpus, tmp_path / "out", tokenizer, **options)
    assert (tmp_path / "precious").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("corpus/a/x.txt", "is an input or may be an output"),
        ("out/a/x.parquet", "is an input or may be an output"),
        (f"out/{MANIFEST}", "is an input or may be an output"),
        ("nowhere/report.json", "in none that is there"),
        (".", "is a folder"),
    ],
)
def test_a_report_that_would_replace_a_file_of_the_job_is_refused_before_any_work(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, report: str, message: str
) -> None:
    (tmp_path / "corpus").symlink_to(corpus)
    before = content(corpus)
    with pytest.raises(ValueError, match=message):
        run(corpus, tmp_path / "out", tokenizer, report=tmp_path / report)
    assert not (tmp_path / "out").exists()
    assert content(corpus) == before


@pytest.mark.parametrize("lost", ["b/train.parquet", RECORDS])
def test_resume_does_what_is_missing(tmp_path: Path, corpus: Path, tokenizer: Tokenizer, lost: str) -> None:
    run(corpus, tmp_path / "out", tokenizer)
    before = content(tmp_path / "out")
    if lost != RECORDS:
        (tmp_path / "out" / lost).write_bytes(b"half")
    with pytest.raises(ValueError, match=r"exists; go on with what is missing \(--resume\)"):
        run(corpus, tmp_path / "out", tokenizer)
    summary = run(corpus, tmp_path / "out", tokenizer, resume=True)
    assert content(tmp_path / "out") == before
    assert summary.resumed == (6 if lost == RECORDS else 5)
    assert len(summary.outputs) == 6
    (tmp_path / "out" / MANIFEST).unlink()
    with pytest.raises(ValueError, match=rf"exists, and no {MANIFEST} says what it is"):
        run(corpus, tmp_path / "out", tokenizer, resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.2}, "alpha is 0.1 there and 0.2 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"format": "arrow"}, "format is 'parquet' there and 'arrow' here"),
        ({"num_samples": 2}, "num_samples is 1 there and 2 here"),
        ({"text_column": "a"}, "text_column is 'text' there"),
    ],
)
def test_resume_names_what_differs(tmp_path: Path, tokenizer: Tokenizer, options: dict[str, Any], message: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "a": "y"}\n')
    run(tmp_path / "a.jsonl", tmp_path / "out", tokenizer)
    before = content(tmp_path / "out")
    for resume in (True, False):
        with pytest.raises(ValueError, match=f"holds the output of another job: {message}"):
            run(tmp_path / "a.jsonl", tmp_path / "out", tokenizer, resume=resume, **options)
    assert content(tmp_path / "out") == before
    other = Tokenizer.from_pieces(["x", "y", "a"], device="cpu")
    with pytest.raises(ValueError, match=r"sha256 is '.*' there and '.*' here"):
        run(tmp_path / "a.jsonl", tmp_path / "out", other, resume=True)
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(ValueError, match=r"the input b.jsonl is new"):
        run([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "out", tokenizer, resume=True)
    (tmp_path / "a.jsonl").write_text('{"text": "z", "a": "y"}\n')
    with pytest.raises(ValueError, match=r"the input a.jsonl has changed"):
        run(tmp_path / "a.jsonl", tmp_path / "out", tokenizer, resume=True)
    run(tmp_path / "a.jsonl", tmp_path / "out", tokenizer, overwrite=True, format="bin")
    assert sorted(content(tmp_path / "out")) == [MANIFEST, "a.bin"]


def test_an_output_folder_below_the_inputs_is_no_input(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    run(tmp_path, tmp_path / "out", tokenizer)
    assert run(tmp_path, tmp_path / "out", tokenizer, resume=True).resumed == 1
    assert run(f"{tmp_path}/**/*.*", tmp_path / "out", tokenizer, resume=True).resumed == 1


def test_two_runs_do_not_do_the_same_work_at_once(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for held, wanted in (("0/1", None), ("0/2", "0/2"), ("0/2", None), ("0/2", "1/3"), ("0/18", "0/8")):
        with (
            locked(out, checked_shard(held)),
            pytest.raises(BlockingIOError, match=f"process {os.getpid()} is writing"),
        ):
            run(corpus, out, tokenizer, shard=wanted)
    (out / lock_name((1, 3))).write_text("left by a run that was killed")
    with locked(out, (0, 2)):
        run(corpus, out, tokenizer, shard="1/2")
    run(corpus, out, tokenizer, shard="0/2")
    assert not list(out.rglob(f"{PREFIX}*"))


def test_a_full_disk_loses_nothing_else(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(corpus, tmp_path / "whole", tokenizer)
    written, real = 0, pq.ParquetWriter.write_table

    def fails(writer: Any, *arguments: Any, **options: Any) -> None:
        nonlocal written
        written += 1
        if written == 4:
            raise OSError(28, "No space left on device")
        real(writer, *arguments, **options)

    with monkeypatch.context() as full:
        full.setattr(pq.ParquetWriter, "write_table", fails)
        with pytest.raises(OSError, match="No space left"):
            run(corpus, tmp_path / "out", tokenizer)
    complete = len(list(tmp_path.glob("out/[ab]/*.parquet")))
    assert 3 <= complete < 6
    assert not list(tmp_path.rglob(f"{PREFIX}*{SUFFIX}"))
    assert run(corpus, tmp_path / "out", tokenizer, resume=True).resumed == complete
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_file_that_breaks_off_loses_nothing_else(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / f"{name}.txt").write_text("hello\n")
    (tmp_path / "in" / "b.txt").write_text("hello\n\\q")
    whole = (tmp_path / "in" / "b.txt").read_bytes()
    os.rename(tmp_path / "in" / "b.txt", tmp_path / "in" / "b.jsonl")
    (tmp_path / "in" / "b.jsonl").write_bytes(b'{"text": "x"}\n' + whole)
    with pytest.raises(ValueError, match=r"b\.jsonl: JSON parse error.* in row 1"):
        run(tmp_path / "in", tmp_path / "out", tokenizer, batch_bytes=5)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet")) == ["a.parquet"]
    times = os.stat(tmp_path / "in" / "b.jsonl")
    (tmp_path / "in" / "b.jsonl").write_bytes(b'{"text": "x"}\n' + b" " * len(whole))
    os.utime(tmp_path / "in" / "b.jsonl", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run(tmp_path / "in", tmp_path / "out", tokenizer, resume=True).resumed == 1


def start(corpus: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gpu_lattice", "retokenize", str(corpus), "-o", str(out), "--no-progress"]
    fixed = ["--alpha", "0.1", "--resume", "--device", "cpu", "--batch-bytes", "8KB", "--append-eos"]
    return subprocess.Popen([*command, *fixed, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, b"")


def killed_at_random_moments(folder: Path, format: str, moments: int, num_files: int) -> None:
    generator = random.Random(format)
    corpus = folder / "in"
    for i in range(num_files):
        (corpus / f"{i % 3}").mkdir(parents=True, exist_ok=True)
        (corpus / f"{i % 3}" / f"{i}.txt").write_text("some words in a line\n" * 2000)
    options = ["--format", format, *(["--max-tokens-per-file", "5000"] if format == "datatrove" else [])]
    finish(start(corpus, folder / "whole", *options))
    for _ in range(moments):
        process = start(corpus, folder / "out", *options)
        records, enough = folder / "out" / RECORDS, generator.randrange(1, max(2, num_files // moments + 2))
        done = len(list(records.glob("*.json")))
        while len(list(records.glob("*.json"))) < done + enough and process.poll() is None:
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(corpus, folder / "out", *options))
    assert content(folder / "out") == content(folder / "whole")
    halves = [start(corpus, folder / "halves", "--shard", f"{i}/2", *options) for i in range(2)]
    for half in halves:
        finish(half)
    assert content(folder / "halves") == content(folder / "whole")


def test_nothing_remains_of_a_worker_that_died(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_dies(job: Job, shards: list[Shard], workers: int | None, *others: Any) -> Iterator[Record]:
        records = run_shards(job, shards, *others)
        yield next(records)
        (tmp_path / "out" / "b" / f"{PREFIX}0{SUFFIX}").write_bytes(b"half of a shard that another worker does again")
        yield from records

    run(corpus, tmp_path / "whole", tokenizer)
    monkeypatch.setattr(ray_engine, "run_on_ray", one_dies)
    run(corpus, tmp_path / "out", tokenizer, engine="ray", workers=2)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_job_that_is_killed_and_resumed_is_the_same(tmp_path: Path) -> None:
    killed_at_random_moments(tmp_path, "megatron", 2, 6)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_job_that_is_killed_often_is_the_same(tmp_path: Path, format: str) -> None:
    killed_at_random_moments(tmp_path, format, 30, 40)


def test_a_log_file_gets_lines(
    tmp_path: Path,
    corpus: Path,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    retokenize(corpus, tmp_path / "quiet", tokenizer=tokenizer)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress_module, "SECONDS_PER_LINE", 0.0)
    retokenize(corpus, tmp_path / "out", tokenizer=tokenizer)
    lines = capsys.readouterr().err.splitlines()
    total = sum(path.stat().st_size for path in corpus.rglob("*") if path.is_file()) / 1e6
    assert all(line.startswith("gpu-lattice: ") and "\r" not in line for line in lines)
    assert lines[-1].startswith(f"gpu-lattice: {total:.1f} of {total:.1f} MB (100.0%), 108 documents, ")
    assert lines[-1].endswith("MB/s, 0:00:00 left") or "M tokens/s, 0:00:00 left" in lines[-1]
