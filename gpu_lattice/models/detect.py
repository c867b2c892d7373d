"""From bytes to the reader for their format."""

from __future__ import annotations

import re
from importlib import import_module

from gpu_lattice.models import Model

# A file that begins otherwise is neither JSON nor a zip, and the readers of those need not be loaded.
_JSON_OR_ZIP = re.compile(rb"(\xef\xbb\xbf)?\s*\{|PK")


def read_model(data: bytes, name: str) -> Model:
    """Read a model file of any known format, detected from its content.

    name: the file's name in errors. Raises ValueError for a file of unknown format, and whatever its reader raises.
    """
    readers = ("bytepiece", "tiktoken", "hf_tokenizers", "sentencepiece")
    for known in readers if _JSON_OR_ZIP.match(data) else readers[-1:]:
        reader = import_module(f"gpu_lattice.models.{known}")
        if reader.looks_like(data):
            model: Model = reader.read(data, name)
            return model
    from gpu_lattice.models.tiktoken import is_rank_file

    if is_rank_file(data):
        raise ValueError(f"{name} is a tiktoken file, which does not say how text is divided; use from_tiktoken")
    what = "is empty" if not data else f"begins with {data[:8]!r}"
    raise ValueError(
        f"{name} {what}; give a SentencePiece .model (unigram, BPE), a Hugging Face tokenizer.json (Unigram, BPE), a "
        "tekken.json or a BytePiece .model"
    )
