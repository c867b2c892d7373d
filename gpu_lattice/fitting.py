"""EM of a unigram model's scores on a corpus: its distinct segments are counted once, and gone over again and again.

A step replaces each score by the log of what share the piece has of the tokens that the scores before lead to expect.
Source: Kudo 2018 (arXiv 1804.10959), section 3.2; Dempster, Laird and Rubin 1977 for why the likelihood never falls;
Ueda and Nakano 1998, "Deterministic annealing EM algorithm", for alpha other than 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gpu_lattice.models.saving import as_read
from gpu_lattice.runtime.arguments import checked_alpha, checked_integer, to_float
from gpu_lattice.statistics import SegmentTable, add_expected, count_segments
from gpu_lattice.text_batch import TEXT, TextBatch
from gpu_lattice.vocabulary import Kind, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.backends.tables import Tables
    from gpu_lattice.models import Model
    from gpu_lattice.statistics import Normalize

# A table that has more segments loses the rarest, down to half of them.
MOST_SEGMENTS = 1 << 22
# Of texts that come one by one.
BATCH_TEXTS = 1 << 14
# Expected occurrences below which a piece keeps a score.
LEAST_COUNT = 0.01
# The trainer of SentencePiece drops pieces below this (unigram_model_trainer.cc).
DROPPED_BELOW = 0.5
UNKNOWN_PENALTY = 10.0

MStep = Literal["maximum", "sentencepiece"]


@dataclass(frozen=True, eq=False)
class Fit:
    """What `Tokenizer.fit` found.

    tokenizer       a Tokenizer with the new scores
    log_likelihood  of the texts, before the first step and after each: the sum of their log partitions / alpha
    counts          float64 [V], the expected counts with the scores before the last step
    has_converged   whether a step gained less than the tolerance
    num_segments, num_pruned  distinct segments that scores were fitted to; and how many times rare ones were given up
                    for want of memory, each time a segment was met
    """

    tokenizer: Any
    log_likelihood: list[float]
    counts: NDArray[np.float64]
    has_converged: bool
    num_segments: int
    num_pruned: int

    def __repr__(self) -> str:
        first, last, n = self.log_likelihood[0], self.log_likelihood[-1], len(self.log_likelihood) - 1
        end = "converged" if self.has_converged else "not converged"
        return f"<Fit: log-likelihood {first:.6g} -> {last:.6g} in {n} steps, {end}>"


@dataclass(frozen=True)
class Options:
    """How to fit: steps at most, the temperature, the gain of a step, relative to the log-likelihood, that ends it."""

    iterations: int
    alpha: float
    m_step: MStep
    tolerance: float

    @staticmethod
    def checked(iterations: Any, alpha: Any, m_step: Any, tolerance: Any) -> Options:
        """ValueError or TypeError for options out of range."""
        if m_step not in ("maximum", "sentencepiece"):
            raise ValueError(f"m_step is {m_step!r}; give 'maximum' or 'sentencepiece'")
        alpha, tolerance = checked_alpha(alpha), to_float(tolerance)
        if alpha == 0:
            raise ValueError("alpha is 0, with which scores mean nothing; give a number > 0, 1 for the likelihood")
        if not tolerance >= 0:
            raise ValueError(f"tolerance is {tolerance}; give a number >= 0")
        return Options(checked_integer("iterations", iterations, 1, 10**6), alpha, m_step, tolerance)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Scores float64 [V] and all else that a Fit tells."""

    scores: NDArray[np.float64]
    log_likelihood: list[float]
    counts: NDArray[np.float64]
    has_converged: bool
    num_segments: int
    num_pruned: int


def fit(tables: Tables, model: Model, normalize: Normalize, texts: Any, options: Options, threads: int) -> Fitted:
    """Fit the scores of a model's ordinary pieces to texts; all other scores stay as they are."""
    table, tokens, num_pruned = _counted(tables, normalize, texts, threads)
    vocabulary = model.vocabulary
    n_ids, is_fitted = len(vocabulary), vocabulary.in_lattice & (vocabulary.kinds == Kind.NORMAL)
    if not table.n or not is_fitted.any():
        raise ValueError("there is no text to fit scores to; give texts that are not empty")
    scores = vocabulary.scores.copy()
    if not scores[is_fitted].any():
        scores[is_fitted] = -np.log(np.count_nonzero(is_fitted))
        vocabulary = replace(vocabulary, unk_score=float(scores[is_fitted].min()) - UNKNOWN_PENALTY)
    log_likelihood: list[float] = []
    kept = np.zeros(n_ids)
    while True:
        tables = tables.rescored(replace(model, vocabulary=_with_scores(vocabulary, scores)))
        counts = np.zeros(n_ids + 1)
        counts[: len(tokens)] += tokens
        log_likelihood.append(add_expected(table, tables.sample_model(options.alpha), threads, counts) / options.alpha)
        gain = log_likelihood[-1] - log_likelihood[-2] if len(log_likelihood) > 1 else np.inf
        has_converged = bool(abs(gain) <= options.tolerance * abs(log_likelihood[-1]))
        if has_converged or len(log_likelihood) > options.iterations:
            return Fitted(as_read(scores, model.kind), log_likelihood, kept, has_converged, table.n, num_pruned)
        kept, scores = counts[:n_ids], scores.copy()
        if not kept[is_fitted].any():
            raise ValueError("no piece that has a score occurs in the texts; give others")
        if options.m_step == "maximum":
            scores[is_fitted] = maximum(kept[is_fitted], scores[is_fitted].min())
        else:
            scores[is_fitted] = sentencepiece(kept[is_fitted])
            _keep_symbols(scores, is_fitted, vocabulary.surfaces, vocabulary.symbols == "bytes")


