"""The number of tokens that paths read as: its distribution, and paths drawn given that number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.backends import LatticeArrays
from gpu_lattice.lattice.arrays import Reading
from gpu_lattice.lattice.paths import SampleOptions
from gpu_lattice.lattice.sums import LN_2, log_of
from gpu_lattice.runtime.arguments import as_integer
from gpu_lattice.runtime.on_host import on_host
from gpu_lattice.runtime.ragged import padded, row_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.backends import Launcher

CELL_BYTES = 32


class TokenSums(NamedTuple):
    """Sums by position and number of tokens (kernels/cpu/lattice/tokens.py); a document has n + 1 widths of cells."""

    spells: bool
    widths: Any
    cell_offsets: Any
    known: Any
    known_exponents: Any
    unknown: Any
    unknown_exponents: Any

    def of_documents(self, xp: Any, doc_positions: Any) -> tuple[Any, Any, Any]:
        """(offsets int64 [B + 1], mantissas, exponents): the sums at each document's end, by its number of tokens."""
        n_positions = xp.diff(doc_positions)
        offsets = xp.concatenate([xp.zeros(1, xp.int64), xp.cumsum(self.widths)])
        row = row_of(xp, offsets)
        at = (self.cell_offsets + (n_positions - 1) * self.widths - offsets[:-1])[row] + xp.arange(len(row))
        return offsets, self.known[at], self.known_exponents[at]


def token_sums(
    launcher: Launcher,
    arrays: LatticeArrays,
    reading: Reading,
    weights: Any,
    check_fits: Callable[[int, str], None],
) -> TokenSums:
    """weights float64 [A]. Raises ValueError for a model that makes a piece or bytes of a run of unknown text."""
    xp, n_docs = launcher.xp, len(arrays.doc_positions) - 1
    spells = _spells(reading)
    widths = xp.diff(arrays.doc_positions)
    cells = xp.concatenate([xp.zeros(1, xp.int64), xp.cumsum(widths * widths)])
    n_cells = int(cells[-1])
    check_fits(CELL_BYTES * n_cells, "sums by the number of tokens")
    sums = TokenSums(
        spells, widths, cells[:-1], xp.zeros(n_cells), xp.zeros(n_cells, xp.int64), xp.zeros(n_cells),
        xp.zeros(n_cells, xp.int64),
    )  # fmt: skip
    launcher.run(
        "token_sums", n_docs,
        doc_positions=arrays.doc_positions, arc_offsets=arrays.arc_offsets, lengths=arrays.lengths,
        weights=weights, marks=arrays.marks, **reading.arcs(xp, arrays.arcs), **sums._asdict(),
    )  # fmt: skip
    return sums


def _spells(reading: Reading) -> bool:
    """Whether unknown text is spelled in byte pieces; if not, a run of it is one token."""
    has_byte = on_host(reading.byte_ids) >= 0
    if not has_byte.any():
        return False
    if reading.look_up or not has_byte.all():
        raise ValueError(
            "this model makes one token or several bytes of a run of unknown text, depending on the run, and numbers "
            "of tokens are not counted for such models"
        )
    return True


def token_counts(launcher: Launcher, arrays: LatticeArrays, sums: TokenSums) -> Any:
    """float64 [B, T + 1], T the most tokens of a path of any document; all 0 for a document without a path."""
    xp = launcher.xp
    offsets, mantissas, exponents = sums.of_documents(xp, arrays.doc_positions)
    n_docs = len(offsets) - 1
    width = int(sums.widths.max()) if n_docs else 1
    mantissas = padded(xp, offsets, mantissas, 0.0, width)
    exponents = padded(xp, offsets, exponents, 0, width)
    is_some = mantissas > 0
    most = xp.where(is_some, exponents, -(2**62)).max(axis=1, keepdims=True)
    scaled = xp.where(is_some, xp.ldexp(mantissas, xp.maximum(exponents - most, -1074).astype(xp.int32)), 0.0)
    totals = scaled.sum(axis=1, keepdims=True)
    used = xp.flatnonzero(is_some.any(axis=0))
    return (scaled / xp.where(totals > 0, totals, 1.0))[:, : int(used[-1]) + 1 if len(used) else 1]


def checked_numbers(num_tokens: Any, n_docs: int) -> NDArray[np.int64]:
    """int64 [n_docs], of one number or of as many; TypeError or ValueError for anything else."""
    given = np.asarray(num_tokens)
    if given.ndim == 0:
        return np.full(n_docs, as_integer("num_tokens", num_tokens), np.int64)
    if given.shape != (n_docs,) or given.dtype.kind not in "iu":
        raise ValueError(
            f"num_tokens is of dtype {given.dtype} and shape {list(given.shape)}; give an integer, or {n_docs} of them"
        )
    return given.astype(np.int64)


def draw(
    launcher: Launcher,
    arrays: LatticeArrays,
    reading: Reading,
    weights: Any,
    sums: TokenSums,
    num_tokens: NDArray[np.int64],
    options: SampleOptions,
) -> tuple[Any, Any]:
    """(marks int32 [num_samples, P] of paths of so many tokens, the logs of those paths' summed weights float64 [B]).

    Raises ValueError for a document without such a path.
    """
    xp = launcher.xp
    offsets, mantissas, exponents = sums.of_documents(xp, arrays.doc_positions)
    widths = on_host(sums.widths)
    is_within = (num_tokens >= 0) & (num_tokens < widths)
    at = offsets[:-1] + launcher.upload(np.where(is_within, num_tokens, 0))
    has_path = is_within & (on_host(mantissas[at]) > 0) if len(widths) else is_within
    if not has_path.all():
        i_doc = int((~has_path).argmax())
        raise ValueError(
            f"document {i_doc} has no segmentation of {num_tokens[i_doc]} tokens; token_counts() shows which it has"
        )
    path = xp.full((options.num_samples, len(arrays.marks)), -1, xp.int32)
    launcher.run(
        "draw_by_tokens", len(widths) * options.num_samples,
        doc_positions=arrays.doc_positions, n_docs=len(widths), arc_offsets=arrays.arc_offsets,
        lengths=arrays.lengths, weights=weights, marks=arrays.marks, **reading.arcs(xp, arrays.arcs), **sums._asdict(),
        num_tokens=launcher.upload(num_tokens), seed=np.uint64(options.seed), doc_ids=launcher.upload(options.doc_ids),
        n_positions=len(arrays.marks), path=path.reshape(-1),
    )  # fmt: skip
    return path, log_of(xp, mantissas[at]) + exponents[at] * LN_2
