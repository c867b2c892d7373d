"""The n best paths: all that there are, in the promised order, whatever the length; and samples among them."""

import math
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece
from brute_force import brute_force, counted, p_value
from conftest import DATA
from handmade import hugging_face_file, tokenizer_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lattices import DEVICES, both, documents_of, on
from strategies import Case, cases

from gpu_lattice import Tokenizer
from gpu_lattice.cli import main
from gpu_lattice.corpus.retokenize import retokenize
from gpu_lattice.kernels import reference_lattice as reference
from gpu_lattice.lattice import Lattice, RaggedLattice, nbest

RELAXED = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
SIZES = st.sampled_from([1, 2, 3, 7, 10_000])
LEAST_P = 1e-6
TIES = {"a": -1.0, "aa": -2.0, "aaa": -3.0, "b": -0.5, "ab": -1.5, "ba": -1.5}
ABAB = {"a": -1.0, "b": -2.0, "ab": -2.5, "ba": -1.5, "aba": -3.7}

# No two paths of "abcdba" have the same score.
ABCD = {"a": -2.137, "b": -1.911, "c": -3.203, "d": -3.541, "ab": -3.307, "bc": -2.513, "cd": -2.219, "abc": -2.719}
ABCD |= {"bcd": -3.929, "ba": -3.017, "dba": -5.003}


def found(lattice: Any, n: int, scores: Any) -> list[list[tuple[float, reference.Path]]]:
    """Of each document the n best paths as reference.nbest gives them, read from the lists and marks."""
    launcher, arrays = lattice._launcher, lattice._arrays
    counts = nbest.count(launcher, arrays, scores, n)
    lists = nbest.merge(launcher, arrays, scores, counts, lattice._check_fits)
    best = nbest.ranked_paths(np, arrays, counts, n)
    totals = nbest.scores_of(arrays, lists, best).tolist()
    marks, firsts = nbest.follow(launcher, arrays, lists, best.docs, best.ranks, lattice._check_fits)
    rows: list[list[tuple[float, reference.Path]]] = [[] for _ in range(len(lattice))]
    sizes = np.diff(arrays.doc_positions)
    for total, doc, first in zip(totals, best.docs.tolist(), firsts.tolist(), strict=True):
        row = marks[first : first + sizes[doc]]
        rows[doc].append((total, [(int(e), int(row[e])) for e in np.flatnonzero(row >= 0)]))
    return rows


def every_path(document: reference.Arcs) -> list[tuple[float, reference.Path]]:
    """All paths in the promised order, by listing and sorting them."""

    def prefixes(e: int) -> Iterator[tuple[list[tuple[float, int]], float, reference.Path]]:
        """(what to sort by: score and last arc of the path and of all its prefixes, score, path)."""
        if e == 0:
            yield [], 0.0, []
        for rank, (length, score) in enumerate(document[e]):
            for key, total, path in prefixes(e - length):
                yield [(-(total + score), -rank), *key], total + score, [*path, (e, rank)]

    return [(total, path) for _, total, path in sorted(prefixes(len(document) - 1), key=lambda way: way[0])]


@RELAXED
@given(cases(longest_text=8), SIZES)
def test_the_n_best_are_the_first_of_all_paths(case: Case, n: int) -> None:
    for lattice in both(case.tokenizer(), case.texts):
        scores = lattice._scores(None)
        expected = [every_path(document)[:n] for document in documents_of(lattice, scores)]
        assert found(lattice, n, scores) == expected


@RELAXED
@given(cases(longest_text=25), SIZES.filter(lambda n: n < 100))
def test_the_n_best_are_those_of_the_definition(case: Case, n: int) -> None:
    for lattice in both(case.tokenizer(), case.texts):
        scores = lattice._scores(None)
        expected = [reference.nbest(document, n) for document in documents_of(lattice, scores)]
        assert found(lattice, n, scores) == expected


