"""Given ids have the probability with which `sample` gives them: by brute force, the definition, and both devices."""

import math
from typing import Any

import numpy as np
import pytest
from brute_force import brute_force
from conftest import DATA
from cuda_on_cpu.host_device import HostDevice, compiler
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from lattices import DEVICES, both, documents_of, on
from situations import Situation, situations
from strategies import Case, cases

from gpu_lattice import TokenBatch, Tokenizer
from gpu_lattice.backends.cpu import CpuBackend
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.kernels import reference, reference_lattice
from gpu_lattice.kernels.arcs import TOKEN_ARC, UNKNOWN
from gpu_lattice.kernels.cpu.lattice.build import CHUNK
from gpu_lattice.kernels.reference import Rules
from gpu_lattice.lattice import Lattice, RaggedLattice, score
from gpu_lattice.runtime.ragged import offsets_of

RELAXED = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
ALPHAS = st.sampled_from([0.0, 0.1, 1.0, 3.0])
MOST_PATHS = 400


@RELAXED
@given(cases(longest_text=8), ALPHAS)
def test_probabilities_equal_brute_force_and_sum_to_one(case: Case, alpha: float) -> None:
    for lattice in both(case.tokenizer(), case.texts):
        for i_doc, text in enumerate(case.texts):
            one = lattice.take([i_doc])
            truth = brute_force(text, case.pieces, case.unk_piece)
            if not truth.ids:
                assert one.log_prob([[0] * len(text)], alpha=alpha).tolist() == [-math.inf]
                continue
            probabilities = truth.probabilities(alpha)
            rows = [list(ids) for ids in probabilities]
            got = np.exp(one.log_prob(rows, alpha=alpha))
            np.testing.assert_allclose(got, list(probabilities.values()), 1e-11, 1e-300)
            assert math.fsum(got) == pytest.approx(1.0, abs=1e-11)
            assert one.is_path(rows).all()


@RELAXED
@given(cases(longest_text=8), st.data())
def test_what_brute_force_does_not_list_is_no_path(case: Case, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(case.texts))
    truth = {tuple(ids) for ids in brute_force(text, case.pieces, case.unk_piece).ids}
    ids = st.lists(st.integers(-1, len(case.pieces)), max_size=len(text))
    rows = data.draw(st.lists(ids, min_size=1, max_size=20))
    for ids in list(truth)[:20]:
        i = data.draw(st.integers(0, max(0, len(ids) - 1)))
        rows += [[*ids[i:], *ids[:i]], list(ids[:i]), list(ids[:i] + ids[i + 1 :]), [*ids[:i], *ids[i:], 0]]
    expected = [tuple(row) in truth for row in rows]
    for lattice in both(case.tokenizer(), [text]):
        assert lattice.is_path(rows).tolist() == expected
        assert np.isfinite(lattice.log_prob(rows)).tolist() == expected


def lattice_of(situation: Situation, backend: Any) -> Lattice:
    return Lattice.of(situation.model, backend, situation.batch, ~situation.is_null, None)


def all_paths(lattice: Lattice) -> Any:
    """Marks [paths, positions] of every path of a lattice of one text, or None where there are too many."""
    (document,) = documents_of(lattice, np.zeros(len(lattice._arrays.arcs)))
    paths: list[list[dict[int, int]]] = [[{}]]
    for e in range(1, len(document)):
        paths.append([{**path, e: k} for k, (n, _) in enumerate(document[e]) for path in paths[e - n]])
        if len(paths[-1]) > MOST_PATHS:
            return None
    return np.array([[path.get(p, -1) for p in range(len(document))] for path in paths[-1]], np.int32)


