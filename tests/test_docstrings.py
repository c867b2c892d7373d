"""The examples of the docstrings are true."""

import doctest
import importlib
import pkgutil
import pydoc

import numpy as np
import pytest

import gpu_lattice as gl

MODULES = [module.name for module in pkgutil.walk_packages(gl.__path__, "gpu_lattice.") if ".cuda" not in module.name]
NAMES = {"np": np, "TextBatch": gl.TextBatch, "TokenBatch": gl.TokenBatch, "Tokenizer": gl.Tokenizer}
# Examples that read files of the user's.
NEEDS_FILES = ("Path(", "corpus/")


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str) -> None:
    needed = {"gpu_lattice.torch": "torch", "gpu_lattice.hf": "transformers"}.get(name)
    if needed is not None:
        pytest.importorskip(needed)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(verbose=False)
    for example in doctest.DocTestFinder().find(module, extraglobs=NAMES):
        if not any(word in (example.docstring or "") for word in NEEDS_FILES):
            runner.run(example)
    assert runner.failures == 0


def test_help_begins_with_what_is_public_and_dir_has_nothing_else() -> None:
    public = {name for name in dir(gl) if not name.startswith("_")}
    assert public == set(gl.__all__)
    described = pydoc.plain(pydoc.render_doc(gl)).partition("PACKAGE CONTENTS")[0]
    assert [name for name in public if name not in described] == []
