"""The CPU backend: the two operations of the bulk path on normalized text, over all threads."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import compress
from threading import get_ident
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from gpu_lattice.kernels.cpu.bulk.assemble import log_probs, place_around, place_runs, plan_rows
from gpu_lattice.kernels.cpu.bulk.cuts import enter_ids
from gpu_lattice.kernels.cpu.bulk.encode import encode_docs
from gpu_lattice.kernels.cpu.bulk.memo import Memo, forget, new_memo
from gpu_lattice.kernels.cpu.bulk.nodes import MOST_IDS
from gpu_lattice.kernels.cpu.bulk.parts import PART_BYTES, filled_documents, plan_parts
from gpu_lattice.kernels.cpu.bulk.sample import sample_parts
from gpu_lattice.kernels.cpu.lattice.build import CHUNK, CUT
from gpu_lattice.kernels.tables.automaton import Automaton, build_automaton
from gpu_lattice.kernels.tables.cuts import CutTable, build_cut_table
from gpu_lattice.kernels.tables.trie import Trie, build_trie
from gpu_lattice.runtime.cache import cached
from gpu_lattice.runtime.threads import byte_ranges, map_ranges
from gpu_lattice.text_batch import to_ragged
from gpu_lattice.weights import arc_weights, inverse_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from gpu_lattice.backends.cpu_launcher import CpuLauncher
    from gpu_lattice.models import Model
    from gpu_lattice.normalizers import NormalizedBatch


T = TypeVar("T")
K = TypeVar("K", bound=NamedTuple)


class NoPathError(ValueError):
    """No segmentation exists. position: the byte of the normalized batch before which the lattice is broken."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class Rows(NamedTuple):
    """ids int32, offsets int64 [rows + 1], log_prob float64 [rows] or None."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    log_prob: NDArray[np.float64] | None


class SampleModel(NamedTuple):
    """A vocabulary at one alpha, as kernels.cpu.sample reads it. N trie slots, V ids.

    by_words: no piece holds a "▁" but at its beginning
    spells: unknown arcs are always spelled in byte pieces. Then `scores` gives an unknown arc's score to the byte that
            begins a character, and 0 to those that go on, so that the pieces of a path still sum up to its score.
    """

    slots: NDArray[np.int32]
    piece_at: NDArray[np.int32]
    nodes: NDArray[np.int32]
    weights: NDArray[np.float64]
    unk_weight: float
    piece_weights: NDArray[np.float64]
    inverses: NDArray[np.float64]
    unk_inverse: float
    is_bytes: bool
    z_low: float
    z_high: float
    scores: NDArray[np.float64]
    unk_score: float
    spells: bool
    by_words: bool
    pairs: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    pages: NDArray[np.int32]
    characters: NDArray[np.int64]
    joined: NDArray[np.int32]
    unk_id: int
    byte_ids: NDArray[np.int32]
    look_up: bool
    lengths: NDArray[np.int32]
    states: NDArray[np.uint64]
    lists: NDArray[np.int32]
    lists_known: bool
    count_bits: np.uint64
    arc_weights: NDArray[np.float64]
    arc_words: NDArray[np.int64]


class BestModel(NamedTuple):
    """A vocabulary as kernels.cpu.encode reads it; best_at and piece_best have the dtype of the tool's sums.

    spells, by_words   as in SampleModel; `spells` for piece_best
    rounding, extreme   n sums of terms up to `extreme`, from a start up to B, err by at most half of
               n (B + n extreme) rounding
    """

    slots: NDArray[np.int32]
    piece_at: NDArray[np.int32]
    best_at: NDArray[Any]
    piece_best: NDArray[Any]
    best_unk: Any
    lowest: Any
    reset: float
    longest: int
    rounding: float
    extreme: float
    spells: bool
    is_bytes: bool
    by_words: bool
    pairs: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    pages: NDArray[np.int32]
    characters: NDArray[np.int64]
    joined: NDArray[np.int32]
    unk_id: int
    byte_ids: NDArray[np.int32]
    look_up: bool
    lengths: NDArray[np.int32]


class CpuBackend:
    """Numba kernels over one model. Threads share read-only tables; every range of work owns its output."""

    device = "cpu"
    memory_limit: int | None = None

    def __init__(self, model: Model, threads: int) -> None:
        vocabulary = model.vocabulary
        ids = np.flatnonzero(vocabulary.in_lattice)
        surfaces, offsets = to_ragged(list(compress(vocabulary.surfaces, vocabulary.in_lattice)))
        self.threads = threads
        self.vocabulary = vocabulary
        self.before = np.array(model.prefix_ids, np.int32)
        self.after = np.array(model.suffix_ids, np.int32)
        self._surfaces = surfaces, offsets, ids
        self._trie = _cached(Trie, build_trie, surfaces, offsets, ids)
        self.cuts = _cached(CutTable, build_cut_table, surfaces, offsets, vocabulary.symbols == "bytes")
        self._unk_id = -1 if vocabulary.unk_id is None else vocabulary.unk_id
        self._byte_ids = np.full(256, -1, np.int32) if vocabulary.byte_ids is None else vocabulary.byte_ids
        self._spells = bool(
            np.all(self._byte_ids >= 0)
            and vocabulary.unknown_runs == "merge"
            and not (self._unk_id >= 0 and vocabulary.in_lattice[self._unk_id])
        )
        self._by_words = vocabulary.symbols == "characters" and _begin_words(surfaces, offsets)
        self._characters = self.cuts.characters.copy()
        if vocabulary.symbols == "characters":
            # A segment that may be an unknown token is looked at more closely.
            found = np.where(ids == self._unk_id, -1, ids)
            enter_ids(surfaces, offsets, found, self.cuts.pages, self._characters)
        self._lengths = np.zeros(len(vocabulary), np.int32)
        self._lengths[ids] = np.diff(offsets)
        # An unknown arc has up to 4 bytes.
        self._longest = max(4, int(np.diff(offsets).max(initial=0)))
        self.best_model = self._build_best_model()
        # By the thread that used one last; what a dict is asked here is atomic.
        self._best_memos: dict[int, Memo] = {}
        self._sample_memos: dict[int, tuple[float, Memo]] = {}
        self.sample_model = lru_cache(maxsize=8)(self._build_sample_model)
        best = self.best_model
        self.trie_tables = (best.slots, best.piece_at, vocabulary.has_unknown_arcs, best.is_bytes)

    @cached_property
    def _automaton(self) -> Automaton:
        """What finds arcs for samples; it is built for the first of them."""
        vocabulary = self.vocabulary
        is_bytes = vocabulary.symbols == "bytes"
        return _cached(Automaton, build_automaton, *self._surfaces, is_bytes, vocabulary.has_unknown_arcs)

    @cached_property
    def _lists_known(self) -> bool:
        """Whether no arc that the automaton finds is unknown, or the unknown piece's."""
        pieces = self._automaton.pieces
        return bool(np.all((pieces >= 0) & (pieces != self._unk_id)))

    @cached_property
    def launcher(self) -> CpuLauncher:
        """What runs the kernels of lattices, which are loaded for the first of them."""
        from gpu_lattice.backends.cpu_launcher import CpuLauncher

        return CpuLauncher(self.threads)

    def ranges(self, offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
        """The documents that a call of `encode` or `sample` is to have: few, so that each thread has its own, and what
        was normalized is still in its cache.
        """
        return byte_ranges(offsets, self.threads) or [(0, 0)]

    def encode(self, batch: NormalizedBatch, is_null: NDArray[np.bool_]) -> Rows:
        """Best segmentation of every document; is_null bool [D] marks rows without any id."""
        chunk_offsets, chunk_ids = chunks_of(batch)

        def work(start: int, stop: int) -> Any:
            with self._best_memo() as memo:
                return encode_docs(
                    batch.values, chunk_offsets, chunk_ids, batch.offsets[start : stop + 1], self.best_model, memo
                )

        done = map_ranges(work, byte_ranges(batch.offsets), self.threads)
        raise_if_no_path([r[-1] for r in done])
        return self._rows(done, np.arange(len(batch)), is_null, 1)

    def sample(
        self,
        batch: NormalizedBatch,
        is_null: NDArray[np.bool_],
        alpha: float,
        num_samples: int,
        seed: int,
        doc_ids: NDArray[np.uint64],
        return_log_prob: bool,
    ) -> Rows:
        """num_samples perfect samples of every document; doc_ids uint64 [D], seed of 64 bits."""
        model = self.sample_model(alpha)
        chunk_offsets, chunk_ids = chunks_of(batch)
        part_offsets, part_doc = plan_parts(batch.values, batch.offsets, chunk_offsets, chunk_ids, model, PART_BYTES)

        def work(start: int, stop: int) -> Any:
            with self._sample_memo(alpha) as memo:
                return sample_parts(
                    batch.values, chunk_offsets, chunk_ids, part_offsets[start : stop + 1], part_doc[start:stop],
                    batch.offsets, doc_ids, np.uint64(seed), num_samples, model, memo, return_log_prob,
                )  # fmt: skip

        done = map_ranges(work, byte_ranges(part_offsets), self.threads)
        raise_if_no_path([r[-1] for r in done])
        rows = self._rows(done, part_doc, is_null, num_samples)
        if not return_log_prob:
            return rows
        scores = _joined([r[3] for r in done], (0, num_samples), np.float64)
        log_z = _joined([np.log(r[4]) + r[5] * np.log(2.0) for r in done], (0,), np.float64)
        return rows._replace(log_prob=log_probs(scores, log_z, part_doc, len(batch), alpha))

    def mark_cuts(
        self, values: NDArray[np.uint8], chunk_offsets: NDArray[np.int64], chunk_ids: NDArray[np.int32]
    ) -> NDArray[np.uint8]:
        """uint8 [n + 1]: the marks of every position of a batch (kernels.cpu.lattice.build)."""
        marks = np.zeros(len(values) + 1, np.uint8)
        marks[-1] = CHUNK | CUT
        best = self.best_model
        self.launcher.run(
            "mark_cuts", len(chunk_ids), values, chunk_offsets, chunk_ids, best.pairs, best.keys, best.pages,
            best.characters, best.joined, best.is_bytes, marks,
        )  # fmt: skip
        return marks

    def forget(self) -> None:
        """Drop what is remembered of earlier texts; it only ever saves time."""
        self._best_memos.clear()
        self._sample_memos.clear()

    @contextmanager
    def _best_memo(self) -> Iterator[Memo]:
        """A memo of best paths that nobody else uses meanwhile."""
        memo = _taken(self._best_memos) or new_memo()
        try:
            yield memo
        finally:
            self._best_memos[get_ident()] = memo

    @contextmanager
    def _sample_memo(self, alpha: float) -> Iterator[Memo]:
        """A memo of arcs and sums at this alpha that nobody else uses meanwhile."""
        made_for, memo = _taken(self._sample_memos) or (alpha, new_memo(len(self.vocabulary)))
        if made_for != alpha:
            forget(memo)
        try:
            yield memo
        finally:
            self._sample_memos[get_ident()] = alpha, memo

    def _rows(
        self,
        done: Sequence[Any],
        part_doc: NDArray[np.int64],
        is_null: NDArray[np.bool_],
        num_samples: int,
    ) -> Rows:
        """Put the runs of all ranges of work into rows, with the ids that belong around them.

        done: of each range, (ids, run_starts, run_lengths, ...).
        """
        n_around = len(self.before) + len(self.after)
        lengths = _joined([r[2] for r in done], (0, num_samples), np.int64)
        offsets, starts = plan_rows(lengths, part_doc, len(is_null), n_around, is_null)
        if len(done) == 1 and np.array_equal(starts, done[0][1]) and not n_around:
            return Rows(done[0][0], offsets, None)
        out = np.empty(int(offsets[-1]), np.int32)
        bounds = np.concatenate([[0], np.cumsum([len(r[2]) for r in done])]).astype(np.int64)

        def work(start: int, stop: int) -> None:
            for i in range(start, stop):
                ids, run_starts, run_lengths = done[i][:3]
                place_runs(ids, run_starts, run_lengths, starts[bounds[i] : bounds[i + 1]], len(self.before), out)

        map_ranges(work, [(i, i + 1) for i in range(len(done))], self.threads)
        if n_around:
            place_around(offsets, self.before, self.after, out)
        return Rows(out, offsets, None)

    def _build_sample_model(self, alpha: float) -> SampleModel:
        vocabulary, trie, automaton = self.vocabulary, self._trie, self._automaton
        if len(vocabulary) > MOST_IDS:
            raise ValueError(f"a vocabulary of {len(vocabulary):,} ids: samples on the CPU take at most {MOST_IDS:,}")
        weights = arc_weights(vocabulary, alpha)
        used = weights[weights > 0]
        # A step through the trie reads base, check and weight: 16 bytes of one cache line.
        nodes = np.zeros(4 * len(trie.piece), np.int32)
        nodes[0::4], nodes[1::4] = trie.slots[0::2], trie.slots[1::2]
        weight_of_node = nodes.view(np.float64)
        weight_of_node[1::2] = np.where(trie.piece >= 0, weights[trie.piece], 0.0)
        inverses = inverse_of(weights)
        # An arc is its weight and a word of length and piece, side by side.
        by_arc = np.empty(2 * len(automaton.pieces))
        by_arc[0::2] = weights[automaton.pieces]
        by_arc.view(np.int64)[1::2] = automaton.lengths.astype(np.int64) << 32 | automaton.pieces.view(np.uint32)
        least, most = min(1.0, used.min(initial=1.0)), max(1.0, used.max(initial=1.0))
        return SampleModel(
            slots=trie.slots,
            piece_at=trie.piece,
            nodes=nodes,
            weights=weight_of_node,
            unk_weight=float(weights[-1]),
            piece_weights=weights[:-1],
            inverses=inverses[:-1],
            unk_inverse=float(inverses[-1]),
            is_bytes=vocabulary.symbols == "bytes",
            # Within these bounds no product with a weight leaves the normal range, nor does a target: what is above 0
            # of it at e is at least 2**-53 of the first arc into some later position, so 2**-653 of Z there and at e.
            z_low=2.0**-300 / least,
            z_high=2.0**300 / most,
            scores=self._with_bytes(vocabulary.scores, vocabulary.unk_score),
            unk_score=float(vocabulary.unk_score),
            spells=self._spells,
            by_words=self._by_words,
            pairs=self.cuts.cpu_pairs,
            keys=self.cuts.cpu_keys,
            pages=self.cuts.pages,
            characters=self._characters,
            joined=self.cuts.joined,
            unk_id=self._unk_id,
            byte_ids=self._byte_ids,
            look_up=vocabulary.unknown_runs == "lookup",
            lengths=self._lengths,
            states=automaton.states,
            lists=automaton.lists,
            lists_known=self._lists_known,
            count_bits=automaton.count_bits,
            arc_weights=by_arc,
            arc_words=by_arc.view(np.int64),
        )

    def _with_bytes(self, scores: NDArray[Any], unk_score: float) -> NDArray[Any]:
        """Scores by id in which those of byte pieces sum up to the unknown arc's that they spell."""
        if self._spells:
            goes_on = (np.arange(256) & 0xC0 == 0x80) & (self.vocabulary.symbols == "characters")
            scores = scores.copy()
            scores[self._byte_ids] = np.where(goes_on, 0.0, unk_score)
        return scores

    def _build_best_model(self) -> BestModel:
        vocabulary, trie = self.vocabulary, self._trie
        dtype = vocabulary.best_scores.dtype.type
        lowest = dtype(-np.inf)
        used = vocabulary.best_scores[vocabulary.in_lattice].astype(np.float64)
        if vocabulary.has_unknown_arcs:
            used = np.append(used, vocabulary.best_unk_score)
        return BestModel(
            slots=trie.slots,
            piece_at=trie.piece,
            best_at=np.where(trie.piece >= 0, vocabulary.best_scores[trie.piece], dtype(0)),
            piece_best=self._with_bytes(vocabulary.best_scores, vocabulary.best_unk_score),
            best_unk=dtype(vocabulary.best_unk_score) if vocabulary.has_unknown_arcs else lowest,
            lowest=lowest,
            reset=1e5 if dtype is np.float32 else np.inf,
            longest=self._longest,
            # The unit in the last place, and a little for the leads, which are float64 sums themselves.
            rounding=float(np.finfo(dtype).eps) * 1.01 + 2.0**-49,
            extreme=float(np.abs(used).max(initial=0.0)),
            spells=self._spells,
            is_bytes=vocabulary.symbols == "bytes",
            by_words=self._by_words,
            pairs=self.cuts.cpu_pairs,
            keys=self.cuts.cpu_keys,
            pages=self.cuts.pages,
            characters=self._characters,
            joined=self.cuts.joined,
            unk_id=self._unk_id,
            byte_ids=self._byte_ids,
            look_up=vocabulary.unknown_runs == "lookup",
            lengths=self._lengths,
        )


def _joined(arrays: list[NDArray[Any]], shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
    """The arrays one after another; of this shape and type where there are none."""
    return arrays[0] if len(arrays) == 1 else np.concatenate([np.empty(shape, dtype), *arrays])


def _cached(kind: type[K], build: Callable[..., K], *inputs: Any) -> K:
    """build(*inputs), kept on disk if large."""
    return cached(kind, inputs, lambda: build(*inputs))


def _begin_words(values: NDArray[np.uint8], offsets: NDArray[np.int64]) -> bool:
    """Whether "▁" is nowhere but at the beginning of the strings values[offsets[i]:offsets[i + 1]]."""
    first, second, third = "▁".encode()
    found = np.flatnonzero((values[:-2] == first) & (values[1:-1] == second) & (values[2:] == third))
    return bool(np.all(offsets[np.searchsorted(offsets, found)] == found))


def _taken(memos: dict[int, T]) -> T | None:
    """The memo that this thread used last, for it is in the cache of its processor, or else any."""
    memo = memos.pop(get_ident(), None)
    if memo is not None:
        return memo
    try:
        return memos.popitem()[1]
    except KeyError:
        return None


def chunks_of(batch: NormalizedBatch) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Chunk offsets and ids, for a batch without chunks one chunk per document that is not empty."""
    chunk_offsets = batch.chunk_offsets
    if chunk_offsets is None:
        chunk_offsets = filled_documents(batch.offsets)
    chunk_ids = batch.chunk_ids
    if chunk_ids is None:
        chunk_ids = np.full(len(chunk_offsets) - 1, -1, np.int32)
    return chunk_offsets, chunk_ids


def raise_if_no_path(positions: Sequence[int]) -> None:
    bad = [int(position) for position in positions if position >= 0]
    if bad:
        raise NoPathError(min(bad))
