"""The picture of a comparison: rates as bars, and the curve by batch size."""

from __future__ import annotations

import os
from typing import Any

from gpu_lattice.benchmark.compare import VERBS, Comparison
from gpu_lattice.runtime.files import write_whole
from gpu_lattice.show.picture import BEST_LINE, FAINT, INK, OTHER_LINE, checked_path, load_matplotlib, render


def plot(seen: Comparison, path: str | os.PathLike[str]) -> None:
    """Write a picture, .svg or .png. Needs matplotlib. Raises ValueError for another suffix."""
    target = checked_path(path)
    if target.suffix.lower() == ".html":
        raise ValueError(f"{os.fspath(path)!r}: a plot is .svg or .png")
    write_whole(target, render(target.suffix.lower(), "", lambda _: _figure(seen)))


def _figure(seen: Comparison) -> Any:
    figure = load_matplotlib().figure.Figure(figsize=(10, 4.2), facecolor="white")
    figure.suptitle(seen.measured_on, fontsize=8, color=FAINT)
    grid = {"left": 0.27, "right": 0.97, "bottom": 0.13, "top": 0.86, "wspace": 0.25, "width_ratios": (2, 1)}
    bars, curve = figure.subplots(1, 2, gridspec_kw=grid)
    rows = sorted(seen.rows, key=lambda row: (-VERBS.index(row.way.verb), row.mb_per_s))
    names = [f"{row.way.verb}: {row.way.tool}, {row.way.where}" for row in rows]
    colours = [BEST_LINE if row.way.tool == "gpu_lattice" else OTHER_LINE for row in rows]
    errors = [[row.mb_per_s - row.low for row in rows], [row.high - row.mb_per_s for row in rows]]
    drawn = bars.barh(range(len(rows)), [row.mb_per_s for row in rows], xerr=errors, color=colours, ecolor=INK)
    bars.bar_label(drawn, [f"{row.mb_per_s:.1f}" for row in rows], padding=4, fontsize=7, color=INK)
    bars.set_yticks(range(len(rows)), names)
    bars.set_title("MB/s of text that comes once", fontsize=9, color=INK, loc="left")
    for device in dict.fromkeys(point.device for point in seen.curve):
        points = [point for point in seen.curve if point.device == device]
        curve.plot([one.documents for one in points], [one.mb_per_s for one in points], "o-", ms=4, label=device)
    sizes = sorted({point.documents for point in seen.curve})
    curve.set_xscale("log")
    curve.set_xticks(sizes, map(str, sizes), minor=False)
    curve.set_xticks([], minor=True)
    curve.set_ylim(0)
    curve.set_title("sample, MB/s by documents in a call", fontsize=9, color=INK, loc="left")
    curve.legend(frameon=False, fontsize=7)
    for axes in bars, curve:
        axes.tick_params(colors=FAINT, labelsize=7)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure
