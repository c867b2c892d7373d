"""Lattices as arrays, one file per family of operations; kernels/cuda/lattice does the same in the same order.

A kernel works on units low..high: every function of this folder whose first two parameters are these is one. The
others are those of the CUDA kernel of the same name, in the same order.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from inspect import signature
from pkgutil import iter_modules


@cache
def kernels() -> dict[str, tuple[Callable[..., None], tuple[str, ...]]]:
    """By name, (the function, the names of its parameters after low and high)."""
    found = {}
    for module in iter_modules(__path__, f"{__name__}."):
        for name, value in vars(import_module(module.name)).items():
            if getattr(value, "__module__", None) == module.name:
                parameters = tuple(signature(value).parameters)
                if parameters[:2] == ("low", "high"):
                    found[name] = value, parameters[2:]
    return found
