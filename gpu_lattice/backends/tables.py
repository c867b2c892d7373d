"""The tables that kernels read on either backend: made once, cached on disk if that takes long (runtime/cache.py)."""

from __future__ import annotations

from copy import copy
from functools import cache, cached_property, lru_cache, partial
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.kernels.cpu.bulk.cuts import enter_ids
from gpu_lattice.kernels.cpu.bulk.group import Arcs, Batch, BestModel, Pieces, SampleModel
from gpu_lattice.kernels.cpu.bulk.words import (
    BY_CHUNK,
    BY_CUT,
    BY_MARK,
    BY_MARK_BEHIND,
    Words,
    find_unspellable,
    find_words,
)
from gpu_lattice.kernels.tables.automaton import Automaton, build_automaton
from gpu_lattice.kernels.tables.cuts import CutTable, build_cut_table
from gpu_lattice.kernels.tables.trie import Trie, build_trie
from gpu_lattice.runtime.cache import cached
from gpu_lattice.text_batch import to_ragged
from gpu_lattice.weights import LARGEST_WEIGHT, SMALLEST_WEIGHT, arc_weights, inverse_of, log_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from gpu_lattice.kernels.cpu.bulk.encode_merges import MergeModel
    from gpu_lattice.models import Merges, Model
    from gpu_lattice.vocabulary import Vocabulary

K = TypeVar("K", bound=NamedTuple)


class OddPieces(NamedTuple):
    """The trie (kernels/tables/trie.py) of pieces that merges do not make of their text, and whether there are any."""

    slots: NDArray[np.int32]
    piece_at: NDArray[np.int32]
    any: np.bool_


# Bytes of the longest character.
MOST_SYMBOL_BYTES = 4
MARK = "▁".encode()


