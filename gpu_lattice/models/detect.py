"""From bytes to the reader for their format."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpu_lattice.models import Model

if TYPE_CHECKING:
    from pathlib import Path

# A file that begins otherwise is neither JSON nor a zip, and the readers of those need not be loaded.
_JSON_OR_ZIP = re.compile(rb"(\xef\xbb\xbf)?\s*\{|PK")

# The model in a folder as transformers and sentencepiece write them, the first that is there.
FILES = ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")


def model_file(path: Path) -> Path:
    """The path itself, or the model in the folder that it is.

    Raises FileNotFoundError for a folder without one, ValueError for a device or a pipe, which may never end.
    """
    if not path.is_dir():
        return regular_file(path)
    for name in FILES:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"the folder {path} holds no {', '.join(FILES[:-1])} or {FILES[-1]}; give the model's file")


def regular_file(path: Path) -> Path:
    """The path itself, if it is one of a file or of nothing; ValueError for a device or a pipe, which may never end."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file; save the model as a file and name that")
    return path


def model_bytes(tokenizer: Any) -> bytes:
    """The content of the file that a tokenizer of another package would write; TypeError for other objects."""
    if hasattr(tokenizer, "serialized_model_proto"):  # sentencepiece
        return bytes(tokenizer.serialized_model_proto())
    tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)  # transformers
    if hasattr(tokenizer, "to_str"):  # tokenizers
        return str(tokenizer.to_str()).encode()
    raise TypeError(
        f"this is a {type(tokenizer).__name__}; give a tokenizers.Tokenizer, a transformers.PreTrainedTokenizerFast or "
        "a sentencepiece.SentencePieceProcessor"
    )


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
        raise ValueError(
            f"{name} is a tiktoken file, which does not say how text is divided; use Tokenizer.from_tiktoken, "
            "whose save writes a file that does"
        )
    what = "is empty" if not data else f"begins with {data[:8]!r}"
    raise ValueError(
        f"{name} {what}; give a SentencePiece .model (unigram, BPE), a Hugging Face tokenizer.json (Unigram, BPE), a "
        "tekken.json or a BytePiece .model"
    )
