"""The samplers of the literature, in plain Python, to compare with: the compiled ones are tested against them.

Each draws the coins 0, 1, 2, ... of a row: numbers in [0, 1) from the counter (coin, sample, document). What they give
is not proportional to any weight of a path, but for GRaMPa at temperature 1, which is uniform. Worked example: without
dropout "abc" merges to ab|c; with it the merge is left out half of the time.

    >>> merges = {("a", "b"): (0, "ab")}
    >>> bpe_dropout(["a", "b", "c"], merges, 0.0, iter([]))
    ['ab', 'c']
    >>> bpe_dropout(["a", "b", "c"], merges, 0.5, iter([0.3]))
    ['a', 'b', 'c']
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, pairwise
from math import exp, log
from typing import TypeVar

from gpu_lattice.kernels.reference import uniform

T = TypeVar("T")

# Of every position of a text, the (length, rank among the arcs into its end) of the arcs that begin there.
Arcs = list[list[tuple[int, int]]]
Path = list[tuple[int, int]]


def coins(seed: int, doc_id: int, i_sample: int) -> Iterator[float]:
    """The coins of a row."""
    return (uniform(seed, i, i_sample, doc_id) for i in count())


def bpe_dropout(
    symbols: Sequence[T], merges: Mapping[tuple[T, T], tuple[int, T]], dropout: float, coin: Iterator[float]
) -> list[T]:
    """One unit by BPE with dropout; merges: (rank, what two neighbours become).

    In each step every pair of neighbours that may merge is dropped for this step by a coin of its own, from left to
    right; of those left, all of the least rank merge, from left to right. It ends when none is left.
    Source: Provilkov, Emelianenko and Voita 2020 (arXiv 1910.13267), as in subword-nmt.
    """
    tokens = list(symbols)
    while True:
        kept = {
            i: merges[pair][0]
            for i, pair in enumerate(pairwise(tokens))
            if pair in merges and (dropout == 0.0 or next(coin) >= dropout)
        }
        if not kept:
            return tokens
        least, merged, i = min(kept.values()), [], 0
        while i < len(tokens):
            if kept.get(i) == least:
                merged.append(merges[tokens[i], tokens[i + 1]][1])
                i += 2
            else:
                merged.append(tokens[i])
                i += 1
        tokens = merged


def maxmatch_dropout(outgoing: Arcs, dropout: float, coin: Iterator[float]) -> Path:
    """The longest match from left to right, with dropout: (end, rank) of every arc taken.

    From the longest on, each arc that begins where the last one ended is dropped by a coin of its own, but the
    shortest never. Raises ValueError where none begins.
    Source: Hiraoka 2022, "MaxMatch-Dropout" (arXiv 2209.04126), where symbols are never dropped.
    """
    path, s = [], 0
    while s < len(outgoing) - 1:
        if not outgoing[s]:
            raise ValueError(f"no arc begins at position {s}")
        arcs = sorted(outgoing[s])
        while len(arcs) > 1 and dropout > 0.0 and next(coin) < dropout:
            arcs.pop()
        length, rank = arcs[-1]
        path.append((s + length, rank))
        s += length
    return path


def stochastok(
    ids: Sequence[int], splits: Mapping[int, list[tuple[int, int]]], share: float, coin: Iterator[float]
) -> list[int]:
    """The ids with some of them split in two: floor(share * n) times, a place is drawn, and, if the id there has
    splits, one of them, which takes its place.

    Source: Sims et al. 2025, "StochasTok" (arXiv 2506.01687).
    """
    tokens = list(ids)
    for _ in range(int(share * len(ids))):
        i = int(next(coin) * len(tokens))
        found = splits.get(tokens[i], [])
        if found:
            tokens[i : i + 1] = found[int(next(coin) * len(found))]
    return tokens


def grampa(incoming: Arcs, temperature: float, least_length: int, coin: Iterator[float]) -> Path:
    """A walk from a text's end to its start along arcs, by how many paths lead to where they begin: (end, rank).

    incoming: of every position, the arcs that end there. An arc has weight (paths to its start)^(1 / temperature): 1 is
    uniform over paths, less than 0 prefers the longer arcs. Arcs that are shorter than least_length are left out, but
    for the longest that ends at a position, if none is long enough. Raises ValueError if there is no path.
    Source: Bauwens, Kaczer and de Lhoneux 2025, "GRaMPa" (https://aclanthology.org/2025.acl-long.1180), there with
    lengths in characters, and also the other way round, from the start.
    """
    counts: list[int] = [1]
    kept: list[list[tuple[int, int]]] = [[]]
    for e in range(1, len(incoming)):
        reached = [(length, rank) for length, rank in incoming[e] if counts[e - length]]
        least = min(least_length, max(reached, default=(0, 0))[0])
        kept.append([(length, rank) for length, rank in reached if length >= least])
        counts.append(sum(counts[e - length] for length, _ in kept[e]))
    if not counts[-1]:
        raise ValueError("no path leads to the end")
    path, e = [], len(incoming) - 1
    while e > 0:
        ways = [
            (length, rank, exp((log(counts[e - length]) - log(counts[e])) / temperature)) for length, rank in kept[e]
        ]
        target, running = next(coin) * sum(weight for *_, weight in ways), 0.0
        for length, rank, weight in ways:
            chosen, running = (length, rank), running + weight
            if running > target:
                break
        path.append((e, chosen[1]))
        e -= chosen[0]
    return path[::-1]