class Tables:
    """A model's tables. Those that depend on alpha and token penalty are kept for the last few.

    before, after  int32, the ids put around every row
    cuts           the cut table
    pieces, best   what samples and best paths both read of the vocabulary, and what only best paths read
    """

    def __init__(self, model: Model) -> None:
        vocabulary = model.vocabulary
        ids = np.flatnonzero(vocabulary.in_lattice)
        surfaces, offsets = to_ragged(list(compress(vocabulary.surfaces, vocabulary.in_lattice)))
        self.vocabulary = vocabulary
        self._in_full, self._merges = model.in_full if model.in_full is not model else None, model.merges
        self.before = np.array(model.prefix_ids, np.int32)
        self.after = np.array(model.suffix_ids, np.int32)
        self.cuts = _cached(CutTable, build_cut_table, surfaces, offsets, vocabulary.symbols == "bytes")
        self._surfaces = surfaces, offsets, ids
        self.pieces = self._build_pieces()
        # Finds the arcs on the CPU; built when they are first asked for.
        self._automaton = cache(
            partial(
                _cached, Automaton, build_automaton, *self._surfaces, self.pieces.is_bytes, vocabulary.has_unknown_arcs
            )
        )
        # Words are those of the model as it was read, but for unknown text, which no word ends in.
        self._word_pieces = self.pieces
        self._division = self._choose_division(model)
        self.best = self._build_best_model()
        self.sample_model = lru_cache(maxsize=8)(self._build_sample_model)

    def rescored(self, model: Model) -> Tables:
        """The tables of the same model with other scores; what does not depend on them is shared."""
        mine, its = self.vocabulary, model.vocabulary
        if not np.array_equal(mine.in_lattice, its.in_lattice) or mine.has_unknown_arcs != its.has_unknown_arcs:
            other = Tables(model)
            pieces = other.pieces
            other._word_pieces = self.pieces._replace(slots=pieces.slots, piece_at=pieces.piece_at)
            other._division = self._division
            # Merges make what was taken out, and it may span what are cuts now.
            other.__dict__["merges"] = self.merges
            return other
        other = copy(self)
        other.__dict__.pop("best_arcs", None)
        other.vocabulary = model.vocabulary
        other.best = other._build_best_model()
        other.sample_model = lru_cache(maxsize=8)(other._build_sample_model)
        return other

    @cached_property
    def merges(self) -> MergeModel | None:
        """What best segmentations are made by in a BPE vocabulary; None in any other."""
        merges, pieces = self._merges, self.pieces
        if self._in_full is not None:
            return Tables(self._in_full).merges
        if merges is None:
            return None
        from gpu_lattice.kernels.cpu.bulk.encode_merges import FEW, MOST_RANKS, MergeModel
        from gpu_lattice.kernels.tables.merges import MergeTable, build_merge_table

        inputs = merges.pairs, merges.symbols, merges.symbol_ids, pieces.is_bytes, merges.unk_id
        table = _cached(MergeTable, build_merge_table, *inputs)
        nothing = build_trie(np.empty(0, np.uint8), np.zeros(1, np.int64), np.empty(0, np.int64))
        model = MergeModel(
            pieces=pieces,
            table=table,
            few=FEW if merges.pairs[:, 2].max(initial=0) < MOST_RANKS else 0,
            odd_slots=nothing.slots,
            odd_at=nothing.piece,
            byte_ids=merges.byte_ids,
            unk_id=merges.unk_id,
            fuse_unk=merges.fuse_unk,
            whole_pieces=merges.whole_pieces,
            # A hidden piece may span a cut.
            by_cuts=not pieces.is_bytes
            and bool(np.all(merges.byte_ids >= 0))
            and not merges.hidden
            and not _cross_cuts(merges, self.vocabulary),
        )
        return self._with_odd_pieces(model, inputs) if model.whole_pieces else model

    def _with_odd_pieces(self, model: MergeModel, inputs: tuple[Any, ...]) -> MergeModel:
        """The model with the pieces that are found by their whole text alone, since merges do not make them."""
        from gpu_lattice.kernels.cpu.bulk.encode_merges import unmade

        assert self._merges is not None
        hidden, hidden_ids = [text for text, _ in self._merges.hidden], [i for _, i in self._merges.hidden]
        surfaces, offsets, ids = self._surfaces

        def find() -> OddPieces:
            is_odd = unmade(surfaces, offsets, ids, model)
            texts = [surfaces[offsets[i] : offsets[i + 1]].tobytes() for i in np.flatnonzero(is_odd)]
            odd = build_trie(*to_ragged(texts + hidden), np.append(ids[is_odd], np.array(hidden_ids, ids.dtype)))
            return OddPieces(odd.slots, odd.piece, np.bool_(bool(texts or hidden)))

        odd = cached(OddPieces, [surfaces, offsets, ids, *inputs, model.byte_ids, *hidden, np.array(hidden_ids)], find)
        return model._replace(odd_slots=odd.slots, odd_at=odd.piece_at, whole_pieces=bool(odd.any))

    @cached_property
    def made(self) -> NDArray[np.bool_]:
        """bool [V]: which pieces merges make of their text, where there are merges."""
        from gpu_lattice.kernels.cpu.bulk.encode_merges import unmade

        surfaces, offsets, ids = self._surfaces
        made = np.zeros(len(self.vocabulary), np.bool_)
        made[ids] = ~unmade(surfaces, offsets, ids, self.merges)
        return made

    @cached_property
    def _lists_known(self) -> bool:
        """Whether no arc found by the automaton is unknown or the unknown piece."""
        found = self._automaton().pieces
        return bool(np.all((found >= 0) & (found != self.pieces.unk_id)))

    def find_words(self, batch: Batch) -> Words:
        """The words of a batch."""
        return Words(*find_words(batch, self._word_pieces, self._division))

    def find_unspellable(self, batch: Batch, words: Words) -> NDArray[np.bool_]:
        """bool [W]: which words no path spells."""
        pieces, (offsets, _, chunk_ids) = self.pieces, words
        has_unknown = self.vocabulary.has_unknown_arcs
        return find_unspellable(  # type: ignore[no-any-return]
            batch.values, offsets, chunk_ids, pieces.slots, pieces.piece_at, has_unknown, pieces.is_bytes
        )

    def _choose_division(self, model: Model) -> int:
        """Where words end within a chunk: where the mark says it if there is one, else where pre-tokens end, else at
        every cut. Where a chunk that is a piece is not divided by merges, neither is it here, nor where merges cross
        cuts.
        """
        merges = model.merges
        if merges is not None and (merges.whole_pieces or _cross_cuts(merges, model.vocabulary)):
            return BY_CHUNK
        marked = [s for s in compress(model.vocabulary.surfaces, model.vocabulary.in_lattice) if MARK in s]
        if model.vocabulary.symbols == "bytes" or not marked:
            return BY_CHUNK if model.pre_tokenized else BY_CUT
        n_behind = sum(s.endswith(MARK) and s != MARK for s in marked)
        return BY_MARK_BEHIND if 2 * n_behind > len(marked) else BY_MARK

    def _build_pieces(self) -> Pieces:
        vocabulary, (surfaces, offsets, ids) = self.vocabulary, self._surfaces
        trie = _cached(Trie, build_trie, surfaces, offsets, ids)
        unk_id = -1 if vocabulary.unk_id is None else vocabulary.unk_id
        byte_ids = np.full(256, -1, np.int32) if vocabulary.byte_ids is None else vocabulary.byte_ids
        is_bytes = vocabulary.symbols == "bytes"
        characters = self.cuts.characters.copy()
        if not is_bytes:
            # A segment that may be an unknown token needs a closer look.
            enter_ids(surfaces, offsets, np.where(ids == unk_id, -1, ids), self.cuts.pages, characters)
        lengths = np.zeros(len(vocabulary), np.int32)
        lengths[ids] = np.diff(offsets)
        return Pieces(
            slots=trie.slots,
            piece_at=trie.piece,
            lengths=lengths,
            longest=max(MOST_SYMBOL_BYTES, int(lengths.max(initial=0))),
            unk_id=unk_id,
            byte_ids=byte_ids,
            look_up=vocabulary.unknown_runs == "lookup",
            apart=vocabulary.unknown_runs == "apart",
            # The byte pieces then get scores of their own (_with_bytes), so none may be an arc of other text.
            spells=bool(
                np.all(byte_ids >= 0)
                and all(
                    vocabulary.surfaces[i] == bytes([b]) for b, i in enumerate(byte_ids) if vocabulary.in_lattice[i]
                )
                and vocabulary.unknown_runs == "merge"
                and not (unk_id >= 0 and vocabulary.in_lattice[unk_id])
            ),
            is_bytes=is_bytes,
            by_words=not is_bytes and _begin_words(surfaces, offsets),
            pairs=self.cuts.cpu_pairs,
            keys=self.cuts.cpu_keys,
            pages=self.cuts.pages,
            characters=characters,
            joined=self.cuts.joined,
        )

    def _build_sample_model(self, alpha: float, token_penalty: float = 0.0) -> SampleModel:
        tilt = self.vocabulary, alpha, token_penalty
        weights, logs = arc_weights(*tilt), log_weights(*tilt)
        lengths = self.pieces.lengths
        power = _power_per_byte(weights, lengths)
        scaled = np.ldexp(weights[:-1], power * lengths)
        unk_weights = np.ldexp(weights[-1], power * np.arange(MOST_SYMBOL_BYTES + 1))
        return SampleModel(
            pieces=self.pieces,
            arcs=self._arcs_with(scaled, unk_weights),
            weights=scaled,
            unk_weights=unk_weights,
            inverses=inverse_of(scaled),
            unk_inverses=inverse_of(unk_weights),
            power=power,
            log_weights=self._with_bytes(logs[:-1], logs[-1]),
            unk_log_weight=float(logs[-1]),
            lists_known=self._lists_known,
        )

    @cached_property
    def best_arcs(self) -> Arcs:
        """The arcs with their scores, for best paths."""
        scores = self.vocabulary.best_scores.astype(np.float64)
        return self._arcs_with(scores, np.full(MOST_SYMBOL_BYTES + 1, self.best.unk_score, np.float64))

    def _arcs_with(self, values: NDArray[np.float64], unk_values: NDArray[np.float64]) -> Arcs:
        """The automaton's arcs with the values of pieces, and of unknown arcs by their bytes."""
        automaton = self._automaton()
        by_arc = np.empty(2 * len(automaton.pieces))
        words = by_arc.view(np.int64)
        is_unknown = automaton.pieces == UNKNOWN
        by_arc[0::2] = values[automaton.pieces]
        by_arc[0::2][is_unknown] = unk_values[automaton.lengths[is_unknown]]
        words[1::2] = automaton.lengths.astype(np.int64) << 32 | automaton.pieces.view(np.uint32)
        return Arcs(automaton.states, automaton.lists, automaton.count_bits, by_arc, words)

    def _build_best_model(self) -> BestModel:
        vocabulary = self.vocabulary
        dtype = vocabulary.best_scores.dtype.type
        lowest = dtype(-np.inf)
        used = vocabulary.best_scores[vocabulary.in_lattice].astype(np.float64)
        if vocabulary.has_unknown_arcs:
            used = np.append(used, vocabulary.best_unk_score)
        return BestModel(
            pieces=self.pieces,
            scores=self._with_bytes(vocabulary.best_scores, vocabulary.best_unk_score),
            unk_score=dtype(vocabulary.best_unk_score) if vocabulary.has_unknown_arcs else lowest,
            lowest=lowest,
            reset=1e5 if dtype is np.float32 else np.inf,
            # The unit in the last place, and a margin for the leads, which are float64 sums themselves.
            rounding=float(np.finfo(dtype).eps) * 1.01 + 2.0**-49,
            extreme=float(np.abs(used).max(initial=0.0)),
        )

    def _with_bytes(self, scores: NDArray[Any], unk_score: float) -> NDArray[Any]:
        """Scores by id in which those of byte pieces sum to that of the unknown arc that they spell."""
        if self.pieces.spells:
            goes_on = (np.arange(256) & 0xC0 == 0x80) & (not self.pieces.is_bytes)
            byte_ids = self.pieces.byte_ids
            is_spelled = ~self.vocabulary.in_lattice[byte_ids]
            scores = scores.copy()
            scores[byte_ids[is_spelled]] = np.where(goes_on, 0.0, unk_score)[is_spelled]
        return scores


