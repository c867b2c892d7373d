"""The lattice's tensors: what they hold, in and out of ragged arrays, memory, odd input."""

from typing import Any

import numpy as np
import pytest
from by_reference import rules_of
from conftest import DATA
from cuda_on_cpu.host_device import HostDevice, compiler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lattices import DEVICES, both, on
from situations import Situation, situations
from strategies import Case, cases

from gpu_lattice import TextBatch, Tokenizer
from gpu_lattice.backends import NoPathError, cpu_lattice
from gpu_lattice.backends.cpu import CpuBackend
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.lattice import Lattice, RaggedLattice

SUMS = ("forward_scores", "backward_scores", "log_partition", "marginals", "entropy", "expected_counts")
RELAXED = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def expected_arcs(tokenizer: Tokenizer, text: bytes) -> list[list[tuple[int, int]]]:
    """(public id, length) of the arcs into every position, by the definition."""
    rules = rules_of(tokenizer)
    vocabulary = tokenizer._model.vocabulary
    unknown = -2 if vocabulary.unk_id is None else vocabulary.unk_id
    return [
        [(unknown if arc < 0 else arc, length) for length, arc in rules.arcs_into(text, e)]
        for e in range(len(text) + 1)
    ]


@RELAXED
@given(cases())
def test_tensors_hold_the_arcs_of_the_definition(case: Case) -> None:
    tokenizer = case.tokenizer()
    texts = tokenizer.normalize(case.texts).tolist()
    for lattice in both(tokenizer, case.texts):
        n_docs, n_positions, n_arcs = lattice.shape
        assert lattice.piece_id.shape == lattice.length.shape == (n_docs, n_positions, n_arcs)
        assert lattice.num_bytes.tolist() == [len(text) for text in texts]
        for i_doc, text in enumerate(texts):
            for e, arcs in enumerate(expected_arcs(tokenizer, text)):
                assert lattice.num_arcs[i_doc, e] == len(arcs)
                ids, lengths = lattice.piece_id[i_doc, e].tolist(), lattice.length[i_doc, e].tolist()
                assert list(zip(ids, lengths, strict=True)) == arcs + [(-1, 0)] * (n_arcs - len(arcs))
            assert (lattice.num_arcs[i_doc, len(text) + 1 :] == 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["en.txt", "ja.txt", "odd.txt"])
def test_real_text_has_the_same_arcs_on_both_devices(device: str, name: str) -> None:
    tokenizer = Tokenizer.default(device="cpu")
    texts = (DATA / name).read_bytes().decode().split("\n")
    lattice = on(device, tokenizer).lattice(texts)
    assert lattice.num_bytes.tolist() == [len(text or b"") for text in tokenizer.normalize(texts).tolist()]
    best = tokenizer.encode(texts).tolist()
    assert [rows[0] for rows in lattice.viterbi().tolist()] == best


@RELAXED
@given(cases())
def test_a_ragged_lattice_comes_back_as_it_was(case: Case) -> None:
    for lattice in both(case.tokenizer(), case.texts):
        ragged = lattice.to_ragged()
        if (ragged.piece_id < 0).any():
            continue
        again = Lattice.from_ragged(ragged, vocab_size=len(case.pieces))
        assert np.array_equal(again.piece_id, lattice.piece_id)
        assert np.array_equal(again.length, lattice.length)
        weights = np.linspace(0.1, 2.0, len(ragged.length))[:, None]
        assert np.array_equal(again.log_partition(weights=weights), lattice.log_partition(weights=weights))
        exact = Lattice.from_ragged(ragged._replace(is_cut=None), vocab_size=len(case.pieces))
        np.testing.assert_allclose(
            exact.log_partition(weights=weights), lattice.log_partition(weights=weights), 1e-12, 1e-12
        )


def test_a_ragged_lattice_draws_what_it_drew() -> None:
    texts = ["a new dawn", "", "hello world " * 5]
    lattice = Tokenizer.default(device="cpu").lattice(texts)
    weights = lattice._weights(0.3, None)[:, None]
    again = Lattice.from_ragged(lattice.to_ragged())
    assert again.sample(weights=weights, seed=4).tolist() == lattice.sample(alpha=0.3, seed=4).tolist()


