"""SentencePiece unigram and BPE models: the `.model` file, a serialized ModelProto."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.models import Decoder, Merges, Model
from gpu_lattice.models.rank_pairs import rank_pairs
from gpu_lattice.normalizers import Normalizer
from gpu_lattice.normalizers.charsmap import parse_charsmap
from gpu_lattice.normalizers.sentencepiece import SentencePieceNormalizer
from gpu_lattice.normalizers.symbols import SymbolCutter
from gpu_lattice.text_batch import decoded
from gpu_lattice.vocabulary import LARGEST_SCORE, Kind, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The wire types of protocol buffers, and the fields of sentencepiece_model.proto that matter here, with theirs.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
WIRE_TYPES = {VARINT, BYTES, *FIXED_BYTES}
LAST_FIELD = (1 << 29) - 1
# Of ours, among those that are left to extensions: float64 scores of a BPE model's ids, beside its merges.
OWN_FIELD = 8192
MODEL_FIELDS = {1: BYTES, 2: BYTES, 3: BYTES, 5: BYTES, OWN_FIELD: BYTES}
PIECE_FIELDS = {1: BYTES, 2: FIXED32, 3: VARINT}
TRAINER_FIELDS = {3: VARINT, 24: VARINT, 35: VARINT, 44: BYTES, 46: BYTES, 47: BYTES, 48: BYTES}
NORMALIZER_FIELDS = {1: BYTES, 2: BYTES, 3: VARINT, 4: VARINT, 5: VARINT}

# Fields of the trainer's spec that name special pieces, with their defaults: begin and end of a text, padding.
SPECIALS = {46: b"<s>", 47: b"</s>", 48: b"<pad>"}

UNIGRAM, BPE = 1, 2
OTHER_MODEL_TYPES = {3: "word", 4: "character"}
ORDINARY_KINDS = (Kind.NORMAL, Kind.USER_DEFINED, Kind.UNUSED)
LAST_KIND = max(Kind)
# The tag bytes of plain pieces: a field's number and wire type, below 128 like most lengths.
PIECE_TAG, TEXT_TAG, SCORE_TAG, KIND_TAG = 1 << 3 | BYTES, 1 << 3 | BYTES, 2 << 3 | FIXED32, 3 << 3 | VARINT
BLOCK_PIECES = 1 << 16
LARGEST_INT64 = (1 << 63) - 1
MAX_PIECE_BYTES = 7999
UNKNOWN_PENALTY = np.float32(10)
UNKNOWN_SURFACE = " \u2047 ".encode()
NUL_PIECE = b"\0"

Spec = dict[int, Any]


class _ModelError(Exception):
    """The bytes are not a usable ModelProto; `read` adds the file's name."""


@dataclass
class _Proto:
    """A ModelProto as parsed; kinds are int64 and unchecked, lengths those of the pieces, specs by field number."""

    pieces: list[bytes]
    lengths: NDArray[np.int64]
    scores: NDArray[np.float32]
    kinds: NDArray[np.int64]
    trainer: Spec = field(default_factory=dict)
    normalizer: Spec = field(default_factory=dict)
    denormalizer: Spec = field(default_factory=dict)
    own: bytes = b""


def looks_like(data: bytes) -> bool:
    """Whether data begins as a ModelProto does: with a piece, or with specs and then a piece."""
    try:
        for number, value, stop in _fields(data, 0, len(data), MODEL_FIELDS):
            if number == 1:
                return next(_fields(data, value, stop, PIECE_FIELDS), (0, 0, 0))[0] in PIECE_FIELDS
            if number not in MODEL_FIELDS:
                return False
    except _ModelError:
        pass
    return False


