"""Several ways of doing the same work, timed in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Case(NamedTuple):
    """A way of doing the work.

    prepare     puts documents into the form that `call` takes, outside the clock
    num_tokens  of what `call` returns, which is outside the clock too; 0 where nobody asks
    share       of each round's documents that it gets: less than 1 for what is slow
    """

    name: Hashable
    prepare: Callable[[list[str]], Any]
    call: Callable[[Any], Any]
    num_tokens: Callable[[Any], int] = lambda out: 0
    share: float = 1.0


@dataclass
class Timings:
    """Of one case, a number per round: bytes of text, tokens made of it, seconds."""

    num_bytes: list[int] = field(default_factory=list)
    num_tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """MB/s of each round."""
        return [size / 1e6 / spent for size, spent in zip(self.num_bytes, self.seconds, strict=True)]

    def summary(self) -> dict[str, float]:
        """Medians of MB/s and of millions of tokens/s, and between what the rates of 60 % of the rounds are."""
        rates = self.rates
        tokens = [made / 1e6 / spent for made, spent in zip(self.num_tokens, self.seconds, strict=True)]
        return {
            "mb_per_s": statistics.median(rates),
            "low": _quantile(rates, 0.2),
            "high": _quantile(rates, 0.8),
            "mtokens_per_s": statistics.median(tokens),
        }


def in_turns(
    cases: Sequence[Case],
    rounds: Iterable[list[str]],
    done: Callable[[Hashable], None] = lambda name: None,
    clock: Callable[[], float] = time.perf_counter,
    least_seconds: float = 0.0,
) -> dict[Any, Timings]:
    """Give the documents of each round to every case; done(name) follows each of them.

    A case is called once a round, or until least_seconds have passed, of which the mean is taken: one short call would
    tell of what the case before it left in the processor's caches. What is compared must be measured in one run: a
    shared machine's speed changes between rounds more than within one.
    """
    timings = {case.name: Timings() for case in cases}
    for i_round, documents in enumerate(rounds):
        for case in cases if i_round % 2 else reversed(cases):
            given = documents[: max(1, round(case.share * len(documents)))]
            prepared = case.prepare(given)
            start, calls, spent = clock(), 0, 0.0
            while calls == 0 or spent < least_seconds:
                out = case.call(prepared)
                calls, spent = calls + 1, clock() - start
            one = timings[case.name]
            one.num_bytes.append(sum(len(document.encode()) for document in given))
            one.num_tokens.append(case.num_tokens(out))
            one.seconds.append(spent / calls)
            done(case.name)
    return timings


def ratio(one: Timings, other: Timings) -> float:
    """How many times the other's rate: the median over rounds of their own ratios."""
    return statistics.median(mine / theirs for mine, theirs in zip(one.rates, other.rates, strict=True))


def _quantile(values: Sequence[float], q: float) -> float:
    at = sorted(values)
    return at[round(q * (len(at) - 1))]
