"""The samplers of the literature: the definition's draws, and the distributions that their papers describe."""

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from brute_force import brute_force, counted, p_value
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lattices import on_host_build
from strategies import Case, cases

from gpu_lattice import Tokenizer, literature
from gpu_lattice.kernels import reference_samplers as reference

DATA = ROOT / "tests" / "data"
RELAXED = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 2**64 - 1)
SHARES = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])
TEXTS = ["watching the watchers", "", "unbelievable tokenization, 1234!", "日本", "a" * 30]


def arcs_of(lattice: Any, i_doc: int) -> tuple[reference.Arcs, reference.Arcs]:
    """(incoming, outgoing) of a document."""
    ragged = lattice.take([i_doc]).to_ragged()
    splits, lengths = ragged.row_splits[1].tolist(), ragged.length.tolist()
    incoming = [[(lengths[j], j - a) for j in range(a, b)] for a, b in pairwise(splits)]
    outgoing: reference.Arcs = [[] for _ in incoming]
    for e, arcs in enumerate(incoming):
        for length, rank in arcs:
            outgoing[e - length].append((length, rank))
    return incoming, outgoing


def ids_of(lattice: Any, i_doc: int, path: reference.Path) -> list[int]:
    piece_id = lattice.piece_id[i_doc]
    return [int(piece_id[e, rank]) for e, rank in path]


@RELAXED
@given(cases(), SHARES, SEEDS)
def test_maxmatch_dropout_is_the_definition(case: Case, dropout: float, seed: int) -> None:
    if case.unk_piece is not None:
        return
    lattice = case.tokenizer().lattice(case.texts)
    expected = []
    for i_doc in range(len(case.texts)):
        for i_sample in range(3):
            coin = reference.coins(seed, i_doc, i_sample)
            try:
                path = reference.maxmatch_dropout(arcs_of(lattice, i_doc)[1], dropout, coin)
            except ValueError:
                with pytest.raises(ValueError, match="no segmentation"):
                    literature.maxmatch_dropout(lattice, dropout=dropout, num_samples=3, seed=seed)
                return
            expected.append(ids_of(lattice, i_doc, path))
    got = literature.maxmatch_dropout(lattice, dropout=dropout, num_samples=3, seed=seed)
    assert got.tolist() == expected


@RELAXED
@given(cases(), st.sampled_from([1.0, 2.5, -1.0, -10.0]), st.integers(1, 4), SEEDS)
def test_grampa_is_the_definition(case: Case, temperature: float, least_length: int, seed: int) -> None:
    if case.unk_piece is not None:
        return
    lattice = case.tokenizer().lattice(case.texts)
    options: Any = {"temperature": temperature, "least_length": least_length, "num_samples": 3, "seed": seed}
    expected = []
    for i_doc in range(len(case.texts)):
        for i_sample in range(3):
            coin = reference.coins(seed, i_doc, i_sample)
            try:
                path = reference.grampa(arcs_of(lattice, i_doc)[0], temperature, least_length, coin)
            except ValueError:
                with pytest.raises(ValueError, match="no segmentation"):
                    literature.grampa(lattice, **options)
                return
            expected.append(ids_of(lattice, i_doc, path))
    got = literature.grampa(lattice, **options)
    assert got.tolist() == expected


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.7, 1.0])
def test_bpe_dropout_is_the_definition(dropout: float) -> None:
    tokenizer = Tokenizer.from_file(DATA / "en_bpe.model", device="cpu")
    merges = tokenizer.model.merges
    assert merges is not None
    table = {(a, b): (rank, made) for a, b, rank, made in merges.pairs.tolist()}
    got = literature.bpe_dropout(tokenizer, TEXTS, dropout=dropout, num_samples=2, seed=5).tolist()
    symbols = literature.bpe_dropout(tokenizer, TEXTS, dropout=1.0).tolist()
    for i_doc in range(len(TEXTS)):
        for i_sample in range(2):
            coin = reference.coins(5, i_doc, i_sample)
            assert got[2 * i_doc + i_sample] == reference.bpe_dropout(symbols[i_doc], table, dropout, coin)
    assert literature.bpe_dropout(tokenizer, TEXTS, dropout=0.0).tolist() == tokenizer.encode(TEXTS).tolist()


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_stochastok_is_the_definition(share: float) -> None:
    tokenizer = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    rows = tokenizer.encode(TEXTS)
    pairs, offsets = literature.splits_of(tokenizer.model)
    splits = {i: list(map(tuple, pairs[a:b].tolist())) for i, (a, b) in enumerate(pairwise(offsets.tolist())) if b > a}
    surfaces = tokenizer.model.vocabulary.surfaces
    assert all(surfaces[a] + surfaces[b] == surfaces[i] for i, found in splits.items() for a, b in found)
    got = literature.stochastok(tokenizer, rows, share=share, num_samples=3, seed=7).tolist()
    for i_doc, row in enumerate(rows.tolist()):
        for i_sample in range(3):
            coin = reference.coins(7, i_doc, i_sample)
            assert got[3 * i_doc + i_sample] == reference.stochastok(row, splits, share, coin)
    assert tokenizer.decode(got) == [text for text in tokenizer.decode(rows) for _ in range(3)]


PIECES = ["a", "b", "c", "ab", "bc", "abc", "ca", "bca"]