def test_what_comes_again_has_the_same_sums_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [
        *(DATA / "en.txt").read_text("utf-8").split("\n")[:40],
        "",
        "a" * 3000,
        *(DATA / "odd.txt").read_text("utf-8").split("\n"),
    ]
    tokenizer = Tokenizer.default(device="cpu")
    lattice = tokenizer.lattice(texts * 2)
    whole = Lattice.from_ragged(lattice.to_ragged(), vocab_size=tokenizer.vocab_size)
    some = [len(texts) + 1, 3, 0, 3]
    for part, by_itself in ((lattice, whole), (lattice.take(some), whole.take(some))):
        assert part.shape == by_itself.shape
        weights = part._weights(0.3, None)[:, None]
        for operation in SUMS:
            got, expected = getattr(part, operation)(0.3), getattr(by_itself, operation)(weights=weights)
            np.testing.assert_array_equal(got, expected, operation)
    monkeypatch.setattr(cpu_lattice, "MOST_SLOTS", 4)
    for array, expected in zip(tokenizer.lattice(texts * 2)._arrays, lattice._arrays, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_tensors_travel_by_dlpack() -> None:
    lattice = Tokenizer.default(device="cpu").lattice(["a new dawn"])
    for tensor in (lattice.piece_id, lattice.length, lattice.num_arcs, lattice.num_bytes, lattice.marginals(1.0)):
        taken = np.from_dlpack(tensor)
        assert taken.ctypes.data == tensor.ctypes.data

    class Foreign:
        """A tensor of another library, of which only DLPack is known."""

        def __init__(self, array: Any) -> None:
            self._array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self._array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self._array.__dlpack_device__()

    ragged = lattice.to_ragged()
    foreign = RaggedLattice(Foreign(ragged.piece_id), Foreign(ragged.length), tuple(map(Foreign, ragged.row_splits)))  # type: ignore[arg-type]
    weights = np.full(8000, 0.5, np.float32)
    assert Lattice.from_ragged(foreign, vocab_size=8000).log_partition(weights=Foreign(weights)) == pytest.approx(
        lattice.log_partition(weights=weights), rel=1e-12
    )


def test_buckets_waste_less_than_half_of_their_positions() -> None:
    generator = np.random.default_rng(5)
    texts = ["a" * int(n) for n in np.exp(generator.uniform(0, 7, 200))] + ["", ""]
    lattice = Tokenizer.from_pieces(["a", "aa"], device="cpu").lattice(texts)
    seen = []
    for i_docs, part in lattice.buckets():
        seen += i_docs.tolist()
        used = int((part.num_bytes + 1).sum())
        assert 2 * used > part.shape[0] * part.shape[1]
        assert part.num_bytes.tolist() == [len(texts[i_doc]) for i_doc in i_docs]
        np.testing.assert_array_equal(part.log_partition(0), lattice.log_partition(0)[i_docs])
    assert sorted(seen) == list(range(len(texts)))


def test_some_texts_can_be_taken_in_any_order_and_twice() -> None:
    for lattice in both(Tokenizer.default(device="cpu"), ["one", None, "two words", "three more words"]):
        part = lattice.take([3, 1, 0, 3])
        assert part.viterbi().tokens.tolist() == [lattice.viterbi().tokens.tolist()[i] for i in (3, 1, 0, 3)]
        with pytest.raises(IndexError, match="lattice of 4 texts"):
            lattice.take([4])


def test_what_does_not_fit_is_refused_before_it_is_allocated() -> None:
    tokenizer = Tokenizer.default(device="cpu")
    with pytest.raises(MemoryError, match="memory_limit"):
        tokenizer.lattice(["a new dawn"] * 10_000, memory_limit=1_000_000)
    lattice = tokenizer.lattice(["a " * 50_000, *["a"] * 2_000], memory_limit=20_000_000)
    assert lattice.nbytes < 20_000_000 < lattice.padded_nbytes
    with pytest.raises(MemoryError, match="tensor"):
        _ = lattice.piece_id
    assert sum(part.padded_nbytes for _, part in lattice.buckets()) < 20_000_000


@pytest.mark.parametrize("device", DEVICES)
def test_odd_batches_have_lattices(device: str) -> None:
    tokenizer = on(device, Tokenizer.from_pieces({"a": -1.0, "b": -2.0}, device="cpu"))
    nothing = tokenizer.lattice([])
    assert nothing.shape == (0, 0, 0)
    assert nothing.piece_id.shape == (0, 0, 0)
    assert nothing.num_paths() == []
    assert nothing.log_partition().shape == (0,)
    assert nothing.viterbi().tolist() == []
    assert nothing.sample(seed=0).tolist() == []
    empty = tokenizer.lattice(["", None])
    assert empty.shape == (2, 1, 0)
    assert empty.num_paths() == [1, 1]
    assert empty.forward_scores().tolist() == [[0.0], [0.0]] == empty.backward_scores().tolist()
    assert empty.sample(seed=0).tolist() == [[], None] == empty.viterbi().tokens.tolist()
    assert empty.entropy().tolist() == [0.0, 0.0]
    assert empty.expected_counts().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("device", DEVICES)
def test_a_text_without_a_path_has_sums_of_nothing_and_no_sample(device: str) -> None:
    lattice = on(device, Tokenizer.from_pieces({"a": -1.0, "bb": -2.0}, device="cpu")).lattice(["aa", "aba", "abb"])
    assert lattice.num_paths() == [1, 0, 1]
    assert lattice.log_partition().tolist() == [-2.0, -np.inf, -3.0]
    assert lattice.marginals()[1].max() == 0.0
    assert lattice.entropy().tolist() == [0.0, 0.0, 0.0]
    assert lattice.expected_counts().tolist() == pytest.approx([3.0, 1.0])
    for operation in (lattice.sample, lattice.viterbi):
        with pytest.raises(ValueError, match="document 1 has no segmentation: no path reaches byte 2"):
            operation()


@pytest.mark.skipif(compiler() is None, reason="needs g++")
@settings(max_examples=150)
@given(situations(), st.sampled_from([0.0, 0.3, 20.0]), st.integers(0, 2**64 - 1), st.sampled_from([1, 3]))
def test_any_rules_for_unknown_text_and_any_chunks_give_the_samples_of_the_bulk_path(
    situation: Situation, alpha: float, seed: int, num_samples: int
) -> None:
    cpu, cuda = CpuBackend(situation.model, 1), CudaBackend(situation.model, HostDevice(reversed=True))
    batch, doc_ids = situation.batch, situation.doc_ids
    try:
        expected = cpu.sample(batch, situation.is_null, alpha, num_samples, seed, doc_ids, True)
    except NoPathError:
        expected = None
    for backend in (cpu, cuda):
        lattice = Lattice.of(situation.model, backend, batch, ~situation.is_null, None)
        options = {"alpha": alpha, "num_samples": num_samples, "seed": seed, "doc_ids": doc_ids}
        if expected is None:
            with pytest.raises(ValueError, match="has no segmentation"):
                lattice.sample(**options)
            continue
        got = lattice.sample(**options, return_log_prob=True)
        np.testing.assert_array_equal(got.offsets, expected.offsets)
        np.testing.assert_array_equal(got.ids, expected.ids)
        np.testing.assert_allclose(got.log_prob, expected.log_prob, 1e-12, 1e-11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": [0, 1, 2]}, "at least 1"),
        ({"length": [1, 1, 3]}, "before its document"),
        ({"length": [1, 2, 1]}, "shortest to the longest"),
        ({"piece_id": [0, -1, 1]}, "ids >= 0"),
        ({"piece_id": [0, 1]}, "of one length"),
        ({"row_splits": ([0, 4], [0, 0, 1, 3])}, "do not fit together"),
        ({"row_splits": ([0, 3, 3], [0, 0, 1, 3])}, "must increase"),
        ({"row_splits": ([1, 3], [0, 0, 1, 3])}, "begin with 0"),
        ({"is_cut": [True, True, True]}, "False wherever an arc spans"),
    ],
)
def test_what_is_no_lattice_is_refused(change: dict[str, Any], message: str) -> None:
    arrays = {"piece_id": [0, 1, 2], "length": [1, 1, 2], "row_splits": ([0, 3], [0, 0, 1, 3]), "is_cut": None}
    good = {
        name: value if value is None else tuple(map(np.array, value)) if name == "row_splits" else np.array(value)
        for name, value in (arrays | change).items()
    }
    with pytest.raises(ValueError, match=message):
        Lattice.from_ragged(RaggedLattice(**good))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(5), r"have the shape \[5\]"),
        (np.array([1.0, -1.0, 1.0]), "a weight is -1.0"),
        (np.array([1.0, np.nan, 1.0]), "a weight is nan"),
        (np.array([1.0, 1e-310, 1.0]), "not their logs"),
    ],
)
def test_what_are_no_weights_is_refused(weights: Any, message: str) -> None:
    lattice = Tokenizer.from_pieces(["a", "b", "ab"], device="cpu").lattice(["aab"])
    with pytest.raises(ValueError, match=message):
        lattice.log_partition(weights=weights)


def test_alpha_and_weights_exclude_each_other() -> None:
    lattice = Tokenizer.from_pieces(["a", "b", "ab"], device="cpu").lattice(["aab"])
    with pytest.raises(ValueError, match="both alpha"):
        lattice.log_partition(1.0, weights=np.ones(3))
    with pytest.raises(TypeError, match="dtype"):
        lattice.log_partition(weights=np.array(["a", "b", "c"]))
    with pytest.raises(ValueError, match="no scores"):
        Lattice.from_ragged(lattice.to_ragged()).log_partition()


def test_a_text_batch_and_its_slices_are_texts() -> None:
    tokenizer = Tokenizer.default(device="cpu")
    batch = TextBatch.from_texts(["first", "second text", "third"])
    lattice = tokenizer.lattice(batch.slice(1, 3))
    assert lattice.viterbi().tokens.tolist() == tokenizer.encode(["second text", "third"]).tolist()
