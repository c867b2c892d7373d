"""Prompts are taken up again from every boundary that the definition lists, on both devices, whatever they end with."""

import dataclasses
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from conftest import DATA
from cuda_on_cpu.host_device import HostDevice, compiler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lattices import DEVICES, documents_of, on
from situations import MODELS, Situation, situations

from gpu_lattice import TextBatch, Tokenizer
from gpu_lattice.backends.cpu import CpuBackend
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.kernels import reference, reference_lattice
from gpu_lattice.kernels.arcs import TOKEN_ARC, UNKNOWN
from gpu_lattice.kernels.cpu.lattice.build import CHUNK
from gpu_lattice.kernels.reference import Rules
from gpu_lattice.lattice import Continuations, Lattice, RaggedLattice
from gpu_lattice.normalizers import NormalizedBatch
from gpu_lattice.normalizers.prompts import normalize_prompts

RELAXED = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])


@dataclasses.dataclass
class Boundary:
    rollback: int
    ids: list[int]
    score: float
    allowed: range


def boundaries(situation: Situation, lattice: Lattice, i_doc: int, max_rollback: int | None) -> list[Boundary]:
    """By the definition: a path for every position from the end on, and a look at every piece."""
    one = lattice.take([i_doc])
    (document,) = documents_of(one, one._scores(None))
    arrays, batch = one._arrays, situation.batch
    text, n = arrays.text.tobytes(), len(arrays.text)
    chunk_offsets = [] if batch.chunk_offsets is None else batch.chunk_offsets.tolist()
    chunk_ids = [] if batch.chunk_ids is None else batch.chunk_ids.tolist()
    start = int(batch.offsets[i_doc])
    chunks = [(a - start, b - start, k) for (a, b), k in zip(pairwise(chunk_offsets), chunk_ids, strict=True)]
    surfaces = situation.model.vocabulary.surfaces
    pieces = sorted(surfaces[i] for i in np.flatnonzero(situation.model.vocabulary.in_lattice))
    found = []
    for i in range(n, max(0, n - (n if max_rollback is None else max_rollback)) - 1, -1):
        is_cut = any(i < b < n or (k >= 0 and a <= i < b) for a, b, k in chunks)
        allowed = reference_lattice.allowed_next(pieces, text[i:])
        if not allowed or (i < n and is_cut):
            continue
        try:
            score, path = reference_lattice.best_path(document[: i + 1])
        except ValueError:
            continue
        found.append(Boundary(n - i, read_path(situation, one, path), score, allowed))
    return found


def read_path(situation: Situation, lattice: Lattice, path: list[tuple[int, int]]) -> list[int]:
    """The ids of a path through a lattice of one text."""
    vocabulary, arrays = situation.model.vocabulary, lattice._arrays
    unk_id = -1 if vocabulary.unk_id is None else vocabulary.unk_id
    rules = Rules({vocabulary.surfaces[i]: int(i) for i in np.flatnonzero(vocabulary.in_lattice)}, "", None)
    byte_ids = None if vocabulary.byte_ids is None else vocabulary.byte_ids.tolist()
    ids = list(situation.model.prefix_ids)
    run, start = b"", 0
    for end, rank in [*path, (-1, -1)]:
        arc = None if end < 0 else int(arrays.arcs[arrays.arc_offsets[end] + rank])
        if arc in (UNKNOWN, unk_id) and vocabulary.unknown_runs == "apart":
            arc = TOKEN_ARC - unk_id
        is_unknown = arc in (UNKNOWN, unk_id)
        if run and (not is_unknown or arrays.marks[start] & CHUNK):
            ids += reference._emit_unknown(run, rules, unk_id, byte_ids, vocabulary.unknown_runs == "lookup")
            run = b""
        if is_unknown:
            run += arrays.text[start:end].tobytes()
        elif arc is not None:
            ids.append(TOKEN_ARC - arc if arc <= TOKEN_ARC else arc)
        start = end
    return ids


