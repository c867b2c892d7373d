"""SentencePiece models made field by field, with the numbers that sentencepiece_model.proto gives them."""

from handmade import field

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
MODEL_TYPE, AS_SUFFIX, BYTE_FALLBACK, UNK_SURFACE = 3, 24, 35, 44
CHARSMAP, ADD_DUMMY_PREFIX, REMOVE_EXTRA, ESCAPE = 2, 3, 4, 5


def piece(text: str | bytes, score: float = 0.0, kind: int = NORMAL) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return field(1, field(1, raw) + field(2, score) + field(3, kind))


def spec(number: int, settings: dict[int, int | bytes]) -> bytes:
    return field(number, b"".join(field(key, value) for key, value in settings.items()))


def model_bytes(
    *pieces: bytes, trainer: dict[int, int | bytes] | None = None, **specs: dict[int, int | bytes]
) -> bytes:
    """A ModelProto of the pieces and specs; a later spec overrides an earlier one field by field."""
    normalizer, denormalizer = specs.get("normalizer"), specs.get("denormalizer")
    return (
        b"".join(pieces)
        + (spec(2, trainer) if trainer else b"")
        + (spec(3, normalizer) if normalizer else b"")
        + (spec(5, denormalizer) if denormalizer else b"")
    )


UNK = piece("<unk>", 0.0, UNKNOWN)
A = piece("a", -1.0)
BYTES = [piece(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
