"""The lattice of one text as a table for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_lattice.show.picture import columns_of, percent, percent_of

if TYPE_CHECKING:
    from gpu_lattice.show.portrait import Portrait

ARCS_LISTED = 60
BAR_COLUMNS = 20
EIGHTHS = " ▏▎▍▌▋▊▉"
BOLD, DIM, ODD, EVEN, BEST = "1", "2", "36", "34", "33"


def table(seen: Portrait, colour: bool = False) -> str:
    """The sizes, the best segmentations with their probabilities, and the first arcs with their posteriors."""
    paint = _ansi if colour else _plain
    drawn = "" if seen.segmentations[0].times is None else " drawn  "
    lines = [paint(seen.sizes, BOLD), seen.measures, "", f"{'probability':>12}  {drawn}segmentation"]
    for one in seen.segmentations:
        words = " ".join(paint(piece, EVEN if i % 2 else ODD) for i, piece in enumerate(seen.pieces(one)))
        times = "" if one.times is None else f"{one.times:>6}  "
        lines.append(f"{paint(f'{percent(one.log_prob):>12}', BEST if one.is_best else BOLD)}  {times}{words}")
    share, of = seen.listed
    lines += [paint(f"{share:>12}  {of}", DIM), "", f"{'posterior':>12}  {'':{BAR_COLUMNS}}  {'bytes':>9}  arc"]
    best, listed = seen.best_arcs, seen.arcs[:ARCS_LISTED]
    wide = max((columns_of(seen.label(arc)) for arc in listed), default=0)
    for i_arc, arc in enumerate(listed):
        is_best = i_arc in best
        label, bar = seen.label(arc), _bar(arc.posterior)
        start = f"{percent_of(arc.posterior):>12}  {paint(bar, BEST if is_best else EVEN)}"
        place = f"{'':{BAR_COLUMNS - len(bar)}}  {f'{arc.start}-{arc.end}':>9}  {label}"
        notes = [paint("best", BEST)] * is_best + [paint("unknown", DIM)] * arc.is_unknown
        lines.append(f"{start}{place}{'':{wide - columns_of(label)}}  {' '.join(notes)}")
    if len(seen.arcs) > len(listed):
        lines.append(paint(f"{'':14}{len(seen.arcs) - len(listed)} more arcs", DIM))
    return "\n".join(line.rstrip() for line in lines)


def _plain(text: str, code: str) -> str:
    return text


def _ansi(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if text else text


def _bar(share: float) -> str:
    eighths = round(min(1.0, share) * BAR_COLUMNS * 8)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