def exact(situation: Situation) -> Situation:
    """The same with scores whose sums are exact, so that ties are ties in whatever order they are added."""
    vocabulary = situation.model.vocabulary
    rounded = dataclasses.replace(
        vocabulary, scores=np.rint(vocabulary.scores * 8) / 8, unk_score=round(vocabulary.unk_score)
    )
    return dataclasses.replace(situation, model=dataclasses.replace(situation.model, vocabulary=rounded))


@RELAXED
@given(situations(), st.sampled_from([None, None, 0, 1, 3]))
def test_boundaries_are_those_of_the_definition(drawn: Situation, max_rollback: int | None) -> None:
    situation = exact(drawn)
    backends: list[Any] = [CpuBackend(situation.model, 1)]
    if compiler() is not None:
        backends.append(CudaBackend(situation.model, HostDevice()))
    for backend in backends:
        lattice = Lattice.of(situation.model, backend, situation.batch, ~situation.is_null, None)
        expected = [
            [] if is_null else boundaries(situation, lattice, i_doc, max_rollback)
            for i_doc, is_null in enumerate(situation.is_null)
        ]
        bad = [i for i, rows in enumerate(expected) if not rows and not situation.is_null[i]]
        if bad:
            with pytest.raises(ValueError, match=f"document {bad[0]} cannot be continued"):
                lattice.continuations(max_rollback=max_rollback)
            continue
        out = lattice.continuations(max_rollback=max_rollback)
        assert np.diff(out.doc_offsets).tolist() == [len(rows) for rows in expected]
        rows = [row for rows in expected for row in rows]
        assert out.rollback.tolist() == [row.rollback for row in rows]
        assert out.tokens.tolist() == [row.ids for row in rows]
        assert out.scores.tolist() == [row.score for row in rows]
        assert out.ranges.tolist() == [[row.allowed.start, row.allowed.stop] for row in rows]


@RELAXED
@given(situations())
def test_what_the_rows_say_of_pieces_agrees(situation: Situation) -> None:
    lattice = Lattice.of(situation.model, CpuBackend(situation.model, 1), situation.batch, ~situation.is_null, None)
    try:
        out = lattice.continuations()
    except ValueError:
        return
    vocabulary = situation.model.vocabulary
    assert sorted(out.order.tolist()) == np.flatnonzero(vocabulary.in_lattice).tolist()
    assert [vocabulary.surfaces[i] for i in out.order] == sorted(vocabulary.surfaces[i] for i in out.order)
    mask = out.mask()
    assert mask.shape == (len(out.rollback), len(vocabulary))
    for row in range(len(out.rollback)):
        assert np.flatnonzero(mask[row]).tolist() == sorted(out.ids(row).tolist())
        assert out.ids(row - len(out.rollback)).tolist() == out.ids(row).tolist()


@pytest.mark.parametrize("device", DEVICES)
def test_kept_ids_and_every_allowed_piece_spell_the_prompt_and_more(device: str) -> None:
    tokenizer = on(device, Tokenizer.default(device="cpu"))
    surfaces = tokenizer._model.vocabulary.surfaces
    prompts = ["", "The devil's dictio", "吾輩は猫であ", "a  ", "¿Qué di", "To be, or not to be"]
    out = tokenizer.continuations(prompts)
    texts = ["▁" + prompt.replace(" ", "▁") for prompt in prompts]
    for i_doc, (first, last) in enumerate(pairwise(out.doc_offsets.tolist())):
        text = texts[i_doc].encode()
        assert out.rollback[first] == 0
        for row in range(first, last):
            kept = b"".join(surfaces[i] for i in out.tokens[row])
            assert kept == text[: len(text) - out.rollback[row]]
            allowed = {kept + surfaces[i] for i in out.ids(row)}
            every = {kept + surfaces[i] for i in np.flatnonzero(tokenizer._model.vocabulary.in_lattice)}
            assert allowed == {longer for longer in every if longer.startswith(text) and longer != text}


