"""Samples near the best segmentation: from those that differ from it in a limited number of words.

Words are those of `rate` (reference.py, words), and independent of each other. With p the probability that sampling
gives a word its best segmentation, 1 - p that of another one, the probability of each number of changed words among the
first ones of a document follows word by word. How many change, and which from the last to the first, is drawn by these,
with numbers of their own. What a changed word becomes is the first of two different samples, or the second where the
first is its best segmentation: that is a draw by weight from the others.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpu_lattice.backends import Rows
from gpu_lattice.kernels.cpu.machine import GOLDEN
from gpu_lattice.kernels.cpu.philox import uniforms
from gpu_lattice.lattice import Lattice
from gpu_lattice.normalizers import NormalizedBatch
from gpu_lattice.runtime.on_host import on_host
from gpu_lattice.runtime.ragged import offsets_of, rows_to_values
from gpu_lattice.token_batch import Frame, TokenBatch, joined

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.backends import Backend
    from gpu_lattice.kernels.cpu.bulk.words import Words
    from gpu_lattice.models import Model

# The stream of the numbers that say which words change: "NEARCOIN" in ASCII.
CHANGES = 0x4E454152434F494E
# The position of the number that says how many; no text has so many bytes.
COUNT = 2**32 - 1
# An odd number without relation to GOLDEN.
SAMPLES = np.uint64(0xBF58476D1CE4E5B9)
# How much text has its lattices in memory at a time.
LATTICE_BYTES = 1 << 18


class NearOptions(NamedTuple):
    """At most max_changes words differ; doc_ids uint64 [D], all else as in `Tokenizer.sample`."""

    max_changes: int
    alpha: float
    token_penalty: float
    num_samples: int
    seed: int
    doc_ids: NDArray[np.uint64]


def sample_near(model: Model, backend: Backend, batch: NormalizedBatch, is_null: NDArray[np.bool_], options: NearOptions
) -> Rows:  # fmt: skip
    """Rows of documents, with the log of their probability among the segmentations that are near enough."""
    words = backend.find_words(batch)
    found = backend.encode(batch, is_null, words)
    best = TokenBatch(on_host(found.ids), on_host(found.offsets))
    tiled = NormalizedBatch(batch.values, words.offsets, words.offsets, words.chunk_ids)
    bare = replace(model, prefix_ids=(), suffix_ids=())
    doc_words = np.searchsorted(words.docs, np.arange(len(batch) + 1))
    log_best = _log_probs(bare, backend, tiled, best, options)
    changed, log_near = _changes(log_best, words.offsets[:-1] - batch.offsets[words.docs], doc_words, options)
    sources = [best]
    choice = np.repeat(np.arange(len(words.docs))[:, None], options.num_samples, axis=1)
    log_prob = np.repeat(log_best[:, None], options.num_samples, axis=1)
    i_words, i_samples = np.nonzero(changed)
    for start, stop in _parts(words.offsets, i_words):
        some = i_words[start:stop], i_samples[start:stop]
        rows, logs = _others(bare, backend, tiled, best, *some, batch, words, options)
        choice[some] = sum(map(len, sources)) + np.arange(len(rows))
        log_prob[some] = logs
        sources.append(rows)
    source = joined(sources)
    order = np.concatenate([np.empty(0, np.int64), *(choice[a:b].T.ravel() for a, b in pairwise(doc_words))])
    values, offsets = rows_to_values(np, source.offsets, order)
    bounds = offsets_of(np, np.repeat(np.diff(doc_words), options.num_samples))
    of_rows = np.array([log_prob[a:b].sum(axis=0) for a, b in pairwise(doc_words)]).reshape(-1, options.num_samples)
    valid = ~np.repeat(is_null, options.num_samples) if is_null.any() else None
    upload = backend.launcher.upload
    logs = upload((of_rows - log_near[:, None]).ravel())
    out = TokenBatch(upload(source.ids[values]), upload(offsets[bounds]), logs, valid)
    around = Frame(model.prefix_ids, model.suffix_ids, None, "right")
    out = around(out, 0, 0) if any(around[:2]) else out
    return Rows(out.ids, out.offsets, out.log_prob)


def _log_probs(
    model: Model, backend: Backend, tiled: NormalizedBatch, rows: TokenBatch, options: NearOptions
) -> NDArray[np.float64]:
    """float64 [W]: the log of the probability that sampling gives each word its row."""
    logs = [np.empty(0)]
    for start, stop in _parts(tiled.offsets, np.arange(len(tiled))):
        lattice = Lattice.of(model, backend, tiled.part(start, stop), None, None)
        part = TokenBatch(rows.ids, rows.offsets[start : stop + 1])
        logs.append(on_host(lattice.log_prob(part, alpha=options.alpha, token_penalty=options.token_penalty)))
    return np.minimum(np.concatenate(logs), 0.0)


def _parts(offsets: NDArray[np.int64], i_words: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges of the words listed, of some LATTICE_BYTES each."""
    if not len(i_words):
        return []
    ends = np.cumsum(np.diff(offsets)[i_words])
    bounds = np.unique(np.append(np.searchsorted(ends, np.arange(0, ends[-1], LATTICE_BYTES)), len(i_words)))
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))


