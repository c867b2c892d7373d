"""Where the parts of a lattice's picture are: lines that no arc crosses, and positions, lanes and labels of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import NamedTuple

from gpu_lattice.show.picture import columns_of, visible
from gpu_lattice.show.portrait import Arc, Portrait

# In points, 72 to an inch; a column is the width of a character in DejaVu Sans Mono.
COLUMN = 0.602
TEXT_SIZE, LABEL_SIZE = 14.0, 9.0
LEAST_CELL = 20.0


class Cell(NamedTuple):
    """Some bytes of the text line, and what is written for them."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Layout:
    """Where things are, in points from the start of the text.

    x           of every position where a character or an arc begins or ends
    lanes       of each arc: how high its curve is, from 0
    labels      of each arc
    characters  the text line
    bytes       the line below: the parts of characters that arcs split
    """

    x: dict[int, float]
    lanes: list[int]
    labels: list[str]
    characters: list[Cell]
    bytes: list[Cell]

    @property
    def width(self) -> float:
        return max(self.x.values())


def layout(seen: Portrait, missing: frozenset[str] = frozenset()) -> Layout:
    """Cells as wide as their text, so that labels fit their arcs and the arcs of a lane lie side by side."""
    ends = _character_ends(seen.text)
    bounds = sorted({0, *ends, *(arc.start for arc in seen.arcs), *(arc.end for arc in seen.arcs)})
    x, at = {0: 0.0}, 0.0
    for start, end in pairwise(bounds):
        at += max(LEAST_CELL, width_of(_label(seen.text[start:end], missing), LABEL_SIZE) + 4)
        x[end] = at
    characters = [Cell(start, end, visible(seen.text[start:end], missing)) for start, end in pairwise([0, *ends])]
    for start, end, text in characters:
        lacking = width_of(text, text_size(text)) + 4 - (x[end] - x[start])
        if lacking > 0:
            x = {bound: place + lacking * (bound >= end) for bound, place in x.items()}
    whole = set(pairwise([0, *ends]))
    parts = [Cell(a, b, seen.text[a:b].hex().upper()) for a, b in pairwise(bounds) if (a, b) not in whole]
    labels = [_label(seen.text[arc.start : arc.end], missing) for arc in seen.arcs]
    return Layout(x, _lanes(seen.arcs), labels, characters, parts)


def lines(seen: Portrait, most_width: float, missing: frozenset[str] = frozenset()) -> list[Portrait]:
    """The lattice in lines of at most this many points, unless no position that all paths pass is as near.

    Each is a Portrait of its part of the text, with its arcs and its part of every segmentation.
    """
    x = layout(seen, missing).x
    joints = _joints(seen)
    breaks, start = [0], 0.0
    for joint, following in pairwise(joints):
        if x[following] - start > most_width and joint > breaks[-1]:
            breaks.append(joint)
            start = x[joint]
    return [_part(seen, a, b) for a, b in pairwise([*breaks, len(seen.text)])]


def _joints(seen: Portrait) -> list[int]:
    """The ends of characters that no arc spans, and 0."""
    joints, reached, at = [], 0, 0
    for position in sorted({0, *_character_ends(seen.text)}):
        while at < len(seen.arcs) and seen.arcs[at].start < position:
            reached = max(reached, seen.arcs[at].end)
            at += 1
        if reached <= position:
            joints.append(position)
    return joints


def _part(seen: Portrait, start: int, end: int) -> Portrait:
    """The lattice of a part of the text that arcs begin and end in."""
    at = [i for i, arc in enumerate(seen.arcs) if start <= arc.start < end]
    first = at[0] if at else 0
    return replace(
        seen,
        text=seen.text[start:end],
        arcs=[replace(seen.arcs[i], start=seen.arcs[i].start - start, end=seen.arcs[i].end - start) for i in at],
        best_arcs=frozenset(i - first for i in at if i in seen.best_arcs),
        segmentations=[
            replace(one, arcs=tuple(i - first for i in one.arcs if start <= seen.arcs[i].start < end))
            for one in seen.segmentations
        ],
    )


def _lanes(arcs: list[Arc]) -> list[int]:
    """The lane of each arc: above the arcs within it, without overlaps in a lane."""
    lanes = [0] * len(arcs)
    done: list[tuple[int, int, int]] = []
    for i_arc in sorted(range(len(arcs)), key=lambda i: arcs[i].end - arcs[i].start):
        start, end = arcs[i_arc].start, arcs[i_arc].end
        lane = max((below + 1 for a, b, below in done if start <= a and b <= end), default=0)
        taken = {other for a, b, other in done if a < end and start < b}
        while lane in taken:
            lane += 1
        lanes[i_arc] = lane
        done.append((start, end, lane))
    return lanes


def _character_ends(text: bytes) -> list[int]:
    """Where each character ends; a byte that is not part of one counts as one."""
    characters = text.decode("utf-8", "surrogateescape")
    return list(accumulate(len(character.encode("utf-8", "surrogateescape")) for character in characters))


def _label(text: bytes, missing: frozenset[str]) -> str:
    """Visible characters; bytes without a complete character in hexadecimal."""
    characters = text.decode("utf-8", "surrogateescape")
    has_character = any(not "\udc80" <= character <= "\udcff" for character in characters)
    return visible(text, missing) if has_character else text.hex().upper()


def text_size(text: str) -> float:
    """Escapes are written smaller than the characters that they stand for."""
    return TEXT_SIZE if columns_of(text) <= 2 else LABEL_SIZE


def width_of(text: str, size: float) -> float:
    """The most points that text takes in a monospaced font of this size."""
    return columns_of(text) * COLUMN * size
