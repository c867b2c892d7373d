"""The Lattice: its tensors, and every operation as a method; each family of operations has a file of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from gpu_lattice.backends import Distinct, LatticeArrays, Positions, Ranges
from gpu_lattice.kernels.arcs import TOKEN_ARC, UNKNOWN
from gpu_lattice.kernels.cpu.lattice.build import CUT
from gpu_lattice.kernels.fixed import fixed_exp
from gpu_lattice.lattice import nbest, paths, score, sums, tokens, viterbi_sample, without_replacement
from gpu_lattice.lattice.arrays import (
    NO_ID,
    Reading,
    copied,
    each_by_itself,
    places,
    public_ids,
    reading_of,
    segments,
    take,
    take_distinct,
    take_positions,
)
from gpu_lattice.lattice.continuations import Continuations, continuations
from gpu_lattice.lattice.inputs import ArcWeights, arrays_from_ragged, checked_weights
from gpu_lattice.lattice.path_batch import PathBatch
from gpu_lattice.runtime import display
from gpu_lattice.runtime.arguments import checked_alpha, checked_flag, checked_integer, checked_penalty
from gpu_lattice.runtime.on_host import on_host
from gpu_lattice.runtime.ragged import padded, rows_to_values
from gpu_lattice.token_batch import TokenBatch
from gpu_lattice.weights import arc_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.backends import Backend, Launcher
    from gpu_lattice.models import Model
    from gpu_lattice.normalizers import NormalizedBatch
    from gpu_lattice.vocabulary import Vocabulary

PADDING = -1
# The default alpha of samples, as in Tokenizer.sample; that of sums is 1.
DRAW_ALPHA = 0.1

_weight_tables: WeakKeyDictionary[Vocabulary, tuple[tuple[float, float], NDArray[np.float64]]] = WeakKeyDictionary()

P = ParamSpec("P")
R = TypeVar("R")


class RaggedLattice(NamedTuple):
    """A lattice as ragged arrays with the axes [document][position][arc], as in k2.

    piece_id, length  int32 [A], the arcs into each position, shortest first
    row_splits        int64 [B + 1] into positions (n + 1 for a document of n bytes), int64 [P + 1] into arcs
    is_cut            bool [P], True at the ends of the segments that are sampled on their own; no arc spans them
    """

    piece_id: Any
    length: Any
    row_splits: tuple[Any, Any]
    is_cut: Any = None


def _on_device(method: Callable[Concatenate[Lattice, P], R]) -> Callable[Concatenate[Lattice, P], R]:
    """The method, run with the lattice's device as the current one."""

    @wraps(method)
    def run(self: Lattice, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._launcher:
            return method(self, *args, **kwargs)

    return run


class Lattice:
    """The lattices of B texts: positions 0 to n of each, and the arcs into every position, shortest first.

    Make one with `Tokenizer.lattice` or `Lattice.from_ragged`. Arrays are on the tokenizer's device (numpy or cupy) and
    support DLPack. L is the length of the longest text in bytes, K the most arcs into one position, V the number of
    ids, A the number of arcs. Arrays of the arcs, ragged or padded, are made when something asks for them.

    alpha, token_penalty: an arc has weight exp(alpha * score - token_penalty), so a path of n arcs has
    exp(alpha * its score - n * token_penalty); arcs are pieces, added tokens, and unknown symbols, whatever becomes of
    these. alpha 1 is the unigram model's own distribution, 0 is uniform over paths; above 0, token_penalty prefers
    fewer tokens.
    weights, in place of both: numbers >= 0 for each id ([V]), for each arc in the shape of the tensors
    ([B, L + 1, K]), or for each arc of `to_ragged` ([A, 1]); 0 removes an arc, others lie in 2^-1000 to 2^1000.
    Operations that need scores take the logs of the weights.

    Sums over no paths are 0 (or -inf); operations that need a path of every text raise ValueError if one has none.

    Example:
        >>> from gpu_lattice import Tokenizer
        >>> lat = Tokenizer.from_pieces({"a": -1.0, "b": -2.0, "ab": -2.5}).lattice(["ab"])
        >>> lat.piece_id.tolist(), lat.length.tolist()
        ([[[-1, -1], [0, -1], [1, 2]]], [[[0, 0], [1, 0], [1, 2]]])
        >>> lat.num_paths()
        [2]
    """

    def __init__(
        self,
        launcher: Launcher,
        found: LatticeArrays | tuple[Positions, Distinct],
        reading: Reading,
        vocabulary: Vocabulary | None,
        n_ids: int,
        valid: NDArray[np.bool_] | None = None,
        memory_limit: int | None = None,
    ) -> None:
        """For internal use. vocabulary: None if there are no scores; operations are then given weights."""
        self._launcher = launcher
        self._xp = launcher.xp
        self._found = found
        self._positions = found.positions if isinstance(found, LatticeArrays) else found[0]
        self._reading = reading
        self._vocabulary = vocabulary
        self._n_ids = n_ids
        self._valid = valid
        self._memory_limit = memory_limit
        self._pictured: tuple[Any, bytes] | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        backend: Backend,
        batch: NormalizedBatch,
        valid: NDArray[np.bool_] | None,
        memory_limit: int | None,
    ) -> Lattice:
        """The lattices of normalized texts; users call `Tokenizer.lattice`."""
        launcher = backend.launcher
        low, high = int(batch.offsets[0]), int(batch.offsets[-1])
        chunk_offsets, chunk_ids = batch.chunks

        def fits(size: int) -> None:
            check_fits(launcher, memory_limit, size, f"the lattice of {len(batch)} texts of {high - low} bytes")

        with launcher:
            found = backend.find_arcs(batch.values[low:high], batch.offsets - low, chunk_offsets - low, chunk_ids, fits)
            reading = reading_of(backend, model)
        return cls(launcher, found, reading, model.vocabulary, len(model.vocabulary), valid, memory_limit)

    @classmethod
    def from_ragged(
        cls, ragged: RaggedLattice, *, vocab_size: int | None = None, memory_limit: int | None = None
    ) -> Lattice:
        """A lattice of any arcs, on the device of the arrays (numpy, cupy, torch, anything that supports DLPack).

        It has no scores: give operations weights=. vocab_size: V, the greatest id + 1 by default. is_cut None: the
        positions that no arc spans. Raises ValueError if an arc begins before its text or arcs are out of order.

        Example:
            >>> import numpy as np
            >>> arcs = np.array([0, 1, 2], np.int32), np.array([1, 1, 2], np.int32)
            >>> lat = Lattice.from_ragged(RaggedLattice(*arcs, (np.array([0, 3]), np.array([0, 0, 1, 3]))))
            >>> lat.log_partition(weights=np.array([1.0, 0.5, 0.5])).tolist()
            [0.0]
        """
        launcher, arrays = arrays_from_ragged(ragged.piece_id, ragged.length, ragged.row_splits, ragged.is_cut)
        most = int(arrays.arcs.max()) + 1 if len(arrays.arcs) else 0
        n_ids = most if vocab_size is None else checked_integer("vocab_size", vocab_size, 0, 2**31 - 1)
        if most > n_ids:
            raise ValueError(f"vocab_size is {vocab_size}, but the arcs have ids up to {most - 1}")
        return cls(launcher, arrays, _plain_reading(launcher), None, n_ids, None, memory_limit)

    @_on_device
    def to_ragged(self) -> RaggedLattice:
        """The arcs as ragged arrays; `from_ragged` takes them back, without scores and texts."""
        arrays = self._arrays
        is_cut = (arrays.marks & CUT).astype(bool)
        return RaggedLattice(self._public_ids, arrays.lengths, (arrays.doc_positions, arrays.arc_offsets), is_cut)

    def __len__(self) -> int:
        return len(self._positions.doc_positions) - 1

    def __repr__(self) -> str:
        n_docs, n_positions, n_arcs = self.shape
        return (
            f"Lattice(shape=[{n_docs}, {n_positions}, {n_arcs}], {len(self._arrays.arcs)} arcs, "
            f"{_megabytes(self.nbytes)}, tensors {_megabytes(self.padded_nbytes)}, device={self.device!r})"
        )

    def _repr_html_(self) -> str | None:
        """The picture for a notebook, of a single text as `Tokenizer.lattice` was given it."""
        return None if self._pictured is None else display.lattice_html(*self._pictured)

    def pictured(self, tokenizer: Any, texts: Sequence[bytes | None]) -> Lattice:
        """The lattice itself, which notebooks show as a picture if it is of a single text; for internal use."""
        if len(texts) == 1 and texts[0] is not None:
            self._pictured = tokenizer, texts[0]
        return self

    @property
    def device(self) -> str:
        """Where the arrays are: "cpu", or "cuda:0" and so on."""
        return self._launcher.device

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """(B, L + 1, K), the shape of the padded tensors."""
        with self._launcher:
            arc_offsets = self._distinct.arrays.arc_offsets
            longest = int(self._xp.diff(self._positions.doc_positions).max()) if len(self) else 0
            return len(self), longest, int(self._xp.diff(arc_offsets).max()) if longest else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the ragged arrays."""
        return self._arrays.nbytes

    @property
    def padded_nbytes(self) -> int:
        """Bytes of piece_id, length and num_arcs together."""
        n_docs, n_positions, n_arcs = self.shape
        return 4 * n_docs * n_positions * (2 * n_arcs + 1)

    @cached_property
    def num_bytes(self) -> Any:
        """int64 [B], the normalized bytes of each text."""
        with self._launcher:
            return self._xp.diff(self._positions.doc_positions) - 1

    @cached_property
    def num_arcs(self) -> Any:
        """int32 [B, L + 1], arcs into each position."""
        with self._launcher:
            counts = self._xp.diff(self._arrays.arc_offsets).astype(self._xp.int32)
            return self._by_position(counts, 0)

    @cached_property
    def piece_id(self) -> Any:
        """int32 [B, L + 1, K], the arcs into position e, shortest first; -1 is padding.

        An unknown arc has the unknown id, or -2 if the model has none.
        """
        with self._launcher:
            return self._by_arc(self._public_ids, PADDING)

    @cached_property
    def length(self) -> Any:
        """int32 [B, L + 1, K], bytes of each arc, which begins at e - length; 0 is padding."""
        with self._launcher:
            return self._by_arc(self._arrays.lengths, 0)

    @_on_device
    def take(self, i_docs: Any) -> Lattice:
        """The lattice of some texts, in the order given: int64 [any number] of 0 to B - 1."""
        rows = self._xp.asarray(i_docs).reshape(-1)
        if len(rows) and rows.dtype.kind not in "iu":
            raise TypeError(f"i_docs is of dtype {rows.dtype}; give integers")
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise IndexError(f"documents {int(rows.min())} to {int(rows.max())} of a lattice of {len(self)} texts")
        rows = rows.astype(self._xp.int64)
        valid = None if self._valid is None else self._valid[on_host(rows)]
        found: LatticeArrays | tuple[Positions, Distinct]
        if isinstance(self._found, LatticeArrays):
            found = take(self._xp, self._found, rows)
        else:
            of_range = self._distinct.of_range[rows_to_values(self._xp, self._segments.offsets, rows)[0]]
            distinct = take_distinct(self._launcher, self._distinct, of_range)
            found = take_positions(self._xp, self._positions, rows), distinct
        return Lattice(self._launcher, found, self._reading, self._vocabulary, self._n_ids, valid, self._memory_limit)

    @_on_device
    def buckets(self) -> list[tuple[NDArray[np.int64], Lattice]]:
        """The texts grouped by length, so that less than half of the positions in the tensors of a group are padding.

        Returns (the texts' indices, their lattice) from the shortest to the longest.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> lat = Tokenizer.from_pieces(["a"]).lattice(["a" * 9, "aa", "a" * 8, "a"])
            >>> [(i_docs.tolist(), part.shape) for i_docs, part in lat.buckets()]
            [([1, 3], (2, 3, 1)), ([0, 2], (2, 10, 1))]
        """
        exponent = np.frexp(on_host(self.num_bytes + 1))[1]
        parts = [np.flatnonzero(exponent == bucket) for bucket in np.unique(exponent)]
        return [(i_docs, self.take(i_docs)) for i_docs in parts]

    @_on_device
    def forward_scores(self, alpha: float | None = None, *, token_penalty: float = 0.0, weights: Any = None) -> Any:
        """log Z of every position, float64 [B, L + 1]: the log of the summed weights of all paths from 0 to there.

        -inf where there is none, and in the padding. alpha is 1 by default.
        Source: the forward algorithm; Kudo 2018 (arXiv 1804.10959), Su Jianlin, https://kexue.fm/archives/9811.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> lat = Tokenizer.from_pieces(["a", "b", "ab"]).lattice(["ab"])
            >>> np.exp(lat.forward_scores(alpha=0)).round(12).tolist()
            [[1.0, 1.0, 2.0]]
        """
        of, arc_weights = self._weighed(alpha, token_penalty, weights)
        return self._document_logs(of, sums.forward(self._launcher, of.arrays, of.ranges, arc_weights))

    @_on_device
    def backward_scores(self, alpha: float | None = None, *, token_penalty: float = 0.0, weights: Any = None) -> Any:
        """The log of the summed weights of all paths from a position to the text's end, float64 [B, L + 1].

        -inf where there is none, and in the padding. alpha is 1 by default. Arcs are added from those that end last to
        those that end first. Source: the backward algorithm.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> lat = Tokenizer.from_pieces(["a", "b", "ab"]).lattice(["ab"])
            >>> np.exp(lat.backward_scores(alpha=0)).round(12).tolist()
            [[2.0, 1.0, 1.0]]
        """
        of, arc_weights = self._weighed(alpha, token_penalty, weights)
        return self._document_logs(of, sums.backward(self._launcher, of.arrays, of.ranges, arc_weights), from_end=True)

    @_on_device
    def log_partition(self, alpha: float | None = None, *, token_penalty: float = 0.0, weights: Any = None) -> Any:
        """log Z of each text, float64 [B]: the log of the summed weights of all its paths; alpha is 1 by default.

        0 for an empty text, -inf for one that no path spells.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> Tokenizer.from_pieces(["a", "aa"]).lattice(["aaa"]).log_partition(alpha=0).round(6).tolist()
            [1.098612]
        """
        of, arc_weights = self._weighed(alpha, token_penalty, weights)
        forward = sums.forward(self._launcher, of.arrays, of.ranges, arc_weights)
        return sums.log_partition(self._launcher, of, self._segments, forward)

    @_on_device
    def num_paths(self, *, log: bool = False) -> Any:
        """How many segmentations each text has: exact Python ints, or with log=True their natural logs, float64 [B].

        Exact numbers are for texts of up to 65,536 bytes (with thousands of digits); ValueError for longer ones.
        Source: Cognetta, Zouhar and Okazaki 2024 (arXiv 2408.11443) sample uniformly by such counts.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> Tokenizer.from_pieces(["a", "aa"]).lattice(["", "aaa", "a" * 100]).num_paths()
            [1, 3, 573147844013817084101]
        """
        of = self._distinct
        forward = sums.forward(self._launcher, of.arrays, of.ranges, self._xp.ones(len(of.arrays.arcs)))
        if log:
            return sums.log_partition(self._launcher, of, self._segments, forward)
        return sums.exact_counts(self._xp, of, self._positions, self._segments, forward)

    @_on_device
    def marginals(self, alpha: float | None = None, *, token_penalty: float = 0.0, weights: Any = None) -> Any:
        """The posterior of every arc, float64 [B, L + 1, K]: the probability that a sample takes it; 0 is padding.

        alpha is 1 by default. 0 throughout a text that no path spells, and for posteriors below 2^-900.
        Source: the forward-backward algorithm, z[s] * weight * b[e] / Z.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> lat = Tokenizer.from_pieces(["a", "b", "ab"]).lattice(["ab"])
            >>> lat.marginals(alpha=0).tolist()
            [[[0.0, 0.0], [0.5, 0.0], [0.5, 0.5]]]
        """
        of, found = self._distinct_posteriors(alpha, token_penalty, weights)
        self._check_tensor_fits(self.shape, 8)
        return sums.padded_posteriors(self._launcher, of, self._positions, self._segments, found, self.shape)

    @_on_device
    def expected_counts(self, alpha: float | None = None, *, token_penalty: float = 0.0, weights: Any = None) -> Any:
        """The expected number of times that one sample of every text contains each id, float64 [V].

        alpha is 1 by default. EM training of a unigram model needs these counts (Kudo 2018). An unknown arc counts as
        the unknown id, whatever it reads as, or not at all if the model has none. Arcs are added in the order of the
        text on the CPU, in no fixed order on a GPU.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> Tokenizer.from_pieces(["a", "b", "ab"]).lattice(["ab", "a"]).expected_counts(alpha=0).tolist()
            [1.5, 0.5, 0.5]
        """
        posteriors = self._posteriors(alpha, token_penalty, weights)
        # The first places are those of arcs without an id.
        ids = self._public_ids - np.int64(NO_ID)
        counts = self._xp.bincount(ids, weights=posteriors, minlength=self._n_ids - NO_ID)[-NO_ID:]
        # Without any arc they are integers.
        return counts.astype(np.float64)

    @_on_device
    def entropy(self, alpha: float | None = None, *, token_penalty: float = 0.0, weights: Any = None) -> Any:
        """The entropy of each text's distribution over segmentations in nats, float64 [B]; alpha is 1 by default.

        It equals log Z - alpha * the expected score, and is computed as the expected entropy of the back-pointers,
        which avoids cancellation. Paths whose unknown arcs read alike count as different; 0 if there are no paths.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> Tokenizer.from_pieces(["a", "aa"]).lattice(["aaa"]).entropy(alpha=0).round(6).tolist()
            [1.098612]
        """
        of, found = self._distinct_posteriors(alpha, token_penalty, weights)
        return sums.entropy(self._launcher, of, self._positions, self._segments, found)

    @_on_device
    def token_counts(self, alpha: float | None = None, *, token_penalty: float = 0.0, weights: Any = None) -> Any:
        """The distribution of the number of tokens of a sample, float64 [B, T + 1], T the most tokens of any.

        Exact; alpha is 1 by default. Tokens are those of a row, without the ids that the tool puts around it: a run of
        unknown symbols is one token, or its bytes where byte pieces spell it, or a token each in a BPE tokenizer.json
        without fuse_unk. 0 throughout for a text that no path spells. Takes 32 bytes for each position and number of
        tokens, so bytes^2 of a text, and work times the arcs. Raises MemoryError if that does not fit, and ValueError
        for a tokenizer.json that makes either a piece or bytes of unknown text.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> Tokenizer.from_pieces(["a", "b", "ab"]).lattice(["abab", "b"]).token_counts(alpha=0).tolist()
            [[0.0, 0.0, 0.25, 0.5, 0.25], [0.0, 1.0, 0.0, 0.0, 0.0]]
        """
        arc_weights = self._weights(alpha, weights, token_penalty)
        found = tokens.token_sums(self._launcher, self._arrays, self._reading, arc_weights, self._check_fits)
        return tokens.token_counts(self._launcher, self._arrays, found)

    @_on_device
    def viterbi(self, *, weights: Any = None) -> PathBatch:
        """The path of greatest score of each text; in a tie, the one whose last differing arc is longest.

        Scores are float64 sums within each segment, and then over segments. `Tokenizer.encode` adds like the model's
        own tool, so it may differ if two paths are closer than its rounding. Raises ValueError for a text that no path
        spells.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> out = Tokenizer.from_pieces({"a": -1.0, "b": -2.0, "ab": -2.5}).lattice(["ab"]).viterbi()
            >>> out.tolist(), out.scores.tolist()
            ([[[2]]], [-2.5])
        """
        scores = self._scores(weights)
        path, best = paths.best(self._launcher, self._arrays, self._segments, scores)
        rows = self._xp.arange(len(self))
        best_rows = self._tokens(path, rows, self._arrays.doc_positions[:-1])
        return PathBatch(best_rows, self._xp.arange(len(self) + 1), best)

    @_on_device
    def sample(
        self,
        *,
        alpha: float | None = None,
        num_samples: int = 1,
        num_tokens: Any = None,
        seed: int = 0,
        doc_ids: Any = None,
        return_log_prob: bool = False,
        token_penalty: float = 0.0,
        weights: Any = None,
    ) -> TokenBatch:
        """Perfect samples: those of `Tokenizer.sample` for the same arguments; alpha is 0.1 by default.

        num_tokens: an integer, or one for each text: samples are drawn from the segmentations of so many tokens alone,
        counted as by `token_counts`, and log_prob is given that number. They are other draws than those of
        `Tokenizer.sample`, and take the memory of `token_counts`.
        Raises ValueError for a text that no path spells, or none of num_tokens tokens.
        Source: Su Jianlin, https://kexue.fm/archives/9811.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> tok = Tokenizer.default()
            >>> tok.lattice("a new dawn").sample(seed=3).tolist() == tok.sample("a new dawn", seed=3).tolist()
            True
        """
        options = paths.SampleOptions.checked(num_samples, seed, doc_ids, len(self))
        return_log_prob = checked_flag("return_log_prob", return_log_prob)
        arc_weights = self._weights(alpha, weights, token_penalty, DRAW_ALPHA)
        self._check_fits(4 * options.num_samples * len(self._arrays.marks), f"{options.num_samples} samples")
        rows, firsts = self._sample_rows(options.num_samples)
        if num_tokens is None:
            forward = self._forward(arc_weights)
            path = paths.draw(self._launcher, self._arrays, self._segments, arc_weights, forward, options)
            log_z = sums.row_sums(self._launcher, self._segments.offsets, forward.of_ranges)
        else:
            numbers, of_lattice = tokens.checked_numbers(num_tokens, len(self)), (self._launcher, self._arrays)
            found = tokens.token_sums(*of_lattice, self._reading, arc_weights, self._check_fits)
            path, log_z = tokens.draw(*of_lattice, self._reading, arc_weights, found, numbers, options)
        log_prob = None
        if return_log_prob:
            logs = sums.log_of(self._xp, arc_weights)
            log_prob = paths.path_sums(self._launcher, self._arrays, path, rows, firsts, logs) - log_z[rows]
        return self._tokens(path, rows, firsts, log_prob)

    @_on_device
    def nbest(
        self, n: int, *, alpha: float | None = None, token_penalty: float = 0.0, weights: Any = None
    ) -> PathBatch:
        """The n paths of greatest score of each text, best first; all of them if there are fewer.

        n is 0 (no rows) to 2^31 - 1; memory grows with n and the text's length. A score is the float64 sum of the logs
        of the arcs' weights from left to right; alpha is 1 by default. In a tie, the path whose last differing arc is
        longest comes first. Different paths that read as the same ids (unknown symbols that merge) are separate rows.
        A text that no path spells has no rows, an empty or null one has one. Raises MemoryError if the lists do not
        fit.

        Source: the N-best list Viterbi algorithm (Seshadri and Sundberg 1994): the best prefixes of every position.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> out = Tokenizer.from_pieces({"a": -1.0, "b": -2.0, "ab": -2.5}).lattice(["ab", "?", "b"]).nbest(5)
            >>> out.tolist(), out.doc_offsets.tolist(), out.scores.tolist()
            ([[[2], [0, 1]], [], [[1]]], [0, 2, 2, 3], [-2.5, -3.0, -2.0])
        """
        n = checked_integer("n", n, 0, nbest.MOST_RANKS)
        chosen = checked_alpha(_one_of(alpha, token_penalty, weights, 1.0))
        scores = self._scores(weights, chosen, token_penalty)
        counts = nbest.count(self._launcher, self._arrays, scores, n)
        lists = nbest.merge(self._launcher, self._arrays, scores, counts, self._check_fits)
        best = nbest.ranked_paths(self._xp, self._arrays, counts, n)
        path, firsts = nbest.follow(self._launcher, self._arrays, lists, best.docs, best.ranks, self._check_fits)
        rows = self._tokens(path, best.docs, firsts)
        return PathBatch(rows, best.doc_offsets, nbest.scores_of(self._arrays, lists, best))

    @_on_device
    def sample_nbest(
        self,
        n: int,
        *,
        alpha: float | None = None,
        num_samples: int = 1,
        seed: int = 0,
        doc_ids: Any = None,
        return_log_prob: bool = False,
        token_penalty: float = 0.0,
        weights: Any = None,
    ) -> TokenBatch:
        """Samples from the n best paths of each text, each with probability proportional to exp(alpha * score), or from
        those of greatest alpha * score - token_penalty * arcs in proportion to exp of that.

        The other arguments, and the rows, are as in `sample`; alpha is 0.1 by default. log_prob is the log of the
        probability among the n best. A draw is the same on every device: it depends on the paths' scores, alpha, seed,
        doc id and sample index. Raises ValueError for n < 1 and for a text that no path spells.

        Source: Kudo 2018 (arXiv 1804.10959), l-best sampling; `sample` draws from all paths and costs less.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> lat = Tokenizer.from_pieces({"a": -1.0, "b": -2.0, "ab": -2.5}).lattice("ab")
            >>> out = lat.sample_nbest(2, alpha=1.0, num_samples=4, return_log_prob=True)
            >>> out.tolist(), np.exp(out.log_prob).round(4).tolist()
            ([[2], [2], [2], [0, 1]], [0.6225, 0.6225, 0.6225, 0.3775])
        """
        n = checked_integer("n", n, 1, nbest.MOST_RANKS)
        options = paths.SampleOptions.checked(num_samples, seed, doc_ids, len(self))
        return_log_prob = checked_flag("return_log_prob", return_log_prob)
        chosen = checked_alpha(_one_of(alpha, token_penalty, weights, DRAW_ALPHA))
        scores = self._scores(weights)
        if token_penalty:
            # The paths of greatest weight are no longer those of greatest score.
            scores, chosen = self._scores(weights, chosen, token_penalty), 1.0
        counts = nbest.count(self._launcher, self._arrays, scores, n)
        paths.raise_if_broken(self._launcher, self._arrays, self._segments, counts[self._segments.stops] > 0)
        lists = nbest.merge(self._launcher, self._arrays, scores, counts, self._check_fits)
        best = nbest.ranked_paths(self._xp, self._arrays, counts, n)
        best_scores = nbest.scores_of(self._arrays, lists, best)
        ranks, log_prob = nbest.draw(self._launcher, best.doc_offsets, best_scores, chosen, options)
        docs = self._xp.repeat(self._xp.arange(len(self)), options.num_samples)
        path, firsts = nbest.follow(self._launcher, self._arrays, lists, docs, ranks, self._check_fits)
        return self._tokens(path, docs, firsts, log_prob if return_log_prob else None)

    @_on_device
    def sample_without_replacement(
        self,
        k: int,
        *,
        alpha: float | None = None,
        seed: int = 0,
        doc_ids: Any = None,
        token_penalty: float = 0.0,
        weights: Any = None,
    ) -> PathBatch:
        """k different paths of each text, drawn one after another by weight from those not yet drawn: Gumbel-top-k.

        Rows are in the order drawn, all paths if there are fewer than k; a greater k begins with the same rows. alpha
        is 0.1 by default, k is 0 to 2^31 - 1; memory grows with k times the text's length. Different paths that read as
        the same ids (unknown symbols that merge) are separate rows. A text that no path spells has no rows, an empty or
        null one has one. Raises MemoryError if the paths do not fit.

        log_prob is log p of each path. log_inclusion is the log of q = 1 - exp(-p / exp(kappa)), where kappa is the
        greatest perturbed log-probability of a path that was not drawn (q = 1 if all are): the sum of f * p / q over
        a text's rows is an unbiased estimate of the expectation of f over all its paths.

        Source: Kool, van Hoof and Welling 2019 (arXiv 1903.06059); drawn as in Shi, Bieber and Sutton 2020 (arXiv
        2002.09067), with sums over what is left of a tree of suffixes in place of noise.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> lat = Tokenizer.from_pieces({"a": -1.0, "b": -2.0, "ab": -2.5}).lattice(["ab", "b"])
            >>> out = lat.sample_without_replacement(2, alpha=1.0, seed=1)
            >>> out.tolist(), np.exp(out.log_prob).round(6).tolist(), out.log_inclusion.tolist()
            ([[[0, 1], [2]], [[1]]], [0.377541, 0.622459, 1.0], [0.0, 0.0, 0.0])
        """
        options = without_replacement.checked_options(k, seed, doc_ids, len(self))
        arc_weights = self._weights(alpha, weights, token_penalty, DRAW_ALPHA)
        drawn = without_replacement.draw(self._launcher, self._arrays, arc_weights, options, self._check_fits)
        row_args = drawn.path, drawn.docs, drawn.firsts
        scores = paths.path_sums(self._launcher, self._arrays, *row_args, self._scores(weights))
        log_inclusion = self._launcher.upload(without_replacement.log_inclusion(drawn, options))
        return PathBatch(self._tokens(*row_args), drawn.doc_offsets, scores, drawn.log_prob, log_inclusion)

    @_on_device
    def viterbi_sample(
        self,
        *,
        alpha: float | None = None,
        num_samples: int = 1,
        seed: int = 0,
        doc_ids: Any = None,
        weights: Any = None,
    ) -> TokenBatch:
        """Samples by the Viterbi Sampling of BytePiece 0.4, to reproduce it: they are biased, while `sample` is exact.

        The recursion of the best path, except that each arc into a position, from the longest to the shortest, replaces
        the current choice with probability sigmoid(alpha * difference of their sums), where a sum is that of the one
        prefix drawn, from the text's start. So probabilities depend on the order of arcs, late arcs win too often, and
        the path drawn most often need not be the most likely one; log-probabilities are not known.

        The other arguments, and the rows, are as in `sample`. alpha is 0.1 by default and must be above 0; as it grows,
        the best path is drawn ever more often. An arc's coin depends on the seed, the doc id, the sample index and the
        arc's number in its text. Takes 8 bytes for each arc of a sample, or of a group of samples. Raises ValueError
        for alpha 0, which meant the best path in BytePiece 0.4, and for a text that no path spells.

        Source: Su Jianlin, https://kexue.fm/archives/9768; its flaws: https://kexue.fm/archives/9811.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> lat = Tokenizer.from_pieces(["w", "wat", "watch", "atching", "ching", "ing"]).lattice("watching")
            >>> first = lat.viterbi_sample(alpha=1.0, num_samples=10_000).ids[::2]
            >>> (np.bincount(first) / 10_000).round(1).tolist()
            [0.2, 0.2, 0.5]
        """
        options = paths.SampleOptions.checked(num_samples, seed, doc_ids, len(self))
        chosen = viterbi_sample.checked_positive_alpha(_one_of(alpha, 0.0, weights, DRAW_ALPHA))
        ranges, scores = self._segments, self._scores(weights)
        path = viterbi_sample.draw(self._launcher, self._arrays, ranges, scores, chosen, options, self._check_fits)
        return self._tokens(path, *self._sample_rows(options.num_samples))

    @_on_device
    def log_prob(self, ids: Any, *, alpha: float | None = None, token_penalty: float = 0.0, weights: Any = None) -> Any:
        """The log of the probability that `sample` gives exactly these ids, float64 [rows]; alpha is 0.1 by default.

        ids: a TokenBatch or a list of lists; a row for each text, or K for each, doc-major, as num_samples=K gives.
        Ids that the tool puts around every row must be there. The value is the log of the summed weights of the paths
        that read as these ids, minus log Z. Nearly always that is one path; there are several if unknown symbols become
        one id. -inf if there is none, as for ids that the model does not have. The row of a null text is empty (or
        None) and has 0, like that of an empty text if nothing is put around rows.
        Raises ValueError for another number of rows, TypeError unless they are ids.

        Work grows with the tokens if the ids determine the path; it is bounded by bytes * tokens of a row if unknown
        runs may end anywhere, times the longest piece's bytes if such runs may be pieces (Hugging Face).

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> lat = Tokenizer.from_pieces(["a", "b", "ab"]).lattice("ab")
            >>> np.exp(lat.log_prob([[0, 1], [1, 0]], alpha=0)).round(12).tolist()
            [0.5, 0.0]
        """
        rows = score.checked_rows(self._launcher, ids, self._arrays, self._reading, self._valid)
        arc_weights = self._weights(alpha, weights, token_penalty, DRAW_ALPHA)
        mantissas, exponents = self._reading_sums(rows, arc_weights)
        log_z = self.log_partition(
            alpha=DRAW_ALPHA if alpha is None and weights is None else alpha,
            token_penalty=token_penalty,
            weights=weights,
        )[rows.docs]
        logs = sums.log_of(self._xp, mantissas) + exponents * sums.LN_2
        return logs - self._xp.where(mantissas > 0, log_z, 0.0)

    @_on_device
    def is_path(self, ids: Any) -> Any:
        """Whether some path of the lattice reads as these ids, whatever its weight, bool [rows]; ids as in `log_prob`.

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> lat = Tokenizer.from_pieces(["a", "b", "ab"]).lattice(["ab", "ba"])
            >>> lat.is_path([[2], [2]]).tolist()
            [True, False]
        """
        rows = score.checked_rows(self._launcher, ids, self._arrays, self._reading, self._valid)
        return self._reading_sums(rows, self._xp.ones(len(self._arrays.arcs)))[0] > 0

    @_on_device
    def continuations(self, *, max_rollback: int | None = None, weights: Any = None) -> Continuations:
        """Where each text can be resumed: `Tokenizer.continuations`, for texts normalized as complete ones.

        So trailing white space is gone if the model strips it. Raises ValueError also for a lattice that does not know
        what its pieces spell (`from_ragged`).

        Example:
            >>> from gpu_lattice import Tokenizer
            >>> out = Tokenizer.from_pieces(["a", "b", "abc"]).lattice("ab").continuations()
            >>> [out.ids(row).tolist() for row in range(2)], out.tokens.tolist()
            ([[0, 2, 1], [2]], [[0, 1], []])
        """
        if max_rollback is not None:
            max_rollback = checked_integer("max_rollback", max_rollback, 0, 2**63 - 1)
        if not len(self._reading.sorted_ids):
            raise ValueError("this lattice does not know what its pieces spell; make it with Tokenizer.lattice")

        def fits(size: int) -> None:
            self._check_fits(size, "the paths to every boundary")

        return continuations(
            self._launcher, self._arrays, self._segments, self._reading, self._scores(weights), self._n_ids,
            self._valid, max_rollback, fits,
        )  # fmt: skip

    @cached_property
    def _segments(self) -> Ranges:
        return segments(self._xp, self._positions)

    @cached_property
    def _arrays(self) -> LatticeArrays:
        if isinstance(self._found, LatticeArrays):
            return self._found
        return copied(self._launcher, self._positions, self._segments, self._distinct)

    @cached_property
    def _distinct(self) -> Distinct:
        """The segments that need to be worked out, if the weight of an arc depends on its id alone."""
        return self._each_by_itself() if isinstance(self._found, LatticeArrays) else self._found[1]

    def _each_by_itself(self) -> Distinct:
        return each_by_itself(self._xp, self._arrays, self._segments)

    @cached_property
    def _public_ids(self) -> Any:
        return public_ids(self._xp, self._arrays, self._reading.unk_id)

    def _sample_rows(self, num_samples: int) -> tuple[Any, Any]:
        """The document of each row of samples, and where its marks begin among all [num_samples, P]."""
        xp, arrays = self._xp, self._arrays
        rows = xp.repeat(xp.arange(len(self)), num_samples)
        samples = xp.tile(xp.arange(num_samples), len(self))
        return rows, samples * len(arrays.marks) + arrays.doc_positions[rows]

    def _forward(self, weights: Any) -> sums.Sums:
        return sums.forward(self._launcher, self._arrays, self._segments, weights)

    def _document_logs(self, of: Distinct, scores: sums.Sums, from_end: bool = False) -> Any:
        width = self.shape[1]
        self._check_tensor_fits(self.shape[:2], 8)
        return sums.document_logs(self._launcher, of, self._positions, self._segments, scores, width, from_end)

    def _distinct_posteriors(
        self, alpha: float | None, token_penalty: float, weights: Any
    ) -> tuple[Distinct, sums.Posteriors]:
        of, arc_weights = self._weighed(alpha, token_penalty, weights)
        return of, sums.posteriors(self._launcher, of, arc_weights)

    def _posteriors(self, alpha: float | None = None, token_penalty: float = 0.0, weights: Any = None) -> Any:
        """float64 [A], of every arc."""
        of, found = self._distinct_posteriors(alpha, token_penalty, weights)
        return sums.posteriors_of_all(self._launcher, of, self._arrays, self._segments, found)

    def _reading_sums(self, rows: score.IdRows, weights: Any) -> tuple[Any, Any]:
        def fits(size: int) -> None:
            self._check_fits(size, f"reading {len(rows.docs)} rows of ids")

        return score.reading_sums(self._launcher, self._arrays, self._reading, rows, weights, fits)

    def _weights(self, alpha: float | None, weights: Any, token_penalty: float = 0.0, default: float = 1.0) -> Any:
        """float64 [A] on the device: exp(alpha * score - token_penalty), or what the caller gives."""
        chosen = _one_of(alpha, token_penalty, weights, default)
        if weights is not None:
            return self._given_weights(weights)
        return self._weights_of(self._arrays.arcs, chosen, token_penalty)

    def _weighed(self, alpha: float | None, token_penalty: float, weights: Any) -> tuple[Distinct, Any]:
        """What sums are worked out of, and the weights of its arcs; alpha is 1 by default."""
        chosen = _one_of(alpha, token_penalty, weights, 1.0)
        if weights is not None:
            return self._each_by_itself(), self._given_weights(weights)
        return self._distinct, self._weights_of(self._distinct.arrays.arcs, chosen, token_penalty)

    def _weights_of(self, arcs: Any, alpha: float, token_penalty: float) -> Any:
        table = _weight_table(self._scored_vocabulary(), checked_alpha(alpha), token_penalty)
        return self._from_table(arcs, table, float(fixed_exp(np.array(-token_penalty))))

    def _scores(self, weights: Any, alpha: float = 1.0, token_penalty: float = 0.0) -> Any:
        """float64 [A] on the device: alpha * score - token_penalty, or the same logs of weights on every machine, -inf
        for no arc.
        """
        if weights is not None:
            return self._launcher.upload(sums.fixed_log_of(on_host(self._given_weights(weights))))
        vocabulary = self._scored_vocabulary()
        scores = self._from_table(self._arrays.arcs, np.append(vocabulary.scores, vocabulary.unk_score), 0.0)
        return scores if alpha == 1.0 and not token_penalty else scores * alpha - token_penalty

    def _scored_vocabulary(self) -> Vocabulary:
        if self._vocabulary is None:
            raise ValueError("this lattice has no scores; give weights=, for each id or for each arc")
        return self._vocabulary

    def _given_weights(self, weights: Any) -> Any:
        return checked_weights(self._xp, weights, ArcWeights(self.shape, self._n_ids, self._public_ids, self._arrays))

    def _from_table(self, arcs: Any, table: NDArray[np.float64], of_token: float) -> Any:
        """table [V + 1]: by id, with the unknown arc last, which is also the place of UNKNOWN."""
        of_tokens = TOKEN_ARC - UNKNOWN
        values = self._xp.asarray(np.concatenate([table[:-1], np.full(-of_tokens, of_token), table[-1:]]))
        return values[self._xp.maximum(arcs, TOKEN_ARC)]

    def _tokens(self, path: Any, rows: Any, firsts: Any, log_prob: Any = None) -> TokenBatch:
        ids, offsets = paths.emit(self._launcher, self._arrays, self._reading, path, rows, firsts, self._valid)
        valid = None if self._valid is None else self._valid[on_host(rows)]
        return TokenBatch(ids, offsets, log_prob, valid)

    def _by_position(self, values: Any, fill: Any) -> Any:
        """[P] as [B, L + 1]."""
        n_positions = self.shape[1]
        self._check_tensor_fits(self.shape[:2], values.dtype.itemsize)
        return padded(self._xp, self._arrays.doc_positions, values, fill, n_positions)

    def _by_arc(self, values: Any, fill: Any) -> Any:
        """[A] as [B, L + 1, K]."""
        self._check_tensor_fits(self.shape, values.dtype.itemsize)
        tensor = self._xp.full(math.prod(self.shape), fill, values.dtype)
        tensor[places(self._xp, self._arrays, self.shape)] = values
        return tensor.reshape(self.shape)

    def _check_tensor_fits(self, shape: tuple[int, ...], itemsize: int) -> None:
        self._check_fits(math.prod(shape) * itemsize, f"a tensor {list(shape)}")

    def _check_fits(self, size: int, what: str) -> None:
        check_fits(self._launcher, self._memory_limit, size, what)


def _weight_table(vocabulary: Vocabulary, alpha: float, token_penalty: float) -> NDArray[np.float64]:
    """Of `arc_weights`, kept for a call with the same arguments: making it takes as long as 20 KB of text."""
    tilt = alpha, token_penalty
    kept = _weight_tables.get(vocabulary)
    if kept is None or kept[0] != tilt:
        kept = _weight_tables[vocabulary] = tilt, arc_weights(vocabulary, *tilt)
    return kept[1]


def _one_of(alpha: float | None, token_penalty: float, weights: Any, default: float) -> float:
    """alpha, or the default; 1 with weights, whose logs are scores. ValueError if both are given."""
    penalty = checked_penalty(token_penalty)
    if weights is None:
        return default if alpha is None else alpha
    for name, value in (("alpha", alpha), ("token_penalty", penalty or None)):
        if value is not None:
            raise ValueError(
                f"both {name} ({value!r}) and weights are given; weights replace exp(alpha * score - token_penalty)"
            )
    return 1.0


def check_fits(launcher: Launcher, memory_limit: int | None, size: int, what: str) -> None:
    """MemoryError if `size` more bytes exceed the limit, or what is free."""
    limit = checked_integer("memory_limit", launcher.free_bytes() if memory_limit is None else memory_limit, 0, 2**63)
    if size > limit:
        raise MemoryError(
            f"{what} takes {_megabytes(size)} on {launcher.device}, where {_megabytes(limit)} are available; "
            "give fewer or shorter texts, use Lattice.buckets(), or raise memory_limit"
        )


def _plain_reading(launcher: Launcher) -> Reading:
    """Arcs read as their own ids."""
    empty, one = launcher.upload(np.empty(0, np.int32)), launcher.upload(np.zeros(1, np.int64))
    return Reading(launcher.upload(np.empty(0, np.uint8)), one, empty, empty, -1, False)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
