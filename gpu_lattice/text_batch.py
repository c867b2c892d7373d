"""Texts as one byte buffer and offsets, from Python or Arrow without a loop over documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

# What Arrow takes for a text, anywhere in a list.
TEXT = str | bytes | bytearray | memoryview
# None of its suffixes is a prefix of it, so it is found only where it was put, and in strings that contain it.
BETWEEN = b"\0\1"


@dataclass(frozen=True, eq=False)
class TextBatch:
    """A batch of documents as ragged bytes.

    values   uint8 [num_bytes], the documents one after another
    offsets  int64 [num_docs + 1], document i is values[offsets[i]:offsets[i + 1]]
    valid    bool [num_docs], False for a null document (of zero bytes); None if there are no nulls

    Example:
        >>> batch = TextBatch.from_texts(["ab", "", "é"])
        >>> batch.offsets.tolist()
        [0, 2, 2, 4]
    """

    values: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    valid: NDArray[np.bool_] | None = None

    @staticmethod
    def from_texts(texts: Any) -> TextBatch:
        """Take texts in any of the accepted forms; Arrow buffers are used in place.

        texts: a str or bytes (one document), a sequence of them (None is a null document), an Arrow
        (large_)string or (large_)binary Array or ChunkedArray, or a TextBatch.
        Raises TypeError for anything else, ValueError for a str that UTF-8 cannot encode.
        """
        if isinstance(texts, TextBatch):
            return texts
        if isinstance(texts, str | bytes):
            texts = [texts]
        import pyarrow as pa

        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks() if texts.num_chunks != 1 else texts.chunk(0)
        if isinstance(texts, pa.Array):
            return _from_arrow(texts)
        if isinstance(texts, Sequence) or (isinstance(texts, np.ndarray) and texts.dtype == object):
            return _from_arrow(_sequence_to_arrow(texts))
        raise TypeError(
            f"texts is a {type(texts).__name__}; give a str, a list of str or bytes, "
            "an Arrow string or binary array, or a TextBatch"
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_bytes(self) -> int:
        return int(self.offsets[-1] - self.offsets[0])

    def slice(self, start: int, stop: int) -> TextBatch:
        """Documents start..stop, sharing the bytes."""
        valid = None if self.valid is None else self.valid[start:stop]
        return TextBatch(self.values, self.offsets[start : stop + 1], valid)

    def tolist(self) -> list[bytes | None]:
        """The documents as Python bytes."""
        blob, offsets = self.values.tobytes(), self.offsets.tolist()
        docs: list[bytes | None] = [blob[a:b] for a, b in pairwise(offsets)]
        if self.valid is not None:
            docs = [doc if ok else None for doc, ok in zip(docs, self.valid.tolist(), strict=True)]
        return docs


def to_ragged(strings: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Byte strings as (values, offsets).

    Example:
        >>> [array.tolist() for array in to_ragged([b"ab", b"", b"c"])]
        [[97, 98, 99], [0, 2, 2, 3]]
    """
    offsets = np.zeros(len(strings) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)), out=offsets[1:])
    return np.frombuffer(b"".join(strings), np.uint8), offsets


def to_strings(values: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[bytes]:
    """Ragged bytes as byte strings, by Arrow: many take a fifth of the time of slices.

    Example:
        >>> to_strings(*to_ragged([b"ab", b"", b"c"]))
        [b'ab', b'', b'c']
    """
    import pyarrow as pa

    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(values)]
    array = pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)
    strings: list[bytes] = array.to_numpy(zero_copy_only=False).tolist()
    return strings


def decoded(strings: Sequence[bytes], errors: str = "strict") -> list[str]:
    """Each string as text: all at once, unless one of them contains the separator.

    Example:
        >>> decoded([b"a", b"", b"\\xc3\\xa9"])
        ['a', '', 'é']
    """
    texts = BETWEEN.join(strings).decode(errors=errors).split(BETWEEN.decode())
    return texts if len(texts) == len(strings) else [string.decode(errors=errors) for string in strings]


