"""The lattice of one text and its distribution for an alpha, as tables and pictures show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.runtime.arguments import check_tokenizer, checked_integer, checked_rate
from gpu_lattice.runtime.on_host import on_host
from gpu_lattice.show.picture import LN_10, percent, power_of_ten, visible

if TYPE_CHECKING:
    from gpu_lattice.lattice import Lattice
    from gpu_lattice.models import Model
    from gpu_lattice.tokenizer import Tokenizer


Ids = tuple[int, ...]


@dataclass(frozen=True)
class Arc:
    """An arc from byte start to byte end of the normalized text; id is -2 for an unknown symbol without an id."""

    start: int
    end: int
    id: int
    posterior: float
    is_unknown: bool


@dataclass(frozen=True)
class Segmentation:
    """A segmentation: its ids, the arcs that it takes (indices into Portrait.arcs), log of its probability.

    times   how often it was drawn; None if none were
    """

    ids: tuple[int, ...]
    arcs: tuple[int, ...]
    log_prob: float
    is_best: bool
    times: int | None = None


@dataclass(frozen=True)
class Portrait:
    """All that is shown of the lattice of one text.

    num_bytes            of the text as it was given
    text                 the normalized bytes, which arcs are of
    names                the pieces by id, as the model's tool prints them
    arcs                 all arcs by start, shortest first
    best_arcs            the indices of the best segmentation's arcs
    segmentations        the best ones, or those drawn most often, without repeated lists of ids
    alpha, token_penalty, rate   the distribution, of which posteriors, probabilities and the entropy are
    log_partition, entropy       nats; the former is that of the lattice, whatever the rate
    log_num_paths, num_paths        how many segmentations there are; None if that number is too long to print
    """

    num_bytes: int
    text: bytes
    names: Sequence[str]
    arcs: list[Arc]
    best_arcs: frozenset[int]
    segmentations: list[Segmentation]
    alpha: float
    token_penalty: float
    rate: float
    log_partition: float
    entropy: float
    log_num_paths: float
    num_paths: int | None

    @property
    def sizes(self) -> str:
        """The size of the lattice, in words."""
        normalized = f" ({len(self.text):,} normalized)" if len(self.text) != self.num_bytes else ""
        return f"{_plural(self.num_bytes, 'byte')}{normalized}, {_plural(len(self.arcs), 'arc')}, {self.count}"

    @property
    def measures(self) -> str:
        """The distribution, in words."""
        tilt = f", token penalty {self.token_penalty:g}" if self.token_penalty else ""
        tilt += f", rate {self.rate:g}" if self.rate != 1 else ""
        per_byte = self.entropy / max(1, self.num_bytes)
        log_z, entropy = f"log Z {self.log_partition:.4f}", f"entropy {self.entropy:.4f} nats ({per_byte:.4f} per byte)"
        return f"alpha {self.alpha:g}{tilt}: {log_z}, {entropy}"

    @property
    def count(self) -> str:
        """The number of segmentations, in words."""
        if self.num_paths is None:
            return f"{power_of_ten(self.log_num_paths)} segmentations"
        return _plural(self.num_paths, "segmentation")

    @property
    def listed(self) -> tuple[str, str]:
        """The share of the distribution that the listed segmentations have, and how many they are: two phrases."""
        covered = float(np.logaddexp.reduce([one.log_prob for one in self.segmentations]))
        return percent(covered), f"in {len(self.segmentations)} of {self.count}"

    def pieces(self, one: Segmentation) -> list[str]:
        """The pieces of a segmentation, in visible characters."""
        return [visible(self.names[i].encode()) for i in one.ids]

    def label(self, arc: Arc, missing: frozenset[str] = frozenset()) -> str:
        """The text of an arc, in visible characters."""
        return visible(self.text[arc.start : arc.end], missing)


def portrait(
    tokenizer: Tokenizer,
    text: Any,
    *,
    alpha: float = 0.1,
    top: int = 5,
    token_penalty: float = 0.0,
    rate: float = 1.0,
    num_samples: int | None = None,
    seed: int = 0,
) -> Portrait:
    """The lattice of one text (str or bytes), and its `top` best segmentations with exact probabilities.

    Among the `top` best paths, those that read as the same ids are one segmentation; its probability is that of the
    ids. With a token_penalty, the best are those of greatest probability. With num_samples, the segmentations are
    those that so many draws give most often, as `tokenizer.sample` draws them with the seed and the rate. Raises
    ValueError for a text that the model cannot spell, and for a rate below 1 without draws, which nothing ranks.

    Example:
        >>> tok = Tokenizer.from_pieces({"a": -1.0, "b": -1.0, "ab": -1.5})
        >>> seen = portrait(tok, "ab", alpha=0)
        >>> [(one.ids, round(one.log_prob, 4)) for one in seen.segmentations]
        [((2,), -0.6931), ((0, 1), -0.6931)]
    """
    check_tokenizer(tokenizer)
    top = checked_integer("top", top, 1, 10_000)
    rate = checked_rate(rate)
    if rate < 1 and num_samples is None:
        raise ValueError(f"the rate is {rate:g}, for which no order of segmentations is known; draw some (samples)")
    normalized = tokenizer.normalize(text).tolist()
    if len(normalized) != 1 or normalized[0] is None:
        raise ValueError(f"{len(normalized)} texts or null; one text is shown at a time, so give a str or bytes")
    lattice = tokenizer.lattice(text)
    tilt = {"alpha": alpha, "token_penalty": token_penalty}
    arcs = _arcs(lattice, tilt)
    follow = _Follower(normalized[0], arcs, tokenizer.model)
    before, after = len(tokenizer.model.prefix_ids), len(tokenizer.model.suffix_ids)
    listed: dict[Ids, tuple[float, int | None]]
    if num_samples is None:
        rows = list(dict.fromkeys(map(_ids, lattice.nbest(top, **tilt if token_penalty else {}).tolist()[0])))
        log_probs = on_host(lattice.log_prob([list(ids) for ids in rows], **tilt)).tolist()
        best, listed = rows[0], {ids: (log_prob, None) for ids, log_prob in zip(rows, log_probs, strict=True)}
    else:
        out = tokenizer.sample(
            text, alpha=alpha, token_penalty=token_penalty, rate=rate, num_samples=num_samples, seed=seed,
            return_log_prob=True, truncation=False,
        )  # fmt: skip
        drawn = list(map(_ids, out.tolist()))
        log_prob_of = dict(zip(drawn, on_host(out.log_prob).tolist(), strict=True))
        listed = {ids: (log_prob_of[ids], times) for ids, times in Counter(drawn).most_common(top)}
        best = _ids(tokenizer.encode(text, truncation=False).tolist()[0])
    segmentations = [
        Segmentation(ids, follow(ids[before : len(ids) - after]), log_prob, ids == best, times)
        for ids, (log_prob, times) in listed.items()
    ]
    best_arcs = frozenset(follow(best[before : len(best) - after]))
    entropy = None if rate == 1 else tokenizer._mixture_entropy(text, tilt, rate)
    log_num_paths = float(on_host(lattice.num_paths(log=True))[0])
    return Portrait(
        num_bytes=len(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text),
        text=normalized[0],
        names=tokenizer.model.vocabulary.names,
        arcs=[
            replace(arc, posterior=rate * arc.posterior + (1 - rate) * (i in best_arcs)) for i, arc in enumerate(arcs)
        ],
        best_arcs=best_arcs,
        segmentations=segmentations,
        alpha=alpha,
        token_penalty=token_penalty,
        rate=rate,
        log_partition=float(on_host(lattice.log_partition(**tilt))[0]),
        entropy=float(on_host(lattice.entropy(**tilt))[0]) if entropy is None else entropy,
        log_num_paths=log_num_paths,
        num_paths=lattice.num_paths()[0] if log_num_paths < 15 * LN_10 else None,
    )


def _arcs(lattice: Lattice, tilt: dict[str, float]) -> list[Arc]:
    ragged = lattice.to_ragged()
    counts = np.diff(on_host(ragged.row_splits[1]))
    ends, lengths = np.repeat(np.arange(len(counts)), counts), on_host(ragged.length).astype(np.int64)
    posteriors = on_host(lattice.marginals(**tilt))[on_host(lattice.length) > 0]
    columns = ends - lengths, ends, on_host(ragged.piece_id), posteriors, on_host(lattice._arrays.arcs) == UNKNOWN
    order = np.lexsort((ends, ends - lengths))
    return [Arc(*row) for row in zip(*(column[order].tolist() for column in columns), strict=True)]


def _ids(row: list[int] | None) -> Ids:
    assert row is not None  # the text is not null
    return tuple(row)


def _mixed(arc: Arc, is_best: bool, rate: float) -> Arc:
    """The arc with its posterior where its word is sampled with probability `rate`, and else keeps its best arcs."""
    return replace(arc, posterior=rate * arc.posterior + (1 - rate) * is_best)


State = tuple[int, int]


class _Follower:
    """Finds the arcs of a path that reads as given ids."""

    def __init__(self, text: bytes, arcs: list[Arc], model: Model) -> None:
        self._text, self._arcs = text, arcs
        vocabulary, full = model.vocabulary, model.in_full.vocabulary
        self._surfaces, self._unk_id = vocabulary.surfaces, vocabulary.unk_id
        # What spells unknown text: pieces that split characters, and byte pieces.
        self._parts = {i: full.surfaces[i] for i in np.flatnonzero(full.in_lattice & ~vocabulary.in_lattice).tolist()}
        if vocabulary.byte_ids is not None:
            self._parts |= {i: bytes([byte]) for byte, i in enumerate(vocabulary.byte_ids.tolist())}
        self._known: dict[int, list[int]] = {}
        self._unknown: dict[int, int] = {}
        for i_arc, arc in enumerate(arcs):
            if arc.is_unknown:
                self._unknown[arc.start] = i_arc
            else:
                self._known.setdefault(arc.start, []).append(i_arc)

    def __call__(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Depth-first; a state is the number of bytes and of ids read so far."""
        goal = len(self._text), len(ids)
        came: dict[State, tuple[State, tuple[int, ...]]] = {}
        to_do = [(0, 0)]
        while to_do and goal not in came:
            state = to_do.pop()
            for after, arcs in self._steps(state, ids):
                if after not in came:
                    came[after] = state, arcs
                    to_do.append(after)
        if goal != (0, 0) and goal not in came:
            raise ValueError(
                "the text has a word that only pieces spell that were taken out, so no lattice shows it; leave it "
                "out, or give a tokenizer with unspellable='raise'"
            )
        path: list[int] = []
        while goal != (0, 0):
            goal, arcs = came[goal]
            path += reversed(arcs)
        return tuple(reversed(path))

    def _steps(self, state: State, ids: tuple[int, ...]) -> Iterator[tuple[State, tuple[int, ...]]]:
        start, i = state
        if i == len(ids):
            return
        for i_arc in self._known.get(start, []):
            if self._arcs[i_arc].id == ids[i]:
                yield (self._arcs[i_arc].end, i + 1), (i_arc,)
        # A run of unknown arcs reads as one id, or as the ids of its bytes, or as what merges make of these.
        run: tuple[int, ...] = ()
        end, spelled, stop = start, b"", i
        while end in self._unknown:
            run += (self._unknown[end],)
            end = self._arcs[run[-1]].end
            while stop < len(ids) and len(spelled) < end - start and ids[stop] in self._parts:
                spelled += self._parts[ids[stop]]
                stop += 1
            if spelled == self._text[start:end]:
                yield (end, stop), run
            if ids[i] == self._unk_id or self._surfaces[ids[i]] == self._text[start:end]:
                yield (end, i + 1), run


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
