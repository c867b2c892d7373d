"""Model files made by hand, byte by byte: what no training would give, but a tool reads."""

import json
import random
import struct
from pathlib import Path

from gpu_lattice import Tokenizer
from gpu_lattice.vocabulary import Kind

# Few scores, so that sums tie.
SCORES = [0.0, -0.5, -1.0, -1.0, -2.0, -2.5, -13.25, 0.1, -1e-3, -3.3]
SYMBOLS = "abé漢<"
Piece = tuple[str, float, str]
BYTE_NAMES = [f"<0x{byte:02X}>" for byte in range(256)]


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: bytes | int | float) -> bytes:
    """One field of a protocol buffer: bytes are length-delimited, int is a varint, float is fixed32."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def sentencepiece_model(pieces: list[Piece], byte_fallback: bool = False) -> bytes:
    """A ModelProto: no normalization, no dummy prefix, white space kept."""
    data = b"".join(
        field(1, field(1, piece.encode()) + field(2, float(score)) + field(3, int(Kind[kind])))
        for piece, score, kind in pieces
    )
    trainer = field(3, 1) + (field(35, 1) if byte_fallback else b"")
    return data + field(2, trainer) + field(3, field(1, b"identity") + field(3, 0) + field(4, 0))


def charsmap_blob(rules: dict[bytes, bytes]) -> bytes:
    """A character map of any keys (without zero bytes): every node has 256 units of its own."""
    nodes = sorted({key[:length] for key in rules for length in range(len(key) + 1)})
    base = {node: 256 * (i + 1) for i, node in enumerate(nodes)}
    # A label that is not the unit's own byte belongs to no child.
    units = [i & 255 ^ 1 for i in range(256 * (len(nodes) + 1))]
    units[0] = base[b""] << 10
    replacements = b""
    for node in nodes[1:]:
        at = base[node[:-1]] ^ node[-1]
        units[at] = (at ^ base[node]) << 10 | (node in rules) << 8 | node[-1]
        if node in rules:
            units[base[node]] = 1 << 31 | len(replacements)
            replacements += rules[node] + b"\0"
    return struct.pack(f"<{len(units) + 1}I", 4 * len(units), *units) + replacements


def from_first_leaf(rules: dict[bytes, bytes], step: int) -> bytes:
    """A character map whose first leaf says that its replacement begins `step` bytes later."""
    blob = charsmap_blob(rules)
    (num_bytes,) = struct.unpack_from("<I", blob)
    units = list(struct.unpack_from(f"<{num_bytes // 4}I", blob, 4))
    units[next(i for i, unit in enumerate(units) if unit >> 31)] += step
    return struct.pack(f"<{len(units) + 1}I", num_bytes, *units) + blob[4 + num_bytes :]


def hugging_face_file(vocab: list[tuple[str, float]], unk_id: int | None, byte_fallback: bool) -> bytes:
    model = {"type": "Unigram", "unk_id": unk_id, "vocab": vocab, "byte_fallback": byte_fallback}
    return json.dumps({"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
                       "post_processor": None, "decoder": None, "model": model}).encode()  # fmt: skip


def random_pieces(generator: random.Random, symbols: str, most: int) -> list[str]:
    n = generator.randint(1, most)
    return sorted({"".join(generator.choices(symbols, k=generator.randint(1, 4))) for _ in range(n)})


def random_sentencepiece_model(generator: random.Random, byte_fallback: bool) -> bytes:
    """User-defined, unused, control and byte pieces over the same few symbols."""
    pieces: list[Piece] = [("<unk>", 0.0, "UNKNOWN"), ("<s>", 0.0, "CONTROL")]
    pieces += [(name, 0.0, "BYTE") for name in BYTE_NAMES] if byte_fallback else []
    kinds = ["NORMAL"] * 6 + ["USER_DEFINED", "UNUSED"]
    for piece in random_pieces(generator, SYMBOLS, 20):
        pieces.append((piece, generator.choice(SCORES), generator.choice(kinds)))
    return sentencepiece_model(pieces, byte_fallback)


def random_hugging_face_file(generator: random.Random, unk: str, byte_fallback: bool) -> bytes:
    """The unknown piece stands in texts too, its last symbol is a piece, and "??" is what a run of unknowns may be."""
    vocab = [(unk, 0.0), ("??", -1.0), *([(unk[-1], -2.0)] if len(unk) > 1 else [])]
    vocab += [(name, -1.0) for name in BYTE_NAMES] if byte_fallback else []
    vocab += [(piece, generator.choice(SCORES)) for piece in random_pieces(generator, SYMBOLS, 20)]
    return hugging_face_file(vocab, 0, byte_fallback)


def tokenizer_of(data: bytes, tmp_path: Path) -> Tokenizer:
    path = tmp_path / "handmade"
    path.write_bytes(data)
    return Tokenizer.from_file(path, device="cpu")
