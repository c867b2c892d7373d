"""The picture of one lattice: layout, painting, and the file that it is written to."""

from __future__ import annotations

import html
import os
import textwrap
from collections import Counter
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gpu_lattice.runtime.files import write_whole
from gpu_lattice.show.lattice_layout import COLUMN, LABEL_SIZE, Layout, layout, lines, text_size, width_of
from gpu_lattice.show.picture import (
    BEST_LINE,
    FAINT,
    INK,
    OTHER_LINE,
    Fonts,
    checked_path,
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

LONGEST_PICTURE = 400
ASCII = "".join(map(chr, range(32, 127)))
# In points, 72 to an inch.
NUMBER_SIZE, BYTE_SIZE = 6.0, 7.0
FIRST_LANE, LANE, ROW = 15.0, 25.0, 21.0
MARGIN, LEFT, LEAST_WIDTH, MOST_WIDTH = 14.0, 58.0, 318.0, 860.0
HEAD_GAP, LINE_GAP = 5.0, 16.0
BOX, BEST_BOX = "#e6edf5", "#fbdcc8"


def paint_lattice(
    tokenizer: Tokenizer,
    text: Any,
    path: str | os.PathLike[str],
    **shown: Any,
) -> Portrait:
    """Write a picture of the lattice of a text of up to 400 bytes: .svg, .png, or .html with the tables.

    shown: as portrait takes it. The width of an arc shows its posterior, the number below its text; the best
    segmentation is highlighted, and those that are listed are rows below the text. Needs matplotlib. Raises ValueError
    for a longer text or another suffix.
    """
    target = checked_path(path)
    size = tokenizer.normalize(text).num_bytes
    if size > LONGEST_PICTURE:
        raise ValueError(
            f"the text has {size} normalized bytes, and a picture has room for {LONGEST_PICTURE}; give a part of it, "
            "or name no picture to get the table"
        )
    seen = portrait(tokenizer, text, **shown)
    suffix = target.suffix.lower()
    write_whole(target, _page(seen) if suffix == ".html" else _render(seen, suffix))
    return seen


def lattice_html(tokenizer: Tokenizer, text: bytes) -> str | None:
    """The picture of a text's lattice as SVG; None without matplotlib, and for a text that has none."""
    if find_spec("matplotlib") is None or tokenizer.normalize(text).num_bytes > LONGEST_PICTURE:
        return None
    try:
        svg = _render(portrait(tokenizer, text), ".svg").decode()
    except ValueError:  # no segmentation
        return None
    return svg[svg.index("<svg") :]


def _render(seen: Portrait, suffix: str, has_head: bool = True) -> bytes:
    # Escapes and hexadecimal digits are ASCII.
    return render(suffix, visible(seen.text) + ASCII, lambda fonts: lattice_figure(seen, fonts, has_head))


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
    best = ["best" if one.is_best else "" for one in seen.segmentations]
    tables = [
        html_table(["probability", "segmentation"], segmentations, best),
        html_table(["from byte", "to byte", "id", "posterior", "arc"], arcs),
    ]
    summary = f"{seen.sizes}; {seen.measures}; {' '.join(seen.listed)}"
    return page(visible(seen.text), summary, _render(seen, ".svg", has_head=False), tables)


def lattice_figure(seen: Portrait, fonts: Fonts, has_head: bool = True) -> Any:
    """The matplotlib figure: sizes, and for each line arcs above the text and the best segmentations below it."""
    matplotlib = load_matplotlib()
    parts = lines(seen, MOST_WIDTH, fonts.missing)
    placed = [layout(part, fonts.missing) for part in parts]
    width = max(LEFT + max(one.width for one in placed) + 2 * MARGIN, LEAST_WIDTH)
    head = _head(seen, width - 2 * MARGIN) if has_head else []
    heights = [_above(one) + _below(one) + ROW * len(seen.segmentations) for one in placed]
    height = sum(size + HEAD_GAP for _, size, _ in head) + sum(heights) + LINE_GAP * (len(parts) - 1) + 2 * MARGIN
    figure = matplotlib.figure.Figure(figsize=(width / 72, height / 72), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    top = height - MARGIN
    for text, size, style in head:
        top -= size + HEAD_GAP
        _write_head(axes, top, text, size, style)
    for part, one, used in zip(parts, placed, heights, strict=True):
        painter = _Painter(matplotlib, axes, part, one, fonts.families)
        base = top - _above(one)
        painter.arcs(base)
        painter.text(base)
        painter.segmentations(base - _below(one) - ROW / 2)
        top -= used + LINE_GAP
    return figure


def _above(placed: Layout) -> float:
    return FIRST_LANE + max(placed.lanes, default=0) * LANE + LABEL_SIZE + 7


def _below(placed: Layout) -> float:
    return 32.0 if placed.bytes else 22.0


def _head(seen: Portrait, width: float) -> list[tuple[str, float, dict[str, Any]]]:
    """Lines of at most this width: text, size, style; a style with "line" is a sample of such a line and its name."""
    head: list[tuple[str, float, dict[str, Any]]] = []
    for text, size, style in (seen.sizes, 9.0, {"weight": "bold"}), (seen.measures, 7.5, {"color": FAINT}):
        head += [(line, size, style) for line in textwrap.wrap(text, int(width / (COLUMN * size)))]
    head += [("best segmentation", 8.0, {"line": BEST_LINE}), ("other arcs", 8.0, {"line": OTHER_LINE})]
    note = "dashed: unknown; " if any(arc.is_unknown for arc in seen.arcs) else ""
    note += "width and number: posterior in %"
    return head + [(line, 8.0, {"color": FAINT}) for line in textwrap.wrap(note, int(width / (COLUMN * 8)))]


def _write_head(axes: Any, y: float, text: str, size: float, style: dict[str, Any]) -> None:
    colour, x = style.get("line"), MARGIN
    if colour is not None:
        axes.plot([x, x + 18], [y + 0.36 * size] * 2, color=colour, lw=3, solid_capstyle="round")
        x, style = x + 24, {}
    axes.text(x, y, text, **{"fontsize": size, "va": "baseline", "ha": "left", "color": INK, "zorder": 4} | style)


class _Painter:
    """Paints the parts of a line of the picture, each from its y; y grows upwards."""

    def __init__(self, matplotlib: Any, axes: Any, seen: Portrait, placed: Layout, families: list[str]) -> None:
        self._axes, self._seen, self._placed, self._families = axes, seen, placed, families
        self._patches, self._path = matplotlib.patches, matplotlib.path.Path
        self._x = {bound: LEFT + MARGIN + x for bound, x in placed.x.items()}
        self._feet = _feet(seen.arcs, self._x)

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
            self._write(self._middle(start, end), base - 13, text, text_size(text), family=self._families)
        for start, end, text in self._placed.bytes:
            self._write(self._middle(start, end), base - 25, text, BYTE_SIZE, family=self._families, color=FAINT)

    def _middle(self, start: int, end: int) -> float:
        return (self._x[start] + self._x[end]) / 2

    def segmentations(self, y: float) -> None:
        for rank, one in enumerate(self._seen.segmentations):
            row = y - ROW * rank
            weight, colour = ("bold", BEST_BOX) if one.is_best else ("normal", BOX)
            self._write(LEFT, row, percent(one.log_prob), 8.5, ha="right", weight=weight)
            for i_arc in one.arcs:
                start, end = self._seen.arcs[i_arc].start, self._seen.arcs[i_arc].end
                self._box(self._x[start] + 1, self._x[end] - 1, row - 8, row + 8, colour, 2)
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
