"""BytePiece models: a JSON object of base64(token bytes) -> [id, display, count], bare or alone in a zip."""

from __future__ import annotations

import base64
import binascii
import io
import re
import struct
import zipfile
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.kernels.fixed import fixed_log
from gpu_lattice.models import Decoder, Model
from gpu_lattice.models.json_text import load_json
from gpu_lattice.normalizers.bytepiece import BytePieceNormalizer
from gpu_lattice.runtime.cache import cached
from gpu_lattice.text_batch import decoded, to_ragged, to_strings
from gpu_lattice.vocabulary import Kind, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPECIALS = ["<pad>", "<bos>", "<eos>"]
# Four times the largest published model; as Python objects, JSON takes twenty times its size.
MAX_UNZIPPED_BYTES = 1 << 26

_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")  # with files, and empty
# These unpack no more than is requested; bzip2 and LZMA turn a few kilobytes into gigabytes.
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# zipfile raises NotImplementedError and RuntimeError for encryption and unknown compression, the others for damage.
_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, EOFError, OSError, ValueError, OverflowError, IndexError
)  # fmt: skip
_FIRST_ENTRY = re.compile(rb'\s*\{\s*"[A-Za-z0-9+/=]*"\s*:\s*\[')


def looks_like(data: bytes) -> bool:
    """Whether data begins like a BytePiece model, or like a zip, as which these are published."""
    head = data[:4096].removeprefix(b"\xef\xbb\xbf")
    return head.startswith(_ZIP_MAGICS) or _FIRST_ENTRY.match(head) is not None


def read(data: bytes, name: str) -> Model:
    """Read a BytePiece model from the bytes of its file.

    data: the JSON, or a zip that contains only it; name: the file's name in error messages.
    The ids are those of the file: <pad>, <bos>, <eos>, then the tokens. `best_scores` are the doubles of bytepiece
    0.6.3, ln(count) - ln(total) by NumPy's log; `scores` are the same by a log that is equal on every machine.
    Raises ValueError for a file that is damaged or is not such a model.

    Example:
        >>> model = read(Path("bytepiece.plus.40k.zip").read_bytes(), "bytepiece.plus.40k.zip")
        >>> model.vocabulary.surfaces[-1]
        b'                                    '
    """
    parts = cached(BytePieceFile, [data], lambda: _parts(data, name))
    tokens = to_strings(parts.values, parts.offsets)
    starts = parts.offsets[:-1][np.diff(parts.offsets) == 1]
    missing = np.flatnonzero(np.bincount(parts.values[starts], minlength=256) == 0)
    if len(missing):
        raise ValueError(
            f"{name}: {len(missing)} of the 256 single bytes have no token (the first is 0x{missing[0]:02X}), "
            "so some texts would have no segmentation; add the missing bytes and train or convert the model again"
        )
    return Model(
        kind="bytepiece",
        vocabulary=_vocabulary(tokens, parts.counts, parts.total),
        normalizer=BytePieceNormalizer(),
        decoder=Decoder(metaspace=False, strip=None, unknown="", errors="ignore"),
        pad_id=SPECIALS.index("<pad>"),
        bos_id=SPECIALS.index("<bos>"),
        eos_id=SPECIALS.index("<eos>"),
    )


class BytePieceFile(NamedTuple):
    """What a file holds: tokens values[offsets[i]:offsets[i + 1]] by ascending id, their counts, and the sum of all."""

    values: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    counts: NDArray[np.float64]
    total: NDArray[np.float64]


def _parts(data: bytes, name: str) -> BytePieceFile:
    if data.startswith(_ZIP_MAGICS):
        data = _unzip(data, name)
    tokens, counts = _in_order_of_ids(_parse(data, name), name)
    # Exact integers are summed before rounding once to a double, as in the tool.
    return BytePieceFile(*to_ragged(tokens), np.array(counts, np.float64), np.array([sum(counts)], np.float64))