@RELAXED
@given(cases(longest_text=8), SIZES)
def test_ids_and_scores_are_those_of_brute_force(case: Case, n: int) -> None:
    for lattice in both(case.tokenizer(), case.texts):
        out = lattice.nbest(n)
        rows, bounds = out.tolist(), out.doc_offsets.tolist()
        assert out.tokens.offsets.dtype == np.int64
        assert len(out.scores) == len(out.tokens)
        for i_doc, text in enumerate(case.texts):
            truth = brute_force(text, case.pieces, case.unk_piece)
            scores = out.scores[bounds[i_doc] : bounds[i_doc + 1]].tolist()
            assert scores == pytest.approx(sorted(truth.scores, reverse=True)[:n], rel=1e-12, abs=1e-12)
            if n >= len(truth.ids):
                assert sorted(map(tuple, rows[i_doc])) == sorted(truth.ids)


@RELAXED
@given(cases(longest_text=12))
def test_lists_are_sorted_begin_with_the_best_path_and_cover_all_probability(case: Case) -> None:
    for lattice in both(case.tokenizer(), case.texts):
        paths = lattice.num_paths()
        lattice = lattice.take(np.flatnonzero(np.array(paths) > 0))
        out, best, log_z = lattice.nbest(max(paths)), lattice.viterbi(), lattice.log_partition(1.0)
        assert np.diff(out.doc_offsets).tolist() == [count for count in paths if count]
        assert best.scores == pytest.approx(out.scores[out.doc_offsets[:-1]], rel=1e-12, abs=1e-12)
        for i_doc, (first, stop) in enumerate(zip(out.doc_offsets[:-1], out.doc_offsets[1:], strict=True)):
            scores = out.scores[first:stop]
            assert (np.diff(scores) <= 0).all()
            assert math.fsum(np.exp(scores - log_z[i_doc])) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_of_equal_scores_the_longest_last_arc_comes_first(device: str) -> None:
    out = on(device, Tokenizer.from_pieces(TIES, device="cpu")).lattice("aaa").nbest(9)
    assert out.scores.tolist() == [-3.0] * 4
    assert out.tolist() == [[[2], [0, 1], [1, 0], [0, 0, 0]]]


@pytest.mark.parametrize("device", DEVICES)
def test_paths_that_read_alike_are_different_rows(device: str) -> None:
    tokenizer = on(device, Tokenizer.from_pieces({"<unk>": None, "aa": -1.0}, unk_piece="<unk>", device="cpu"))
    out = tokenizer.lattice("aaaa").nbest(100)
    assert out.tolist() == [[[1, 1], [0, 1], [0, 1, 0], [1, 0], [0]]]
    out = tokenizer.lattice("aaaaa").nbest(100)
    assert len(out.tokens) == 8
    assert out.tolist()[0].count([0, 1, 0]) == 2


@pytest.mark.parametrize("device", DEVICES)
def test_texts_of_odd_kinds_have_rows_as_promised(device: str) -> None:
    tokenizer = on(device, Tokenizer.from_pieces(ABAB, device="cpu"))
    out = tokenizer.nbest(["abab", "", None, "a?", "?", "b"], 2)
    assert out.doc_offsets.tolist() == [0, 2, 3, 4, 4, 4, 5]
    assert out.tolist() == [[[0, 3, 1], [2, 2]], [[]], [[]], [], [], [[1]]]
    assert out.tokens.tolist() == [[0, 3, 1], [2, 2], [], None, [1]]
    assert out.scores.tolist() == [-4.5, -5.0, 0.0, 0.0, -2.0]
    assert tokenizer.nbest(["abab", "", None, "?"], 0).doc_offsets.tolist() == [0] * 5
    for n in (0, 1, 5):
        for batch in ([], ["", None]):
            out = tokenizer.nbest(batch, n)
            assert np.diff(out.doc_offsets).tolist() == [min(n, 1)] * len(batch)
            assert out.tolist() == [[[]] * min(n, 1)] * len(batch)


