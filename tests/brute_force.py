"""Every segmentation of a short text, listed one by one: the oracle of the exactness tests.

Nothing here is taken from the package: texts are lists of symbols, sums are math.fsum.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
from scipy.stats import chisquare

UNKNOWN = -1
UNKNOWN_PENALTY = 10.0

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Enumeration:
    """ids, scores, num_arcs: of every path. Two paths may give the same ids where unknown symbols are merged."""

    ids: list[Ids]
    scores: list[float]
    num_arcs: list[int]

    def log_weights(self, alpha: float, penalty: float) -> list[float]:
        return [alpha * score - penalty * n for score, n in zip(self.scores, self.num_arcs, strict=True)]

    def log_z(self, alpha: float, penalty: float = 0.0) -> float:
        weights = self.log_weights(alpha, penalty)
        most = max(weights)
        return most + math.log(math.fsum(math.exp(weight - most) for weight in weights))

    def log_probs(self, alpha: float, penalty: float = 0.0) -> list[float]:
        log_z = self.log_z(alpha, penalty)
        return [weight - log_z for weight in self.log_weights(alpha, penalty)]

    def probabilities(self, alpha: float, penalty: float = 0.0) -> dict[Ids, float]:
        """Of every list of ids."""
        parts: dict[Ids, list[float]] = {}
        for ids, log_prob in zip(self.ids, self.log_probs(alpha, penalty), strict=True):
            parts.setdefault(ids, []).append(math.exp(log_prob))
        return {ids: math.fsum(part) for ids, part in parts.items()}


def brute_force(text: str | bytes, pieces: Mapping[Any, float | None], unk_piece: Any = None) -> Enumeration:
    """All paths of a text over the arguments of Tokenizer.from_pieces, longest first piece last."""
    symbols: list[Any] = list(text) if isinstance(text, str) else [bytes([byte]) for byte in text]
    join = type(text)().join
    id_of = {piece: i for i, piece in enumerate(pieces)}
    unk_id = id_of.pop(unk_piece, None)
    score_of = [score or 0.0 for score in pieces.values()]
    unk_score = min((score_of[i] for i in id_of.values()), default=0.0) - UNKNOWN_PENALTY

    @cache
    def paths_from(i: int) -> list[Ids]:
        if i == len(symbols):
            return [()]
        paths = []
        for j in range(i + 1, len(symbols) + 1):
            piece = id_of.get(join(symbols[i:j]))
            if piece is None and (unk_id is None or j > i + 1):
                continue
            paths += [(UNKNOWN if piece is None else piece, *rest) for rest in paths_from(j)]
        return paths

    paths = paths_from(0)
    scores = [math.fsum(unk_score if arc == UNKNOWN else score_of[arc] for arc in path) for path in paths]
    return Enumeration([_merged(path, unk_id) for path in paths], scores, [len(path) for path in paths])


def _merged(path: Ids, unk_id: int | None) -> Ids:
    ids: list[int] = []
    for arc, run in groupby(path):
        ids += [unk_id] if arc == UNKNOWN and unk_id is not None else list(run)
    return tuple(ids)


def p_value(counts: Counter[Ids], probabilities: Mapping[Ids, float], least: float = 10.0) -> float:
    """Of the chi-square test that the counts were drawn with these probabilities; rare cells share one.

    A count of what has no probability at all is a failure, not a small p.
    """
    assert set(counts) <= set(probabilities), f"impossible: {set(counts) - set(probabilities)}"
    draws = counts.total()
    cells = sorted(probabilities, key=probabilities.__getitem__, reverse=True)
    observed = np.array([counts[cell] for cell in cells], np.float64)
    expected = np.array([probabilities[cell] for cell in cells]) * draws
    frequent = int(np.count_nonzero(expected >= least))
    if frequent < len(cells):
        # The shared cell takes the least frequent ones until it is expected often enough itself.
        while frequent and expected[frequent:].sum() < least:
            frequent -= 1
        observed = np.append(observed[:frequent], observed[frequent:].sum())
        expected = np.append(expected[:frequent], expected[frequent:].sum())
    if len(expected) < 2:
        return 1.0
    return float(chisquare(observed, expected).pvalue)


def counted(rows: list[list[int]]) -> Counter[Ids]:
    return Counter(map(tuple, rows))
