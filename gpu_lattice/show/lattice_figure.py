"""The picture of one lattice: layout, painting, and the file that it is written to."""

from __future__ import annotations

import html
import os
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from gpu_lattice.runtime.files import write_whole
from gpu_lattice.show.picture import (
    BEST_LINE,
    FAINT,
    INK,
    OTHER_LINE,
    Fonts,
    checked_path,
    columns_of,
    html_table,
    load_matplotlib,
    page,
    percent,
    percent_of,
    render,
    visible,
)
from gpu_lattice.show.portrait import Arc, Portrait, portrait

if TYPE_CHECKING:
    from gpu_lattice.tokenizer import Tokenizer

LONGEST_PICTURE = 200
ASCII = "".join(map(chr, range(32, 127)))
# In points, 72 to an inch; a column is the width of a character in DejaVu Sans Mono.
COLUMN = 0.602
TEXT_SIZE, LABEL_SIZE, NUMBER_SIZE, BYTE_SIZE = 14.0, 9.0, 6.0, 7.0
HEAD, FIRST_LANE, LANE, ROW = 56.0, 15.0, 25.0, 21.0
MARGIN, LEFT, LEAST_CELL, LEAST_WIDTH = 14.0, 58.0, 20.0, 430.0
BOX, BEST_BOX = "#e6edf5", "#fbdcc8"


def paint_lattice(
    tokenizer: Tokenizer,
    text: Any,
    path: str | os.PathLike[str],
    *,
    alpha: float = 0.1,
    top: int = 5,
    token_penalty: float = 0.0,
) -> Portrait:
    """Write a picture of the lattice of a text of up to 200 bytes: .svg, .png, or .html with the tables.

    The width of an arc shows its posterior, the number below its text; the best segmentation is highlighted, and the
    `top` best are rows below the text. Needs matplotlib. Raises ValueError for a longer text or another suffix.
    """
    target = checked_path(path)
    size = tokenizer.normalize(text).num_bytes
    if size > LONGEST_PICTURE:
        raise ValueError(
            f"the text has {size} normalized bytes, and a picture has room for {LONGEST_PICTURE}; give a part of it, "
            "or name no picture to get the table"
        )
    seen = portrait(tokenizer, text, alpha=alpha, top=top, token_penalty=token_penalty)
    suffix = target.suffix.lower()
    write_whole(target, _page(seen) if suffix == ".html" else _render(seen, suffix))
    return seen


def _render(seen: Portrait, suffix: str) -> bytes:
    # Escapes and hexadecimal digits are ASCII.
    return render(suffix, visible(seen.text) + ASCII, lambda fonts: lattice_figure(seen, fonts))


def _page(seen: Portrait) -> bytes:
    segmentations = [
        [
            percent(one.log_prob),
            "".join(f'<span class="piece">{html.escape(piece)}</span>' for piece in seen.pieces(one)),
        ]
        for one in seen.segmentations
    ]
    arcs = [
        [f"{arc.start}", f"{arc.end}", f"{arc.id}", percent_of(arc.posterior), html.escape(seen.label(arc))]
        for arc in seen.arcs
    ]
    tables = [
        html_table(["probability", "segmentation"], segmentations, ["best"]),
        html_table(["from byte", "to byte", "id", "posterior", "arc"], arcs),
    ]
    summary = f"{seen.sizes}; {seen.measures}; {' '.join(seen.listed)}"
    return page(visible(seen.text), summary, _render(seen, ".svg"), tables)


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
        lacking = width_of(text, _text_size(text)) + 4 - (x[end] - x[start])
        if lacking > 0:
            x = {bound: place + lacking * (bound >= end) for bound, place in x.items()}
    whole = set(pairwise([0, *ends]))
    parts = [Cell(a, b, seen.text[a:b].hex().upper()) for a, b in pairwise(bounds) if (a, b) not in whole]
    labels = [_label(seen.text[arc.start : arc.end], missing) for arc in seen.arcs]
    return Layout(x, _lanes(seen.arcs), labels, characters, parts)


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