def _sequence_to_arrow(texts: Any) -> pa.Array:
    import pyarrow as pa

    first = next((text for text in texts if text is not None), "")
    if not isinstance(first, TEXT):
        raise TypeError(f"texts holds a {type(first).__name__}: {first!r:.60}; give str or bytes")
    if not isinstance(first, str):
        try:
            return pa.array(texts, type=pa.large_binary())
        except (TypeError, BufferError, UnicodeEncodeError, pa.ArrowInvalid, pa.ArrowTypeError):
            pass
    try:
        return pa.array(texts, type=pa.large_string())
    except UnicodeEncodeError:
        _raise_for_surrogate(texts)
    except (TypeError, BufferError, pa.ArrowInvalid, pa.ArrowTypeError):
        return _mixed_to_arrow(texts)
    raise AssertionError("unreachable")


def _raise_for_surrogate(texts: Sequence[Any]) -> None:
    for i_doc, text in enumerate(texts):
        try:
            text.encode() if isinstance(text, str) else None
        except UnicodeEncodeError as error:
            raise ValueError(
                f"document {i_doc} holds the lone surrogate U+{ord(text[error.start]):04X} at character "
                f"{error.start}, which UTF-8 cannot encode; pass text.encode('utf-8', 'replace') instead"
            ) from None


def _mixed_to_arrow(texts: Sequence[Any]) -> pa.Array:
    """A list that mixes str and bytes; TypeError if it holds something else."""
    import pyarrow as pa

    for i_doc, text in enumerate(texts):
        if text is not None and not isinstance(text, TEXT):
            raise TypeError(f"document {i_doc} is a {type(text).__name__}: {text!r:.60}; give str or bytes")
    _raise_for_surrogate(texts)
    encoded = [text.encode() if isinstance(text, str) else None if text is None else bytes(text) for text in texts]
    return pa.array(encoded, type=pa.large_binary())


def _from_arrow(array: pa.Array) -> TextBatch:
    import pyarrow as pa

    is_large = _is_large(array.type)
    if is_large is None:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_string_view(array.type) or pa.types.is_null(array.type):
            array = array.cast(pa.large_string())
        if pa.types.is_binary_view(array.type):
            array = array.cast(pa.large_binary())
        is_large = _is_large(array.type)
    if is_large is None:
        raise TypeError(f"the Arrow array is of type {array.type}; give string, large_string, binary or large_binary")
    _, offsets_buffer, values_buffer = array.buffers()
    if len(array) == 0:
        offsets = np.zeros(1, np.int64)
    else:
        raw = np.frombuffer(offsets_buffer, np.int64 if is_large else np.int32)
        offsets = raw[array.offset : array.offset + len(array) + 1].astype(np.int64, copy=False)
    values = np.empty(0, np.uint8) if values_buffer is None else np.frombuffer(values_buffer, np.uint8)
    if array.null_count == 0:
        return TextBatch(values, offsets)
    return _without_null_bytes(values, offsets, np.asarray(array.is_valid().to_numpy(zero_copy_only=False), bool))


def _is_large(kind: pa.DataType) -> bool | None:
    """Whether an array of strings has 64-bit offsets; None where it is of something else."""
    import pyarrow as pa

    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return True
    return False if pa.types.is_string(kind) or pa.types.is_binary(kind) else None


def _without_null_bytes(values: NDArray[np.uint8], offsets: NDArray[np.int64], valid: NDArray[np.bool_]) -> TextBatch:
    """Arrow lets a null slot own bytes; here a null document must have none."""
    lengths = np.diff(offsets)
    if np.any(lengths[~valid]):
        keep = np.repeat(valid, lengths)
        values = values[offsets[0] : offsets[-1]][keep]
        offsets = np.concatenate([[0], np.cumsum(np.where(valid, lengths, 0))])
    return TextBatch(values, offsets, valid)
