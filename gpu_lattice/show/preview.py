"""What alpha does to a corpus, measured on a sample of it before an epoch is spent: a table and a plot."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.corpus.documents import ReaderOptions, as_separator
from gpu_lattice.corpus.excerpt import excerpt
from gpu_lattice.runtime.arguments import check_tokenizer, checked_alpha, checked_integer, checked_penalty, checked_rate
from gpu_lattice.runtime.files import write_whole
from gpu_lattice.runtime.on_host import on_host
from gpu_lattice.show.picture import (
    BEST_LINE,
    FAINT,
    INK,
    OTHER_LINE,
    checked_path,
    html_table,
    load_matplotlib,
    page,
    render,
)
from gpu_lattice.token_batch import TokenBatch
from gpu_lattice.weights import arc_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.tokenizer import Tokenizer
    from gpu_lattice.vocabulary import Vocabulary

ALPHAS = (0.0, 0.1, 0.2, 0.5, 1.0)
# How much text has its lattices in memory at a time, unless a single document is longer.
LATTICE_BYTES = 1 << 18

HEAD = (
    "alpha",
    "token penalty",
    "rate",
    "tokens/byte",
    "bytes/token",
    "differ from best",
    "entropy/byte",
    "pieces used",
)


@dataclass(frozen=True)
class PreviewRow:
    """Measurements for one alpha, token penalty and rate.

    alpha             None: the best segmentation
    tokens_per_byte   ids of one sample of every document, divided by the bytes of the texts
    bytes_per_token   the inverse
    differing         the share of documents whose sample is not their best segmentation
    entropy_per_byte  nats; the exact entropy of the distributions that the samples come from
    coverage          of the ids that can occur in a lattice, the share that occurs in the samples
    """

    alpha: float | None
    tokens_per_byte: float
    bytes_per_token: float
    differing: float
    entropy_per_byte: float
    coverage: float
    token_penalty: float = 0.0
    rate: float = 1.0

    def cells(self) -> tuple[str, ...]:
        """The row in the order of the table's columns."""
        is_best = self.alpha is None
        return (
            "best" if is_best else f"{self.alpha:g}",
            "-" if is_best else f"{self.token_penalty:g}",
            "-" if is_best else f"{self.rate:g}",
            f"{self.tokens_per_byte:.4f}",
            f"{self.bytes_per_token:.3f}",
            "-" if is_best else f"{100 * self.differing:.1f} %",
            "-" if is_best else f"{self.entropy_per_byte:.4f}",
            f"{100 * self.coverage:.1f} %",
        )


