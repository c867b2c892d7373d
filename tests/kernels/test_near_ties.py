"""Best segmentations where rounding decides: long documents, sums near the reset, equal scores."""

from importlib import resources

import numpy as np
import pyarrow.parquet as pq
import pytest
import sentencepiece

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
