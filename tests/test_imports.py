"""Imports run one way, from the command line down to the kernels, and nobody reaches into a tokenizer."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from conftest import ROOT

# A module imports from its own line and the lines above; __init__ is gpu_lattice itself.
LEVELS = """
kernels data
runtime text_batch token_batch
normalizers
vocabulary weights models
backends
lattice statistics
tokenizer resampling nearby fitting decoding device_check spans hf
corpus torch literature
show
benchmark
__init__
cli __main__
"""
LEVEL_OF = {name: level for level, names in enumerate(LEVELS.strip().split("\n")) for name in names.split()}
THIRD_PARTY = {"numpy", "numba", "llvmlite"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "gpu_lattice" else ("gpu_lattice", *parts))


TREES = {
    module_of(path): ast.parse(path.read_text("utf-8"))
    for folder in ("kernels", "gpu_lattice")
    for path in (ROOT / folder).rglob("*.py")
}


def imports(module: str) -> Iterator[tuple[str, str]]:
    """(module, name in this file) of every import of a file, wherever it stands; a package is its __init__."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                source = node.module or "" if isinstance(node, ast.ImportFrom) else alias.name
                found = [name for name in (f"{source}.{alias.name}", f"{source}.__init__") if name in TREES]
                yield (found or [source])[0], alias.asname or alias.name


def level(module: str) -> int:
    return LEVEL_OF[module.split(".")[1]]


def test_a_module_imports_from_its_own_level_and_those_below() -> None:
    edges = [(module, source) for module in TREES for source, _ in imports(module) if source.startswith("gpu_lattice")]
    assert [(module, source) for module, source in edges if level(source) > level(module)] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    TopologicalSorter({module: {source for source, _ in imports(module)} for module in TREES}).prepare()


def test_kernels_need_numpy_and_numba_alone() -> None:
    kernels = [module for module in TREES if module.startswith("gpu_lattice.kernels.")]
    roots = {(module, source.split(".")[0]) for module in kernels for source, _ in imports(module)}
    needed = {(module, root) for module, root in roots if root not in {"gpu_lattice", *sys.stdlib_module_names}}
    assert {root for _, root in needed - {("gpu_lattice.kernels.cuda.loader", "cupy")}} == THIRD_PARTY


def test_compiled_functions_call_those_of_kernels_and_of_their_own_folder() -> None:
    """What Numba keeps is discarded when one of these changes (kernels.compiled), not when another file does."""
    for module, tree in TREES.items():
        source_of = {name: source for source, name in imports(module) if source.startswith("gpu_lattice.")}
        for node in ast.walk(tree):
            decorators = [ast.unparse(one).split("(")[0] for one in getattr(node, "decorator_list", [])]
            if {"compiled", "register_jitable"} & set(decorators):
                used = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
                sources = {source_of[name] for name in used & source_of.keys()}
                folders = ("gpu_lattice.kernels.", module.rpartition(".")[0] + ".")
                assert all(source.startswith(folders) for source in sources), (module, sources)


def test_nobody_reaches_into_a_tokenizer() -> None:
    others = [path for folder in ("bench", "tools", "examples") for path in (ROOT / folder).rglob("*.py")]
    trees = TREES | {str(path): ast.parse(path.read_text("utf-8")) for path in others}
    reached = [
        (where, ast.unparse(node))
        for where, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"_model", "_backend"} and ast.unparse(node.value) != "self"
    ]
    assert [(where, what) for where, what in reached if where != "gpu_lattice.tokenizer"] == []
