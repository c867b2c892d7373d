"""The definition of every operation on a lattice, in plain Python: the fast implementations are tested against it.

A lattice is a list of the arcs into each position e, shortest first, as (length, value): weights where they are
summed, scores (natural logarithms) where they are compared. A path is the list of its arcs' ends and ranks (an arc's
index among those into its end), from the text's start to its end. Worked example: a, b, ab weigh .4, .2, .3:

    >>> lattice = [[], [(1, .4)], [(1, .2), (2, .3)]]
    >>> [round(to_float(z), 12) for z in forward(lattice)]
    [1.0, 0.4, 0.38]
    >>> [round(p, 12) for p in posteriors(lattice)[2]]
    [0.210526315789, 0.789473684211]

Kernels may work on ranges between cuts; sums here are over the whole text, and agree up to rounding.
"""

import math
from collections.abc import Callable

import numpy as np

from gpu_lattice.kernels.fixed import fixed_exp, fixed_log
from gpu_lattice.kernels.reference import ONE, ZERO, Number, add, greater, log, multiply, number, to_float, uniform

Arcs = list[list[tuple[int, float]]]
Path = list[tuple[int, int]]
Reader = Callable[[int, int], list[int]]
Tokens = list[list[int | None]]


def forward(lattice: Arcs) -> list[Number]:
    """z[e]: the summed weights of the paths from 0 to e, shortest last arc first."""
    z = [ONE]
    for e in range(1, len(lattice)):
        total = ZERO
        for length, weight in lattice[e]:
            total = add(total, multiply(z[e - length], number(weight)))
        z.append(total)
    return z


def backward(lattice: Arcs) -> list[Number]:
    """b[s]: the summed weights of the paths from s to the end."""
    b = [ZERO] * (len(lattice) - 1) + [ONE]
    for e in range(len(lattice) - 1, 0, -1):
        for length, weight in lattice[e]:
            b[e - length] = add(b[e - length], multiply(b[e], number(weight)))
    return b


def posteriors(lattice: Arcs) -> list[list[float]]:
    """For every arc the probability that a path, drawn by weight, takes it; 0 if there is no path."""
    z, b = forward(lattice), backward(lattice)
    if z[-1] == ZERO:
        return [[0.0 for _ in arcs] for arcs in lattice]
    mantissa, exponent = z[-1]
    inverse = number(1.0 / mantissa, -exponent)
    return [
        [
            to_float(multiply(multiply(multiply(z[e - length], number(weight)), b[e]), inverse))
            for length, weight in arcs
        ]
        for e, arcs in enumerate(lattice)
    ]


def entropy(lattice: Arcs) -> float:
    """Entropy of the distribution over paths, in nats: log Z - the expected log weight."""
    z = forward(lattice)[-1]
    if z == ZERO:
        return 0.0
    parts = [
        posterior * math.log(weight)
        for arcs, row in zip(lattice, posteriors(lattice), strict=True)
        for (_, weight), posterior in zip(arcs, row, strict=True)
        if posterior > 0
    ]
    return log(z) - math.fsum(parts)


def num_paths(lattice: Arcs) -> int:
    """How many paths there are, whatever their weights."""
    counts = [1]
    for e in range(1, len(lattice)):
        counts.append(sum(counts[e - length] for length, _ in lattice[e]))
    return counts[-1]


def best_path(lattice: Arcs) -> tuple[float, Path]:
    """The path of greatest score (a sum from left to right) and its score; in a tie, the longest last arc wins.

    Raises ValueError if there is no path. A score of -inf means no arc.
    """
    best, back = [0.0], [-1]
    for e in range(1, len(lattice)):
        most, rank = -math.inf, -1
        for k, (length, score) in enumerate(lattice[e]):
            candidate = best[e - length] + score
            if candidate >= most and candidate > -math.inf:
                most, rank = candidate, k
        best.append(most)
        back.append(rank)
    return best[-1], _followed(lattice, back)


def _followed(lattice: Arcs, back: list[int]) -> Path:
    path = []
    e = len(lattice) - 1
    while e > 0:
        if back[e] < 0:
            raise ValueError(f"no path reaches position {e}")
        path.append((e, back[e]))
        e -= lattice[e][back[e]][0]
    return path[::-1]