def _changes(
    log_best: NDArray[np.float64], positions: NDArray[np.int64], doc_words: NDArray[np.int64], options: NearOptions
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(bool [W, K], whether each word changes; float64 [D], the log of the probability that at most so many do)."""
    stays, changes = np.exp(log_best), -np.expm1(log_best)
    changed = np.zeros((len(log_best), options.num_samples), np.bool_)
    log_near = np.zeros(len(doc_words) - 1)
    for i_doc, (first, last) in enumerate(pairwise(doc_words.tolist())):
        n, most = last - first, min(options.max_changes, last - first)
        # sums[w, j]: the probability that j of the first w words change, scaled by a power of two for each w.
        sums, exponent = np.zeros((n + 1, most + 1)), 0
        sums[0, 0] = 1.0
        for w in range(n):
            sums[w + 1] = sums[w] * stays[first + w]
            sums[w + 1, 1:] += sums[w, :-1] * changes[first + w]
            shift = int(np.frexp(sums[w + 1].max())[1])
            sums[w + 1], exponent = np.ldexp(sums[w + 1], -shift), exponent + shift
        running = np.cumsum(sums[n])
        if running[-1] == 0.0:
            raise ValueError(
                f"document {i_doc} has no segmentation that differs from its best in at most {most} words; give a "
                "larger number"
            )
        log_near[i_doc] = np.log(running[-1]) + exponent * np.log(2.0)
        at = np.append(positions[first:last], COUNT)
        ids = np.repeat(options.doc_ids[i_doc : i_doc + 1], n + 1)
        numbers = uniforms(np.uint64(options.seed ^ CHANGES), at, 0, options.num_samples, ids)
        for i_sample, row in enumerate(numbers):
            j = min(int(np.searchsorted(running, row[n] * running[-1], side="right")), most)
            for w in range(n - 1, -1, -1):
                stay = sums[w, j] * stays[first + w]
                change = sums[w, j - 1] * changes[first + w] if j else 0.0
                if change > 0.0 and row[w] * (stay + change) >= stay:
                    changed[first + w, i_sample] = True
                    j -= 1
    return changed, log_near


def _others(
    model: Model,
    backend: Backend,
    tiled: NormalizedBatch,
    best: TokenBatch,
    i_words: NDArray[np.int64],
    i_samples: NDArray[np.int64],
    batch: NormalizedBatch,
    words: Words,
    options: NearOptions,
) -> tuple[TokenBatch, NDArray[np.float64]]:
    """(rows, logs of their probabilities): what words become that do not keep their best segmentation."""
    lattice = Lattice.of(model, backend, _listed(tiled, i_words), None, None)
    # Each word and sample of a document draws as a document of its own.
    docs = words.docs[i_words]
    positions = (words.offsets[:-1][i_words] - batch.offsets[docs]).astype(np.uint64)
    one = np.uint64(1)
    doc_ids = options.doc_ids[docs] + (positions + one) * GOLDEN + (i_samples.astype(np.uint64) + one) * SAMPLES
    wanted: list[list[int]] = [[] for _ in i_words]
    todo, k = np.arange(len(i_words)), 2
    while len(todo):
        found = lattice.take(todo).sample_without_replacement(
            k, alpha=options.alpha, token_penalty=options.token_penalty, seed=options.seed, doc_ids=doc_ids[todo]
        )
        left = []
        for i, rows in zip(todo.tolist(), found.tolist(), strict=True):
            at = i_words[i]
            own = best.ids[best.offsets[at] : best.offsets[at + 1]].tolist()
            other = next((row for row in rows if row != own), own if len(rows) < k else None)
            if other is None:
                left.append(i)
            else:
                wanted[i] = other
        # Paths through unknown text may read alike.
        todo, k = np.array(left, np.int64), 4 * k
    lengths = np.array(list(map(len, wanted)), np.int64)
    out = TokenBatch(np.array([i for row in wanted for i in row], np.int32), offsets_of(np, lengths))
    return out, on_host(lattice.log_prob(out, alpha=options.alpha, token_penalty=options.token_penalty))


def _listed(tiled: NormalizedBatch, i_words: NDArray[np.int64]) -> NormalizedBatch:
    values, offsets = rows_to_values(np, tiled.offsets, i_words)
    assert tiled.chunk_ids is not None
    return NormalizedBatch(tiled.values[values], offsets, offsets, tiled.chunk_ids[i_words])
