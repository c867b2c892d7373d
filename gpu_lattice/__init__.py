"""Perfect samples from subword lattices, batched, the same tokens on the CPU and the GPU.

Tokenizer                    a model on a device: encode, sample, decode, lattice, fit
TextBatch, TokenBatch        texts and rows of ids, as flat arrays with offsets
Lattice, RaggedLattice       what Tokenizer.lattice gives: every operation on it, and its tensors
PathBatch, Continuations     what Tokenizer.nbest and Tokenizer.continuations give
retokenize                   a whole corpus, file by file, in a run that can be resumed
gpu_lattice.torch            datasets and collate functions for PyTorch

Other modules are internal, and may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpu_lattice.runtime import display as _display
from gpu_lattice.runtime.version import __version__ as __version__

if TYPE_CHECKING:
    from gpu_lattice.corpus.retokenize import retokenize as retokenize
    from gpu_lattice.lattice import Continuations as Continuations
    from gpu_lattice.lattice import Lattice as Lattice
    from gpu_lattice.lattice import PathBatch as PathBatch
    from gpu_lattice.lattice import RaggedLattice as RaggedLattice
    from gpu_lattice.text_batch import TextBatch as TextBatch
    from gpu_lattice.token_batch import TokenBatch as TokenBatch
    from gpu_lattice.tokenizer import Tokenizer as Tokenizer

# The public names and the modules that define them; the imports above tell type checkers the same.
_HOMES = {
    "Continuations": "gpu_lattice.lattice",
    "Lattice": "gpu_lattice.lattice",
    "PathBatch": "gpu_lattice.lattice",
    "RaggedLattice": "gpu_lattice.lattice",
    "TextBatch": "gpu_lattice.text_batch",
    "TokenBatch": "gpu_lattice.token_batch",
    "Tokenizer": "gpu_lattice.tokenizer",
    "retokenize": "gpu_lattice.corpus.retokenize",
}
__all__ = list(_HOMES)

try:
    import_module(f"{__name__}.kernels")
except ModuleNotFoundError as error:
    raise ImportError(
        "gpu_lattice has no kernels: this is a clone without symbolic links, where the link gpu_lattice/kernels is a "
        "plain file; run `python -m pip install -e .` in it, or `python -m pip install .` and import from elsewhere"
    ) from error


def _lattice_html(tokenizer: Any, text: bytes) -> str | None:
    from gpu_lattice.show.lattice_figure import lattice_html

    return lattice_html(tokenizer, text)


_display.lattice_html = _lattice_html


def __getattr__(name: str) -> Any:
    """A public name, loaded from its module on first use (Numba alone takes half a second)."""
    if name == "torch":
        return import_module("gpu_lattice.torch")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    """The public names, and what Python puts into a module."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
