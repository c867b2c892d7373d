"""Texts as one byte buffer and offsets, from Python or Arrow without a loop over documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from struct import Struct
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gpu_lattice.runtime.arguments import check_offsets, read_only
from gpu_lattice.runtime.on_host import is_on_device, on_host

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa
    from numpy.typing import NDArray

# What Arrow takes for a text, anywhere in a list.
TEXT = str | bytes | bytearray | memoryview
# What an operation takes as its texts: also pandas and Polars Series, and whatever else Arrow makes strings of.
Texts: TypeAlias = "str | bytes | Iterable[str | bytes | None] | pa.Array | pa.ChunkedArray | TextBatch"
ARROW_PROTOCOLS = ("__arrow_array__", "__arrow_c_array__", "__arrow_c_stream__", "__array__")
# None of its suffixes is a prefix of it, so it is found only where it was put, and in strings that contain it.
BETWEEN = b"\0\1"
FEW = 16
# NumPy takes these faster than types.
UINT8, INT64, BOOL = np.dtype(np.uint8), np.dtype(np.int64), np.dtype(np.bool_)
PACK_OFFSETS = [Struct(f"{n + 1}q").pack for n in range(FEW + 1)]
# Of DLPack's kinds of devices.
HOST, CUDA = 1, 2
# A tuple: to put a union together takes longer than to ask for it.
ONE_TEXT = (str, bytes)
STRINGS = frozenset(ONE_TEXT)


@dataclass(frozen=True, eq=False, init=False)
class TextBatch:
    """A batch of documents as ragged bytes.

    values   uint8 [num_bytes], the documents one after another; of `from_dlpack` perhaps on a GPU
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

    def __init__(
        self, values: NDArray[np.uint8], offsets: NDArray[np.int64], valid: NDArray[np.bool_] | None = None
    ) -> None:
        # At once, for a short text: the way of frozen dataclasses takes three times as long.
        fields = self.__dict__
        fields["values"], fields["offsets"], fields["valid"] = values, offsets, valid

    @staticmethod
    def from_texts(texts: Any) -> TextBatch:
        """Take texts in any of the accepted forms; Arrow buffers are used in place.

        texts: a str or bytes (one document), a sequence or iterator of them (None is a null document), an Arrow
        (large_)string or (large_)binary Array or ChunkedArray, what Arrow makes such an array of (a pandas or Polars
        Series, a NumPy array of strings), or a TextBatch.
        Compiled code relies on the result: the offsets never decrease or leave the values, and the arrays have the
        types for which functions are compiled.
        Raises TypeError for anything else, ValueError for a str that UTF-8 cannot encode, and for offsets that decrease
        or leave the values.
        """
        if isinstance(texts, ONE_TEXT):
            return _few([texts])
        if isinstance(texts, TextBatch):
            batch = _checked(np.asarray(on_host(texts.values)), np.asarray(on_host(texts.offsets)), texts.valid)
            is_same = batch.values is texts.values and batch.offsets is texts.offsets and batch.valid is texts.valid
            return texts if is_same else batch
        if isinstance(texts, list | tuple) and 0 < len(texts) <= FEW and STRINGS.issuperset(map(type, texts)):
            return _few(texts)
        import pyarrow as pa

        if isinstance(texts, pa.ChunkedArray):
            return _joined([_from_arrow(chunk) for chunk in texts.chunks or [pa.array([], texts.type)]])
        if isinstance(texts, pa.Array):
            return _from_arrow(texts)
        if isinstance(texts, Iterator):
            texts = list(texts)
        if isinstance(texts, Sequence) or (isinstance(texts, np.ndarray) and texts.dtype == object):
            array = _sequence_to_arrow(texts)
            return _batch(*_buffers(array), _validity(array))
        if isinstance(texts, np.ndarray) or any(hasattr(texts, name) for name in ARROW_PROTOCOLS):
            return TextBatch.from_texts(_to_arrow(texts))
        raise TypeError(
            f"texts is a {type(texts).__name__}; give a str, a list of str or bytes, "
            "an Arrow string or binary array, or a TextBatch"
        )

    @staticmethod
    def from_dlpack(values: Any, offsets: Any, valid: Any = None) -> TextBatch:
        """Texts that are in arrays already, on a GPU or the host: of CuPy, PyTorch, JAX, or what else has DLPack.

        values   uint8 [num_bytes]; for `encode` and `sample` they stay on a GPU, if the tokenizer is on the same one,
                 where the model takes any bytes as they are (`from_pieces` with bytes), and where a BPE model only
                 divides them by a compiled pattern, if they are UTF-8 without an added token. Log-probabilities need
                 them on the host too, and other models' rules are applied there
        offsets  integers [num_docs + 1], which come to the host
        valid    bool [num_docs], False for a null document; a null document on a GPU must have no bytes

        Raises TypeError for anything else, and for other devices, ValueError for offsets that decrease or leave the
        values.

        Example:
            >>> TextBatch.from_dlpack(np.frombuffer(b"abc", np.uint8), np.array([0, 1, 3])).tolist()
            [b'a', b'bc']
        """
        bounds = np.asarray(on_host(_from_dlpack("offsets", offsets)))
        return _checked(_from_dlpack("values", values), bounds, valid)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def device(self) -> str:
        """Where the bytes are: "cpu", or "cuda:0" and so on."""
        values: Any = self.values
        return f"cuda:{values.device.id}" if is_on_device(values) else "cpu"

    def on_host(self) -> TextBatch:
        """The same texts, copied from the GPU if they are on one."""
        return TextBatch.from_texts(self) if is_on_device(self.values) else self

    @property
    def num_bytes(self) -> int:
        return int(self.offsets[-1] - self.offsets[0])

    @property
    def is_null(self) -> NDArray[np.bool_]:
        """bool [num_docs], True for a null document."""
        return np.zeros(len(self.offsets) - 1, BOOL) if self.valid is None else ~self.valid

    def slice(self, start: int, stop: int) -> TextBatch:
        """Documents start..stop, sharing the bytes."""
        if start == 0 and stop == len(self.offsets) - 1:
            return self
        valid = None if self.valid is None else self.valid[start:stop]
        return TextBatch(self.values, self.offsets[start : stop + 1], valid)

    def tolist(self) -> list[bytes | None]:
        """The documents as Python bytes."""
        blob, offsets = on_host(self.values).tobytes(), self.offsets.tolist()
        docs: list[bytes | None] = [blob[a:b] for a, b in pairwise(offsets)]
        if self.valid is not None:
            docs = [doc if ok else None for doc, ok in zip(docs, self.valid.tolist(), strict=True)]
        return docs


