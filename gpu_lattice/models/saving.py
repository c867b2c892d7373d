"""A model's file with other scores, in the format that it came in; the same reader reads it.

BPE formats have merges in place of scores: a model becomes a unigram one, or keeps its merges and has its scores in a
field of our own, which other tools skip.

What a format cannot hold is an error, not a loss: the file is read again, and has to be the model that was to be saved,
but for the rounding of its scores: SentencePiece's are float32, tokenizers does not read every float, and BytePiece's
file holds counts, of which the scores are logs.
"""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.models.detect import read_model
from gpu_lattice.models.json_text import load_json, serde_float
from gpu_lattice.models.own import OWN, listed
from gpu_lattice.models.rescored import with_own_scores
from gpu_lattice.models.sentencepiece import (
    BYTES,
    FIXED32,
    FIXED_BYTES,
    OWN_FIELD,
    UNIGRAM,
    VARINT,
    read_varint,
)
from gpu_lattice.models.tiktoken import with_scores
from gpu_lattice.vocabulary import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.models import Model
    from gpu_lattice.vocabulary import Vocabulary

# In place of a list of scores, whose numbers json would write so that tokenizers reads others.
PLACEHOLDER = "\0scores\0"
PIECE, TRAINER = 1, 2
SCORE, KIND = 2, 3
MODEL_TYPE = 3
# How far shares may be from a sum of 1.
UNNORMALIZED = 1e-9
# How far, relatively, the scores of a format may be from others that are written: float32, what serde_json reads, logs
# of counts.
ROUNDING = {"sentencepiece": 2.0**-24, "huggingface": 2.0**-50, "bytepiece": 1e-12, "tiktoken": 0.0}


def file_of(data: bytes, name: str, model: Model, as_unigram: bool) -> bytes:
    """The file `data`, by this name in errors, with the scores and pieces of `model`.

    as_unigram: a BPE model becomes a unigram one, of the same pieces; else its scores go beside its merges (own.py).
    Raises ValueError for what the format cannot hold.
    """
    old = with_own_scores(read_model(data, name))
    becomes_unigram = as_unigram and old.merges is not None
    if _is_same(old.vocabulary, model.vocabulary, 0.0) and not becomes_unigram:
        return data
    if becomes_unigram and model.kind == "tiktoken":
        raise ValueError(f"{name} would find special tokens in text as a unigram model; leave out as_unigram=True")
    new = _WRITERS[model.kind](data, name, model, becomes_unigram)
    try:
        again = with_own_scores(read_model(new, "the file"))
    except ValueError as refused:
        raise ValueError(f"{name} cannot be saved with these scores: {refused}") from None
    error = ROUNDING[model.kind]
    if becomes_unigram and model.kind == "huggingface":
        # By content: the ids that a file states may be others than those that its reader gives.
        contents = {token["content"] for token in load_json(data.decode()).get("added_tokens", [])}
        added = {i for content, i in again.vocabulary.id_of.items() if content in contents}
        is_same = _is_same_by_name(again.vocabulary, model.vocabulary, error, added)
    else:
        is_same = _is_same(again.vocabulary, model.vocabulary, error)
    if not is_same:
        raise ValueError(
            f"the format of {name} cannot hold this model (the scores of user-defined pieces cannot change in it, a "
            "unigram tokenizer.json has all its pieces, and would find byte pieces in text); pickle the tokenizer, or "
            "leave out as_unigram=True for a BPE model"
        )
    return new