def test_numbers_that_are_none_of_paths_are_refused() -> None:
    tokenizer = Tokenizer.from_pieces(ABAB, device="cpu")
    for call in (tokenizer.lattice("ab").nbest, lambda n: tokenizer.nbest("ab", n)):
        for n in (-1, 2**31):
            with pytest.raises(ValueError, match=f"n is {n}"):
                call(n)
        for other in (1.0, "2", None):
            with pytest.raises(TypeError, match="n is"):
                call(other)
    with pytest.raises(ValueError, match="n is 0; give an integer from 1"):
        tokenizer.lattice("ab").sample_nbest(0)
    with pytest.raises(ValueError, match=r"both alpha \(1\) and weights"):
        tokenizer.lattice("ab").sample_nbest(2, alpha=1, weights=np.ones(5))
    with pytest.raises(ValueError, match="alpha is -1"):
        tokenizer.lattice("ab").sample_nbest(2, alpha=-1)


def test_what_does_not_fit_is_refused_before_it_is_allocated() -> None:
    lattice = Tokenizer.from_pieces(["a" * n for n in range(1, 9)], device="cpu").lattice("a" * 500, memory_limit=10**6)
    assert len(lattice.nbest(10).tokens) == 10
    with pytest.raises(MemoryError, match=r"a table of \d+ best prefixes takes"):
        lattice.nbest(10**8)
    with pytest.raises(MemoryError, match="a table of 1000 paths takes"):
        lattice.sample_nbest(2, num_samples=1000)


LONG = ("the quick brown fox -- jumps over ...... the lazy dog 1234567890? " * 320)[:20_000]