def _unzip(data: bytes, name: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            unfit = _unfit(members)
            if unfit is None:
                with archive.open(members[0]) as member:
                    # Reading this many bytes unpacks no more, whatever else there is.
                    return member.read(members[0].file_size)
    except _ZIP_ERRORS as error:
        raise ValueError(f"{name}: the zip cannot be read ({error}); download it again or unzip it first") from error
    raise ValueError(f"{name}: {unfit}; unzip it, if you trust it, and give the model itself")


def _unfit(members: list[zipfile.ZipInfo]) -> str | None:
    """Why the members of a zip are not unpacked."""
    if len(members) != 1:
        return f"the zip holds {len(members)} files where it should hold one BytePiece model"
    [member] = members
    if member.file_size > MAX_UNZIPPED_BYTES:
        return f"{member.filename} would unzip to {member.file_size} bytes, above the limit of {MAX_UNZIPPED_BYTES}"
    if member.compress_type not in _BOUNDED:
        return f"{member.filename} is compressed by a method other than deflate"
    return None


def _parse(data: bytes, name: str) -> dict[str, Any]:
    try:
        entries = load_json(data.decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not UTF-8 at byte {error.start}; a BytePiece model is JSON in UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: not a JSON object ({error}); the file may be cut off, copy it again") from error
    if not isinstance(entries, dict):
        raise ValueError(
            f"{name}: the JSON is a {type(entries).__name__}, not an object of tokens -> [id, text, count]"
        )
    return entries


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r:.80} occurs twice")
    return entries


def _in_order_of_ids(entries: dict[str, Any], name: str) -> tuple[list[bytes], list[float]]:
    """Tokens and their counts by ascending id, after checking every entry."""
    return _if_all_are_plain(entries) or _one_by_one(entries, name)


def _if_all_are_plain(entries: dict[str, Any]) -> tuple[list[bytes], list[float]] | None:
    """What `_one_by_one` returns, if no entry needs a closer look."""
    values = list(entries.values())
    if set(map(type, values)) != {list} or set(map(len, values)) != {3}:
        return None
    ids, texts, counts = ([value[k] for value in values] for k in range(3))
    if set(map(type, ids)) != {int} or set(map(type, texts)) != {str} or not set(map(type, counts)) <= {int, float}:
        return None
    try:
        tokens = [binascii.a2b_base64(key, strict_mode=True) for key in entries]
        id_array, count_array = np.array(ids, np.int64), np.array(counts, np.float64)
    except (ValueError, OverflowError):
        return None
    order = np.argsort(id_array)
    is_plain = (
        np.array_equal(id_array[order], np.arange(len(SPECIALS), len(SPECIALS) + len(ids)))
        and bool(np.all((count_array > 0) & (count_array < 2.0**64)))
        and len(set(tokens)) == len(tokens)
        and b"" not in tokens
    )
    return ([tokens[i] for i in order.tolist()], [counts[i] for i in order.tolist()]) if is_plain else None


def _one_by_one(entries: dict[str, Any], name: str) -> tuple[list[bytes], list[float]]:
    first_id = len(SPECIALS)
    by_id: dict[int, tuple[bytes, float]] = {}
    id_of: dict[bytes, int] = {}
    for key, value in entries.items():
        token = _token(key, name)
        match value:
            case [int(token_id), str(), int() | float() as count] if type(token_id) is int and type(count) is not bool:
                pass
            case _:
                raise ValueError(f"{name}: the entry {key!r} is {value!r:.80}; it should be [id, text, count]")
        if not 0 < count < 2**64:  # NaN fails as well
            raise ValueError(
                f"{name}: the entry {key!r} has the count {count}, whose logarithm is not a score; counts are positive "
                "and below 2**64"
            )
        if token in id_of:
            raise ValueError(f"{name}: the token {token!r} has the ids {id_of[token]} and {token_id}; keep one of them")
        if token_id in by_id:
            raise ValueError(f"{name}: the id {token_id} belongs to {by_id[token_id][0]!r} and to {token!r}; renumber")
        id_of[token] = token_id
        by_id[token_id] = token, count
    wanted = range(first_id, first_id + len(by_id))
    missing = next((token_id for token_id in wanted if token_id not in by_id), None)
    if missing is not None:
        raise ValueError(
            f"{name}: no token has the id {missing}; the ids of {len(by_id)} tokens must be "
            f"{wanted.start} to {wanted.stop - 1} without a gap, so renumber them"
        )
    return [by_id[token_id][0] for token_id in wanted], [by_id[token_id][1] for token_id in wanted]


def _token(key: str, name: str) -> bytes:
    try:
        token = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{name}: the key {key!r:.80} is not base64 ({error}); the file is damaged") from error
    if not token:
        raise ValueError(f"{name}: the key {key!r} is an empty token; remove it")
    return token


def _vocabulary(tokens: list[bytes], counts: NDArray[np.float64], total: NDArray[np.float64]) -> Vocabulary:
    surfaces = [b""] * len(SPECIALS) + tokens
    names = SPECIALS + decoded(tokens, "backslashreplace")
    kinds = np.full(len(names), Kind.NORMAL, np.uint8)
    kinds[: len(SPECIALS)] = Kind.CONTROL
    no_score = np.zeros(len(SPECIALS))
    return Vocabulary(
        names=names,
        surfaces=surfaces,
        kinds=kinds,
        in_lattice=kinds == Kind.NORMAL,
        scores=np.concatenate([no_score, fixed_log(counts) - fixed_log(total)]),
        best_scores=np.concatenate([no_score, np.log(counts) - np.log(total)]),
        symbols="bytes",
        unk_id=None,
        unk_score=0.0,
        best_unk_score=0.0,
        byte_ids=None,
        unknown_runs="merge",
        id_of=_ids_by_name(names, surfaces),
    )


def _ids_by_name(names: list[str], surfaces: list[bytes]) -> dict[str, int]:
    """name -> id. If a token of broken UTF-8 and one of plain text print alike, the name means the plain text.

    If a token is spelled like a special (<pad> ..), it means the special.
    """
    id_of = dict(zip(names, range(len(names)), strict=True))
    if len(id_of) < len(names):
        id_of = {name: i for i, name in reversed(list(enumerate(names)))}
        id_of |= {names[i]: i for i, surface in enumerate(surfaces) if names[i].encode() == surface}
        id_of |= {special: i for i, special in enumerate(SPECIALS)}
    return id_of