def nbest(lattice: Arcs, n: int) -> list[tuple[float, Path]]:
    """(score, path) of the n >= 1 paths of greatest score, greatest first; of all paths if there are fewer.

    A score is a sum from left to right; -inf means no arc. In a tie, the path with the longer last arc (the later one
    into the end) comes first; of those with the same last arc, the one whose rest comes first in this order.
    """
    best: list[list[tuple[float, int, int]]] = [[(0.0, -1, -1)]]
    for e in range(1, len(lattice)):
        ways = [
            (total + score, k, i)
            for k, (length, score) in enumerate(lattice[e])
            if score > -math.inf
            for i, (total, _, _) in enumerate(best[e - length])
        ]
        best.append(sorted(ways, key=lambda way: (-way[0], -way[1], way[2]))[:n])
    paths = []
    for score, k, i in best[-1]:
        path = []
        e = len(lattice) - 1
        while e > 0:
            path.append((e, k))
            e -= lattice[e][k][0]
            _, k, i = best[e][i]
        paths.append((score, path[::-1]))
    return paths


def sample_nbest(
    lattice: Arcs, n: int, alpha: float, seed: int = 0, doc_id: int = 0, i_sample: int = 0
) -> tuple[Path, float]:
    """One of the n best paths, drawn with probability proportional to exp(alpha * score), and the log of that.

    The draw, from the counter (0, sample, document): the first whose running sum exceeds u * total; if none does, the
    last that adds. Weights are relative to that of the best path, and 0 below exp(-700).
    Source: Kudo 2018, "Subword regularization" (arXiv 1804.10959), l-best sampling.
    """
    paths = nbest(lattice, n)
    logs = [alpha * (score - paths[0][0]) for score, _ in paths]
    weights = [float(fixed_exp(np.array([x]))[0]) if x >= -700 else 0.0 for x in logs]
    total = 0.0
    for weight in weights:
        total += weight
    target = uniform(seed, 0, i_sample, doc_id) * total
    running, chosen = 0.0, 0
    for i, weight in enumerate(weights):
        if weight > 0.0:
            chosen, running = i, running + weight
            if running > target:
                break
    return paths[chosen][1], logs[chosen] - float(fixed_log(np.array([total]))[0])


def sample_without_replacement(lattice: Arcs, k: int, seed: int = 0, doc_id: int = 0) -> list[tuple[Path, Number]]:
    """k different paths, or all if there are fewer, each with the summed weight of those not drawn after it.

    A path is drawn from its end, at every position by a number of its own, from the weight that is left: initially z,
    later the sum of what is left through each arc, shortest first. The sample index is the number of paths drawn
    before. Source: Shi, Bieber and Sutton 2020 (arXiv 2002.09067).
    """
    z = forward(lattice)
    left: dict[tuple[tuple[int, int], ...], Number] = {}

    def through(suffix: tuple[tuple[int, int], ...], e: int, rank: int) -> Number:
        length, weight = lattice[e][rank]
        return multiply(left.get((*suffix, (e, rank)), z[e - length]), number(weight))

    drawn: list[tuple[Path, Number]] = []
    while len(drawn) < k and left.get((), z[-1]) != ZERO:
        suffix: tuple[tuple[int, int], ...] = ()
        e = len(lattice) - 1
        while e > 0:
            target = multiply(number(uniform(seed, e, len(drawn), doc_id)), left.get(suffix, z[e]))
            running, chosen = ZERO, -1
            for rank in range(len(lattice[e])):
                share = through(suffix, e, rank)
                if share != ZERO:
                    chosen, running = rank, add(running, share)
                    if greater(running, target):
                        break
            suffix = (*suffix, (e, chosen))
            e -= lattice[e][chosen][0]
        left[suffix] = ZERO
        for i in range(len(suffix) - 1, -1, -1):
            total = ZERO
            for rank in range(len(lattice[suffix[i][0]])):
                total = add(total, through(suffix[:i], suffix[i][0], rank))
            left[suffix[:i]] = total
        drawn.append((list(suffix[::-1]), left[()]))
    return drawn