@dataclass(frozen=True)
class Preview:
    """Rows for the best segmentation and each alpha, and what they were measured on.

    documents, num_bytes    drawn from the input; num_cut of them are only the beginning of a longer document
    num_files, file_bytes   of the input, on disk
    """

    rows: tuple[PreviewRow, ...]
    documents: int
    num_bytes: int
    num_cut: int
    num_files: int
    file_bytes: int
    seed: int

    @property
    def measured_on(self) -> str:
        """One line."""
        cut = f" ({self.num_cut:,} cut short)" if self.num_cut else ""
        files = f"{self.num_files:,} file{'s' * (self.num_files != 1)} of {self.file_bytes:,} bytes"
        many = f"{self.documents:,} document{'s' * (self.documents != 1)}{cut}"
        return f"{many}, {self.num_bytes:,} bytes, from {files}; seed {self.seed}"

    def __str__(self) -> str:
        cells = [HEAD, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([self.measured_on, "", *lines])


def preview(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    tokenizer: Tokenizer,
    alphas: Sequence[float] = ALPHAS,
    token_penalties: Sequence[float] = (0.0,),
    rates: Sequence[float] = (1.0,),
    max_bytes: int = 1_000_000,
    seed: int = 0,
    text_column: str = "text",
    separator: str | bytes | None = None,
    input_format: str = "auto",
) -> Preview:
    """Measure alphas on at most max_bytes of the documents of files, folders or glob patterns (corpus.excerpt).

    token_penalties, rates: measured with each alpha, as in Tokenizer.sample. seed chooses the documents and their
    samples. Raises ValueError for an alpha that is negative or too large for the model, and for files without text;
    OSError for files that cannot be opened.

    Example:
        >>> preview(["corpus/*.parquet"], tokenizer=Tokenizer.default()).rows[0].bytes_per_token  # doctest: +SKIP
        3.87
    """
    check_tokenizer(tokenizer)
    for name, given in (("alphas", alphas), ("token_penalties", token_penalties), ("rates", rates)):
        if not len(given):
            raise ValueError(f"{name} is empty; give at least one number")
    laws: list[dict[str, Any]] = [
        {"alpha": checked_alpha(alpha), "token_penalty": checked_penalty(penalty), "rate": checked_rate(rate)}
        for penalty, rate, alpha in product(token_penalties, rates, alphas)
    ]
    vocabulary = tokenizer.model.vocabulary
    for law in laws:
        arc_weights(vocabulary, law["alpha"], law["token_penalty"])
    max_bytes = checked_integer("max_bytes", max_bytes, 1, 2**63 - 1)
    seed = checked_integer("seed", seed, 0, 2**64 - 1)
    options = ReaderOptions(text_column=text_column, separator=as_separator(separator), input_format=input_format)
    drawn = excerpt(inputs, options, max_bytes, seed)
    best = tokenizer.encode(drawn.texts, truncation=False)
    rows = [_row({"alpha": None}, best, best, 0.0, drawn.num_bytes, vocabulary)]
    for law, entropy in zip(laws, _entropies(tokenizer, drawn.texts, laws), strict=True):
        out = tokenizer.sample(drawn.texts, **law, seed=seed, truncation=False)
        rows.append(_row(law, out, best, entropy, drawn.num_bytes, vocabulary))
    return Preview(
        tuple(rows), len(drawn.texts), drawn.num_bytes, drawn.num_cut, drawn.num_files, drawn.file_bytes, seed
    )


def _row(
    law: Mapping[str, Any], out: TokenBatch, best: TokenBatch, entropy: float, num_bytes: int, vocabulary: Vocabulary
) -> PreviewRow:
    ids = on_host(out.ids)
    is_used = np.bincount(ids, minlength=len(vocabulary)) > 0
    can_be = int(np.count_nonzero(vocabulary.in_lattice))
    return PreviewRow(
        **law,
        tokens_per_byte=len(ids) / num_bytes,
        bytes_per_token=num_bytes / len(ids) if len(ids) else 0.0,
        differing=float(np.mean(_differ(best, out))),
        entropy_per_byte=entropy / num_bytes,
        coverage=int(np.count_nonzero(is_used & vocabulary.in_lattice)) / max(1, can_be),
    )


def _entropies(tokenizer: Tokenizer, texts: list[bytes], laws: Sequence[Mapping[str, float]]) -> list[float]:
    """The entropy of all texts together for each alpha, token penalty and rate, nats."""
    parts: list[list[float]] = [[] for _ in laws]
    for some in _batches(texts):
        lattice = tokenizer.lattice(some)
        for part, law in zip(parts, laws, strict=True):
            tilt = {name: law[name] for name in ("alpha", "token_penalty")}
            mixed = tokenizer._mixture_entropy(some, tilt, law["rate"])
            part += on_host(lattice.entropy(**tilt)).tolist() if mixed is None else [mixed]
    return [math.fsum(part) for part in parts]


def _batches(texts: list[bytes]) -> Iterator[list[bytes]]:
    held: list[bytes] = []
    size = 0
    for text in texts:
        if held and size + len(text) > LATTICE_BYTES:
            yield held
            held, size = [], 0
        held.append(text)
        size += len(text)
    yield held


def _differ(one: TokenBatch, other: TokenBatch) -> NDArray[np.bool_]:
    """bool [rows]: whether the ids of each row differ."""
    offsets, others = on_host(one.offsets), on_host(other.offsets)
    lengths = np.diff(offsets)
    differ: NDArray[np.bool_] = lengths != np.diff(others)
    row = np.repeat(np.arange(len(lengths)), np.where(differ, 0, lengths))
    starts = np.concatenate([[0], np.cumsum(np.where(differ, 0, lengths))])[:-1]
    at = np.arange(len(row)) - starts[row]
    is_other = on_host(one.ids)[offsets[row] + at] != on_host(other.ids)[others[row] + at]
    differ[row[is_other]] = True
    return differ


def paint_preview(seen: Preview, path: str | os.PathLike[str]) -> None:
    """Write the rows as four plots against alpha: .svg, .png, or .html with the table. Needs matplotlib."""
    target = checked_path(path)
    suffix = target.suffix.lower()
    if suffix != ".html":
        write_whole(target, render(suffix, "", lambda _: _figure(seen)))
        return
    table = html_table(HEAD, [row.cells() for row in seen.rows])
    svg = render(".svg", "", lambda _: _figure(seen))
    write_whole(target, page("Segmentations by alpha", seen.measured_on, svg, [table]))


def _law(row: PreviewRow) -> tuple[float, float]:
    return row.token_penalty, row.rate


def _figure(seen: Preview) -> Any:
    figure = load_matplotlib().figure.Figure(figsize=(9, 6.4), facecolor="white")
    figure.suptitle(seen.measured_on, fontsize=9, color=FAINT)
    grid = {"left": 0.06, "right": 0.97, "bottom": 0.08, "top": 0.89, "wspace": 0.18, "hspace": 0.42}
    best = seen.rows[0]
    rows = sorted((row for row in seen.rows if row.alpha is not None), key=lambda row: (*_law(row), row.alpha))
    curves = {law: list(some) for law, some in groupby(rows, _law)}
    panels: list[tuple[str, Callable[[PreviewRow], float], float | None]] = [
        ("tokens per byte", lambda row: row.tokens_per_byte, best.tokens_per_byte),
        ("documents that differ from their best segmentation, %", lambda row: 100 * row.differing, None),
        ("entropy per byte, nats", lambda row: row.entropy_per_byte, None),
        ("pieces used, %", lambda row: 100 * row.coverage, 100 * best.coverage),
    ]
    for axes, (title, value, level) in zip(figure.subplots(2, 2, gridspec_kw=grid).flat, panels, strict=True):
        for k, ((penalty, rate), some) in enumerate(curves.items()):
            shade = 1 - 0.7 * k / len(curves)
            label = f"token penalty {penalty:g}, rate {rate:g}" if len(curves) > 1 else None
            axes.plot([row.alpha for row in some], [value(row) for row in some], "o-", color=OTHER_LINE, alpha=shade,
                      lw=2, ms=5, clip_on=False, label=label)  # fmt: skip
        if level is not None:
            axes.axhline(level, color=BEST_LINE, lw=1.5, ls="--", label="best segmentation")
        if level is not None or len(curves) > 1:
            axes.legend(frameon=False, fontsize=8, labelcolor=INK)
        low, high = axes.get_ylim()
        axes.set_ylim(0, high + 0.05 * (high - low) if high > 0 else 1)
        axes.set_title(title, fontsize=10, color=INK, loc="left")
        axes.set_xlabel("alpha", fontsize=9, color=FAINT)
        axes.tick_params(colors=FAINT, labelsize=8)
        axes.grid(color="#e4e7eb", lw=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color("#9aa5b1")
    return figure
