"""Picture files, SVG, PNG or HTML, complete or not there at all, in the fonts that the machine has."""

from __future__ import annotations

import contextlib
import errno
import html
import io
import math
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wcwidth import wcswidth

PICTURE_SUFFIXES = (".svg", ".png", ".html")
DOTS_PER_INCH = 160
LN_10 = math.log(10)

# Fonts that may have the glyphs that matplotlib's own lack, in order of preference.
OTHER_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK TC", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP",
    "Noto Sans KR", "Source Han Sans SC", "Source Han Sans", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
    "Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB", "Hiragino Sans", "Heiti TC", "Microsoft YaHei", "SimHei",
    "SimSun", "Yu Gothic", "Meiryo", "MS Gothic", "Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic", "IPAGothic",
    "IPAexGothic", "TakaoGothic", "NanumGothic", "Arial Unicode MS", "Noto Sans", "Noto Sans Arabic",
    "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Noto Sans Symbols",
    "Noto Sans Symbols2", "Segoe UI Symbol", "FreeSans", "FreeSerif", "Unifont",
)  # fmt: skip
OWN_FONTS = ("DejaVu Sans Mono", "DejaVu Sans")
# An SVG is shown in the viewer's fonts; these are preferred.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gpu_lattice",
    "font.monospace": ["DejaVu Sans Mono", "Menlo", "Consolas", "Liberation Mono", "monospace"],
    "font.sans-serif": ["DejaVu Sans", "Helvetica Neue", "Segoe UI", "Arial", "sans-serif"],
    "text.parse_math": False,
}