def definition(situation: Situation, lattice: Lattice, weights: Any, ids: list[int]) -> Any:
    """reference_lattice.reading_sum for the ids of one text without those around them."""
    vocabulary, arrays = situation.model.vocabulary, lattice._arrays
    unk_id = -1 if vocabulary.unk_id is None else vocabulary.unk_id
    (document,) = documents_of(lattice, weights)
    unknown = unk_id if vocabulary.unknown_runs == "apart" else None
    arcs = [
        unknown if arc in (UNKNOWN, unk_id) else TOKEN_ARC - arc if arc <= TOKEN_ARC else arc
        for arc in arrays.arcs.tolist()
    ]
    names = [arcs[a:b] for a, b in zip(arrays.arc_offsets, arrays.arc_offsets[1:], strict=False)]
    rules = Rules({vocabulary.surfaces[i]: int(i) for i in np.flatnonzero(vocabulary.in_lattice)}, "", None)
    byte_ids = None if vocabulary.byte_ids is None else vocabulary.byte_ids.tolist()
    text = arrays.text.tobytes()

    def read(s: int, e: int) -> list[int]:
        return reference._emit_unknown(text[s:e], rules, unk_id, byte_ids, vocabulary.unknown_runs == "lookup")

    starts = set(np.flatnonzero(arrays.marks & CHUNK).tolist())
    return reference_lattice.reading_sum(document, names, ids, read, starts)


@RELAXED
@given(situations(), st.data())
def test_runs_of_unknowns_read_as_their_piece_their_bytes_or_one_id(situation: Situation, data: st.DataObject) -> None:
    model = situation.model
    lattices = [lattice_of(situation, CpuBackend(model, 1))]
    if compiler() is not None:
        lattices.append(lattice_of(situation, CudaBackend(model, HostDevice())))
    i_doc = data.draw(st.integers(0, len(situation.is_null) - 1))
    parts = [lattice.take([i_doc]) for lattice in lattices]
    marks = all_paths(parts[0])
    assume(marks is not None and len(marks))
    n_arcs = len(parts[0]._arrays.arcs)
    some = st.sampled_from([0.25, 1.0, 1.5, 0.0])
    weights = np.array(data.draw(st.lists(some, min_size=n_arcs, max_size=n_arcs)), np.float64)
    whole = np.array([weights_along(parts[0], weights, path) for path in marks])
    n_paths, n_positions = marks.shape
    rows = parts[0]._tokens(marks, np.zeros(n_paths, np.int64), np.arange(n_paths) * n_positions).tolist()
    sums: dict[tuple[int, ...], float] = {}
    for row, weight in zip(rows, whole.tolist(), strict=True):
        sums[tuple(row or ())] = sums.get(tuple(row or ()), 0.0) + weight
    given_rows = [list(ids) for ids in sums]
    total = math.fsum(whole)
    for part in parts:
        assert part.is_path(given_rows).all()
        got = np.exp(part.log_prob(given_rows, weights=weights[:, None]))
        np.testing.assert_allclose(got, [s / total if total else 0.0 for s in sums.values()], 1e-12, 1e-300)
    before, after = len(model.prefix_ids), len(model.suffix_ids)
    around = 0 if situation.is_null[i_doc] else before + after
    for ids, expected in list(sums.items())[:5]:
        inner = list(ids[before : len(ids) - after] if around else ids)
        defined = definition(situation, parts[0], weights, inner)
        assert reference.to_float(defined) == pytest.approx(expected, rel=1e-12)


def weights_along(lattice: Lattice, weights: Any, path: Any) -> float:
    ends = np.flatnonzero(path >= 0)
    return float(np.prod(weights[lattice._arrays.arc_offsets[ends] + path[ends]]))


