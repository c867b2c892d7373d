"""Classes of all code points, as the tables in gpu_lattice/data have them: distinct blocks, and which one each has."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_SIZE = 128


@cache
def class_table(name: str) -> NDArray[np.uint8]:
    """uint8 [0x110000], the class of every code point, from a file that one of tools/make_*_table.py wrote."""
    path = resources.files("gpu_lattice") / "data" / name
    with path.open("rb") as file, np.load(file) as arrays:
        classes: NDArray[np.uint8] = arrays["blocks"][arrays["index"]].reshape(-1)
    return classes