# A piece must stay one word of its line.
_VISIBLE = {" ": "▁", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

INK, FAINT, OTHER_LINE, BEST_LINE = "#1f2933", "#66727f", "#4f7cac", "#d9480f"

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ margin: 2rem; color: #1f2933; background: #fff; font: 15px/1.5 system-ui, sans-serif; }}
figure {{ margin: 1rem 0 2rem; overflow-x: auto; }}
table {{ margin-bottom: 2rem; border-collapse: collapse; }}
th, td {{ padding: 0.15rem 0.8rem; text-align: right; white-space: nowrap; }}
th {{ border-bottom: 1px solid #9aa5b1; font-weight: 600; }}
td {{ border-bottom: 1px solid #e4e7eb; font-variant-numeric: tabular-nums; }}
th:last-child, td:last-child {{ text-align: left; white-space: normal; }}
.piece {{ margin-right: 0.25rem; padding: 0 0.3rem; border-radius: 0.25rem; background: #e6edf5;
  font-family: ui-monospace, monospace; white-space: pre; display: inline-block; }}
.best .piece {{ background: #fbdcc8; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{summary}</p>
<figure>
{svg}
</figure>
{tables}
</body>
</html>
"""


def checked_path(path: str | os.PathLike[str]) -> Path:
    """The path, if a picture can be written there; call this before making one.

    Raises ValueError for a name that does not end in .svg, .png or .html, OSError if its folder does not exist, and
    ImportError without matplotlib.
    """
    target = Path(path)
    if target.suffix.lower() not in PICTURE_SUFFIXES:
        raise ValueError(f"{os.fspath(path)!r} is not the name of a picture; end it in {', '.join(PICTURE_SUFFIXES)}")
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target.parent))
    load_matplotlib()
    return target


def load_matplotlib() -> Any:
    """The package; if it is missing, an ImportError names the extra."""
    try:
        import matplotlib.figure
        import matplotlib.font_manager
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'gpu_lattice[viz]'") from error
    return matplotlib


class Fonts(NamedTuple):
    """The font families for a text, of which the first with a character shows it; characters that none has."""

    families: list[str]
    missing: frozenset[str]


def render(suffix: str, text: str, paint: Callable[[Fonts], Any]) -> bytes:
    """An SVG (".svg") or a PNG (".png") of the figure that paint makes, the same bytes in every call.

    text: what the figure shows in the fonts that paint gets. In an SVG no character is missing, because its viewer
    chooses the fonts.
    """
    matplotlib = load_matplotlib()
    fonts = Fonts(["monospace"], frozenset()) if suffix == ".svg" else fonts_for(text)
    out = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        if suffix == ".svg":
            warnings.filterwarnings("ignore", message="Glyph .* missing")
        metadata = {"Date": None, "Creator": None} if suffix == ".svg" else {"Software": None}
        paint(fonts).savefig(out, format=suffix[1:], dpi=DOTS_PER_INCH, metadata=metadata)
    return out.getvalue()


def fonts_for(text: str) -> Fonts:
    """This machine's fonts for the text."""
    manager = load_matplotlib().font_manager
    missing, families = set(text), []
    for family in (*OWN_FONTS, *OTHER_FONTS):
        if not missing:
            break
        with contextlib.suppress(ValueError):  # A font that is not installed.
            font = manager.get_font(manager.findfont(family, fallback_to_default=False))
            found = {character for character in missing if font.get_char_index(ord(character))}
            missing -= found
            families += [family] if found else []
    return Fonts(families or [OWN_FONTS[0]], frozenset(missing))


def page(title: str, summary: str, svg: bytes, tables: Sequence[str]) -> bytes:
    """A self-contained HTML page; title and summary are plain text, the tables HTML."""
    picture = svg.decode()
    body = PAGE.format(
        title=html.escape(title),
        summary=html.escape(summary),
        svg=picture[picture.index("<svg") :].strip(),
        tables="\n".join(tables),
    )
    return body.encode()


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str] = ()) -> str:
    """A table; the head is plain text, the cells are HTML."""
    lines = ["<table>", "<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + "</tr>"]
    for i, row in enumerate(rows):
        kind = f' class="{classes[i]}"' if i < len(classes) and classes[i] else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    return "\n".join([*lines, "</table>"])


def columns_of(text: str) -> int:
    """How many columns of a terminal (or half ems) printable text takes, as terminals count them.

    Example:
        >>> columns_of("ab"), columns_of("漢字"), columns_of("e\\u0301")
        (2, 4, 1)
    """
    return max(0, wcswidth(text))


def visible(text: bytes, missing: frozenset[str] = frozenset()) -> str:
    """Text in printable characters: "▁" for a space, escapes for others and for bytes outside characters.

    missing: characters to write as U+4E00.

    Example:
        >>> visible(b"a b\\xff\\n"), visible("漢\\u200b".encode(), frozenset("漢"))
        ('a▁b\\\\xff\\\\n', 'U+6F22\\\\u200b')
    """
    characters = text.decode("utf-8", "backslashreplace")
    return "".join(_visible(character, missing) for character in characters)


def _visible(character: str, missing: frozenset[str]) -> str:
    if character in _VISIBLE:
        return _VISIBLE[character]
    if not character.isprintable():
        return character.encode("unicode_escape").decode()
    return f"U+{ord(character):04X}" if character in missing else character


def percent(log_prob: float) -> str:
    """A probability from its log, as a power of ten if two decimals would be 0.

    Example:
        >>> percent(0.0), percent(-20.0)
        ('100.00 %', '2.1e-9')
    """
    return f"{100 * math.exp(log_prob):.2f} %" if log_prob > math.log(5e-5) else power_of_ten(log_prob)


def percent_of(probability: float) -> str:
    """As `percent`, of a probability that may be 0."""
    return percent(math.log(probability)) if probability > 0 else "0"


def power_of_ten(log: float) -> str:
    """exp(log), even outside the range of floats.

    Example:
        >>> power_of_ten(10_000.0)
        '8.8e4342'
    """
    if log == -math.inf:
        return "0"
    exponent = math.floor(log / LN_10)
    return f"{math.exp(log - exponent * LN_10):.1f}e{exponent}"
