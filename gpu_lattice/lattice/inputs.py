"""What callers give: arcs as ragged arrays, and weights of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.backends import LatticeArrays
from gpu_lattice.backends.cpu_launcher import CpuLauncher
from gpu_lattice.kernels.cpu.lattice.build import CHUNK, CUT
from gpu_lattice.lattice.arrays import places
from gpu_lattice.runtime.ragged import row_of
from gpu_lattice.runtime.threads import default_threads
from gpu_lattice.weights import LARGEST_WEIGHT, SMALLEST_WEIGHT

if TYPE_CHECKING:
    from gpu_lattice.backends import Launcher


class ArcWeights(NamedTuple):
    """The arcs that weights are for, given as [V], [B, L + 1, K] or [A, 1]; public_ids int32 [A]."""

    shape: tuple[int, int, int]
    n_ids: int
    public_ids: Any
    arrays: LatticeArrays


def checked_weights(xp: Any, weights: Any, of: ArcWeights) -> Any:
    """float64 [A]; TypeError or ValueError unless they are weights of these arcs."""
    array = as_array(xp, weights, "weights")
    if array.dtype.kind not in "fiu":
        raise TypeError(f"weights are of dtype {array.dtype}; give real numbers")
    array = array.astype(np.float64)
    n_arcs = len(of.arrays.arcs)
    if array.shape == (of.n_ids,):
        unnamed = int((of.public_ids < 0).sum())
        if unnamed:
            raise ValueError(
                f"{unnamed} unknown arcs have no id in this model, so weights by id do not cover them; "
                f"give weights for each arc, [{n_arcs}, 1] or {list(of.shape)}"
            )
        array = array[of.public_ids]
    elif array.shape == of.shape:
        array = array.reshape(-1)[places(xp, of.arrays, of.shape)]
    elif array.shape == (n_arcs, 1):
        array = array.reshape(-1)
    else:
        raise ValueError(
            f"weights have the shape {list(array.shape)}; give [{of.n_ids}] (by id), {list(of.shape)} (by arc, like "
            f"the tensors) or [{n_arcs}, 1] (by arc, like to_ragged())"
        )
    is_good = (array == 0) | ((array >= SMALLEST_WEIGHT) & (array <= LARGEST_WEIGHT))
    if not bool(is_good.all()):
        bad = float(array[xp.flatnonzero(~is_good)[0]])
        raise ValueError(f"a weight is {bad!r}; give 0, or numbers from 2^-1000 to 2^1000 (weights, not their logs)")
    return array


def as_array(xp: Any, values: Any, name: str) -> Any:
    """An array of xp, from a list, or without a copy from anything that supports DLPack on the same device."""
    if isinstance(values, xp.ndarray):
        return values
    if isinstance(values, list | tuple | np.ndarray):
        return xp.asarray(values)
    if not hasattr(values, "__dlpack__"):
        raise TypeError(f"{name} is a {type(values).__name__}; give an array, or anything with __dlpack__")
    try:
        return xp.from_dlpack(values)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be read on the lattice's device: {error}") from None


def arrays_from_ragged(piece_id: Any, length: Any, row_splits: Any, is_cut: Any) -> tuple[Launcher, LatticeArrays]:
    """The launcher of the device where the arrays are, and the lattice; ValueError if it is not a valid one."""
    launcher = _launcher_of(piece_id)
    xp = launcher.xp
    if not isinstance(row_splits, tuple | list) or len(row_splits) != 2:
        raise TypeError("row_splits must be a pair: the splits of documents into positions, and of positions into arcs")
    with launcher:
        arcs, lengths = _integers(xp, piece_id, "piece_id", xp.int32), _integers(xp, length, "length", xp.int32)
        doc_positions, arc_offsets = (_integers(xp, splits, "row_splits", xp.int64) for splits in row_splits)
        _check_splits(xp, doc_positions, arc_offsets, arcs, lengths)
        position = row_of(xp, arc_offsets)
        first = doc_positions[xp.searchsorted(doc_positions, position, side="right") - 1]
        _check_arcs(xp, arcs, lengths, position, first)
        n_positions = int(doc_positions[-1])
        spanned = _spanned(xp, position, lengths, n_positions)
        cuts = ~spanned if is_cut is None else as_array(xp, is_cut, "is_cut")
        if cuts.dtype.kind not in "biu" or cuts.shape != (n_positions,) or bool((spanned & (cuts != 0)).any()):
            raise ValueError(f"is_cut must be bool [{n_positions}], False wherever an arc spans the position")
        marks = xp.where(cuts != 0, xp.uint8(CUT), xp.uint8(0))
        marks[doc_positions[:-1]] = CHUNK | CUT
        marks[doc_positions[1:] - 1] |= CUT
        text = xp.zeros(n_positions - len(doc_positions) + 1, xp.uint8)
    return launcher, LatticeArrays(doc_positions, arc_offsets, arcs, lengths, marks, text)


def _integers(xp: Any, values: Any, name: str, dtype: Any) -> Any:
    """A copy of this type; TypeError unless they are integers, ValueError for one that the type cannot hold."""
    array = as_array(xp, values, name)
    if array.size == 0:
        return array.astype(dtype)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} is of dtype {array.dtype}; give integers")
    bounds, low, high = np.iinfo(dtype), int(array.min()), int(array.max())
    if low < bounds.min or high > bounds.max:
        raise ValueError(f"{name} holds {low if low < bounds.min else high}; give {np.dtype(dtype).name}")
    return array.astype(dtype)


def _launcher_of(array: Any) -> Launcher:
    is_device = getattr(array, "__dlpack_device__", None)
    if is_device is None or int(is_device()[0]) == 1:
        return CpuLauncher(default_threads())
    from gpu_lattice.backends.cuda_device import CudaDevice
    from gpu_lattice.backends.cuda_launcher import CudaLauncher

    return CudaLauncher(CudaDevice(int(is_device()[1])), {"IS_BYTES": 1})


def _check_splits(xp: Any, doc_positions: Any, arc_offsets: Any, arcs: Any, lengths: Any) -> None:
    if arcs.ndim != 1 or arcs.shape != lengths.shape:
        raise ValueError(
            f"piece_id and length have the shapes {arcs.shape} and {lengths.shape}; give flat arrays of one length"
        )
    for name, splits in (("documents", doc_positions), ("positions", arc_offsets)):
        if splits.ndim != 1 or len(splits) == 0 or int(splits[0]) != 0 or bool((xp.diff(splits) < 0).any()):
            raise ValueError(f"the row splits of {name} must begin with 0 and never decrease")
    if bool((xp.diff(doc_positions) < 1).any()):
        raise ValueError("a document of n bytes has n + 1 positions, so the row splits of documents must increase")
    if len(arc_offsets) != int(doc_positions[-1]) + 1 or len(arcs) != int(arc_offsets[-1]):
        raise ValueError(
            f"{len(arcs)} arcs, splits of {len(arc_offsets) - 1} positions that end at {int(arc_offsets[-1])}, and "
            f"splits of documents that end at {int(doc_positions[-1])} do not fit together"
        )


def _check_arcs(xp: Any, arcs: Any, lengths: Any, position: Any, first: Any) -> None:
    if bool((lengths < 1).any()) or bool((position - lengths < first).any()):
        raise ValueError("an arc's length must be at least 1, and it must not begin before its document")
    if bool((arcs < 0).any()):
        raise ValueError(f"piece_id holds {int(arcs.min())}; give ids >= 0 (and no padding)")
    same = position[1:] == position[:-1]
    if bool((same & (lengths[1:] < lengths[:-1])).any()):
        raise ValueError("the arcs into a position must go from the shortest to the longest")


def _spanned(xp: Any, position: Any, lengths: Any, n_positions: int) -> Any:
    """bool [P]: whether an arc begins before a position and ends after it."""
    begins = xp.bincount(position - lengths + 1, minlength=n_positions + 1)
    ends = xp.bincount(position, minlength=n_positions + 1)
    return xp.cumsum(begins - ends)[:n_positions] > 0