def as_read(scores: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """The scores that a file of this kind (Model.kind) can hold, near those given."""
    if kind == "sentencepiece":
        return scores.astype(np.float32).astype(np.float64)
    if kind == "huggingface":
        return np.array([serde_float(repr(score)) if np.isfinite(score) else score for score in scores.tolist()])
    return scores


def _is_same(one: Vocabulary, other: Vocabulary, error: float) -> bool:
    """Whether two vocabularies have the same arcs, with the same scores up to a relative error."""
    arcs = other.in_lattice
    if not np.array_equal(one.in_lattice, arcs) or one.surfaces != other.surfaces or one.symbols != other.symbols:
        return False
    return _are_close(one.scores[arcs], other.scores[arcs], error)


def _is_same_by_name(one: Vocabulary, other: Vocabulary, error: float, added: set[int]) -> bool:
    """Whether a unigram model has the arcs of a BPE model with their scores: pieces of bytes are spelled in characters
    there, and added tokens are arcs, but are cut out of a text before.
    """
    arcs = other.in_lattice
    more = set(np.flatnonzero(one.in_lattice & ~arcs).tolist())
    if more - added or not one.in_lattice[arcs].all() or one.names != other.names:
        return False
    return _are_close(one.scores[arcs], other.scores[arcs], error)


def _are_close(scores: NDArray[np.float64], wanted: NDArray[np.float64], error: float) -> bool:
    return bool(np.all(np.abs(scores - wanted) <= error * np.abs(wanted)))


def _sentencepiece(data: bytes, name: str, model: Model, becomes_unigram: bool) -> bytes:
    vocabulary, i_piece = model.vocabulary, 0
    if becomes_unigram and np.any(vocabulary.kinds == Kind.USER_DEFINED):
        raise ValueError(
            f"{name} is a BPE model with user-defined pieces, which cut a text there, and as a unigram model it would "
            "not be cut; pickle the tokenizer"
        )
    if model.merges is not None and not becomes_unigram:
        kept = b"".join(data[a:c] for n, a, _, c in _raw_fields(data, 0, len(data)) if n != OWN_FIELD)
        scores = np.where(vocabulary.in_lattice, vocabulary.scores, -np.inf)
        return kept + message(OWN_FIELD, scores.astype("<f8").tobytes())
    parts = []
    for number, first, value, stop in _raw_fields(data, 0, len(data)):
        if number == PIECE:
            is_scored = vocabulary.kinds[i_piece] == Kind.NORMAL
            is_gone = is_scored and not vocabulary.in_lattice[i_piece]
            score = float(vocabulary.scores[i_piece])
            inner = _piece(data, value, stop, score if is_scored else None, is_gone)
            parts.append(message(PIECE, inner))
            i_piece += 1
        elif number == OWN_FIELD:
            continue
        elif number == TRAINER and becomes_unigram:
            kept = b"".join(data[a:c] for n, a, _, c in _raw_fields(data, value, stop) if n != MODEL_TYPE)
            parts.append(message(TRAINER, kept + bytes([MODEL_TYPE << 3 | VARINT, UNIGRAM])))
        else:
            parts.append(data[first:stop])
    return b"".join(parts)


def _piece(data: bytes, start: int, stop: int, score: float | None, is_gone: bool) -> bytes:
    """The fields of a piece, with another score, and marked as unused if it is gone."""
    replaced = {SCORE} if score is not None else set()
    fields = b"" if score is None or is_gone else bytes([SCORE << 3 | FIXED32]) + struct.pack("<f", score)
    if is_gone:
        replaced = {KIND}
        fields = bytes([KIND << 3 | VARINT, Kind.UNUSED])
    return b"".join(data[a:c] for n, a, _, c in _raw_fields(data, start, stop) if n not in replaced) + fields


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def varint(value: int) -> bytes:
    head = b""
    while value >= 128:
        head += bytes([value & 127 | 128])
        value >>= 7
    return head + bytes([value])


def _raw_fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, where the field begins, where its value does, where it ends) of the message data[start:stop]."""
    i = start
    while i < stop:
        first = i
        tag, i = read_varint(data, i, stop)
        if tag & 7 == BYTES:
            size, i = read_varint(data, i, stop)
            end = i + size
        elif tag & 7 == VARINT:
            _, end = read_varint(data, i, stop)
        else:
            end = i + FIXED_BYTES[tag & 7]
        yield tag >> 3, first, i, end
        i = end


def _tokenizer_json(data: bytes, name: str, model: Model, becomes_unigram: bool) -> bytes:
    file = load_json(data.decode())
    inner, vocabulary = file["model"], model.vocabulary
    if model.merges is not None and not becomes_unigram:
        scores = listed(vocabulary, 1 + max(inner["vocab"].values()))
        inner[OWN] = {"scores": PLACEHOLDER}
        return _with_list(file, ["null" if score is None else serde_text(score) for score in scores], ",")
    if becomes_unigram:
        if vocabulary.unknown_runs == "apart":
            raise ValueError(
                f"{name} makes an unknown token of each symbol that has no piece, and would make one of a run of them "
                "as a unigram model; leave out as_unigram=True"
            )
        file["model"] = inner = _as_unigram(inner, vocabulary)
    pieces = [piece for piece, _ in inner["vocab"]]
    old = [score for _, score in inner["vocab"]]
    is_arc = vocabulary.in_lattice.tolist()
    texts = [
        f"[{json.dumps(piece, ensure_ascii=False)},{serde_text(score if arc else float(before))}]"
        for piece, before, score, arc in zip(pieces, old, vocabulary.scores.tolist(), is_arc, strict=False)
    ]
    inner["vocab"] = PLACEHOLDER
    return _with_list(file, texts, ",\n")


def _with_list(file: Any, texts: list[str], between: str) -> bytes:
    """The file as JSON, with a list of these texts in place of PLACEHOLDER."""
    text = json.dumps(file, ensure_ascii=False, indent=1)
    return text.replace(json.dumps(PLACEHOLDER), "[\n" + between.join(texts) + "\n]", 1).encode()


def _as_unigram(bpe: dict[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """A Unigram model of a BPE model's pieces. Ids without a piece of the model's, which added tokens may have, get
    their names; what is never an arc has the lowest score.
    """
    pieces = list(vocabulary.names)
    for piece, i in bpe["vocab"].items():
        pieces[i] = piece
    lowest = float(vocabulary.scores[vocabulary.in_lattice].min())
    return {
        "type": "Unigram",
        "unk_id": vocabulary.unk_id,
        "vocab": [[piece, lowest] for piece in pieces],
        "byte_fallback": bool(bpe.get("byte_fallback")),
    }


def serde_text(score: float) -> str:
    """A JSON number that serde_json, and so tokenizers, reads as this float; the nearest, if it reads none so.

    Example:
        >>> serde_text(-13.600000000000001)
        '-13600000000000002e-15'
    """
    exact = text = repr(score)
    if serde_float(text) == score:
        return text
    sign = "-" if score < 0 else ""
    for digits in range(16, 20):
        mantissa, exponent = f"{abs(score):.{digits - 1}e}".split("e")
        significand, power = int(mantissa.replace(".", "")), int(exponent) - digits + 1
        for step in sorted(range(-200, 201), key=abs):
            text = f"{sign}{significand + step}e{power}"
            if serde_float(text) == score:
                return text
    return exact


def _bytepiece(data: bytes, name: str, model: Model, _: bool) -> bytes:
    vocabulary = model.vocabulary
    shares = np.exp(vocabulary.scores[vocabulary.in_lattice])
    if not vocabulary.in_lattice[3:].all() or abs(shares.sum() - 1.0) > UNNORMALIZED:
        raise ValueError(
            f"{name} holds counts, so scores must be the logs of shares of all its pieces that sum to 1, not to "
            f"{shares.sum():.6g}; pickle the tokenizer"
        )
    counts: list[float] = (shares * 2.0**62).tolist()
    surfaces = [surface for surface, is_arc in zip(vocabulary.surfaces, vocabulary.in_lattice, strict=True) if is_arc]
    entries = {
        b64encode(surface).decode(): [i, surface.decode(errors="ignore"), count]
        for i, (surface, count) in enumerate(zip(surfaces, counts, strict=True), 3)
    }
    return json.dumps(entries, ensure_ascii=False, indent=4).encode()


_WRITERS: dict[str, Callable[[bytes, str, Model, bool], bytes]] = {
    "sentencepiece": _sentencepiece,
    "huggingface": _tokenizer_json,
    "bytepiece": _bytepiece,
    "tiktoken": lambda data, name, model, _: with_scores(data, model.vocabulary),
}
