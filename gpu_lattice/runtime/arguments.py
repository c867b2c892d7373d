"""Checks of arguments that several operations share."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def checked_integer(name: str, value: Any, low: int, high: int) -> int:
    """value as an int; TypeError for what is none, ValueError for one out of range."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; give an integer") from None
    if not low <= number <= high:
        raise ValueError(f"{name} is {number}; give an integer from {low} to {high}")
    return number


def in_order(kernel: str, parameters: tuple[str, ...], args: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments of a kernel as its parameters come; TypeError for one that is missing or that it does not take.

    Example:
        >>> in_order("row_sums", ("offsets", "values", "totals"), {"offsets": 1, "totals": 3, "values": 2})
        (1, 2, 3)
    """
    try:
        values = tuple(map(args.__getitem__, parameters))
        if len(values) == len(args):
            return values
    except KeyError:
        pass
    missing = [name for name in parameters if name not in args]
    unknown = [name for name in args if name not in parameters]
    faults = (("lacks", missing), ("does not take", unknown))
    found = " and ".join(f"{fault} {', '.join(names)}" for fault, names in faults if names)
    raise TypeError(f"kernel {kernel} {found}; its parameters are {', '.join(parameters)}")


def _is_64_bits(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**64


def checked_doc_ids(doc_ids: Any, n_docs: int) -> NDArray[np.uint64]:
    """uint64 [n_docs]; 0, 1, 2, ... for None."""
    if doc_ids is None:
        return np.arange(n_docs, dtype=np.uint64)
    ids = np.asarray(doc_ids)
    if ids.shape == (n_docs,) and not isinstance(doc_ids, np.ndarray) and all(map(_is_64_bits, doc_ids)):
        # NumPy has no integer type for both -1 and 2^63, and makes floats of them.
        ids = np.array([i % 2**64 for i in doc_ids], np.uint64)
    if ids.shape != (n_docs,) or (ids.dtype.kind not in "iu" and n_docs):
        raise ValueError(f"doc_ids is of dtype {ids.dtype} and shape {ids.shape}; give {n_docs} integers of 64 bits")
    return ids.astype(np.int64).view(np.uint64) if ids.dtype.kind == "i" else ids.astype(np.uint64)