def test_one_token_rollback_is_a_row_and_its_prefix_the_best_path() -> None:
    tokenizer = Tokenizer.default(device="cpu")
    surfaces = tokenizer._model.vocabulary.surfaces
    for prompt in ("The devil's dictio", "And the Lord spake unto Mo", "Ĉiu havas sian pre"):
        best = tokenizer.lattice(prompt).viterbi()
        (ids,) = best.tolist()[0]
        out = tokenizer.continuations(prompt)
        assert out.tokens.tolist()[0] == ids
        assert out.scores[0] == best.scores[0]
        (row,) = np.flatnonzero(out.rollback == len(surfaces[ids[-1]]))
        assert out.tokens.tolist()[row] == ids[:-1]
        assert all(surfaces[i].startswith(surfaces[ids[-1]]) for i in out.ids(row))


@pytest.mark.parametrize("device", DEVICES)
def test_a_prompt_of_bytes_may_end_inside_a_character(device: str) -> None:
    pieces = {b"\xe6": -5.0, b"\xbc": -5.0, b"\xa2": -5.0, "漢".encode(): -1.0, "漢字".encode(): -2.0, b"a": -1.0}
    tokenizer = on(device, Tokenizer.from_pieces(pieces, device="cpu"))
    out = tokenizer.continuations([b"a\xe6\xbc", b"\xe6", "a漢".encode()])
    assert [out.ids(row).tolist() for row in range(len(out.rollback)) if out.rollback[row]] == [[3, 4], [3, 4], [4]]
    assert out.tokens.tolist() == [[5, 0, 1], [5], [0], [], [5, 3], [5]]
    # Without the bytes themselves the whole prompt has no path, and can be continued all the same.
    only = on(device, Tokenizer.from_pieces({"漢".encode(): -1.0, b"a": -1.0}, device="cpu")).continuations(
        [b"a\xe6\xbc"]
    )
    assert (only.rollback.tolist(), only.tokens.tolist(), only.ids(0).tolist()) == ([2], [[1]], [0])


@pytest.mark.parametrize("device", DEVICES)
def test_a_piece_may_go_on_where_the_end_of_the_text_looks_like_a_cut(device: str) -> None:
    """Between x and a two bytes on the right decide; the text ends after one."""
    tokenizer = on(device, Tokenizer.from_pieces([b"x", b"a", b"b", b"c", b"xabc"], device="cpu"))
    out = tokenizer.continuations([b"cxa"])
    assert out.rollback.tolist() == [0, 2]
    assert out.tokens.tolist() == [[3, 0, 1], [3]]
    assert out.ids(1).tolist() == [4]


def test_white_space_at_the_end_of_a_prompt_stays() -> None:
    tokenizer = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    surfaces = tokenizer._model.vocabulary.surfaces
    space = "▁".encode()
    out = tokenizer.continuations(["the  ", "the"])
    kept = [b"".join(surfaces[i] for i in ids or []) for ids in out.tokens.tolist()]
    assert kept[0] == "▁the▁".encode()
    row = int(np.flatnonzero(out.rollback[: out.doc_offsets[1]] == len(space))[0])
    assert kept[row] == "▁the".encode()
    assert all(surfaces[i].startswith(space) for i in out.ids(row))
    assert kept[int(out.doc_offsets[1])] == "▁the".encode()
    ended = tokenizer.lattice(["the  "]).continuations()
    assert b"".join(surfaces[i] for i in ended.tokens[0]) == "▁the".encode()


def test_a_prompt_has_no_dummy_space_behind_it() -> None:
    tokenizer = Tokenizer.from_file(DATA / "en_suffix.model", device="cpu")
    surfaces = tokenizer._model.vocabulary.surfaces
    assert tokenizer.normalize("the wor").values.tobytes().decode().endswith("wor▁")
    out = tokenizer.continuations("the wor")
    assert b"".join(surfaces[i] for i in out.tokens[0]).endswith(b"wor")


PROMPTS = ["", " ", "To be, or  not ", "wor", "e\u0301", "½ ﬁ", "line\n", "<s> a", "猫である", "\t", "\U0010ffff", "a."]


