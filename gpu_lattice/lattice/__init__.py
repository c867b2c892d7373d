"""Lattices of a batch of texts: tensors, and every operation on them, one file for each family of operations."""

from gpu_lattice.lattice.continuations import Continuations
from gpu_lattice.lattice.lattice import Lattice, RaggedLattice
from gpu_lattice.lattice.path_batch import PathBatch

__all__ = ["Continuations", "Lattice", "PathBatch", "RaggedLattice"]