def _cached(kind: type[K], build: Callable[..., K], *inputs: Any) -> K:
    """build(*inputs), kept on disk if large."""
    return cached(kind, inputs, lambda: build(*inputs))


def _cross_cuts(merges: Merges, vocabulary: Vocabulary) -> bool:
    """Whether merges make what may span a cut: what is no arc, as where characters are kept whole, or text other than
    its own, of unknown symbols and bytes.
    """
    odd = np.append(merges.byte_ids[merges.byte_ids >= 0], merges.unk_id)
    is_odd = np.isin(merges.pairs[:, :2], odd).any() or not vocabulary.in_lattice[merges.pairs[:, 3]].all()
    return bool(is_odd) or merges.vocabulary is not None


def _power_per_byte(weights: NDArray[np.float64], lengths: NDArray[np.int32]) -> int:
    """The power of two by which weights fall with each byte, over all pieces, or what is next to it and keeps all
    weights times it within SMALLEST_WEIGHT and LARGEST_WEIGHT.

    weights: as `arc_weights` gives them; lengths int32 [V].
    """
    used = (weights[:-1] > 0) & (lengths > 0)
    logs, n_bytes = np.log2(weights[:-1][used]), lengths[used]
    if weights[-1] > 0:
        logs = np.append(logs, np.full(MOST_SYMBOL_BYTES, np.log2(weights[-1])))
        n_bytes = np.append(n_bytes, np.arange(1, MOST_SYMBOL_BYTES + 1))
    if not len(logs):
        return 0
    least = np.max((np.log2(SMALLEST_WEIGHT) - logs) / n_bytes)
    most = np.min((np.log2(LARGEST_WEIGHT) - logs) / n_bytes)
    return int(np.clip(-logs.sum() / n_bytes.sum(), np.ceil(least), np.floor(most)))


def _begin_words(values: NDArray[np.uint8], offsets: NDArray[np.int64]) -> bool:
    """Whether "▁" occurs only at the start of the strings values[offsets[i]:offsets[i + 1]]."""
    first, second, third = "▁".encode()
    found = np.flatnonzero((values[:-2] == first) & (values[1:-1] == second) & (values[2:] == third))
    return bool(np.all(offsets[np.searchsorted(offsets, found)] == found))
