"""What alpha does to a corpus: the documents that it is measured on, the numbers, and how they are shown."""

import gzip
import json
import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from brute_force import brute_force
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_lattice import TokenBatch, Tokenizer
from gpu_lattice.cli import main
from gpu_lattice.corpus import excerpt as excerpt_module
from gpu_lattice.corpus.documents import Documents, ReaderOptions
from gpu_lattice.corpus.excerpt import PLACES, excerpt
from gpu_lattice.corpus.readers import find_start, read_documents
from gpu_lattice.show import preview as preview_module
from gpu_lattice.show.preview import Preview, paint_preview, preview

PIECES = {"a": -1.0, "b": -2.0, "ab": -2.5, "ba": -2.0, "aba": -4.0, "\n": 0.0}
LINES = [f"document {i:06d} " + "ab" * (i % 7) for i in range(20_000)]
ENDS = "\r\n.\n"


def write(folder: Path, kind: str, lines: list[str]) -> Path:
    path = folder / f"corpus.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"text": lines}), path, row_group_size=1000)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    elif kind == "txt.gz":
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
    elif kind == "separated.txt":
        path.write_bytes(ENDS.join(lines).encode())
    else:
        path.write_bytes("\n".join(lines).encode())
    return path


def options_of(kind: str) -> ReaderOptions:
    return ReaderOptions(separator=ENDS.encode() if kind == "separated.txt" else None)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are read from files."""
    sizes: list[int] = []

    def counted(*arguments: Any) -> Iterator[Documents]:
        for batch in read_documents(*arguments):
            sizes.append(sum(len(text or "") for text in batch.texts.to_pylist()))
            yield batch

    monkeypatch.setattr(excerpt_module, "read_documents", counted)
    monkeypatch.setattr(excerpt_module, "EXCERPT_BATCH_BYTES", 1 << 12)
    return sizes


KINDS = ["txt", "jsonl", "parquet", "separated.txt", "txt.gz"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_corpus_is_taken_whole_and_in_order(tmp_path: Path, kind: str) -> None:
    lines = [*LINES[:300], "日本語"]
    drawn = excerpt([write(tmp_path, kind, lines)], options_of(kind), 1_000_000, seed=1)
    assert drawn.texts == [line.encode() for line in lines]
    assert (drawn.num_cut, drawn.num_files, drawn.num_bytes) == (0, 1, sum(len(line.encode()) for line in lines))


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_corpus_is_read_in_places_and_never_whole(tmp_path: Path, kind: str, read: list[int]) -> None:
    path, max_bytes = write(tmp_path, kind, LINES), 5_000
    if kind in ("parquet", "txt.gz"):  # by their sizes on disk these are small
        max_bytes = path.stat().st_size // PLACES - 1
    total = sum(map(len, LINES))
    drawn = excerpt([path], options_of(kind), max_bytes, seed=3)
    assert sum(read) <= PLACES * (max_bytes + 3 * excerpt_module.EXCERPT_BATCH_BYTES) < total
    assert max_bytes * 0.9 < drawn.num_bytes <= max_bytes
    numbers = [LINES.index(text.decode()) for text in drawn.texts]
    assert numbers == sorted(set(numbers))
    if kind != "txt.gz":
        counts = np.bincount(np.array(numbers) * 4 // len(LINES), minlength=4)
        assert (counts > len(numbers) // 10).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_chooses_the_documents(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind, LINES[:3000])
    one, again, other = (excerpt([path], options_of(kind), 2000, seed) for seed in (1, 1, 2))
    assert one.texts == again.texts != other.texts


def test_every_file_has_its_share(tmp_path: Path) -> None:
    for i_file in range(4):
        (tmp_path / f"{i_file}.txt").write_text("\n".join(f"{i_file} and {i}" for i in range(3000)))
    for max_bytes in (2_000, 20_000):
        drawn = excerpt([tmp_path], ReaderOptions(), max_bytes, seed=0)
        counts = np.bincount([int(text[:1]) for text in drawn.texts], minlength=4)
        assert drawn.num_files == 4
        assert (counts > 0.1 * len(drawn.texts)).all()


def test_long_documents_are_cut_between_characters(tmp_path: Path) -> None:
    path = write(tmp_path, "txt", ["漢字" * 5000, "short", "é" * 9000])
    drawn = excerpt([path], ReaderOptions(), 10_000, seed=0)
    assert [text.decode() for text in drawn.texts] == ["漢字" * 208, "short", "é" * 625]
    assert drawn.num_cut == 2
    (broken,) = excerpt([write(tmp_path, "txt", ["x"])], ReaderOptions(), 100, seed=0).texts
    assert broken == b"x"
    path.write_bytes(b"\x80" * 1000)
    assert excerpt([path], ReaderOptions(), 100, seed=0).texts == [b"\x80" * 9]


def test_null_and_empty_documents_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["a", None, "", "b"]}), path)
    assert excerpt([path], ReaderOptions(text_column="body"), 100, seed=0).texts == [b"a", b"b"]
    pq.write_table(pa.table({"body": pa.array([None, ""], pa.string())}), path)
    with pytest.raises(ValueError, match=r"there is no text in .*a.parquet: every document is empty"):
        excerpt([path], ReaderOptions(text_column="body"), 100, seed=0)


@settings(max_examples=100)
@given(
    st.lists(st.text("ab漢\r.\n", max_size=9), max_size=12),
    st.sampled_from(["txt", "jsonl", "parquet", "separated.txt", "txt.gz"]),
    st.floats(0, 1),
)
def test_a_start_is_where_a_document_begins(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], kind: str, share: float
) -> None:
    path = write(tmp_path_factory.mktemp("corpus"), kind, lines)
    options = options_of(kind)
    start = find_start(path, options, share)
    texts = [text for batch in read_documents(path, options) for text in batch.texts.to_pylist()]
    rest = [text for batch in read_documents(path, options, start) for text in batch.texts.to_pylist()]
    assert rest == texts[len(texts) - len(rest) :]
    if kind == "parquet":
        assert len(texts) - len(rest) == min(len(texts), int(share * len(texts)))
    elif start:
        assert start >= int(share * path.stat().st_size)


def test_rows_are_what_a_tokenizer_gives(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_pieces(PIECES, device="cpu")
    texts = ["abab", "ba", "aab", "b"]
    path = write(tmp_path, "txt", texts)
    seen = preview([path], tokenizer=tokenizer, alphas=[0, 0.7], seed=9)
    assert (seen.documents, seen.num_bytes, seen.num_cut, seen.num_files) == (4, 10, 0, 1)
    best = tokenizer.encode(texts).tolist()
    for row, alpha in zip(seen.rows, [None, 0.0, 0.7], strict=True):
        out = best if alpha is None else tokenizer.sample(texts, alpha=alpha, seed=9).tolist()
        tokens = sum(len(ids or []) for ids in out)
        entropies = [0.0]
        if alpha is not None:
            log_probs = [brute_force(text, PIECES).log_probs(alpha) for text in texts]
            entropies = [-math.fsum(math.exp(log) * log for log in logs) for logs in log_probs]
        assert row.alpha == alpha
        assert row.tokens_per_byte == tokens / 10
        assert row.bytes_per_token == 10 / tokens
        assert row.differing == sum(a != b for a, b in zip(out, best, strict=True)) / 4
        assert row.entropy_per_byte == pytest.approx(math.fsum(entropies) / 10, rel=1e-12)
        assert row.coverage == len({i for ids in out for i in ids or []}) / len(PIECES)


def test_rows_do_not_depend_on_the_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.default(device="cpu")
    path = write(tmp_path, "txt", LINES[:50])
    whole = preview([path], tokenizer=tokenizer, alphas=[0.2])
    monkeypatch.setattr(preview_module, "LATTICE_BYTES", 100)
    assert preview([path], tokenizer=tokenizer, alphas=[0.2]) == whole


ROWS = st.lists(st.lists(st.integers(0, 2), max_size=3), max_size=6)


@given(ROWS, st.data())
def test_rows_that_differ_are_found(one: list[list[int]], data: st.DataObject) -> None:
    other = [data.draw(st.one_of(st.just(row), st.lists(st.integers(0, 2), max_size=3))) for row in one]
    batches = [
        TokenBatch(np.array(list(chain(*rows)), np.int32), np.cumsum([0, *map(len, rows)], dtype=np.int64))
        for rows in (one, other)
    ]
    expected = [a != b for a, b in zip(one, other, strict=True)]
    assert preview_module._differ(batches[0], batches[1]).tolist() == expected


def test_the_table_is_aligned_and_says_what_it_was_measured_on(tmp_path: Path) -> None:
    path = write(tmp_path, "txt", ["abab", "aab" * 9])
    lines = str(
        preview([path], tokenizer=Tokenizer.from_pieces(PIECES, device="cpu"), alphas=[1, 0.25], max_bytes=31)
    ).split("\n")
    assert lines[0] == "2 documents (2 cut short), 6 bytes, from 1 file of 32 bytes; seed 0"
    assert lines[2].split("  ")[-1] == "pieces used"
    assert [line.split()[0] for line in lines[3:]] == ["best", "1", "0.25"]
    assert {len(line) for line in lines[2:]} == {len(lines[2])}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Preview:
    path = write(tmp_path_factory.mktemp("corpus"), "txt", ["abab", "aab"])
    return preview([path], tokenizer=Tokenizer.from_pieces(PIECES, device="cpu"), alphas=[1, 0, 0.5])


@pytest.mark.usefixtures("matplotlib")
@pytest.mark.parametrize(("suffix", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("html", b"<!DOCTYPE html>")])
def test_plots_are_the_same_at_every_call(seen: Preview, tmp_path: Path, suffix: str, magic: bytes) -> None:
    for name in "ab":
        paint_preview(seen, tmp_path / f"{name}.{suffix}")
    one, other = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
    assert one.startswith(magic)
    assert one == other
    if suffix != "png":
        for words in (seen.measured_on, "tokens per byte", "entropy per byte, nats", "best segmentation"):
            assert words in one.decode()
    if suffix == "html":
        assert all(f"<td>{cell}</td>" in one.decode() for row in seen.rows for cell in row.cells())


@pytest.mark.usefixtures("matplotlib")
def test_a_plot_of_one_alpha_without_any_choice_is_painted(tmp_path: Path) -> None:
    path = write(tmp_path, "txt", ["aaa"])
    one = preview([path], tokenizer=Tokenizer.from_pieces(["a"], device="cpu"), alphas=[0.5])
    assert (one.rows[1].differing, one.rows[1].entropy_per_byte, one.rows[1].coverage) == (0.0, 0.0, 1.0)
    paint_preview(one, tmp_path / "one.png")


@pytest.mark.usefixtures("matplotlib")
def test_the_command_prints_the_table_and_writes_plots(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"body": f"{i} and some words"}) + "\n" for i in range(100)))
    arguments = ["--alphas", "0,0.5", "--text-column", "body", "--max-bytes", "1KB", "--seed", "4"]
    assert main(["preview", str(path), *arguments, "-o", str(tmp_path / "plot.svg")]) == 0
    expected = preview(
        [path],
        tokenizer=Tokenizer.default(device="cpu"),
        alphas=[0, 0.5],
        text_column="body",
        max_bytes=1000,
        seed=4,
    )
    assert capsys.readouterr().out == f"{expected}\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["corpus.jsonl", "plot.svg"]


def test_the_command_takes_a_separator(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree")
    assert main(["preview", str(tmp_path / "a.txt"), "--alphas", "1", "--separator", r"\n\n"]) == 0
    assert capsys.readouterr().out.startswith("2 documents, 12 bytes, from 1 file of 14 bytes")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.txt"], "absent.txt: No such file or directory"),
        (["*.absent"], "no file matches *.absent"),
        (["empty.txt"], "there is no text in empty.txt: every document is empty"),
        (["a.txt", "--alphas", "0,much"], "'0,much' is not a list of numbers; give one like 0,0.1,0.5"),
        (["a.txt", "--alphas", ""], "'' is not a list of numbers"),
        (["a.txt", "--alphas", "0,-0.5"], "alpha is -0.5; give a finite number >= 0"),
        (["a.txt", "--alphas", "nan"], "alpha is nan"),
        (["absent.txt", "--alphas", "1e9"], "the largest alpha for this model"),
        (["a.txt", "--max-bytes", "0"], "'0' is not a size"),
        (["a.txt", "--seed", "-1"], "seed is -1"),
        (["a.jsonl"], "there is no column 'text'"),
        (["a.txt", "-o", "plot.pdf"], "'plot.pdf' is not the name of a picture"),
        ([], "arguments are required: INPUT"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"empty.txt": "\n\n", "a.txt": "a", "a.jsonl": '{"body": "a"}'}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert main(["preview", *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert {file.name for file in tmp_path.iterdir()} == set(files)


def test_no_alphas_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="alphas is empty"):
        preview([tmp_path], tokenizer=Tokenizer.default(device="cpu"), alphas=[])


@pytest.mark.parametrize("words", ["▁ab▁ba", "▁abab"])
@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_entropies_of_mixtures_are_exact(tmp_path: Path, words: str, rate: float) -> None:
    pieces = {"▁": -2.0, "a": -1.0, "b": -2.0, "ab": -2.5, "▁a": -1.5, "ba": -1.2}
    tokenizer = Tokenizer.from_pieces(pieces, device="cpu")
    path = write(tmp_path, "txt", [words])
    row = preview([path], tokenizer=tokenizer, alphas=[0.5], token_penalties=[0.2], rates=[rate]).rows[1]
    total = 0.0
    for word in words.replace("▁", " ▁").split():
        best = tuple(tokenizer.encode(word).tolist()[0])
        every = brute_force(word, pieces).probabilities(0.5, 0.2)
        total -= math.fsum(p * math.log(p) for p in (rate * q + (1 - rate) * (ids == best) for ids, q in every.items()))
    assert row.entropy_per_byte * len(words.encode()) == pytest.approx(total, rel=1e-12)
    # Where all words but one may be kept, the rest has none.
    kept = tokenizer.without(["▁", "▁a"], unspellable="best")
    assert preview([path], tokenizer=kept, alphas=[0.5]).rows[1].entropy_per_byte == 0.0


def test_every_law_has_a_row(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path, "txt", LINES[:200])
    arguments = [
        "--alphas",
        "0,1",
        "--token-penalty",
        "0,2",
        "--rate",
        "0.1,1",
        "--exclude",
        "▁do",
        "--exclude",
        "#300",
    ]
    assert main(["preview", str(path), *arguments, "--device", "cpu"]) == 0
    tokenizer = Tokenizer.default(device="cpu").without(["▁do", 300])
    laws: dict[str, Any] = {"alphas": [0, 1], "token_penalties": [0, 2], "rates": [0.1, 1]}
    seen = preview([path], tokenizer=tokenizer, **laws)
    assert capsys.readouterr().out == f"{seen}\n"
    rows = {(row.token_penalty, row.rate, row.alpha): row for row in seen.rows[1:]}
    assert len(rows) == 8
    for penalty, alpha in ((0, 0), (2, 0)):
        rare, all_words = rows[penalty, 0.1, alpha], rows[penalty, 1, alpha]
        assert seen.rows[0].tokens_per_byte < rare.tokens_per_byte < all_words.tokens_per_byte
        assert rare.entropy_per_byte < all_words.entropy_per_byte
    assert rows[2, 1, 0].tokens_per_byte < rows[0, 1, 0].tokens_per_byte


@pytest.mark.usefixtures("matplotlib")
def test_several_laws_are_several_curves(tmp_path: Path) -> None:
    path = write(tmp_path, "txt", LINES[:50])
    seen = preview([path], tokenizer=Tokenizer.default(device="cpu"), alphas=[0, 1], rates=[0.1, 1])
    paint_preview(seen, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000