@pytest.mark.parametrize("device", DEVICES)
def test_a_long_text_has_as_many_rows_as_asked_for(device: str) -> None:
    tokenizer = on(device, Tokenizer.default(device="cpu"))
    lattice = tokenizer.lattice([LONG, "a", LONG[:300]])
    assert lattice.num_bytes[0] >= 20_000
    expected = [reference.nbest(document, 10) for document in documents_of(lattice, lattice._scores(None))]
    assert found(lattice, 10, lattice._scores(None)) == expected
    out = lattice.nbest(10)
    rows = out.tolist()[0]
    assert len(rows) == len(set(map(tuple, rows))) == 10
    assert set(tokenizer.decode(rows)) == {tokenizer.decode(tokenizer.encode(LONG))[0]}
    assert out.scores[:10] == pytest.approx([score for score, _ in expected[0]], rel=1e-14)
    assert lattice.viterbi().scores[0] == pytest.approx(out.scores[0], rel=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_a_long_text_has_as_many_rows_as_asked_for_where_every_score_ties(device: str) -> None:
    out = on(device, Tokenizer.from_pieces(["a", "aa"], device="cpu")).nbest("a" * 3000, 50)
    rows = out.tolist()[0]
    assert len(set(map(tuple, rows))) == 50
    assert all(len(row) + sum(row) == 3000 for row in rows)
    # The longest last arcs come first: pairs from the end on, but for what differs near the start.
    assert rows[0] == [1] * 1500
    assert rows[1] == [0, 0] + [1] * 1499


@RELAXED
@given(cases(longest_text=15), SIZES, st.integers(0, 2**32))
def test_weights_of_ones_own_decide(case: Case, n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for lattice in both(case.tokenizer(), case.texts):
        weights = np.exp(generator.uniform(-3, 1, len(lattice._arrays.arcs)))
        weights[generator.random(len(weights)) < 0.1] = 0.0
        by_arc = lattice._by_arc(weights, 0.0)
        scores = lattice._scores(by_arc)
        assert scores[weights > 0] == pytest.approx(np.log(weights[weights > 0]), rel=1e-15, abs=1e-15)
        n = min(n, 100)
        expected = [reference.nbest(document, n) for document in documents_of(lattice, scores)]
        assert found(lattice, n, scores) == expected
        out = lattice.nbest(n, weights=by_arc)
        assert out.scores.tolist() == [score for paths in expected for score, _ in paths]
        assert np.diff(out.doc_offsets).tolist() == list(map(len, expected))


@pytest.mark.parametrize("device", DEVICES)
def test_an_arc_of_weight_zero_is_none(device: str) -> None:
    tokenizer = on(device, Tokenizer.from_pieces(ABAB, device="cpu"))
    weights = np.array([0.5, 0.25, 0.0, 0.5, 0.5])
    out = tokenizer.lattice(["abab", "ab"]).nbest(9, weights=weights)
    assert out.tolist() == [[[4, 1], [0, 3, 1], [0, 1, 0, 1]], [[0, 1]]]
    assert np.exp(out.scores).round(12).tolist() == [0.125, 0.0625, 0.015625, 0.125]
    assert tokenizer.lattice("ab").nbest(9, weights=weights * [0, 1, 1, 1, 1]).tolist() == [[]]
    rows = tokenizer.lattice("abab").sample_nbest(2, weights=weights, num_samples=1000, return_log_prob=True)
    assert {tuple(row): float(p) for row, p in zip(rows.tolist(), np.exp(rows.log_prob), strict=True)} == pytest.approx(
        {(4, 1): 2 / 3, (0, 3, 1): 1 / 3}
    )


def test_arcs_that_others_bring_have_n_best_paths_too() -> None:
    """Two arcs of the same length into one position: the later one counts as the longer where they tie."""
    arcs = np.array([5, 6, 7], np.int32), np.array([1, 1, 2], np.int32)
    lattice = Lattice.from_ragged(RaggedLattice(*arcs, (np.array([0, 3]), np.array([0, 0, 0, 3]))))
    with pytest.raises(ValueError, match="no scores"):
        lattice.nbest(2)
    assert lattice.nbest(4, weights=np.ones((3, 1))).tolist() == [[[7]]]
    arcs = np.array([5, 6, 7], np.int32), np.array([1, 1, 2], np.int32)
    lattice = Lattice.from_ragged(RaggedLattice(*arcs, (np.array([0, 3]), np.array([0, 0, 2, 3]))))
    assert lattice.nbest(4, weights=np.ones((3, 1))).tolist() == [[[7]]]
    both_ways = np.array([5, 6, 7], np.int32), np.array([1, 1, 1], np.int32)
    lattice = Lattice.from_ragged(RaggedLattice(*both_ways, (np.array([0, 3]), np.array([0, 0, 2, 3]))))
    assert lattice.nbest(4, weights=np.ones((3, 1))).tolist() == [[[6, 7], [5, 7]]]
    assert lattice.nbest(4, weights=np.array([[2.0], [1.0], [1.0]])).tolist() == [[[5, 7], [6, 7]]]


@RELAXED
@given(cases(longest_text=15), SIZES, st.sampled_from([0.0, 0.1, 1.0, 30.0, 1e308]), st.integers(0, 2**64 - 1))
def test_samples_are_the_draws_of_the_definition(case: Case, n: int, alpha: float, seed: int) -> None:
    n = min(n, 100)
    doc_ids = [seed // 3 + i for i in range(len(case.texts))]
    for lattice in both(case.tokenizer(), case.texts):
        scores = lattice._scores(None)
        documents = documents_of(lattice, scores)
        options: dict[str, Any] = {"alpha": alpha, "num_samples": 3, "seed": seed, "return_log_prob": True}
        if any(not reference.nbest(document, 1) for document in documents):
            with pytest.raises(ValueError, match="has no segmentation"):
                lattice.sample_nbest(n, **options)
            continue
        out = lattice.sample_nbest(n, doc_ids=doc_ids, **options)
        listed, rows = found(lattice, n, scores), lattice.nbest(n).tolist()
        for i_row, (row, log_prob) in enumerate(zip(out.tolist(), out.log_prob.tolist(), strict=True)):
            i_doc, i_sample = divmod(i_row, 3)
            path, expected = reference.sample_nbest(documents[i_doc], n, alpha, seed, doc_ids[i_doc], i_sample)
            assert log_prob == expected
            assert row == rows[i_doc][[way for _, way in listed[i_doc]].index(path)]


@pytest.mark.parametrize(("n", "alpha"), [(2, 1.0), (5, 0.0), (5, 0.5), (5, 2.0), (1000, 0.3)])
def test_samples_have_the_probabilities_of_the_n_best(n: int, alpha: float) -> None:
    tokenizer = Tokenizer.from_pieces(ABCD, device="cpu")
    text, draws = "abcdba", 100_000
    truth = brute_force(text, ABCD)
    assert len(set(truth.scores)) == len(truth.scores) > 10
    best = sorted(zip(truth.scores, truth.ids, strict=True), reverse=True)[:n]
    weights = [math.exp(alpha * score) for score, _ in best]
    probabilities = {ids: weight / math.fsum(weights) for (_, ids), weight in zip(best, weights, strict=True)}
    out = tokenizer.sample(text, nbest_size=n, alpha=alpha, num_samples=draws, seed=5, return_log_prob=True)
    assert p_value(counted(out.tolist()), probabilities) > LEAST_P
    assert out.log_prob is not None
    for row, log_prob in zip(out.tolist()[:50], out.log_prob.tolist(), strict=False):
        assert math.exp(log_prob) == pytest.approx(probabilities[tuple(row)], rel=1e-12)


def test_a_wrong_probability_would_be_seen() -> None:
    tokenizer = Tokenizer.from_pieces({"a": -1.0, "b": -2.0, "ab": -3.0}, device="cpu")
    out = tokenizer.sample(["ab"] * 100, nbest_size=2, num_samples=10_000, seed=3)
    lengths = np.bincount(np.diff(out.offsets))
    counts = Counter({(2,): int(lengths[1]), (0, 1): int(lengths[2])})
    assert counts.total() == 1_000_000
    assert p_value(counts, {(2,): 0.5, (0, 1): 0.5}) > LEAST_P
    assert p_value(counts, {(2,): 0.505, (0, 1): 0.495}) < LEAST_P


def test_a_draw_depends_on_seed_doc_id_and_sample_alone() -> None:
    tokenizer = Tokenizer.default(device="cpu")
    texts = ["one two three", "four five six", "seven eight"]
    options: dict[str, Any] = {"nbest_size": 20, "alpha": 0.2, "seed": 7}
    whole = tokenizer.sample(texts, num_samples=4, doc_ids=[5, 2**40, 9], **options).tolist()
    assert tokenizer.sample(texts[::-1], num_samples=2, doc_ids=[9, 2**40, 5], **options).tolist() == [
        whole[i] for i in (8, 9, 4, 5, 0, 1)
    ]
    assert len({tuple(row) for row in tokenizer.sample(texts[:1] * 50, **options).tolist()}) > 5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "name", ["default", "en_symbols.model", "ja_bytes.model", "ja_whole.tokenizer.json", "bytepiece.json"]
)
def test_batches_in_parts_give_the_same_rows(device: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Tokenizer.default(device="cpu") if name == "default" else Tokenizer.from_file(DATA / name, device="cpu")
    tokenizer = on(device, cpu)
    lines = [
        line[:60]
        for file in ("en.txt", "ja.txt", "odd.txt")
        for line in (DATA / file).read_bytes().decode().split("\n")[:8]
    ]
    texts = [None, *lines, "", "word " * 60, None]
    options: dict[str, Any] = {"nbest_size": 6, "num_samples": 3, "seed": 2, "return_log_prob": True}
    nbest_whole, sample_whole = cpu.nbest(texts, 6), cpu.sample(texts, **options)
    parts = []
    in_parts = nbest.in_parts
    monkeypatch.setattr(nbest, "in_parts", lambda *args: [parts.append(part[:2]) or part for part in in_parts(*args)])
    monkeypatch.setattr(nbest, "NBEST_BATCH_BYTES", 60_000)
    out = tokenizer.nbest(texts, 6)
    assert len(parts) > 5
    assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
    assert parts[-1][1] == len(texts)
    assert out.tokens.tolist() == nbest_whole.tokens.tolist()
    assert out.doc_offsets.tolist() == nbest_whole.doc_offsets.tolist()
    assert out.scores.tolist() == nbest_whole.scores.tolist()
    drawn = tokenizer.sample(texts, **options)
    assert drawn.tolist() == sample_whole.tolist()
    assert drawn.log_prob.tolist() == sample_whole.log_prob.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("device", DEVICES)
def test_text_without_a_path_is_the_error_of_encode_in_whatever_part(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = on(device, Tokenizer.from_pieces({"a": -1.0, "ab": -2.0, "c": -1.0}, device="cpu"))
    for bad in (["a", "abc", "ab?c", "a"], ["a" * 700 + "b" * 2], ["", "a", "a" * 70 + "?"]):
        for size in (1 << 30, 1):
            monkeypatch.setattr(nbest, "NBEST_BATCH_BYTES", size)
            with pytest.raises(ValueError, match="cannot be spelled") as expected:
                tokenizer.encode(bad)
            with pytest.raises(ValueError, match="cannot be spelled") as got:
                tokenizer.sample(bad, nbest_size=2, seed=0)
            assert str(got.value) == str(expected.value)


@pytest.mark.parametrize("device", DEVICES)
def test_an_nbest_size_has_the_meaning_that_sentencepiece_gives_it(device: str) -> None:
    tokenizer = on(device, Tokenizer.default(device="cpu"))
    texts = ["a new dawn", None, "", "hello world"]
    best = tokenizer.encode(texts).tolist()
    for n in (0, 1):
        out = tokenizer.sample(texts, nbest_size=n, num_samples=3, return_log_prob=True, seed=0)
        assert out.tolist() == [row for row in best for _ in range(3)]
        assert out.log_prob.tolist() == [0.0] * 12  # type: ignore[union-attr]
        assert tokenizer.sample(texts, nbest_size=n, seed=0).log_prob is None
    full = tokenizer.sample(texts, nbest_size=-1, num_samples=2, seed=0).tolist()
    assert tokenizer.sample(texts, nbest_size=-7, num_samples=2, seed=0).tolist() == full
    assert {tuple(row) for row in tokenizer.sample(texts[0], nbest_size=2, num_samples=99, seed=0).tolist()} == {
        tuple(row) for row in tokenizer.nbest(texts[0], 2).tolist()[0]
    }


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a protocol buffer's fields."""
    i = 0

    def varint() -> int:
        nonlocal i
        value = shift = 0
        while True:
            value |= (message[i] & 127) << shift
            i, shift = i + 1, shift + 7
            if message[i - 1] < 128:
                return value

    while i < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            size = 4 if key & 7 == 5 else varint()
            i += size
            part = message[i - size : i]
            yield key >> 3, struct.unpack("<f", part)[0] if key & 7 == 5 else part


def tools_nbest(tool: Any, text: str, n: int) -> list[tuple[list[int], float]]:
    """(ids, score) of sentencepiece's own n best."""
    out = []
    for _, sentence in fields(tool.nbest_encode(text, nbest_size=n, out_type="serialized_proto")):
        parts = list(fields(sentence))
        ids = [dict(fields(piece)).get(2, 0) for number, piece in parts if number == 2]
        out.append((ids, dict(parts).get(3, 0.0)))
    return out


def assert_nbest_is_the_tools(path: Path, lines: list[str], n: int) -> None:
    """The same scores, and the same segmentations but for what float32 cannot tell apart at the end of the list."""
    tool = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokenizer = Tokenizer.from_file(path, device="cpu")
    ours = tokenizer.nbest(lines, n)
    same_order = 0
    for i_doc, (line, rows) in enumerate(zip(lines, ours.tolist(), strict=True)):
        theirs = tools_nbest(tool, line, n)
        scores = ours.scores[ours.doc_offsets[i_doc] : ours.doc_offsets[i_doc + 1]]
        rounding = 2.0**-23 * (1 + len(line)) * (1 + float(np.abs(scores).max()))
        assert scores == pytest.approx([score for _, score in theirs], abs=rounding)
        known = [(ids, float(score)) for ids, score in zip(rows, scores, strict=True)]
        for one, other in ((known, theirs), (theirs, known)):
            listed = [ids for ids, _ in other]
            for ids, score in one:
                assert ids in listed or (len(other) == n and score < scores[-1] + 2 * rounding)
        same_order += rows == [ids for ids, _ in theirs]
    assert same_order > len(lines) / 2


@pytest.mark.parametrize(
    "name",
    [
        "en_casefold.model",
        "en_nmt_nfkc.model",
        "en_suffix.model",
        "en_symbols.model",
        "ja_bytes.model",
        "zh_bytes.model",
    ],
)
def test_the_n_best_are_those_of_sentencepiece(name: str) -> None:
    text = DATA / {"e": "en.txt", "j": "ja.txt", "z": "zh.txt"}[name[0]]
    lines = [line[:70] for line in text.read_text("utf-8").split("\n") if line.strip()]
    assert_nbest_is_the_tools(DATA / name, lines[:60], 12)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("en8k.model", "wikitext2_valid.txt"),
        ("ja8k.model", "wagahai.txt"),
        ("zh8k_bytefb.model", "chinese_msr.txt"),
        ("en_identity_uds.model", "botchan.txt"),
        ("mix32k.model", "code_python.txt"),
    ],
)
def test_the_n_best_of_real_models_are_those_of_sentencepiece(shared_data: Path, model: str, text: str) -> None:
    lines = [line[:90] for line in (shared_data / "text" / text).read_text("utf-8").split("\n") if line.strip()]
    assert_nbest_is_the_tools(shared_data / "models" / model, lines[:2000:25], 20)


def test_samples_among_few_are_as_frequent_as_sentencepieces() -> None:
    path = DATA / "en_symbols.model"
    tool = sentencepiece.SentencePieceProcessor(model_file=str(path))
    text, n, alpha = "over the hills", 6, 0.3
    listed = tools_nbest(tool, text, n)
    weights = [math.exp(alpha * (score - listed[0][1])) for _, score in listed]
    expected = {tuple(ids): weight / sum(weights) for (ids, _), weight in zip(listed, weights, strict=True)}
    assert len(expected) == n
    tokenizer = Tokenizer.from_file(path, device="cpu")
    counts = counted(tokenizer.sample(text, nbest_size=n, alpha=alpha, num_samples=50_000, seed=0).tolist())
    assert p_value(counts, expected) > LEAST_P
    drawn = [tool.encode(text, enable_sampling=True, nbest_size=n, alpha=alpha) for _ in range(3000)]
    assert p_value(counted(drawn), expected) > LEAST_P


@pytest.mark.parametrize("device", DEVICES)
def test_unknown_runs_of_hugging_face_models_read_as_they_do_when_encoded(tmp_path: Path, device: str) -> None:
    vocab = [("<unk>", 0.0), ("??", -1.0), ("a", -2.0), ("aa", -3.0)]
    tokenizer = on(device, tokenizer_of(hugging_face_file(vocab, 0, False), tmp_path))
    out = tokenizer.nbest("a??a", 9)
    assert out.tolist() == [[[2, 1, 2], [2, 1, 2]]]
    assert out.scores.tolist() == pytest.approx([-5.0, -4.0 - 2 * 13.0])


def test_the_command_and_retokenize_sample_among_the_n_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = Tokenizer.default(device="cpu")
    texts = ["a new dawn", "hello world", "", "one more line"]
    pq.write_table(pa.table({"text": texts, "id": range(4)}), tmp_path / "in.parquet")
    options: dict[str, Any] = {"alpha": 0.3, "num_samples": 2, "seed": 4}
    columns: dict[str, Any] = {"tokenizer": tokenizer, "id_column": "id", "progress": False}
    retokenize(tmp_path / "in.parquet", tmp_path / "out", nbest_size=5, **columns, **options)
    expected = tokenizer.sample(texts, nbest_size=5, **options).tolist()
    assert pq.read_table(tmp_path / "out" / "in.parquet")["input_ids"].to_pylist() == expected
    assert expected != tokenizer.sample(texts, **options).tolist()
    arguments = ["--device", "cpu", "--alpha", "0.3", "--samples", "2", "--seed", "4", "--nbest-size", "5"]
    assert main(["encode", *texts, *arguments, "--output-format", "ids"]) == 0
    printed = capsys.readouterr().out.split("\n")[:-1]
    assert printed == [" ".join(map(str, row)) for row in expected]
    with pytest.raises(ValueError, match="nbest_size is 5, but without alpha"):
        retokenize(tmp_path / "in.parquet", tmp_path / "out", tokenizer=tokenizer, nbest_size=5)
    assert main(["encode", "a", "--nbest-size", "5"]) == 2
    assert "--nbest-size 5 needs --alpha" in capsys.readouterr().err