def inclusion_threshold(lattice: Arcs, drawn: list[tuple[Path, Number]], seed: int = 0, doc_id: int = 0) -> float:
    """kappa: the greatest perturbed log-probability of a path that `sample_without_replacement` did not draw.

    It is -log of that path's arrival time: before each arrival comes an exponential waiting time whose rate is the
    probability left, which may be less than the smallest float, from the counter (2^32 - 1, the number of paths before,
    document), with 2^-54 for 0. -inf if all are drawn. A path is in the sample with probability
    1 - exp(-exp(log p - kappa)).
    Source: Kool, van Hoof and Welling 2019, "Stochastic beams and where to find them" (arXiv 1903.06059).
    """
    whole = forward(lattice)[-1]
    log_waits = []
    for i, rest in enumerate([whole, *(rest for _, rest in drawn)]):
        if rest == ZERO:
            return -math.inf
        u = max(uniform(seed, 2**32 - 1, i, doc_id), 2.0**-54)
        log_waits.append(math.log(-math.log(u)) - log(rest) + log(whole))
    longest = max(log_waits)
    return -longest - math.log(math.fsum(math.exp(wait - longest) for wait in log_waits))


def viterbi_sample(lattice: Arcs, alpha: float, seed: int = 0, doc_id: int = 0, i_sample: int = 0) -> Path:
    """One sample of BytePiece 0.4's Viterbi Sampling, which is biased; values are scores, -inf means no arc.

    The first of the arcs into e, longest first, is chosen; each other replaces the choice if logit(u) < alpha * (its
    sum - the chosen sum), that is with probability sigmoid of the right side. u is from the counter (2^32 - 2 - the
    arc's number in the text, sample, document), logit(u) = log(u) - log(1 - u) by fixed.fixed_log.
    Raises ValueError if there is no path. Source: Su Jianlin, https://kexue.fm/archives/9768.
    """
    sums, back, n_arcs = [0.0], [-1], 0
    for e in range(1, len(lattice)):
        best, rank = -math.inf, -1
        for k in range(len(lattice[e]) - 1, -1, -1):
            length, score = lattice[e][k]
            candidate = sums[e - length] + score
            if candidate == -math.inf:
                continue
            u = uniform(seed, 2**32 - 2 - (n_arcs + k), i_sample, doc_id)
            if rank < 0 or _logit(u) < alpha * (candidate - best):
                best, rank = candidate, k
        n_arcs += len(lattice[e])
        sums.append(best)
        back.append(rank)
    return _followed(lattice, back)


def _logit(u: float) -> float:
    return -math.inf if u == 0.0 else float(fixed_log(np.array(u)) - fixed_log(np.array(1.0 - u)))


def token_sums(lattice: Arcs, tokens: Tokens, chunk_starts: set[int]) -> list[dict[tuple[int, bool], Number]]:
    """For every position, the summed weights of the paths to there by (their number of tokens, whether the next
    unknown arc would go on with the last token).

    tokens: how many tokens each arc is; None for an unknown one, of which a run within a chunk is one token.
    """
    sums: list[dict[tuple[int, bool], Number]] = [{(0, False): ONE}]
    for e in range(1, len(lattice)):
        here: dict[tuple[int, bool], Number] = {}
        for (length, weight), n in zip(lattice[e], tokens[e], strict=True):
            for (t, goes_on), z in sums[e - length].items():
                reached = (t + (not goes_on), e not in chunk_starts) if n is None else (t + n, False)
                here[reached] = add(here.get(reached, ZERO), multiply(z, number(weight)))
        sums.append(here)
    return sums


def token_counts(lattice: Arcs, tokens: Tokens, chunk_starts: set[int]) -> list[float]:
    """The probability of each number of tokens, from 0 on; all 0 if there is no path."""
    totals: dict[int, Number] = {}
    for (t, _), z in token_sums(lattice, tokens, chunk_starts)[-1].items():
        totals[t] = add(totals.get(t, ZERO), z)
    mantissa, exponent = forward(lattice)[-1]
    if mantissa == 0.0:
        return [0.0]
    inverse = number(1.0 / mantissa, -exponent)
    return [to_float(multiply(totals.get(t, ZERO), inverse)) for t in range(max(totals) + 1)]