def fits_unigram(tokenizer: Any) -> bool:
    """Whether to save what `Tokenizer.fit` makes of a tokenizer as_unigram: where its format can hold that. The scores
    of other BPE models go beside their merges. Raises ValueError, before any work, if the file cannot hold scores.
    """
    vocabulary = tokenizer.model.vocabulary
    is_fitted = vocabulary.in_lattice & (vocabulary.kinds == Kind.NORMAL)
    uniform = vocabulary.scores.copy()
    uniform[is_fitted] = -np.log(np.count_nonzero(is_fitted))
    fitted = tokenizer.rescored(as_read(uniform, tokenizer.model.kind))
    with suppress(ValueError):
        fitted.to_bytes(as_unigram=True)
        return True
    fitted.to_bytes()
    return False


def maximum(counts: NDArray[np.float64], lowest: float) -> NDArray[np.float64]:
    """The scores of greatest likelihood among those whose exps sum to 1 and are not below a least one.

    counts float64 [n], not all 0. The least is that of LEAST_COUNT occurrences, or `lowest`, a log, if that is less:
    pieces that are not met keep a score, and the scores before a step are among those that it chooses from, so that the
    likelihood does not fall.
    """
    least = min(LEAST_COUNT / counts.sum(), np.exp(max(lowest, -600.0)), 0.5 / len(counts))
    is_low = np.zeros(len(counts), bool)
    while True:
        scale = counts[~is_low].sum() / (1.0 - least * np.count_nonzero(is_low))
        lower = counts < least * scale
        if np.array_equal(lower, is_low):
            scores: NDArray[np.float64] = np.log(np.where(is_low, least, counts / scale))
            return scores
        is_low = lower


def sentencepiece(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The M-step of SentencePiece's trainer: digamma(count) - digamma(their sum), -inf for counts below 0.5.

    Source: google/sentencepiece 0.2.3, unigram_model_trainer.cc, RunMStep and Digamma, in float64; the prior is that of
    Liang and Klein's tutorial of 2007 on Bayesian EM.
    """
    is_kept = counts >= DROPPED_BELOW
    total = digamma(np.array([counts[is_kept].sum()]))[0]
    return np.where(is_kept, digamma(np.where(is_kept, counts, 1.0)) - total, -np.inf)


def digamma(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The derivative of log gamma for x > 0, as SentencePiece's trainer computes it.

    Example:
        >>> digamma(np.array([1.0])).round(9).tolist()
        [-0.577215665]
    """
    x, total = x.copy(), np.zeros_like(x)
    while (is_small := x < 7).any():
        total[is_small] -= 1 / x[is_small]
        x[is_small] += 1
    x -= 0.5
    square = 1 / (x * x)
    fourth = square * square
    return (
        total
        + np.log(x)
        + 1 / 24 * square
        - 7 / 960 * fourth
        + 31 / 8064 * fourth * square
        - 127 / 30720 * fourth * fourth
    )


def _keep_symbols(
    scores: NDArray[np.float64], is_fitted: NDArray[np.bool_], surfaces: list[bytes], is_bytes: bool
) -> None:
    """Pieces of one symbol stay, with the lowest score there is: the trainer puts them back in the end."""
    lowest = scores[is_fitted & np.isfinite(scores)].min()
    for i in np.flatnonzero(is_fitted & np.isneginf(scores)).tolist():
        if len(surfaces[i] if is_bytes else surfaces[i].decode()) == 1:
            scores[i] = lowest


def _with_scores(vocabulary: Vocabulary, scores: NDArray[np.float64]) -> Vocabulary:
    """With other scores; -inf takes a piece out. Unknown text keeps its own, so that likelihoods can be compared."""
    is_arc = vocabulary.in_lattice & ~np.isneginf(scores)
    return replace(vocabulary, scores=np.where(is_arc, scores, vocabulary.scores), in_lattice=is_arc)


def _counted(
    tables: Tables, normalize: Normalize, texts: Any, threads: int
) -> tuple[SegmentTable, NDArray[np.float64], int]:
    """(the segments, the weights of chunks that are tokens, how many segments were given up)."""
    table, tokens, num_pruned, first_doc = SegmentTable(), np.zeros(len(tables.vocabulary)), 0, 0
    for batch in batches_of(texts):
        for part, of_part in count_segments(tables, normalize, batch, np.ones(len(batch)), threads, first_doc):
            tokens[: len(of_part)] += of_part
            table.merge(part)
            if table.n > MOST_SEGMENTS:
                heaviest = np.sort(np.argsort(-table.weights, kind="stable")[: MOST_SEGMENTS // 2])
                num_pruned += table.n - len(heaviest)
                table.keep(heaviest)
        first_doc += len(batch)
    return table, tokens, num_pruned


def batches_of(texts: Any) -> Iterator[TextBatch]:
    """Texts in any accepted form, or an iterable of texts or of batches, a part of them at a time."""
    if not isinstance(texts, Iterator):
        yield TextBatch.from_texts(texts)
        return
    held: list[Any] = []
    for one in texts:
        if one is None or isinstance(one, TEXT):
            held.append(one)
        else:
            yield TextBatch.from_texts(one)
        if len(held) == BATCH_TEXTS:
            yield TextBatch.from_texts(held)
            held = []
    if held:
        yield TextBatch.from_texts(held)
