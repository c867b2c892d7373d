"""The BPE model of a Hugging Face tokenizer.json, byte-level or of characters, as tokenizers 0.23.3 understands it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.models import DROPPED, MISSING, Merges
from gpu_lattice.normalizers.byte_level import BYTE_OF_CHARACTER, CHARACTERS, bytes_of
from gpu_lattice.vocabulary import Kind, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.normalizers.hf_tokenizers import AddedToken

Component = dict[str, Any]

# Ids that no piece has take memory too; published files have a few hundred.
MOST_GAPS = 1 << 16
BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]


def pieces_of(vocab: Any, name: str) -> list[str]:
    """The pieces by id, "" for an id that no piece has. Raises ValueError unless they can be those of a BPE model."""
    if not isinstance(vocab, dict) or not vocab:
        raise ValueError(f"{name}: its vocab is {vocab!r:.60}, not an object of piece: id; get the file again")
    limit = len(vocab) + MOST_GAPS
    for piece, i in vocab.items():
        if type(i) is not int or not 0 <= i < limit:
            raise ValueError(
                f"{name}: the id of {piece!r:.60} is {i!r:.60}; those of {len(vocab)} pieces must be below {limit}"
            )
    if "" in vocab:
        raise ValueError(f"{name}: piece {vocab['']} is empty, so no text can ever match it; remove or rename it")
    pieces = [""] * (max(vocab.values()) + 1)
    for piece, i in vocab.items():
        if pieces[i]:
            raise ValueError(f"{name}: {pieces[i]!r:.60} and {piece!r:.60} both have the id {i}; give one another id")
        pieces[i] = piece
    return pieces


def merges_of(merges: Any, id_of: Mapping[str, int], name: str) -> NDArray[np.int32]:
    """int32 [M, 4], as in Merges.pairs. Raises ValueError for a merge that is not one of pieces into a piece."""
    if not isinstance(merges, list):
        raise ValueError(f"{name}: its merges are {merges!r:.60}, not a list; get the file again")
    kinds = set(map(type, merges))
    if kinds == {str}:
        merges = [merge.split(" ") for merge in merges if not merge.startswith("#version")]
    elif kinds - {list}:
        raise ValueError(f"{name}: its merges are not all 'a b', nor all ['a', 'b']; get the file again")
    try:
        rows = [(id_of[a], id_of[b], rank, id_of[a + b]) for rank, (a, b) in enumerate(merges)]
    except (KeyError, ValueError, TypeError):
        raise _bad_merge(merges, id_of, name) from None
    return np.array(rows, np.int32).reshape(-1, 4)


def _bad_merge(merges: list[Any], id_of: Mapping[str, int], name: str) -> ValueError:
    """What is wrong with the first merge that is not one of pieces into a piece."""
    for i, merge in enumerate(merges):
        if len(merge) != 2 or not all(isinstance(part, str) for part in merge):
            return ValueError(f"{name}: merge {i} is {merge!r:.60}, not a pair of pieces; get the file again")
        missing = [piece for piece in (*merge, "".join(merge)) if piece not in id_of]
        if missing:
            return ValueError(f"{name}: merge {i} is of {missing[0]!r:.60}, which is no piece; get the file again")
    raise AssertionError("unreachable")


def check(model: Component, name: str) -> None:
    """Raise ValueError for a setting that is not covered."""
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key) not in (None, ""):
            raise ValueError(
                f"{name}: its BPE model has {key} = {model[key]!r:.60}, which is not supported; give a byte-level "
                "vocabulary, or one whose pieces begin with the space"
            )
    if model.get("dropout") not in (None, 0):
        raise ValueError(
            f"{name}: its BPE model has dropout = {model['dropout']!r:.60}, so that its encoding is random; set it to "
            "null, and draw from Tokenizer.sample"
        )
    for key in ("fuse_unk", "byte_fallback", "ignore_merges"):
        if not isinstance(model.get(key), bool | None):
            raise ValueError(f"{name}: {key} is {model[key]!r:.60}, not true or false; get the file again")
    if not isinstance(model.get("unk_token"), str | None):
        raise ValueError(f"{name}: unk_token is {model['unk_token']!r:.60}, not a piece or null; get the file again")


def unknown_id(model: Component, id_of: Mapping[str, int]) -> int | None:
    """The id of the unknown token, None if there is none."""
    return id_of.get(model.get("unk_token") or "")


def bpe_vocabulary(
    model: Component,
    pairs: NDArray[np.int32],
    id_of: Mapping[str, int],
    names: list[str],
    kinds: NDArray[np.uint8],
    added: Sequence[AddedToken],
    is_bytes: bool,
    name: str,
) -> tuple[Vocabulary, Merges]:
    """The lattice of a BPE model and its merges.

    id_of: of pieces alone; names, kinds: of all ids. Special tokens are arcs only where merges make them.
    Raises ValueError for byte pieces in a byte-level model that needs them.
    """
    byte_pieces = np.array([id_of.get(piece, -1) for piece in BYTE_PIECES], np.int32)
    byte_ids = byte_pieces if model.get("byte_fallback") else np.full(256, -1, np.int32)
    characters = CHARACTERS if is_bytes else [piece for piece in id_of if len(piece) == 1]
    symbols = [(BYTE_OF_CHARACTER[c] if is_bytes else ord(c), id_of[c]) for c in characters if c in id_of]
    if is_bytes and model.get("byte_fallback") and len(symbols) < 256:
        raise ValueError(f"{name}: byte_fallback is on in a byte-level model that lacks bytes; set it to false")
    rows = np.array(symbols, np.int32).reshape(-1, 2)
    unk_id = unknown_id(model, id_of)
    has_bytes = bool(np.all(byte_ids >= 0))
    surfaces, is_surface = _surfaces(id_of, names, added, is_bytes)
    is_piece = np.zeros(len(names), np.bool_)
    is_piece[list(id_of.values())] = True
    is_made = np.zeros(len(names), np.bool_)
    is_made[pairs[:, 3]] = is_made[rows[:, 1]] = True
    in_lattice = is_piece & is_surface & (is_made | (kinds != Kind.CONTROL)) & (kinds != Kind.BYTE)
    if unk_id is not None:
        in_lattice[unk_id] = False
        surfaces[unk_id] = b""
    for byte, i in enumerate(byte_ids.tolist()):
        if i >= 0:
            surfaces[i] = bytes([byte])
    hidden = [(i, bytes_of(piece) if is_bytes else piece.encode()) for piece, i in id_of.items() if not in_lattice[i]]
    scores = np.zeros(len(names))
    contents = [(token.id, token.content.encode()) for token in added if token.id != unk_id]
    vocabulary = Vocabulary(
        names=names,
        surfaces=surfaces,
        kinds=kinds,
        in_lattice=in_lattice,
        scores=scores,
        best_scores=scores,
        symbols="bytes" if is_bytes else "characters",
        unk_id=unk_id,
        unk_score=0.0,
        best_unk_score=0.0,
        byte_ids=byte_ids if has_bytes else None,
        unknown_runs="apart" if unk_id is not None and not has_bytes and not model.get("fuse_unk") else "merge",
        id_of={**id_of, **{token.content: token.id for token in added}},
        contents=tuple((i, content) for i, content in contents if content != surfaces[i]),
    )
    merges = Merges(
        pairs=pairs,
        symbols=rows[:, 0],
        symbol_ids=rows[:, 1],
        byte_ids=byte_ids,
        # tokenizers drops a symbol that is unknown if there is no unk_token, and fails if that is in no vocabulary.
        unk_id=unk_id if unk_id is not None else DROPPED if model.get("unk_token") is None else MISSING,
        fuse_unk=bool(model.get("fuse_unk")),
        whole_pieces=bool(model.get("ignore_merges")),
        hidden=tuple((text, i) for i, text in hidden if text is not None) if model.get("ignore_merges") else (),
    )
    return vocabulary, merges


def _surfaces(
    id_of: Mapping[str, int], names: list[str], added: Sequence[AddedToken], is_bytes: bool
) -> tuple[list[bytes], NDArray[np.bool_]]:
    """The surface of every id, and whether text can be equal to it: byte-level pieces may hold what is no byte."""
    surfaces, is_surface = [b""] * len(names), np.ones(len(names), np.bool_)
    for piece, i in id_of.items():
        spelled = bytes_of(piece) if is_bytes else piece.encode()
        surfaces[i] = piece.encode() if spelled is None else spelled
        is_surface[i] = spelled is not None
    for token in added:
        if token.content not in id_of:
            surfaces[token.id] = token.content.encode()
    return surfaces, is_surface
