"""From bytes to the reader that knows them."""

from __future__ import annotations

from typing import Any

from gpu_lattice.models import Model, bytepiece, hf_tokenizers, sentencepiece


def read_model(data: bytes, name: str) -> Model:
    """Read a model file of any known format, told from its content.

    name: what errors call the file. Raises ValueError for a file of no known format, and what its reader raises.
    """
    readers: tuple[Any, ...] = (bytepiece, hf_tokenizers, sentencepiece)
    for reader in readers:
        if reader.looks_like(data):
            model: Model = reader.read(data, name)
            return model
    what = "is empty" if not data else f"begins with {data[:8]!r}"
    raise ValueError(
        f"{name} {what}; give a SentencePiece unigram .model, a Hugging Face tokenizer.json (Unigram) or a "
        "BytePiece .model"
    )
