"""Words that are resampled with a probability while the others keep their best segmentation (reference.py, resampled).

A word's ids come from one of three rows: its best segmentation; a sample; or, where it cannot be spelled, the best
segmentation of the model that pieces were taken out of.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.backends import Draw, NoPathError, Rows
from gpu_lattice.kernels.cpu.philox import COINS, uniforms
from gpu_lattice.lattice import Lattice
from gpu_lattice.lattice.sums import row_sums
from gpu_lattice.normalizers import NormalizedBatch
from gpu_lattice.runtime.on_host import on_host
from gpu_lattice.runtime.ragged import offsets_of, row_of, rows_to_values
from gpu_lattice.token_batch import Frame, TokenBatch, joined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from gpu_lattice.backends import Backend
    from gpu_lattice.kernels.cpu.bulk.words import Words
    from gpu_lattice.models import Model
    from gpu_lattice.models.rescored import Undone

# How much text has its lattices in memory at a time.
LATTICE_BYTES = 1 << 18


def segmented(
    model: Model,
    backend: Backend,
    batch: NormalizedBatch,
    is_null: NDArray[np.bool_],
    draw: Draw | None,
    rate: float,
    spelled_by: Backend | None,
    undo: Undone | None,
) -> Rows:
    """Rows of documents: samples of words with probability `rate`, or best segmentations if draw is None.

    spelled_by: whose best segmentation the words keep that cannot be spelled; None: they are an error.
    undo: what becomes of the pieces that merges have made. Raises NoPathError.
    """
    words = backend.find_words(batch)
    is_kept, kept = np.zeros(len(words.docs), np.bool_), None
    if spelled_by is not None:
        is_kept = backend.find_unspellable(batch, words)
    if is_kept.any():
        assert spelled_by is not None
        kept = spelled_by.encode(batch, is_null, words)
        batch = _with_tokens(batch, words, is_kept)
        words = words._replace(chunk_ids=np.where(is_kept, np.int32(0), words.chunk_ids))
    elif draw is None and undo is None:
        return backend.encode(batch, is_null)
    elif draw is not None and rate == 1:
        return backend.sample(batch, is_null, *draw)
    best = None
    if draw is None or rate < 1:
        best = backend.encode(batch, is_null, words)
        if undo is not None:
            best = _undone(backend, best, undo, None if spelled_by else words)
    return _by_word(model, backend, batch, is_null, words, draw, rate, best, is_kept, kept)


def _undone(backend: Backend, best: Rows, undo: Undone, words: Words | None) -> Rows:
    """The rows of words without the pieces that were taken out. Where that cannot be, a row stays; with words, it is an
    error in them.
    """
    with backend.launcher:
        xp = backend.launcher.xp
        offsets, ids = map(xp.asarray, undo)
        values, bounds = rows_to_values(xp, offsets, best.ids)
        is_bad = xp.zeros(len(best.offsets) - 1, bool)
        is_bad[row_of(xp, best.offsets)[bounds[1:] == bounds[:-1]]] = True
        without = TokenBatch(ids[values], bounds[best.offsets])
        if not bool(is_bad.any()):
            return Rows(without.ids, without.offsets, None)
        if words is not None:
            raise NoPathError(int(words.offsets[int(is_bad.argmax()) + 1]))
        source = joined([without, TokenBatch(best.ids, best.offsets)])
        values, offsets = rows_to_values(xp, source.offsets, xp.arange(len(is_bad)) + len(is_bad) * is_bad)
        return Rows(source.ids[values], offsets, None)


def _with_tokens(batch: NormalizedBatch, words: Words, is_kept: NDArray[np.bool_]) -> NormalizedBatch:
    """The batch, in which the words that are kept are chunks that are a token; which one does not matter."""
    offsets, chunk_ids = batch.chunks
    starts = words.offsets[:-1][is_kept]
    bounds = np.unique(np.concatenate([offsets, starts, words.offsets[1:][is_kept]]))
    ids = chunk_ids[np.searchsorted(offsets, bounds[:-1], side="right") - 1]
    ids[np.searchsorted(bounds, starts)] = 0
    return NormalizedBatch(batch.values, batch.offsets, bounds, ids)


def _by_word(
    model: Model,
    backend: Backend,
    batch: NormalizedBatch,
    is_null: NDArray[np.bool_],
    words: Words,
    draw: Draw | None,
    rate: float,
    best: Rows | None,
    is_kept: NDArray[np.bool_],
    kept: Rows | None,
) -> Rows:
    """best: the words' best rows, None if none is wanted; kept: the rows of the words that is_kept bool [W] marks."""
    num_samples = draw.num_samples if draw else 1
    word = np.arange(len(words.docs))[:, None]
    sources: list[TokenBatch] = []
    choice = np.zeros((len(word), num_samples), np.int64)

    def take(rows: Rows, is_taken: Any, row: Any) -> None:
        choice[...] = np.where(is_taken, sum(map(len, sources)) + row, choice)
        sources.append(TokenBatch(rows.ids, rows.offsets))

    if best is not None:
        take(best, True, word)
    if draw is not None:
        drawn = backend.sample(batch, is_null, *draw._replace(return_log_prob=False), words)
        take(drawn, _coins(batch, words, draw) < rate, word * num_samples + np.arange(num_samples))
    if kept is not None:
        take(kept, is_kept[:, None], word)
    with backend.launcher:
        source = joined(sources)
        rows, log_prob = _put_together(backend, words, source, choice, len(batch)), None
        if draw is not None and draw.return_log_prob:
            tiled = NormalizedBatch(batch.values, words.offsets, words.offsets, words.chunk_ids)
            log_prob = _log_prob(model, backend, tiled, words, draw, rate, source, choice, is_kept)
        valid = ~np.repeat(is_null, num_samples) if is_null.any() else None
        around = Frame(model.prefix_ids, model.suffix_ids, None, "right")
        out = around(replace(rows, valid=valid), 0, 0) if any(around[:2]) else rows
    return Rows(out.ids, out.offsets, log_prob)