@RELAXED
@given(situations(), ALPHAS, st.data())
def test_samples_and_what_is_near_them_are_scored_alike_everywhere(
    situation: Situation, alpha: float, data: st.DataObject
) -> None:
    """The two devices to the last bit, however little room states have at first, and the definition."""
    cpu = lattice_of(situation, CpuBackend(situation.model, 1))
    has_path = [i for i, n in enumerate(cpu.num_paths(log=True)) if n > -math.inf]
    assume(has_path)
    cpu = cpu.take(has_path)
    rows = [row or [] for row in cpu.sample(alpha=alpha, num_samples=3, seed=5).tolist()]
    for row in rows[::2]:
        if row:
            i = data.draw(st.integers(0, len(row) - 1))
            row[i : i + 1] = data.draw(st.lists(st.integers(-1, 300), max_size=2))
    expected = cpu.log_prob(rows, alpha=alpha)
    assert cpu.is_path(rows).tolist() == np.isfinite(expected).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "CAPACITY", 1)
        patch.setattr(score, "GROWTH", 2)
        patch.setattr(score, "STATES_BYTES", 100)
        np.testing.assert_array_equal(cpu.log_prob(rows, alpha=alpha), expected)
    if compiler() is not None:
        cuda = lattice_of(situation, CudaBackend(situation.model, HostDevice())).take(has_path)
        np.testing.assert_array_equal(cuda.log_prob(rows, alpha=alpha), expected)
    before, after = len(situation.model.prefix_ids), len(situation.model.suffix_ids)
    for i_row, row in enumerate(rows[:6]):
        one = cpu.take([i_row // 3])
        if not situation.is_null[has_path[i_row // 3]] and np.isfinite(expected[i_row]):
            defined = definition(situation, one, one._weights(alpha, None), row[before : len(row) - after])
            log_z = one.log_partition(alpha)[0]
            assert reference.log(defined) - log_z == pytest.approx(expected[i_row], rel=1e-12, abs=1e-11)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["ja_bytes.model", "en_split.tokenizer.json", "en_symbols.model", "bytepiece.json"])
def test_samples_have_the_log_prob_that_sample_returns(device: str, name: str) -> None:
    tokenizer = on(device, Tokenizer.from_file(DATA / name, device="cpu"))
    texts = ["", "A short <s> text <sep>, with\n two lines", None, "吾輩は猫である。", "the end </s>"]
    lattice = tokenizer.lattice(texts)
    out = lattice.sample(alpha=0.3, num_samples=4, seed=8, return_log_prob=True)
    got = lattice.log_prob(out, alpha=0.3)
    np.testing.assert_allclose(got, out.log_prob, 1e-12, 1e-10)
    assert lattice.is_path(out).all()
    np.testing.assert_array_equal(lattice.log_prob(out.tolist(), alpha=0.3), got)
    np.testing.assert_array_equal(lattice.log_prob(out.to_arrow(), alpha=0.3), got)


@pytest.mark.parametrize("device", DEVICES)
def test_ids_around_rows_are_expected_and_taken_off(device: str) -> None:
    tokenizer = Tokenizer.from_file(DATA / "en_split.tokenizer.json", device="cpu")
    before, after = list(tokenizer._model.prefix_ids), list(tokenizer._model.suffix_ids)
    assert before + after
    lattice = on(device, tokenizer).lattice(["some words"])
    (row,) = lattice.sample(alpha=1.0, seed=0).tolist()
    inner = row[len(before) : len(row) - len(after)]
    wrong = [inner, [*before, *inner, *after, *after], [], before, [*before, *before, *inner, *after], before + after]
    assert lattice.is_path([row, *wrong]).tolist() == [True] + [False] * len(wrong)


@pytest.mark.parametrize("device", DEVICES)
def test_ids_that_no_path_has_are_impossible(device: str) -> None:
    tokenizer = on(device, Tokenizer.from_pieces({"a": -1.0, "b": -2.0, "ab": -2.5, "c": 0.0}, device="cpu"))
    lattice = tokenizer.lattice(["ab"])
    assert lattice.log_prob([[2]], alpha=1.0).tolist() == pytest.approx(
        [math.log(math.exp(-2.5) / (math.exp(-2.5) + math.exp(-3)))]
    )
    rows = [[0, 1], [1, 0], [0], [], [0, 1, 1], [3], [-1], [-2], [4], [2**31], [-(2**40)], [2**70, 1], [0, 0, 1]]
    assert lattice.is_path(rows).tolist() == [True] + [False] * 12
    assert np.isneginf(lattice.log_prob(rows)).tolist() == [False] + [True] * 12
    wide = TokenBatch(np.array([0, 1, 2**32, 2, -5]), np.array([0, 2, 3, 4, 5]))  # type: ignore[arg-type]
    assert lattice.is_path(wide).tolist() == [True, False, True, False]
    unsigned = TokenBatch(np.array([2, 2**64 - 1], np.uint64), np.array([0, 1, 2]))  # type: ignore[arg-type]
    assert lattice.is_path(unsigned).tolist() == [True, False]


@pytest.mark.parametrize("device", DEVICES)
def test_rows_of_null_and_empty_texts_are_empty(device: str) -> None:
    tokenizer = on(device, Tokenizer.from_pieces(["a", "aa"], device="cpu"))
    lattice = tokenizer.lattice(["", None, "a"])
    assert lattice.log_prob([[], None, [0]]).tolist() == [0.0, 0.0, 0.0]
    assert lattice.is_path([None, [], [0]]).tolist() == [True, True, True]
    assert lattice.is_path([[0], [0], []]).tolist() == [False, False, False]
    assert lattice.log_prob([[0], [0], []]).tolist() == [-math.inf] * 3
    nothing = tokenizer.lattice([])
    assert nothing.log_prob([]).shape == (0,)
    assert nothing.is_path([]).dtype == bool
    hugging = on(device, Tokenizer.from_file(DATA / "en_split.tokenizer.json", device="cpu"))
    around = hugging.encode("").tolist()[0]
    assert around
    assert hugging.lattice(["", None]).is_path([around, []]).tolist() == [True, True]
    assert hugging.lattice(["", None]).is_path([[], around]).tolist() == [False, False]


def test_a_text_without_any_path_has_none() -> None:
    for lattice in both(Tokenizer.from_pieces(["a", "bc"], device="cpu"), ["ab", "a"]):
        assert lattice.log_prob([[0], [0]]).tolist() == [-math.inf, 0.0]
        assert lattice.is_path([[0, 1], [0]]).tolist() == [False, True]


def test_other_numbers_of_rows_and_other_things_are_errors() -> None:
    lattice = Tokenizer.from_pieces(["a"], device="cpu").lattice(["a", "a"])
    assert lattice.is_path([[0], [0], [0], [0, 0]]).tolist() == [True, True, True, False]
    for rows in ([], [[0]], [[0], [0], [0]]):
        with pytest.raises(ValueError, match=rf"ids has {len(rows)} rows; give one for each of the 2 texts"):
            lattice.log_prob(rows)
        with pytest.raises(ValueError, match="rows"):
            lattice.is_path(TokenBatch(np.zeros(len(rows), np.int32), offsets_of(np, np.ones(len(rows), np.int64))))
    with pytest.raises(TypeError, match=r"row 1 of ids is 0; give a list of integers"):
        lattice.log_prob([[0], 0])
    with pytest.raises(TypeError, match="row 0 of ids is"):
        lattice.log_prob([[0.5], [0]])
    with pytest.raises(TypeError, match="give a TokenBatch or a list"):
        lattice.log_prob(7)
    with pytest.raises(TypeError, match="float32"):
        lattice.log_prob(TokenBatch(np.zeros(2, np.float32), np.array([0, 1, 2])))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="offsets of ids end at 9"):
        lattice.log_prob(TokenBatch(np.zeros(2, np.int32), np.array([0, 1, 9])))
    with pytest.raises(ValueError, match="never decrease"):
        lattice.log_prob(TokenBatch(np.zeros(2, np.int32), np.array([0, 2, 1])))
    with pytest.raises(ValueError, match="both alpha"):
        lattice.log_prob([[0], [0]], alpha=1.0, weights=np.ones(1))
    with pytest.raises(ValueError, match="rows"):
        Tokenizer.from_pieces(["a"], device="cpu").lattice([]).log_prob([[]])


@pytest.mark.parametrize("device", DEVICES)
def test_weights_of_zero_take_paths_away_but_not_from_is_path(device: str) -> None:
    lattice = on(device, Tokenizer.from_pieces(["a", "b", "ab"], device="cpu")).lattice(["ab"])
    weights = np.array([0.5, 2.0, 0.0])
    assert lattice.log_prob([[0, 1], [2]], weights=weights).tolist() == [0.0, -math.inf]
    assert lattice.is_path([[0, 1], [2]]).tolist() == [True, True]


@pytest.mark.parametrize("device", DEVICES)
def test_one_id_may_have_arcs_of_several_lengths(device: str) -> None:
    """Four positions; every arc is id 7, of length 1, 2 or 3, so that ids tell no more than the number of arcs."""
    lengths = np.array([1, 1, 2, 1, 2, 3], np.int32)
    ragged = RaggedLattice(np.full(6, 7, np.int32), lengths, (np.array([0, 4]), np.array([0, 0, 1, 3, 6])))
    lattice = Lattice.from_ragged(ragged)
    if device == "cuda":
        launcher = CudaBackend(Tokenizer.from_pieces(["a"], device="cpu")._model, HostDevice()).launcher
        lattice = Lattice(launcher, lattice._arrays, lattice._reading, None, 8)
    weights = np.array([2.0, 3.0, 5.0, 7.0, 11.0, 13.0])
    # One arc: 13. Two: 2 to 1 then 11; 5 to 2 then 7. Three: 2, 3, 7.
    total = 13.0 + (22.0 + 35.0) + 42.0
    got = lattice.log_prob([[7], [7, 7], [7, 7, 7], [7] * 4], weights=weights[:, None])
    np.testing.assert_allclose(np.exp(got), np.array([13.0, 57.0, 42.0, 0.0]) / total, 1e-14)


def test_ids_that_leave_every_run_open_are_summed_over_all_of_them() -> None:
    """Of n unknown symbols read as u, p, u, p, u, where p is two of them: the runs share n - 4 in any way."""
    tokenizer = Tokenizer.from_pieces({"<unk>": None, "??": 0.0, "x": -1.0}, unk_piece="<unk>", device="cpu")
    n = 60
    for lattice in both(tokenizer, ["?" * n]):
        ids = [0, 1] * 2 + [0]
        ways = math.comb(n - 4 - 1, 2)
        expected = math.log(ways) - lattice.num_paths(log=True)[0]
        assert lattice.log_prob([ids], alpha=0).tolist() == pytest.approx([expected], rel=1e-12)


@pytest.mark.skipif(compiler() is None, reason="needs g++")
@pytest.mark.parametrize("name", ["pieces", "zh_bytes.model", "ja_whole.tokenizer.json"])
def test_work_grows_with_the_text_in_long_unknown_runs(name: str) -> None:
    tokenizer = (
        Tokenizer.from_pieces({"<unk>": None, "a": 0.0, "ab": -1.0}, unk_piece="<unk>", device="cpu")
        if name == "pieces"
        else Tokenizer.from_file(DATA / name, device="cpu")
    )
    steps = []
    for n in (1000, 2000):
        device = HostDevice(counts_steps=True)
        tokenizer._backend = CudaBackend(tokenizer._model, device)
        lattice = tokenizer.lattice(["\U0010ffff" * n])
        assert lattice.is_path(tokenizer.encode(["\U0010ffff" * n])).tolist() == [True]
        steps.append(device.most_steps["reading_sums"])
    assert steps[1] < 2.2 * steps[0]


def test_a_hundred_kilobytes_of_unknowns_are_one_id() -> None:
    tokenizer = Tokenizer.from_pieces({"<unk>": None, "a": 0.0}, unk_piece="<unk>", device="cpu")
    text = "?" * 100_000
    for lattice in both(tokenizer, [text, text + "a" + text]):
        assert lattice.log_prob([[0], [0, 1, 0]]).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
        assert lattice.is_path([[0, 0], [0, 1]]).tolist() == [False, False]


def test_states_that_do_not_fit_are_a_memory_error() -> None:
    lattice = Tokenizer.from_pieces(["a"], device="cpu").lattice(["a"] * 100, memory_limit=20_000)
    with pytest.raises(MemoryError, match="reading 100 rows of ids takes"):
        lattice.is_path([[0]] * 100)


def test_log_prob_is_that_of_sample_with_the_same_defaults() -> None:
    lattice = Tokenizer.from_pieces({"a": -1.0, "b": -2.0, "ab": -2.5}, device="cpu").lattice(["abab", "ab"])
    out = lattice.sample(seed=3, num_samples=2, return_log_prob=True)
    assert lattice.log_prob(out).tolist() == pytest.approx(out.log_prob.tolist())