def read(data: bytes, name: str) -> Model:
    """Read a unigram or BPE model as SentencePiece 0.2.3 does.

    data: the file's content; name: its name in errors.
    Raises ValueError for bytes that are not a ModelProto, for word and character models, for BPE models with unused
    pieces, and for whatever SentencePiece refuses to load. Source: google/sentencepiece 0.2.3,
    sentencepiece_model.proto, bpe_model.cc.

    Example:
        >>> model = read(Path("spiece.model").read_bytes(), "spiece.model")
        >>> len(model.vocabulary)
        8000
    """
    try:
        proto = _parse(data)
        vocabulary = _vocabulary(proto)
        merges = own = None
        if proto.trainer.get(3, UNIGRAM) == BPE:
            merges, vocabulary = _merges(proto, vocabulary, data), _without_scores(vocabulary)
            own = _own_scores(proto.own, len(vocabulary))
        unknown = _text(proto.trainer.get(44, UNKNOWN_SURFACE), "unk_surface")
        rule_name = _text(proto.normalizer.get(1, b""), "the normalizer's name")
    except _ModelError as error:
        raise ValueError(
            f"{name}: {error}; give a SentencePiece unigram or BPE model, or get this file again"
        ) from None
    symbols = {proto.pieces[i]: i for i in np.flatnonzero(vocabulary.kinds == Kind.USER_DEFINED).tolist()}
    normalizer: Normalizer = _normalizer(
        proto.normalizer, list(symbols), bool(proto.trainer.get(24, 0)), rule_name, name
    )
    if merges is not None and symbols:
        normalizer = SymbolCutter(normalizer, symbols)
    denormalizer = None
    if proto.denormalizer.get(2):
        denormalizer = _normalizer(proto.denormalizer, [], False, "denormalizer", name)
    decoder = Decoder(
        metaspace=True, strip=_strip(proto.normalizer), unknown=unknown, errors="replace", denormalizer=denormalizer
    )
    bos_id, eos_id, pad_id = (_control_id(proto.trainer.get(i, name), vocabulary) for i, name in SPECIALS.items())
    return Model("sentencepiece", vocabulary, normalizer, decoder, bos_id=bos_id, eos_id=eos_id, pad_id=pad_id,
                 merges=merges, scores=own)  # fmt: skip


def _control_id(piece: bytes, vocabulary: Vocabulary) -> int | None:
    """The id of a control piece; None for what is another kind of piece, or none."""
    i = vocabulary.id_of.get(piece.decode(errors="replace"))
    return i if i is not None and vocabulary.kinds[i] == Kind.CONTROL else None


def _strip(normalizer: Spec) -> Literal["prefix", "leading"] | None:
    """SentencePiece strips spaces at the front even if the dummy space is a suffix."""
    if normalizer.get(4, 1):
        return "leading"
    return "prefix" if normalizer.get(3, 1) else None