def _text_size(text: str) -> float:
    """Escapes are written smaller than the characters that they stand for."""
    return TEXT_SIZE if columns_of(text) <= 2 else LABEL_SIZE


def width_of(text: str, size: float) -> float:
    """The most points that text takes in a monospaced font of this size."""
    return columns_of(text) * COLUMN * size


def lattice_figure(seen: Portrait, fonts: Fonts) -> Any:
    """The matplotlib figure: sizes, arcs above the text, and the best segmentations below it."""
    matplotlib = load_matplotlib()
    placed = layout(seen, fonts.missing)
    above = FIRST_LANE + max(placed.lanes, default=0) * LANE + LABEL_SIZE + 7
    below = 32.0 if placed.bytes else 22.0
    width = max(LEFT + placed.width + 2 * MARGIN, LEAST_WIDTH)
    height = HEAD + above + below + ROW * len(seen.segmentations) + 2 * MARGIN
    figure = matplotlib.figure.Figure(figsize=(width / 72, height / 72), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    painter = _Painter(matplotlib, axes, seen, placed, fonts.families)
    base = height - MARGIN - HEAD - above
    painter.head(height - MARGIN)
    painter.arcs(base)
    painter.text(base)
    painter.segmentations(base - below - ROW / 2)
    return figure


class _Painter:
    """Paints the parts of the picture, each from its y; y grows upwards."""

    def __init__(self, matplotlib: Any, axes: Any, seen: Portrait, placed: Layout, families: list[str]) -> None:
        self._axes, self._seen, self._placed, self._families = axes, seen, placed, families
        self._patches, self._path = matplotlib.patches, matplotlib.path.Path
        self._x = {bound: LEFT + MARGIN + x for bound, x in placed.x.items()}
        self._feet = _feet(seen.arcs, self._x)

    def head(self, top: float) -> None:
        self._write(MARGIN, top - 8, self._seen.sizes, 11, ha="left", weight="bold")
        self._write(MARGIN, top - 24, self._seen.measures, 8, ha="left", color=FAINT)
        y = top - 38
        for x, line, name in (MARGIN, BEST_LINE, "best segmentation"), (MARGIN + 120, OTHER_LINE, "other arcs"):
            self._axes.plot([x, x + 18], [y, y], color=line, lw=3, solid_capstyle="round")
            self._write(x + 24, y, name, 8, ha="left")
        note = "dashed: unknown; " if any(arc.is_unknown for arc in self._seen.arcs) else ""
        self._write(MARGIN + 205, y, f"{note}width and number: posterior in %", 8, ha="left", color=FAINT)

    def arcs(self, base: float) -> None:
        """Faint ones first, the best on top."""
        best = self._seen.best_arcs
        for i_arc in sorted(range(len(self._seen.arcs)), key=lambda i: (i in best, self._seen.arcs[i].posterior)):
            self._curve(i_arc, base, i_arc in best)
            self._captions(i_arc, base, i_arc in best)
        self._axes.plot(list(self._x.values()), [base] * len(self._x), "o", ms=3.2, color=INK, zorder=5)

    def _curve(self, i_arc: int, base: float, is_best: bool) -> None:
        arc, (start, end), top = self._seen.arcs[i_arc], self._feet[i_arc], base + self._height(i_arc)
        bend = min((end - start) / 2, 20.0)
        rise = [(start, base), (start, top - bend / 2), (start, top), (start + bend, top)]
        fall = [(end - bend, top), (end, top), (end, top - bend / 2), (end, base)]
        codes = [self._path.MOVETO, *[self._path.CURVE4] * 3, self._path.LINETO, *[self._path.CURVE4] * 3]
        curve = self._patches.PathPatch(
            self._path(rise + fall, codes),
            fill=False,
            edgecolor=BEST_LINE if is_best else OTHER_LINE,
            linewidth=0.5 + 3.5 * arc.posterior,
            linestyle=(0, (0.9, 0.4)) if arc.is_unknown else "-",
            capstyle="butt" if arc.is_unknown else "round",
            zorder=2,
        )
        self._axes.add_patch(curve)

    def _captions(self, i_arc: int, base: float, is_best: bool) -> None:
        """The label above the curve, its posterior below; a white outline hides other curves."""
        posterior, label, top = self._seen.arcs[i_arc].posterior, self._placed.labels[i_arc], base + self._height(i_arc)
        middle, number = sum(self._feet[i_arc]) / 2, _whole_percent(posterior)
        half_label, half_number = width_of(label, LABEL_SIZE) / 2, width_of(number, NUMBER_SIZE) / 2 + 1
        self._box(middle - half_label, middle + half_label, top + 2.5, top + 12, "white", 3)
        self._box(middle - half_number, middle + half_number, top - 9, top - 3, "white", 3)
        ink = FAINT if posterior < 0.05 and not is_best else INK
        self._write(middle, top + 7.5, label, LABEL_SIZE, family=self._families, color=ink)
        self._write(middle, top - 6, number, NUMBER_SIZE, color=BEST_LINE if is_best else FAINT)

    def _height(self, i_arc: int) -> float:
        return FIRST_LANE + self._placed.lanes[i_arc] * LANE

    def text(self, base: float) -> None:
        for start, end, text in self._placed.characters:
            self._write(self._middle(start, end), base - 13, text, _text_size(text), family=self._families)
        for start, end, text in self._placed.bytes:
            self._write(self._middle(start, end), base - 25, text, BYTE_SIZE, family=self._families, color=FAINT)

    def _middle(self, start: int, end: int) -> float:
        return (self._x[start] + self._x[end]) / 2

    def segmentations(self, y: float) -> None:
        for rank, one in enumerate(self._seen.segmentations):
            row = y - ROW * rank
            self._write(LEFT, row, percent(one.log_prob), 8.5, ha="right", weight="normal" if rank else "bold")
            for i_arc in one.arcs:
                start, end = self._seen.arcs[i_arc].start, self._seen.arcs[i_arc].end
                self._box(self._x[start] + 1, self._x[end] - 1, row - 8, row + 8, BOX if rank else BEST_BOX, 2)
                self._write(
                    self._middle(start, end), row, self._placed.labels[i_arc], LABEL_SIZE, family=self._families
                )

    def _box(self, low: float, high: float, bottom: float, top: float, colour: str, z: float) -> None:
        box = self._patches.FancyBboxPatch(
            (low, bottom),
            high - low,
            top - bottom,
            boxstyle="round,pad=0,rounding_size=3",
            facecolor=colour,
            edgecolor="none",
            zorder=z,
        )
        self._axes.add_patch(box)

    def _write(self, x: float, y: float, text: str, size: float, **style: Any) -> None:
        shown = {"ha": "center", "color": INK, "zorder": 4} | style
        # The baseline depends on the size alone, not on the glyphs, which an SVG viewer may take from another font.
        self._axes.text(x, y - 0.36 * size, text, fontsize=size, va="baseline", **shown)


def _feet(arcs: list[Arc], x: dict[int, float]) -> list[tuple[float, float]]:
    """Where each arc starts and ends: those that share a position lie side by side, the longest outermost."""
    feet = [(0.0, 0.0)] * len(arcs)
    starting: Counter[int] = Counter()
    ending: Counter[int] = Counter()
    for i_arc in sorted(range(len(arcs)), key=lambda i: arcs[i].start - arcs[i].end):
        start, end = arcs[i_arc].start, arcs[i_arc].end
        starting[start] += 1
        ending[end] += 1
        feet[i_arc] = x[start] + min(starting[start], 4), x[end] - min(ending[end], 4)
    return feet


def _whole_percent(probability: float) -> str:
    return f"{100 * probability:.0f}" if probability >= 0.005 else "<1"