def sample_by_tokens(
    lattice: Arcs, tokens: Tokens, chunk_starts: set[int], n: int, seed: int = 0, doc_id: int = 0, i_sample: int = 0
) -> Path:
    """A path drawn by weight from those of exactly n tokens.

    From the end, at every position by a number of its own, u, from the counter (position, sample, document): the first
    arc, shortest first, and of two ways to come there first that whose next unknown arc begins a token, whose running
    sum exceeds u times their sum. Raises ValueError if there is no such path.
    """
    sums = token_sums(lattice, tokens, chunk_starts)
    path, e, wanted = [], len(lattice) - 1, {(n, False), (n, True)}
    while e > 0:
        ways = []
        for rank, ((length, weight), n_tokens) in enumerate(zip(lattice[e], tokens[e], strict=True)):
            for (t, goes_on), z in sorted(sums[e - length].items(), key=lambda way: way[0][1]):
                reached = (t + (not goes_on), e not in chunk_starts) if n_tokens is None else (t + n_tokens, False)
                if reached in wanted:
                    ways.append((rank, (t, goes_on), multiply(z, number(weight))))
        total = ZERO
        for _, _, term in ways:
            total = add(total, term)
        if total == ZERO:
            raise ValueError(f"no path has {n} tokens")
        target, running = multiply(number(uniform(seed, e, i_sample, doc_id)), total), ZERO
        for rank, before, term in ways:
            if term != ZERO:
                chosen, wanted, running = rank, {before}, add(running, term)
                if greater(running, target):
                    break
        path.append((e, chosen))
        e -= lattice[e][chosen][0]
    return path[::-1]


def reading_sum(
    lattice: Arcs, names: list[list[int | None]], ids: list[int], read: Reader, chunk_starts: set[int]
) -> Number:
    """The summed weights of the paths that read as exactly these ids.

    names: the id of each arc, None for an unknown one; a maximal run of unknown arcs within a chunk, from s to e, reads
    as read(s, e).
    """
    n, m = len(lattice) - 1, len(ids)
    # Of text[:e] and ids[:j]: all paths, and those after which an unknown arc begins a new run.
    whole, closed = ([[ZERO] * (m + 1) for _ in range(n + 1)] for _ in range(2))
    whole[0][0] = closed[0][0] = ONE
    for e in range(1, n + 1):
        for (length, weight), name in zip(lattice[e], names[e], strict=True):
            for j in range(1, m + 1):
                if name is not None and name == ids[j - 1]:
                    closed[e][j] = add(closed[e][j], multiply(whole[e - length][j - 1], number(weight)))
        whole[e] = closed[e].copy()
        for s, run in _unknown_runs(lattice, names, e, chunk_starts).items():
            part = read(s, e)
            for j in range(len(part), m + 1):
                if ids[j - len(part) : j] == part:
                    whole[e][j] = add(whole[e][j], multiply(closed[s][j - len(part)], run))
        if e in chunk_starts:
            closed[e] = whole[e]
    return whole[n][m]


def _unknown_runs(lattice: Arcs, names: list[list[int | None]], e: int, chunk_starts: set[int]) -> dict[int, Number]:
    """For every s before e, the summed weights of the paths from s to e along unknown arcs of one chunk."""
    runs = {e: ONE}
    for p in range(e, 0, -1):
        if p in runs and (p == e or p not in chunk_starts):
            for (length, weight), name in zip(lattice[p], names[p], strict=True):
                if name is None:
                    runs[p - length] = add(runs.get(p - length, ZERO), multiply(runs[p], number(weight)))
    del runs[e]
    return runs


def allowed_next(pieces: list[bytes], rest: bytes) -> range:
    """Which of the pieces, sorted by their bytes, begin with the rest of a text and are longer."""
    longer = [i for i, piece in enumerate(pieces) if piece.startswith(rest) and piece != rest]
    return range(longer[0], longer[-1] + 1) if longer else range(0)
