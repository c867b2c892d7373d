"""A byte-level BPE model whose lattice keeps UTF-8 characters whole: one of characters, with byte fallback."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpu_lattice.models import Model


def with_whole_characters(model: Model, name: str) -> Model:
    """The model without the paths that split a character which has a piece; the others are spelled in pieces of bytes.

    What merges make of a text stays. A model of characters is returned as it is.
    Raises ValueError for one that is not BPE, since its best segmentations would be others, for one in which a byte has
    no piece, and for one whose pre-tokens may end within a character.
    """
    vocabulary, merges = model.vocabulary, model.merges
    if vocabulary.symbols == "characters":
        return model
    if merges is None:
        raise ValueError(
            f"{name} scores segmentations that split characters, so characters=True would change what `encode` gives; "
            "it is for BPE models"
        )
    if model.splits_characters:
        raise ValueError(
            f"{name} goes on to change or divide a text that is already bytes, perhaps within a character; leave out "
            "characters=True, or make ByteLevel the last of its pre-tokenizers"
        )
    arcs = np.flatnonzero(vocabulary.in_lattice).tolist()
    id_of = {vocabulary.surfaces[i]: i for i in arcs}
    missing = next((byte for byte in range(256) if bytes([byte]) not in id_of), None)
    if missing is not None:
        raise ValueError(
            f"{name}: the byte 0x{missing:02X} has no piece, so not every character can be spelled whole or in bytes; "
            "leave out characters=True"
        )
    in_lattice = vocabulary.in_lattice.copy()
    in_lattice[[i for i in arcs if not _is_text(vocabulary.surfaces[i])]] = False
    byte_ids = np.array([id_of[bytes([byte])] for byte in range(256)], np.int32)
    kept = replace(vocabulary, symbols="characters", in_lattice=in_lattice, byte_ids=byte_ids,
                   unknown_runs="merge")  # fmt: skip
    return replace(model, vocabulary=kept, merges=replace(merges, vocabulary=vocabulary))


def _is_text(surface: bytes) -> bool:
    try:
        surface.decode()
    except UnicodeDecodeError:
        return False
    return True
