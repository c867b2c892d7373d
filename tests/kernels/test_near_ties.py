"""Best segmentations where rounding decides: long documents, sums near the reset, equal scores."""

import itertools
import json
import random
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sentencepiece
import tokenizers
from conftest import DATA as TEST_DATA
from handmade import hugging_face_file

import gpu_lattice as gl

DATA = resources.files("gpu_lattice.data")


@pytest.fixture(scope="module")
def documents() -> list[str]:
    """The shipped corpus as a few documents of some 300 KB: their float32 sums pass the reset several times."""
    with (DATA / "corpus.parquet").open("rb") as file:
        texts = pq.read_table(file, columns=["text"])["text"].to_pylist()
    return ["\n".join(texts[i::8]) for i in range(8)]


@pytest.fixture(scope="module")
def expected(documents: list[str]) -> list[list[int]]:
    tool = sentencepiece.SentencePieceProcessor(model_proto=(DATA / "default.model").read_bytes())
    return [tool.encode(document) for document in documents]


def test_long_documents_are_segmented_as_by_sentencepiece(documents: list[str], expected: list[list[int]]) -> None:
    assert gl.Tokenizer.default().encode(documents).tolist() == expected


def test_the_bound_on_rounding_is_what_makes_it_so(documents: list[str], expected: list[list[int]]) -> None:
    """Without the bound the exact best paths are taken, and those differ from the tool's here and there."""
    tok = gl.Tokenizer.default()
    tables = tok._backend.tables
    tables.best = tables.best._replace(rounding=-1.0)
    differing = [np.array_equal(row, ids) for row, ids in zip(tok.encode(documents), expected, strict=True)]
    assert not all(differing)


@pytest.mark.parametrize("scores", [(0.0, 0.0, 0.0), (-1.0, -2.0, -3.0), (-0.1, -0.2, -0.3)])
def test_of_equal_sums_the_longest_last_piece_wins(scores: tuple[float, float, float]) -> None:
    tok = gl.Tokenizer.from_pieces(dict(zip(["a", "aa", "aaa"], scores, strict=True)))
    score = dict(zip(["a", "aa", "aaa"], scores, strict=True))
    best = {"": (0.0, [])}
    text = "a" * 9
    for e in range(1, 10):
        candidates = [(best[text[: e - k]][0] + score["a" * k], k) for k in (3, 2, 1) if k <= e]
        top, k = max(candidates, key=lambda candidate: candidate[0])
        best[text[:e]] = (top, [*best[text[: e - k]][1], k - 1])
    assert tok.encode(text).tolist() == [best[text][1]]


def runs(pieces: list[str], seed: int) -> Iterator[str]:
    """Runs of one or two of the pieces' characters: the same pieces in another order have nearly the same sum."""
    rng, characters = random.Random(seed), sorted(set("".join(pieces)))
    while True:
        two, length = rng.choices(characters, k=2), rng.randint(2, 60)
        split = rng.randint(0, length)
        yield rng.choice(
            [two[0] * length, two[0] * split + two[1] * (length - split), "".join(rng.choices(two, k=length))]
        )


def differing(file: str, path: Path, num_documents: int) -> list[str]:
    """The documents of which our ids are not those of tokenizers."""
    path.write_text(file, "utf-8")
    tool = tokenizers.Tokenizer.from_file(str(path))
    documents = list(
        itertools.islice(runs([piece for piece, _ in json.loads(file)["model"]["vocab"]], 1), num_documents)
    )
    rows = gl.Tokenizer.from_file(path, device="cpu").encode(documents).tolist()
    both = zip(documents, rows, tool.encode_batch(documents), strict=True)
    return [document for document, row, expected in both if row != expected.ids]


def file_of_runs() -> str:
    """All pieces of up to five equal letters, and all pairs, with scores of as many digits as a float has."""
    rng, letters = random.Random(2), "abcdefgh"
    pieces = [letter * n for letter in letters for n in range(1, 6)]
    pieces += ["".join(pair) for pair in itertools.permutations(letters, 2)]
    scores = [("<unk>", 0.0), *((piece, -len(piece) * rng.uniform(2, 2.5)) for piece in pieces)]
    return hugging_face_file(scores, 0, False).decode()


def test_near_ties_are_decided_as_by_tokenizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert differing(file_of_runs(), tmp_path / "tokenizer.json", 5000) == []
    monkeypatch.setattr("gpu_lattice.models.hf_tokenizers.serde_float", float)
    assert differing(file_of_runs(), tmp_path / "tokenizer.json", 5000) != []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["runs", "en_split.tokenizer.json", "ja_whole.tokenizer.json"])
def test_near_ties_of_a_hundred_thousand_documents(name: str, tmp_path: Path) -> None:
    file = file_of_runs() if name == "runs" else (TEST_DATA / name).read_text("utf-8")
    assert differing(file, tmp_path / "tokenizer.json", 100_000) == []