@pytest.mark.parametrize("name", ["default", *MODELS])
def test_a_normalized_prompt_begins_what_any_longer_text_becomes(name: str) -> None:
    tokenizer = Tokenizer.default(device="cpu") if name == "default" else Tokenizer.from_file(DATA / name, device="cpu")
    batch = normalize_prompts(tokenizer._normalize, TextBatch.from_texts([*PROMPTS, None]))
    assert len(batch) == len(PROMPTS) + 1
    assert batch.offsets[-1] == batch.offsets[-2] == len(batch.values)
    for i, prompt in enumerate(PROMPTS):
        start = batch.values[batch.offsets[i] : batch.offsets[i + 1]].tobytes()
        for more in ("word", "X and more", "漢字 "):
            whole = tokenizer.normalize(prompt + more).values.tobytes()
            assert whole.startswith(start), (prompt, more)
    if batch.chunk_offsets is not None:
        assert (np.diff(batch.chunk_offsets) > 0).all()
        assert np.isin(batch.offsets, batch.chunk_offsets).all()
        assert batch.chunk_ids is None or len(batch.chunk_ids) == len(batch.chunk_offsets) - 1
    assert len(tokenizer.continuations([*PROMPTS, None])) == len(PROMPTS) + 1


def test_a_normalizer_that_does_not_know_text_that_goes_on_is_an_error() -> None:
    model = Tokenizer.from_pieces(["a", "aa"], device="cpu")._model

    def without_others(texts: TextBatch, threads: int = 1) -> Any:
        kept = [bytes(byte for byte in text or b"" if byte < 128) for text in texts.tolist()]
        return model.normalizer(TextBatch.from_texts(kept), threads)

    tokenizer = Tokenizer(dataclasses.replace(model, normalizer=without_others), device="cpu")
    with pytest.raises(ValueError, match=r"changes U\+E000"):
        tokenizer.continuations(["a"])
    assert tokenizer.lattice(["a"]).continuations().rollback.tolist() == [0, 1]


@pytest.mark.parametrize("device", DEVICES)
def test_null_texts_have_no_rows_and_empty_ones_begin_anew(device: str) -> None:
    tokenizer = on(device, Tokenizer.from_pieces({"a": -1.0, "ab": -1.0}, device="cpu"))
    out = tokenizer.continuations([None, "", "a", None])
    assert out.doc_offsets.tolist() == [0, 0, 1, 3, 3]
    assert out.tokens.tolist() == [[], [0], []]
    assert (out.rollback.tolist(), out.scores.tolist()) == ([0, 0, 1], [0.0, -1.0, 0.0])
    assert (len(out), repr(out)) == (4, "Continuations(4 texts, 3 boundaries)")
    for none in ([], [None]):
        nothing = tokenizer.continuations(none)
        assert len(nothing) == len(none)
        assert nothing.mask().shape == (0, 2)
    with pytest.raises(IndexError, match="row 3 of Continuations of 3 boundaries"):
        out.ids(3)


@pytest.mark.parametrize("device", DEVICES)
def test_ids_before_a_row_are_there_and_those_after_it_are_not(device: str) -> None:
    tokenizer = on(device, Tokenizer.from_file(DATA / "en_split.tokenizer.json", device="cpu"))
    before, after = list(tokenizer._model.prefix_ids), list(tokenizer._model.suffix_ids)
    assert after
    (whole,) = tokenizer.lattice("the cat").viterbi().tolist()[0]
    out = tokenizer.continuations("the cat")
    assert out.tokens.tolist()[0] == whole[: len(whole) - len(after)]
    assert all(ids[: len(before)] == before for ids in out.tokens.tolist() if ids is not None)