def _coins(batch: NormalizedBatch, words: Words, draw: Draw) -> NDArray[np.float64]:
    """float64 [W, K]: the number of each word and sample that decides whether it is resampled."""
    positions = words.offsets[:-1] - batch.offsets[words.docs]
    numbers: NDArray[np.float64] = uniforms(
        np.uint64(draw.seed ^ COINS), positions, 0, draw.num_samples, draw.doc_ids[words.docs]
    )
    return numbers.T


def _places(words: Words, num_samples: int, n_docs: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """int64 [W, K]: the place of each word and sample in the order of rows, document by document and sample by sample;
    and where the words of each of these rows begin, int64 [D * K + 1].
    """
    counts = np.bincount(words.docs, minlength=n_docs)
    firsts = np.cumsum(counts) - counts
    first, count = firsts[words.docs], counts[words.docs]
    place = num_samples * first + np.arange(len(first)) - first
    return place[:, None] + np.arange(num_samples) * count[:, None], offsets_of(np, np.repeat(counts, num_samples))


def _put_together(
    backend: Backend, words: Words, source: TokenBatch, choice: NDArray[np.int64], n_docs: int
) -> TokenBatch:
    """Rows of documents; choice int64 [W, K]: which row of the source each word and sample has."""
    xp, num_samples = backend.launcher.xp, choice.shape[1]
    places, bounds = _places(words, num_samples, n_docs)
    ordered = np.empty(choice.size, np.int64)
    ordered[places] = choice
    values, offsets = rows_to_values(xp, source.offsets, xp.asarray(ordered))
    return TokenBatch(source.ids[values], offsets[xp.asarray(bounds)])


def _log_prob(
    model: Model,
    backend: Backend,
    tiled: NormalizedBatch,
    words: Words,
    draw: Draw,
    rate: float,
    source: TokenBatch,
    choice: NDArray[np.int64],
    is_kept: NDArray[np.bool_],
) -> Any:
    """float64 [D * K]: the log of the probability of each row's ids, summed over its words from first to last.

    tiled: the words as documents. The best rows are the source's first, if there are any.
    """
    launcher = backend.launcher
    xp, num_samples = launcher.xp, draw.num_samples
    chosen = xp.asarray(choice.ravel())
    values, offsets = rows_to_values(xp, source.offsets, chosen)
    ids = source.ids[values]
    drawn = [xp.empty(0)]
    for start, stop, lattice in _lattices(model, backend, tiled):
        rows = TokenBatch(ids, offsets[start * num_samples : stop * num_samples + 1])
        drawn.append(lattice.log_prob(rows, alpha=draw.alpha, token_penalty=draw.token_penalty))
    log_prob = xp.concatenate(drawn)
    if rate < 1:
        is_best = _are_equal(xp, source, chosen, xp.repeat(xp.arange(len(words.docs)), num_samples))
        # Without the best, the logs are added, for their numbers may be too small to be.
        log_rate = np.log(rate) if rate > 0 else -np.inf
        mixed = xp.log(rate * xp.exp(log_prob) + xp.where(is_best, 1 - rate, 1.0))
        log_prob = xp.where(is_best, mixed, log_rate + log_prob)
    log_prob[xp.asarray(np.repeat(is_kept, num_samples))] = 0.0
    places, bounds = _places(words, num_samples, len(draw.doc_ids))
    ordered = xp.empty(choice.size)
    ordered[xp.asarray(places.ravel())] = log_prob
    return row_sums(launcher, xp.asarray(bounds), ordered)


def _lattices(model: Model, backend: Backend, tiled: NormalizedBatch) -> Iterator[tuple[int, int, Lattice]]:
    """(first document, last + 1, lattice) of some documents at a time, without ids around rows."""
    bare, start = replace(model, prefix_ids=(), suffix_ids=()), 0
    while start < len(tiled):
        limit = tiled.offsets[start] + LATTICE_BYTES
        stop = max(start + 1, int(np.searchsorted(tiled.offsets, limit, side="right")) - 1)
        yield start, stop, Lattice.of(bare, backend, tiled.part(start, stop), None, None)
        start = stop


def mixture_entropy(
    model: Model, backend: Backend, batch: NormalizedBatch, tilt: dict[str, float], rate: float, undo: Undone | None
) -> float:
    """The entropy of all words together, in nats: that of their lattices, mixed with the best segmentation.

    tilt: alpha and token_penalty. Words that cannot be spelled have none.
    """
    words = backend.find_words(batch)
    is_kept = backend.find_unspellable(batch, words)
    batch = _with_tokens(batch, words, is_kept)
    words = words._replace(chunk_ids=np.where(is_kept, np.int32(0), words.chunk_ids))
    best = backend.encode(batch, np.zeros(len(batch), np.bool_), words)
    best = best if undo is None else _undone(backend, best, undo, None)
    tiled = NormalizedBatch(batch.values, words.offsets, words.offsets, words.chunk_ids)
    total = 0.0
    for start, stop, lattice in _lattices(model, backend, tiled):
        entropy = on_host(lattice.entropy(**tilt))
        q = np.exp(on_host(lattice.log_prob(TokenBatch(best.ids, best.offsets[start : stop + 1]), **tilt)))
        # With p * P for every segmentation and 1 - p more for the best, whose P is q.
        mixed = entropy * rate - rate * (1 - q) * _log(rate) + rate * q * _log(q) - _x_log_x(rate * q + 1 - rate)
        total += math.fsum(mixed[~is_kept[start:stop]].tolist())
    return total


def _log(x: Any) -> Any:
    """log(x), and 0 for 0, by which it is multiplied."""
    return np.log(np.where(x > 0, x, 1.0))


def _x_log_x(x: Any) -> Any:
    return x * _log(x)


def _are_equal(xp: Any, source: TokenBatch, rows: Any, others: Any) -> Any:
    """bool [n]: whether rows and others of the source, int64 [n], have the same ids."""
    lengths = source.offsets[1:] - source.offsets[:-1]
    equal = lengths[rows] == lengths[others]
    some = xp.flatnonzero(equal)
    (one, taken), (other, _) = (rows_to_values(xp, source.offsets, these[some]) for these in (rows, others))
    differ = row_of(xp, taken)[source.ids[one] != source.ids[other]]
    equal[some[differ]] = False
    return equal
