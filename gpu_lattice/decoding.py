"""Ids and pieces back to text, as written by the model's own tool."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.runtime.arguments import shown
from gpu_lattice.text_batch import TextBatch
from gpu_lattice.vocabulary import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpu_lattice.models import Model

METASPACE = "▁"


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    """One U+FFFD for every byte that is not part of a character."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("gpu_lattice.each_byte", _each_byte)
# Python's names for what Decoder.errors says.
ERRORS = {"replace": "gpu_lattice.each_byte", "maximal": "replace", "ignore": "ignore"}


class Detokenizer:
    """Writes rows of ids as text, by a model's decoder."""

    def __init__(self, model: Model) -> None:
        vocabulary = model.vocabulary
        self._decoder = model.decoder
        self._errors = ERRORS[model.decoder.errors]
        self._names, self._vocabulary = vocabulary.names, vocabulary
        self._is_control = vocabulary.kinds == Kind.CONTROL
        self._surfaces = list(vocabulary.surfaces)
        if vocabulary.unk_id is not None:
            self._surfaces[vocabulary.unk_id] = model.decoder.unknown.encode()
        # Runs of these are joined before they are decoded; any other piece consists of whole characters.
        self._is_bytes = vocabulary.kinds == Kind.BYTE
        if vocabulary.symbols == "bytes":
            self._is_bytes = np.ones(len(vocabulary), np.bool_)

    def __call__(self, rows: Sequence[Sequence[Any] | None], skip_controls: bool = True) -> list[str | None]:
        """The text of every row; None for a null row. Raises ValueError for an id that the model does not have.

        rows: of ids, or of the names of pieces; what names none is text as it stands, as in SentencePiece.
        skip_controls: control ids become nothing, else their names.
        """
        texts = [None if row is None else self._row(row, i_row, skip_controls) for i_row, row in enumerate(rows)]
        denormalizer = self._decoder.denormalizer
        if denormalizer is None:
            return texts
        done = denormalizer(TextBatch.from_texts([text or "" for text in texts]))
        written = TextBatch(done.values, done.offsets).tolist()
        return [None if text is None else (new or b"").decode() for text, new in zip(texts, written, strict=True)]

    def _row(self, row: Sequence[Any], i_row: int, skip_controls: bool) -> str:
        size, are_pieces = len(self._surfaces), len(row) > 0 and isinstance(row[0], str)
        ids = [self._vocabulary.id_of.get(piece, piece) for piece in row] if are_pieces else row
        wrong = None if are_pieces else next((i for i in ids if not 0 <= i < size), None)
        if wrong is not None:
            raise ValueError(f"row {i_row} holds the id {shown(wrong)}; this model has ids 0 to {size - 1}")
        if self._decoder.chain is not None:
            # As in the tool, an id that no piece has is nothing.
            names = [
                i if isinstance(i, str) else self._names[i]
                for i in ids
                if isinstance(i, str) or not (skip_controls and self._is_control[i])
            ]
            return self._decoder.chain([name for name in names if name])
        text: list[str] = []
        run = b""
        strip = self._decoder.strip
        for i in ids:
            if are_pieces and isinstance(i, str):
                text += [run.decode("utf-8", self._errors), i]
                run, strip = b"", None
                continue
            is_named = self._is_control[i] and not skip_controls
            if self._is_bytes[i] and not is_named:
                run += self._surfaces[i]
                continue
            if run:
                text.append(run.decode("utf-8", self._errors))
                run, strip = b"", None
            if is_named:
                text.append(self._names[i])
                continue
            piece = self._surfaces[i].decode()
            if strip is not None and piece.startswith(METASPACE):
                piece = piece[1:]
                strip = strip if strip == "leading" else None
            if piece:
                text.append(piece.replace(METASPACE, " ") if self._decoder.metaspace else piece)
                strip = None
        if run:
            text.append(run.decode("utf-8", self._errors))
        return "".join(text)