@pytest.mark.parametrize("device", DEVICES)
def test_no_piece_reaches_over_the_begin_of_a_chunk_nor_into_a_token(device: str) -> None:
    tokenizer = on(device, Tokenizer.from_pieces(["a", "b", "abc", "bc"], device="cpu"))
    values, offsets = np.frombuffer(b"ababab", np.uint8), np.array([0, 2, 4, 6])
    # Documents of one chunk, of two, and of two of which the second is a token.
    batch = NormalizedBatch(values, offsets, np.array([0, 2, 3, 4, 5, 6]), np.array([-1, -1, -1, -1, 3], np.int32))
    out = Lattice.of(tokenizer._model, tokenizer._backend, batch, None, None).continuations()
    assert out.doc_offsets.tolist() == [0, 3, 5, 6]
    assert out.rollback.tolist() == [0, 1, 2, 0, 1, 0]
    assert out.tokens.tolist() == [[0, 1], [0], [], [0, 1], [0], [0, 3]]


def test_no_piece_reaches_over_an_added_token_or_a_pre_token() -> None:
    tokenizer = Tokenizer.from_file(DATA / "en_split.tokenizer.json", device="cpu")
    model = tokenizer._model
    out = tokenizer.continuations(["the cat<s>", "the cat<s>ca"])
    first, last = out.doc_offsets[:-1].tolist(), out.doc_offsets[1:].tolist()
    # Behind the added token stands the space that begins every part of a text.
    assert out.rollback[first[0] : last[0]].tolist() == [0, 3]
    assert out.tokens.tolist()[1][-1] == model.vocabulary.id_of["<s>"]  # type: ignore[index]
    assert out.rollback[first[1] : last[1]].max() == len("▁ca".encode())


@pytest.mark.parametrize("device", DEVICES)
def test_rollback_is_limited_and_weights_choose_the_path(device: str) -> None:
    tokenizer = on(
        device, Tokenizer.from_pieces({"a": -1.0, "b": -1.0, "ab": -3.0, "abc": 0.0, "bc": 0.0}, device="cpu")
    )
    assert tokenizer.continuations("ab").rollback.tolist() == [0, 1, 2]
    assert tokenizer.continuations("ab", max_rollback=1).rollback.tolist() == [0, 1]
    assert tokenizer.continuations("ab", max_rollback=0).rollback.tolist() == [0]
    assert tokenizer.continuations("ab").tokens.tolist()[0] == [0, 1]
    lattice = tokenizer.lattice("ab")
    assert lattice.continuations(weights=np.array([1.0, 0.25, 0.5, 1.0, 1.0])).tokens.tolist()[0] == [2]
    without = lattice.continuations(weights=np.array([0.0, 1.0, 0.5, 1.0, 1.0]))
    assert (without.rollback.tolist(), without.scores.tolist()) == ([0, 2], [math.log(0.5), 0.0])
    for bad, error in ((-1, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="max_rollback"):
            tokenizer.continuations("ab", max_rollback=bad)  # type: ignore[arg-type]


def test_texts_that_cannot_be_continued_are_named() -> None:
    tokenizer = Tokenizer.from_pieces(["a", "ab", "xyz"], device="cpu")
    with pytest.raises(ValueError, match=r"document 2 cannot be continued: no path reaches a position from which"):
        tokenizer.continuations(["ab", None, "a?b"])
    assert tokenizer.continuations(["axy"]).rollback.tolist() == [2]
    with pytest.raises(ValueError, match=r"document 0 cannot be continued: .* within the last 1 bytes"):
        tokenizer.continuations(["axy"], max_rollback=1)


def test_a_lattice_of_arcs_alone_cannot_be_continued() -> None:
    ragged = RaggedLattice(np.array([0]), np.array([1]), (np.array([0, 2]), np.array([0, 0, 1])))
    with pytest.raises(ValueError, match="what its pieces spell"):
        Lattice.from_ragged(ragged).continuations(weights=np.ones(1))


def test_paths_that_do_not_fit_are_a_memory_error() -> None:
    lattice = Tokenizer.from_pieces(["a" * n for n in range(1, 30)], device="cpu").lattice(
        "a" * 300, memory_limit=200_000
    )
    assert isinstance(lattice.continuations(max_rollback=1), Continuations)
    with pytest.raises(MemoryError, match="the paths to every boundary"):
        Tokenizer.from_pieces(["a", "a" * 299], device="cpu").lattice("a" * 300, memory_limit=200_000).continuations()