def _to_arrow(texts: Any) -> pa.Array | pa.ChunkedArray:
    """What Arrow makes of an array or a series of strings; TypeError where it makes none."""
    import pyarrow as pa

    try:
        return pa.chunked_array(texts) if hasattr(texts, "__arrow_c_stream__") else pa.array(texts, from_pandas=True)
    except (TypeError, pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise TypeError(f"texts is a {type(texts).__name__} of which Arrow makes no strings: {error}") from None


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


def _from_dlpack(name: str, array: Any) -> Any:
    """The same memory as an array of NumPy or CuPy."""
    if isinstance(array, np.ndarray) or is_on_device(array):
        return array
    if not hasattr(array, "__dlpack_device__"):
        raise TypeError(f"{name} are a {type(array).__name__}; give an array with DLPack, of CuPy, PyTorch or NumPy")
    kind, ordinal = array.__dlpack_device__()
    if kind not in (HOST, CUDA):
        raise TypeError(f"{name} are on a device of DLPack's kind {int(kind)}; give an array on the host or a CUDA GPU")
    try:
        if kind == HOST:
            return np.from_dlpack(array)
        import cupy

        with cupy.cuda.Device(ordinal):
            return cupy.from_dlpack(array)
    except (BufferError, RuntimeError, ValueError) as error:
        raise TypeError(f"{name} are a {type(array).__name__} that DLPack does not hand over: {error}") from None


def _few(texts: Sequence[str | bytes]) -> TextBatch:
    """A few documents, without a detour over Arrow, which would take as long as all else for short ones."""
    parts, ends = [], [0]
    try:
        for text in texts:
            parts.append(text.encode() if isinstance(text, str) else text)
            ends.append(ends[-1] + len(parts[-1]))
    except UnicodeEncodeError:
        _raise_for_surrogate(texts)
        raise
    # Read-only, like all that is made of bytes.
    return TextBatch(np.frombuffer(b"".join(parts), UINT8), np.frombuffer(PACK_OFFSETS[len(parts)](*ends), INT64))


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
    """A batch from an untrusted array; pyarrow checks only the first and the last offset."""
    import pyarrow as pa

    try:
        if array.offset < 0:
            raise IndexError(f"it begins at {array.offset}")
        array.validate()
        array = _plain(array)
    except (pa.ArrowException, IndexError) as error:
        raise ValueError(f"the Arrow array of texts is damaged: {error}; create it again") from None
    return _checked(*_buffers(array), _validity(array))


def _plain(array: pa.Array) -> pa.Array:
    """The array without dictionaries and views, whose content is checked; TypeError unless it holds strings."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_dictionary(kind):
        dictionary = _plain(array.dictionary)
        _checked(*_buffers(dictionary), None)
        return pa.DictionaryArray.from_arrays(array.indices, dictionary).dictionary_decode()
    if pa.types.is_null(kind):
        return array.cast(pa.large_binary())
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        # As strings, these would have to be UTF-8.
        array = array.view(pa.binary_view())
        array.validate(full=True)
        return array.cast(pa.large_binary())
    if _offset_type(kind) is None:
        raise TypeError(f"the Arrow array is of type {kind}; give string, large_string, binary or large_binary")
    return array


def _buffers(array: pa.Array) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """(values, offsets) of an array of strings."""
    _, offsets, values = array.buffers()
    if len(array) == 0:
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    dtype = np.dtype(_offset_type(array.type))
    starts = np.frombuffer(offsets, dtype, len(array) + 1, array.offset * dtype.itemsize)
    return np.empty(0, np.uint8) if values is None else np.frombuffer(values, np.uint8), starts


def _validity(array: pa.Array) -> NDArray[np.bool_] | None:
    return None if array.null_count == 0 else np.asarray(array.is_valid().to_numpy(zero_copy_only=False), bool)


def _offset_type(kind: pa.DataType) -> type[np.signedinteger[Any]] | None:
    """The type of the offsets of an array of strings; None for other arrays."""
    import pyarrow as pa

    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return np.int64
    return np.int32 if pa.types.is_string(kind) or pa.types.is_binary(kind) else None


def _checked(values: NDArray[Any], offsets: NDArray[Any], valid: Any) -> TextBatch:
    """The batch, if it is a valid one; else TypeError or ValueError."""
    if values.dtype != np.uint8:
        raise TypeError(f"values are of dtype {values.dtype}; give uint8")
    if values.ndim != 1:
        raise ValueError(f"values have the shape {list(values.shape)}; give [num_bytes]")
    check_offsets("offsets", offsets, len(values))
    if valid is not None:
        valid = np.asarray(valid)
        if valid.dtype != np.bool_ or valid.shape != (len(offsets) - 1,):
            raise ValueError(
                f"valid is of dtype {valid.dtype} and shape {list(valid.shape)}; give bool [{len(offsets) - 1}], "
                "one for each document"
            )
    return _batch(values, offsets, valid)


def _batch(values: NDArray[np.uint8], offsets: NDArray[Any], valid: NDArray[np.bool_] | None) -> TextBatch:
    """Valid arrays in the form that compiled functions take; values on a device as they are."""
    if is_on_device(values):
        if valid is not None and np.any(np.diff(offsets)[~valid]):
            row = int(np.flatnonzero(np.diff(offsets) * ~valid)[0])
            raise ValueError(f"document {row} is null and has bytes, on a GPU; give it none")
        return TextBatch(values, read_only(offsets, np.int64), valid)
    if valid is not None:
        values, offsets = _without_null_bytes(values, offsets, valid)
    return TextBatch(read_only(values, np.uint8), read_only(offsets, np.int64), valid)


def _without_null_bytes(
    values: NDArray[np.uint8], offsets: NDArray[Any], valid: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Arrow lets a null slot own bytes; here a null document must have none."""
    lengths = np.diff(offsets)
    if not np.any(lengths[~valid]):
        return values, offsets
    keep = np.repeat(valid, lengths)
    return values[offsets[0] : offsets[-1]][keep], np.append(0, np.cumsum(np.where(valid, lengths, 0)))


def _joined(batches: Sequence[TextBatch]) -> TextBatch:
    """The documents of all batches, one batch after another."""
    if len(batches) == 1:
        return batches[0]
    values = np.concatenate([batch.values[batch.offsets[0] : batch.offsets[-1]] for batch in batches])
    lengths = np.concatenate([np.diff(batch.offsets) for batch in batches])
    has_null = any(batch.valid is not None for batch in batches)
    valid = [np.ones(len(batch), np.bool_) if batch.valid is None else batch.valid for batch in batches]
    return _batch(values, np.append(0, np.cumsum(lengths)), np.concatenate(valid) if has_null else None)
