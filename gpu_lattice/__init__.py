"""gpu_lattice: perfect samples from subword lattices, batched, the same tokens on the CPU and the GPU."""

from gpu_lattice.text_batch import TextBatch
from gpu_lattice.token_batch import TokenBatch
from gpu_lattice.tokenizer import Tokenizer

__all__ = ["TextBatch", "TokenBatch", "Tokenizer"]
__version__ = "0.1.0"