def _parse(data: bytes) -> _Proto:
    """Runs of pieces in the plain form are read by a compiled loop, everything else field by field."""
    values = np.frombuffer(data, np.uint8)
    trainer: Spec = {}
    normalizer: Spec = {}
    denormalizer: Spec = {}
    specs = {2: (trainer, TRAINER_FIELDS), 3: (normalizer, NORMALIZER_FIELDS), 5: (denormalizer, NORMALIZER_FIELDS)}
    own = b""
    block = np.empty((BLOCK_PIECES, 4), np.int64)
    blocks: list[NDArray[np.int64]] = []
    i = 0
    while i < len(data):
        num_plain, i = _read_plain_pieces(values, i, block)
        blocks.append(block[:num_plain].copy())
        for number, start, stop in _fields(data, i, len(data), MODEL_FIELDS):
            if number == 1:
                blocks.append(_read_piece(data, start, stop))
                i = stop
                break
            if number == OWN_FIELD:
                own = data[start:stop]
            if number in specs:
                spec, known = specs[number]
                for inner, value, end in _fields(data, start, stop, known):
                    if inner in known:
                        spec[inner] = data[value:end] if known[inner] == BYTES else value
        else:
            break
    rows = np.concatenate([np.empty((0, 4), np.int64), *blocks])
    starts, stops, bits, kinds = rows.T
    pieces = [data[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    scores = bits.astype(np.uint32).view(np.float32)
    return _Proto(pieces, stops - starts, scores, kinds, trainer, normalizer, denormalizer, own)


def _read_piece(data: bytes, start: int, stop: int) -> NDArray[np.int64]:
    """One row in the form of _read_plain_pieces."""
    text, bits, kind = (start, start), 0, int(Kind.NORMAL)
    for number, value, end in _fields(data, start, stop, PIECE_FIELDS):
        if number == 1:
            text = value, end
        elif number == 2:
            bits = int.from_bytes(data[value:end], "little")
        elif number == 3:
            kind = value
    return np.array([[*text, bits, min(kind, LARGEST_INT64)]])


@compiled
def _read_plain_pieces(data, i, rows):  # type: ignore[no-untyped-def]
    """Fill rows (start and stop of the text, bits of the score, kind), one for each piece from i on, as far as they go.

    Returns (number of pieces, where the next field begins). A piece is plain if it has less than 128 bytes, only these
    three fields, and a kind below 128.
    """
    n = 0
    while n < len(rows) and i + 2 <= len(data) and data[i] == PIECE_TAG:
        p, stop = i + 2, i + 2 + np.int64(data[i + 1])
        if data[i + 1] >= 128 or stop > len(data):
            break
        rows[n, 0], rows[n, 1], rows[n, 2], rows[n, 3] = p, p, 0, 1
        while p + 2 <= stop:
            tag, byte = data[p], np.int64(data[p + 1])
            if tag == TEXT_TAG and byte < 128 and p + 2 + byte <= stop:
                rows[n, 0], rows[n, 1] = p + 2, p + 2 + byte
                p += 2 + byte
            elif tag == SCORE_TAG and p + 5 <= stop:
                rows[n, 2] = (
                    byte | np.int64(data[p + 2]) << 8 | np.int64(data[p + 3]) << 16 | np.int64(data[p + 4]) << 24
                )
                p += 5
            elif tag == KIND_TAG and byte < 128:
                rows[n, 3] = byte
                p += 2
            else:
                break
        if p != stop:
            break
        i = stop
        n += 1
    return n, i


def _fields(data: bytes, start: int, stop: int, known: dict[int, int]) -> Iterator[tuple[int, int, int]]:
    """The fields of the message data[start:stop]: (number, value, 0) of a varint, (number, start, stop) of others.

    known: the wire types of the fields that are used; all others are skipped.
    """
    i = start
    while i < stop:
        field_start = i
        tag, i = (data[i], i + 1) if data[i] < 128 else read_varint(data, i, stop)
        number, wire = tag >> 3, tag & 7
        if not 0 < number <= LAST_FIELD or known.get(number, wire) != wire or wire not in WIRE_TYPES:
            raise _ModelError(f"field {number} at byte {field_start} has wire type {wire}, so it is not a ModelProto")
        if wire in FIXED_BYTES:
            size = FIXED_BYTES[wire]
        else:
            size, i = (data[i], i + 1) if i < stop and data[i] < 128 else read_varint(data, i, stop)
        if wire == VARINT:  # what was read is the value itself
            yield number, size, 0
            continue
        if size > stop - i:
            raise _ModelError(f"field {number} at byte {field_start} declares {size} bytes where {stop - i} are left")
        yield number, i, i + size
        i += size


def read_varint(data: bytes, i: int, stop: int) -> tuple[int, int]:
    """The varint at i and the position after it."""
    value = 0
    for k in range(i, min(i + 10, stop)):
        byte = data[k]
        value |= (byte & 127) << 7 * (k - i)
        if byte < 128:
            return value, k + 1
    raise _ModelError(f"the number at byte {i} does not end")


def _text(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _ModelError(f"{what} is not UTF-8: {raw!r:.60}") from None


def _normalizer(
    spec: Spec, symbols: list[bytes], as_suffix: bool, rule_name: str, file_name: str
) -> SentencePieceNormalizer:
    return SentencePieceNormalizer(
        parse_charsmap(spec.get(2, b""), file_name),
        symbols,
        add_dummy_prefix=bool(spec.get(3, 1)),
        remove_extra_whitespaces=bool(spec.get(4, 1)),
        escape_whitespaces=bool(spec.get(5, 1)),
        treat_whitespace_as_suffix=as_suffix,
        name=rule_name,
    )


def _vocabulary(proto: _Proto) -> Vocabulary:
    model_type = proto.trainer.get(3, UNIGRAM)
    if model_type not in (UNIGRAM, BPE):
        known_as = OTHER_MODEL_TYPES.get(model_type, f"type-{model_type}")
        raise _ModelError(f"it is a {known_as} model, and gpu_lattice reads unigram and BPE models")
    byte_fallback = bool(proto.trainer.get(35, 0))
    kinds = _checked_kinds(proto, byte_fallback)
    names = _names(proto.pieces)
    id_of = _ids_by_name(names, kinds)
    unknown_ids = np.flatnonzero(kinds == Kind.UNKNOWN).tolist()
    if len(unknown_ids) > 1:
        raise _ModelError(f"pieces {unknown_ids[0]} and {unknown_ids[1]} are both the unknown piece")
    if not unknown_ids and not byte_fallback:
        raise _ModelError("it has no unknown piece")
    byte_ids = _byte_ids(names, kinds, byte_fallback)
    scores = _checked_scores(proto.scores)
    unk_score = float(scores.min(initial=np.finfo(np.float32).max, where=kinds == Kind.NORMAL) - UNKNOWN_PENALTY)
    # SentencePiece counts a user-defined symbol's bytes when it encodes, and its characters when it samples.
    user_defined = np.flatnonzero(kinds == Kind.USER_DEFINED)
    best_scores, sample_scores = scores.copy(), scores.copy()
    best_scores[user_defined] = _user_defined_scores([proto.pieces[i] for i in user_defined])
    sample_scores[user_defined] = _user_defined_scores([names[i] for i in user_defined])
    return Vocabulary(
        names=names,
        surfaces=_surfaces(proto.pieces, kinds, byte_ids),
        kinds=kinds,
        in_lattice=(kinds == Kind.NORMAL) | (kinds == Kind.USER_DEFINED),
        scores=sample_scores.astype(np.float64),
        best_scores=best_scores,
        symbols="characters",
        unk_id=unknown_ids[0] if unknown_ids else None,
        unk_score=unk_score,
        best_unk_score=unk_score,
        byte_ids=byte_ids,
        unknown_runs="merge",
        id_of=id_of,
    )


def _merges(proto: _Proto, vocabulary: Vocabulary, data: bytes) -> Merges:
    """Two neighbours merge if they are a piece together, the one of greatest score first."""
    kinds, names = vocabulary.kinds, vocabulary.names
    unused = [i for i in np.flatnonzero(kinds == Kind.UNUSED).tolist() if names[i] != "\0"]
    if unused:
        raise _ModelError(f"it is a BPE model whose piece {unused[0]}, {names[unused[0]]!r:.60}, is unused")
    # User-defined pieces are cut out before, and merge with nothing.
    id_of = {names[i]: i for i in np.flatnonzero(kinds == Kind.NORMAL).tolist()}
    symbols = [name for name in id_of if len(name) == 1]
    strange = set("".join(id_of)).difference(symbols, (names[i] for i in np.flatnonzero(kinds == Kind.USER_DEFINED)))
    if strange:
        piece = next(name for name in id_of if strange & set(name))
        raise _ModelError(f"it is a BPE model whose piece {piece!r:.60} holds a character that is no piece")
    ranks = np.unique(-proto.scores, return_inverse=True)[1]
    return Merges(
        pairs=rank_pairs(id_of, ranks, data),
        symbols=np.array([ord(name) for name in symbols], np.int32),
        symbol_ids=np.array([id_of[name] for name in symbols], np.int32),
        byte_ids=np.full(256, -1, np.int32) if vocabulary.byte_ids is None else vocabulary.byte_ids,
        unk_id=-1 if vocabulary.unk_id is None else vocabulary.unk_id,
        fuse_unk=True,
        whole_pieces=False,
    )


def _own_scores(own: bytes, num_ids: int) -> NDArray[np.float64] | None:
    if not own:
        return None
    if len(own) != 8 * num_ids:
        raise _ModelError(f"the scores of ours (field {OWN_FIELD}) are {len(own)} bytes, not 8 for each of {num_ids}")
    scores = np.frombuffer(own, "<f8").astype(np.float64)
    if not np.all((np.abs(scores) <= LARGEST_SCORE) | (scores == -np.inf)):
        raise _ModelError(f"a score of ours (field {OWN_FIELD}) is not a number of at most {LARGEST_SCORE:g} or -inf")
    return scores


def _without_scores(vocabulary: Vocabulary) -> Vocabulary:
    """The scores of a BPE model are ranks."""
    scores = np.zeros(len(vocabulary))
    return replace(vocabulary, scores=scores, best_scores=scores, unk_score=0.0, best_unk_score=0.0)


def _checked_kinds(proto: _Proto, byte_fallback: bool) -> NDArray[np.uint8]:
    """The pieces' kinds, after checking them and the pieces' bytes.

    A piece of one zero byte may be in the list as unused, which byte fallback makes it in any case.
    """
    is_odd = (proto.kinds < 1) | (proto.kinds > LAST_KIND) | (proto.lengths == 0) | (proto.lengths > MAX_PIECE_BYTES)
    if b"\0" in b"".join(proto.pieces):
        is_odd |= np.array([0 in piece for piece in proto.pieces])
    kinds = proto.kinds.astype(np.uint8)
    for i_piece in np.flatnonzero(is_odd).tolist():
        piece, kind = proto.pieces[i_piece], int(proto.kinds[i_piece])
        if not 1 <= kind <= LAST_KIND:
            raise _ModelError(f"piece {i_piece} is of the unknown type {kind}")
        if not piece:
            raise _ModelError(f"piece {i_piece} is empty")
        if len(piece) > MAX_PIECE_BYTES:
            raise _ModelError(f"piece {i_piece} has {len(piece)} bytes; the limit is {MAX_PIECE_BYTES}")
        if piece != NUL_PIECE or not (byte_fallback or kind == Kind.UNUSED):
            raise _ModelError(f"piece {i_piece} holds a zero byte: {piece!r:.60}")
        kinds[i_piece] = Kind.UNUSED
    return kinds


def _names(pieces: list[bytes]) -> list[str]:
    """The pieces as text."""
    try:
        return decoded(pieces)
    except UnicodeDecodeError:
        pass
    try:
        return [piece.decode() for piece in pieces]
    except UnicodeDecodeError as error:
        raise _ModelError(f"piece {pieces.index(error.object)} is not UTF-8: {error.object!r:.60}") from None


def _ids_by_name(names: list[str], kinds: NDArray[np.uint8]) -> dict[str, int]:
    """name -> id. Control, unknown and byte pieces have a name space of their own, and win."""
    id_of = dict(zip(names, range(len(names)), strict=True))
    if len(id_of) == len(names) and "\0" not in id_of and np.isin(kinds, ORDINARY_KINDS).any():
        return id_of
    ordinary: dict[str, int] = {}
    reserved: dict[str, int] = {}
    for i_piece, (name, kind) in enumerate(zip(names, kinds.tolist(), strict=True)):
        if name == "\0":
            continue
        ids = ordinary if kind in ORDINARY_KINDS else reserved
        if ids.setdefault(name, i_piece) != i_piece:
            raise _ModelError(f"pieces {ids[name]} and {i_piece} are the same: {name!r:.60}")
    if not ordinary:
        raise _ModelError("it has no pieces")
    return ordinary | reserved


def _byte_ids(names: list[str], kinds: NDArray[np.uint8], byte_fallback: bool) -> NDArray[np.int32] | None:
    ids_of_bytes = np.flatnonzero(kinds == Kind.BYTE).tolist()
    if not byte_fallback:
        if ids_of_bytes:
            raise _ModelError(
                f"piece {ids_of_bytes[0]}, {names[ids_of_bytes[0]]!r}, is a byte but byte_fallback is off"
            )
        return None
    byte_of = {f"<0x{byte:02X}>": byte for byte in range(256)}
    byte_ids = np.full(256, -1, np.int32)
    for i_piece in ids_of_bytes:
        if names[i_piece] not in byte_of:
            raise _ModelError(f"piece {i_piece} is of type byte but named {names[i_piece]!r:.60}, not <0x00> to <0xFF>")
        byte_ids[byte_of[names[i_piece]]] = i_piece
    if np.any(byte_ids < 0):
        raise _ModelError(f"byte_fallback is on but the byte piece <0x{int(byte_ids.argmin()):02X}> is missing")
    return byte_ids


def _checked_scores(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    not_finite = np.flatnonzero(~np.isfinite(scores))
    if len(not_finite):
        raise _ModelError(f"the score of piece {not_finite[0]} is {scores[not_finite[0]]}")
    return scores


def _user_defined_scores(symbols: Sequence[str] | Sequence[bytes]) -> NDArray[np.float32]:
    """Scores by length, in float64 and then rounded, as in SentencePiece's C++."""
    return (0.1 * (np.array([len(symbol) for symbol in symbols], np.int64) - 1)).astype(np.float32)


def _surfaces(pieces: list[bytes], kinds: NDArray[np.uint8], byte_ids: NDArray[np.int32] | None) -> list[bytes]:
    surfaces = list(pieces)
    for i_piece in np.flatnonzero((kinds == Kind.CONTROL) | (kinds == Kind.UNKNOWN)).tolist():
        surfaces[i_piece] = b""
    for byte, i_piece in enumerate([] if byte_ids is None else byte_ids.tolist()):
        surfaces[i_piece] = bytes([byte])
    return surfaces
