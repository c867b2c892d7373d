"""Model files with tokens added, as their own tools have them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gpu_lattice.runtime.arguments import checked_flag, shown
from gpu_lattice.vocabulary import Kind, Vocabulary


@dataclass(frozen=True)
class NewToken:
    """A string that is to be one token wherever it occurs, with the flags of tokenizers.AddedToken."""

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False


def new_tokens(tokens: Any, **flags: Any) -> list[NewToken]:
    """Tokens from str, which get the flags, and tokenizers.AddedToken, which have their own.

    Raises TypeError for anything else, ValueError for an empty token.
    """
    flags = {name: checked_flag(name, flag) for name, flag in flags.items()}
    given = [tokens] if isinstance(tokens, str) or not isinstance(tokens, Sequence) else tokens
    found = []
    for token in given:
        if not isinstance(token, str) and not hasattr(token, "content"):
            raise TypeError(f"a token to add is {shown(token)}; give str or tokenizers.AddedToken")
        if isinstance(token, str):
            found.append(NewToken(token, **flags))
        else:
            found.append(NewToken(**{name: getattr(token, name) for name in NewToken.__dataclass_fields__}))
        if not found[-1].content:
            raise ValueError("a token to add is empty; leave it out")
    return found


def with_tokens(data: bytes, kind: str, tokens: Sequence[NewToken], vocabulary: Vocabulary) -> bytes:
    """The bytes of a model's file with these tokens; those that it does not know get the next ids.

    Raises ValueError for a kind of file that cannot have them, and for flags that a SentencePiece model cannot say.
    """
    if kind == "huggingface":
        return _in_json(data, tokens, vocabulary)
    if kind == "sentencepiece":
        return data + b"".join(_piece(token, vocabulary) for token in tokens)
    raise ValueError(f"tokens cannot be added to a {kind} model; give a tokenizer.json or a SentencePiece .model")


def _in_json(data: bytes, tokens: Sequence[NewToken], vocabulary: Vocabulary) -> bytes:
    file, ids, num_ids = json.loads(data), dict(vocabulary.id_of), len(vocabulary)
    added = {entry["content"]: entry for entry in file.get("added_tokens") or []}
    for token in tokens:
        i = ids.setdefault(token.content, num_ids)
        num_ids += i == num_ids
        added[token.content] = {"id": i, **asdict(token)}
    # Readers go by the order, not by the ids that a file states.
    file["added_tokens"] = sorted(added.values(), key=lambda entry: ids.get(entry["content"], -1))
    return json.dumps(file, ensure_ascii=False).encode()


def _piece(token: NewToken, vocabulary: Vocabulary) -> bytes:
    """A piece of a ModelProto (sentencepiece_model.proto): messages that follow one another are one.

    Nothing for one that the model has.
    """
    from gpu_lattice.models.saving import PIECE, message, varint

    wrong = next((name for name in ("single_word", "lstrip", "rstrip") if getattr(token, name)), None)
    if wrong is not None:
        raise ValueError(f"the token {token.content!r:.60} has {wrong}, which a SentencePiece model cannot say")
    text = token.content.encode()
    kind = Kind.CONTROL if token.special else Kind.USER_DEFINED
    known = vocabulary.id_of.get(token.content)
    if known is not None and vocabulary.kinds[known] != kind:
        raise ValueError(f"{token.content!r:.60} is a piece of this SentencePiece model, of another kind; leave it out")
    if known is not None:
        return b""
    return message(PIECE, message(1, text) + b"\x15\0\0\0\0" + b"\x18" + varint(kind))