def test_grampa_at_temperature_1_is_uniform_and_below_0_prefers_long_pieces() -> None:
    lattice = Tokenizer.from_pieces(PIECES, device="cpu").lattice(["abcabcab"])
    truth = brute_force("abcabcab", dict.fromkeys(PIECES)).probabilities(0.0)
    out = literature.grampa(lattice, num_samples=100_000, seed=1)
    assert p_value(counted(out.tolist()), truth) > 1e-3
    lengths = [np.diff(literature.grampa(lattice, temperature=t, num_samples=2000).offsets).mean() for t in (1, -5, -1)]
    assert lengths[0] > lengths[1] > lengths[2]
    long = literature.grampa(lattice, least_length=2, num_samples=500).tolist()
    # A piece of one byte is left only where no other ends: at the text's beginning.
    assert all(len(PIECES[i]) >= 2 for row in long for i in row[1:])


def test_maxmatch_dropout_has_the_distribution_of_its_definition() -> None:
    """From the longest on, each but the last is passed over with probability p."""
    text, p = "abcab", 0.3
    lattice = Tokenizer.from_pieces(PIECES, device="cpu").lattice([text])

    def law(s: int) -> dict[tuple[int, ...], float]:
        if s == len(text):
            return {(): 1.0}
        found = sorted(
            (i for i, piece in enumerate(PIECES) if text.startswith(piece, s)), key=lambda i: -len(PIECES[i])
        )
        out: dict[tuple[int, ...], float] = {}
        for k, i in enumerate(found):
            share = p**k * (1 - p if k < len(found) - 1 else 1.0)
            for rest, q in law(s + len(PIECES[i])).items():
                out[(i, *rest)] = out.get((i, *rest), 0.0) + share * q
        return out

    out = literature.maxmatch_dropout(lattice, dropout=p, num_samples=100_000, seed=3)
    assert p_value(counted(out.tolist()), law(0)) > 1e-3


def test_bpe_dropout_has_the_distribution_of_its_definition() -> None:
    """Every outcome of the coins of a short word, each with its probability."""
    tokenizer, p, word = Tokenizer.from_file(DATA / "en_bpe.model", device="cpu"), 0.4, "the"
    merges = tokenizer.model.merges
    assert merges is not None
    table = {(a, b): (rank, made) for a, b, rank, made in merges.pairs.tolist()}
    symbols = literature.bpe_dropout(tokenizer, [word], dropout=1.0).tolist()[0]

    def law(tokens: tuple[int, ...]) -> dict[tuple[int, ...], float]:
        places = [i for i, pair in enumerate(pairwise(tokens)) if pair in table]
        out: dict[tuple[int, ...], float] = Counter()  # type: ignore[assignment]
        for bits in range(2 ** len(places)):
            kept = {i: table[tokens[i], tokens[i + 1]] for k, i in enumerate(places) if bits >> k & 1}
            share = math.prod(1 - p if bits >> k & 1 else p for k in range(len(places)))
            if not kept:
                out[tokens] += share
                continue
            least, merged, i = min(rank for rank, _ in kept.values()), [], 0
            while i < len(tokens):
                is_merged = i in kept and kept[i][0] == least
                merged.append(kept[i][1] if is_merged else tokens[i])
                i += 1 + is_merged
            for outcome, q in law(tuple(merged)).items():
                out[outcome] += share * q
        return dict(out)

    out = literature.bpe_dropout(tokenizer, [word], dropout=p, num_samples=100_000, seed=3)
    assert p_value(counted(out.tolist()), law(tuple(symbols))) > 1e-3


def test_rows_do_not_depend_on_the_batch() -> None:
    tokenizer = Tokenizer.from_file(DATA / "en_bpe.model", device="cpu")
    ids = [9, 5]
    two = literature.bpe_dropout(tokenizer, TEXTS[:1] + TEXTS[2:3], dropout=0.3, seed=1, doc_ids=ids).tolist()
    one = literature.bpe_dropout(tokenizer, TEXTS[2:3], dropout=0.3, seed=1, doc_ids=[5]).tolist()
    assert two[1:] == one


def test_null_rows_stay() -> None:
    tokenizer = Tokenizer.from_file(DATA / "en_bpe.model", device="cpu")
    assert literature.bpe_dropout(tokenizer, [None, ""], num_samples=2).tolist() == [None, None, [], []]
    assert literature.stochastok(tokenizer, tokenizer.encode([None, ""])).tolist() == [None, []]


def test_what_they_cannot_do_is_an_error() -> None:
    tokenizer = Tokenizer.from_pieces(["a"], device="cpu")
    lattice = tokenizer.lattice(["a"])
    with pytest.raises(ValueError, match="no merges"):
        literature.bpe_dropout(tokenizer, ["a"])
    with pytest.raises(ValueError, match=r"dropout is 1\.5"):
        literature.maxmatch_dropout(lattice, dropout=1.5)
    with pytest.raises(ValueError, match="temperature is 0"):
        literature.grampa(lattice, temperature=0)
    with pytest.raises(ValueError, match="ids 1 to 1"):
        literature.stochastok(tokenizer, [[1]])
    with pytest.raises(ValueError, match="run on the CPU"):
        literature.grampa(on_host_build(tokenizer).lattice(["a"]))
