"""Model files by mutation: of the fields of a protocol buffer, the trie of a character map, JSON trees, zips, lines."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

from gpu_lattice.models.own import OWN
from gpu_lattice.normalizers.pre_tokens import PATTERNS as DIVIDING
from tests.handmade import (
    BYTE_NAMES,
    charsmap_blob,
    field,
    hugging_face_file,
    random_hugging_face_file,
    random_sentencepiece_model,
    varint,
)

DATA = Path(__file__).parents[1] / "data"
MARK = "▁"

Field = tuple[int, int, Any]  # number, wire type, value: a list of fields for a message

INTEGERS = [0, 1, 2, 3, 5, 6, 7, 127, 128, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-38, 3.4e38, -3.4e38, float("inf"), float("-inf"), float("nan")]
STRINGS = [b"", b"\0", b"a", b"\xff", b"\xc3", b"\x80", b"\xe3\x81", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b" ", b"  ",
           b"a" * 300, MARK.encode(), "漢字".encode(), "😀".encode(), "e\u0301\u0323".encode(), b"<unk>", b"<0x41>",
           b"\r\n"]  # fmt: skip
RULES = {"a": "x", "ab": "", "é": "e", "漢": "  か ", "か": "a long replacement", "e\u0301": "É", "😀": ":)", " ": " "}
VALUES: list[Any] = [None, True, False, 0, -1, 1, 7, 2**31, 2**63, 10**30, 0.5, -1e308, 1e308, float("nan"), "", " ",
                     "a", "ab", "\0", "\n", "\ud800", "\udc00x", MARK, "é", "e\u0301", "😀", "x" * 500, "<0x41>", "(",
                     "a*", "(a+)+b", [], {}, [[]], [None], ["a", 1], {"type": "Sequence"}, {"String": ""},
                     {"Regex": "a|"}, "first", "never", "Isolated", "NFC"]  # fmt: skip
ADDED = {"id": 0, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
COMPONENTS: dict[str, list[dict[str, Any]]] = {
    "normalizers": [
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Prepend", "prepend": MARK},
        {"type": "Replace", "pattern": {"String": " "}, "content": MARK},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        {"type": "Replace", "pattern": {"Regex": "[aé]+"}, "content": ""},
        *({"type": kind} for kind in ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "ByteLevel")),
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
         "lowercase": True},
    ],
    "pretokenizers": [
        {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True},
        {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": False},
        {"type": "FixedLength", "length": 3},
        {"type": "Split", "pattern": {"Regex": "a|é"}, "behavior": "Isolated", "invert": False},
        {"type": "Punctuation", "behavior": "MergedWithPrevious"},
        {"type": "Digits", "individual_digits": True},
        {"type": "CharDelimiterSplit", "delimiter": "é"},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        *({"type": kind} for kind in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer", "UnicodeScripts")),
    ],
    "processors": [
        {"type": "BertProcessing", "sep": ["b", 1], "cls": ["a", 0]},
        {"type": "RobertaProcessing", "sep": ["b", 1], "cls": ["a", 0], "trim_offsets": True, "add_prefix_space": True},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "X", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"X": {"id": "X", "ids": [1], "tokens": ["x"]}},
        },
    ],
    "decoders": [
        {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True},
        {"type": "Replace", "pattern": {"String": MARK}, "content": " "},
        {"type": "Replace", "pattern": {"Regex": MARK + "+"}, "content": " "},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        {"type": "WordPiece", "prefix": "##", "cleanup": True},
        {"type": "BPEDecoder", "suffix": "</w>"},
        {"type": "CTC", "pad_token": "a", "word_delimiter_token": "|", "cleanup": True},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        *({"type": kind} for kind in ("ByteFallback", "Fuse")),
    ],
}  # fmt: skip
# Of a SentencePiece model: its trainer's model_type.
BPE: Field = (2, 2, [(3, 0, 2)])
PATTERNS = [*DIVIDING, r" ?\p{L}+| ?\p{N}+|\s+|.", r"a+|(?!a).", "a*", "(", "", r"\s", r"(a|b)++", r"\p{Nope}", "."]
MEMBERS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors",
           "decoder": "decoders"}  # fmt: skip


def model_file(seed: int, i_input: int) -> bytes:
    """Input i of a seed: a model file that is wrong in a few places, or in none."""
    draw = random.Random(f"{seed} {i_input}")
    data = draw.choice([_sentencepiece, _hugging_face, _bytepiece, _hugging_face, _ranks])(draw)
    return _bytes(draw, data) if draw.random() < 0.1 else data


def _few(draw: random.Random) -> int:
    return draw.choice([0, 0, 0, 1, 1, 1, 2, 4])


def _bytes(draw: random.Random, data: bytes) -> bytes:
    """The bytes with some changed, cut out, doubled or put in."""
    for _ in range(max(1, _few(draw))):
        at = draw.randrange(len(data) + 1)
        stop = min(len(data), at + draw.choice([1, 1, 2, 4, 30]))
        middle, after = data[at:stop], data[stop:]
        kind = draw.randrange(6)
        if kind == 0:
            middle = bytes(byte ^ 1 << draw.randrange(8) for byte in middle)
        elif kind == 1:
            middle = draw.randbytes(len(middle))
        elif kind == 2:
            middle = b""
        elif kind == 3:
            middle *= 2
        elif kind == 4:
            middle = draw.choice(STRINGS) + middle
        elif draw.random() < 0.3:
            after = b""
        data = data[:at] + middle + after
    return data


def _charsmap(draw: random.Random) -> bytes:
    """A character map whose units, replacements or header may be anything."""
    keys = draw.sample(sorted(RULES), draw.randint(1, len(RULES)))
    rules = {key.encode(): RULES[key].encode() for key in keys}
    rules |= {string: draw.choice(STRINGS[2:]) for string in draw.sample(STRINGS[2:], 2) if draw.random() < 0.2}
    blob = charsmap_blob(rules)
    (size,) = struct.unpack_from("<I", blob)
    units = list(struct.unpack_from(f"<{size // 4}I", blob, 4))
    replacements = bytearray(blob[4 + size :])
    used = [i for i, unit in enumerate(units) if unit != i & 255 ^ 1]
    for _ in range(_few(draw)):
        at, kind = draw.choice(used), draw.randrange(8)
        if kind == 0:
            units[at] ^= 1 << draw.randrange(32)
        elif kind == 1:
            units[at] = units[draw.choice(used)]
        elif kind == 2:
            units[draw.randrange(len(units))] = draw.getrandbits(32)
        elif kind == 3:
            leaves = [i for i in used if units[i] >> 31]
            at = draw.choice(leaves or used)
            units[at] = (units[at] + draw.choice([-1, 1, 2, 1000, len(replacements) - 1])) % 2**32
        elif kind == 4:
            # A child of one node becomes a child of another, or of its own.
            units[at] = (at ^ draw.choice(used) & ~255) << 10 | units[at] & 0x3FF
        elif kind == 5 and replacements:
            replacements[draw.randrange(len(replacements))] = draw.choice([0, 0x80, 0xC3, 0xE3, 0xFF, 0x20, 0x61])
        elif kind == 6:
            size = draw.choice([0, 4, 1024, 2**31, 2**32 - 1, size + 4, size - 1024, size + 1024]) % 2**32
        else:
            replacements = replacements[: draw.randrange(len(replacements) + 1)]
    return struct.pack(f"<{len(units) + 1}I", size, *units) + bytes(replacements)


def _sentencepiece(draw: random.Random) -> bytes:
    if draw.random() < 0.3:
        data = draw.choice(_files("*.model"))
    else:
        data = random_sentencepiece_model(draw, byte_fallback=draw.random() < 0.3)
    fields = _message(data, nested=True)
    if draw.random() < 0.6:
        fields.append((draw.choice([3, 3, 5]), 2, [(2, 2, _charsmap(draw))]))
    if draw.random() < 0.5:
        fields.append((3, 2, [(number, 0, draw.randrange(2)) for number in (3, 4, 5)]))
    if draw.random() < 0.3:
        fields.append(BPE)
    for _ in range(_few(draw)):
        _mutate_message(draw, fields)
    return _serialized(fields)


def _message(data: bytes, nested: bool) -> list[Field]:
    fields: list[Field] = []
    i = 0
    while i < len(data):
        tag, i = _varint(data, i)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, i = _varint(data, i)
            fields.append((number, wire, value))
            continue
        size, i = (4, i) if wire == 5 else _varint(data, i)
        raw = data[i : i + size]
        fields.append((number, wire, _message(raw, nested=False) if nested and number in (1, 2, 3, 5) else raw))
        i += size
    return fields


def _varint(data: bytes, i: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[i] & 127) << shift
        i, shift = i + 1, shift + 7
        if data[i - 1] < 128:
            return value, i


def _serialized(fields: list[Field]) -> bytes:
    out = []
    for number, wire, value in fields:
        if isinstance(value, list):
            value = _serialized(value)
        out.append(varint(number << 3 | wire))
        if wire == 0:
            out.append(varint(value))
        else:
            out.append(value if wire == 5 else varint(len(value)) + value)
    return b"".join(out)


def _mutate_message(draw: random.Random, fields: list[Field]) -> None:
    if not fields:
        return
    at = draw.randrange(len(fields))
    number, wire, value = fields[at]
    if isinstance(value, list) and draw.random() < 0.7:
        _mutate_message(draw, value)
        return
    kind = draw.randrange(8)
    if kind == 0:
        del fields[at]
    elif kind == 1:
        fields.insert(draw.randrange(len(fields) + 1), fields[at])
    elif kind == 2:
        other = draw.randrange(len(fields))
        fields[at], fields[other] = fields[other], fields[at]
    elif kind == 3:
        fields[at] = (draw.choice([0, 1, 2, 3, 4, 5, 24, 35, 44, 2**28]), draw.choice([wire, 0, 1, 3, 7]), value)
        if isinstance(value, int) != (fields[at][1] == 0):
            fields[at] = (fields[at][0], wire, value)
    elif wire == 0:
        fields[at] = (number, wire, draw.choice(INTEGERS))
    elif wire == 5:
        fields[at] = (number, wire, struct.pack("<f", draw.choice(FLOATS)))
    elif isinstance(value, bytes):
        fields[at] = (number, wire, draw.choice([draw.choice(STRINGS), _bytes(draw, value)]))
    else:
        value.append((draw.choice([1, 2, 3, 35, 44]), 2, draw.choice(STRINGS)))


@cache
def _files(pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(DATA.glob(pattern)) if path.stem != "en_char"]


def _hugging_face(draw: random.Random) -> bytes:
    if draw.random() < 0.2:
        file = json.loads(draw.choice(_files("*.tokenizer.json")))
    elif draw.random() < 0.5:
        file = _merges(draw)
    else:
        unk = draw.choice(["<unk>", "a", "é", "▁"])
        file = json.loads(random_hugging_face_file(draw, unk, byte_fallback=draw.random() < 0.3))
    for part, members in MEMBERS.items():
        if draw.random() < 0.6:
            file[part] = _component(draw, members)
    contents = ["<s>", "a", "ab", "é", "\n", " ", "e\u0301", "<unk>", "aaaa", "漢"]
    for content in draw.sample(contents, draw.choice([0, 1, 3])):
        flags = {flag: draw.random() < 0.3 for flag in ADDED if flag != "id"}
        file["added_tokens"].append(ADDED | {"content": content} | flags)
    for _ in range(_few(draw)):
        file = _mutate_tree(draw, file)
    data = json.dumps(file, ensure_ascii=draw.random() < 0.5).encode(errors="surrogatepass")
    if draw.random() < 0.05:
        data = data.replace(b"{", b'{"type": 0, ', draw.randint(1, 3))
    return data


def _merges(draw: random.Random) -> Any:
    """A tokenizer.json of BPE: of characters, or of bytes written as characters."""
    is_bytes = draw.random() < 0.4
    pieces = ["<unk>", *(_byte_characters() if is_bytes else "abé漢<▁ "), *(BYTE_NAMES if draw.random() < 0.3 else [])]
    n_symbols, merges = len(pieces), []
    for _ in range(draw.randrange(25)):
        among = draw.choice([pieces[1:], pieces[1:n_symbols], _spelled(pieces)])
        parts = [draw.choice(among) for _ in range(2)]
        if "".join(parts) not in pieces:
            pieces.append("".join(parts))
        merges.append(parts if draw.random() < 0.99 else " ".join(parts))
    merges = [" ".join(parts) for parts in merges] if draw.random() < 0.3 else merges
    unk_token = draw.choice([None, "<unk>", "<unk>", draw.choice(pieces)])
    model = {"type": "BPE", "dropout": None, "unk_token": unk_token, "fuse_unk": draw.random() < 0.5,
             "continuing_subword_prefix": None, "end_of_word_suffix": draw.choice([None, None, "", "</w>"]),
             "byte_fallback": draw.random() < 0.4, "ignore_merges": draw.random() < 0.4,
             "vocab": {piece: i for i, piece in enumerate(pieces)}, "merges": merges}  # fmt: skip
    if draw.random() < 0.2:
        model[OWN] = {"scores": _own_scores(draw, len(pieces))}
    bare = COMPONENTS["pretokenizers"][7] | {"use_regex": False, "add_prefix_space": False}
    split = {"type": "Split", "pattern": {"Regex": draw.choice(list(DIVIDING))}, "invert": False,
             "behavior": draw.choice(["Isolated", "Removed"])}  # fmt: skip
    divided = {"type": "Sequence", "pretokenizers": [split, bare]}
    byte_level = draw.choice([COMPONENTS["pretokenizers"][7], divided]) if is_bytes else None
    return json.loads(hugging_face_file([], None, False)) | {"pre_tokenizer": byte_level, "model": model}


def _own_scores(draw: random.Random, n: int) -> list[float | None]:
    return [draw.choice([-1.0, -2.5, -2.5, None, 1e298 * draw.random()]) for _ in range(n)]


def _spelled(pieces: list[str]) -> list[str]:
    """Those of the pieces that are likely to meet in a text, among them the bytes of a character."""
    return [piece for piece in ("a", "b", "é", "<0xC3>", "<0xA9>", "<0xE3>", *pieces[-3:]) if piece in pieces]


@cache
def _byte_characters() -> list[str]:
    """The characters that stand for bytes in tokenizer.json."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*map(chr, printed), *(chr(256 + i) for i in range(256 - len(printed)))]


def _ranks(draw: random.Random) -> bytes:
    """A tiktoken file or a tekken.json."""
    tokens = [bytes([byte]) for byte in draw.sample(range(256), 256)]
    for _ in range(draw.randrange(25)):
        tokens.append(draw.choice(tokens) + draw.choice(tokens) if draw.random() < 0.9 else draw.choice(STRINGS))
    tokens = list(dict.fromkeys(tokens)) if draw.random() < 0.8 else tokens
    coded = [base64.b64encode(token).decode() for token in tokens]
    if draw.random() < 0.5:
        lines = [f"{token} {rank}" for rank, token in enumerate(coded)]
        for _ in range(_few(draw)):
            at = draw.randrange(len(lines))
            lines[at] = draw.choice(
                [coded[at], f"{coded[at]} {draw.choice(INTEGERS)}", lines[at - 1], "= 1", "YQ 2", ""]
            )
        return "\n".join(lines).encode()
    vocab = [{"rank": rank, "token_bytes": token, "token_str": None} for rank, token in enumerate(coded)]
    config = {"pattern": draw.choice(PATTERNS), "num_vocab_tokens": len(vocab), "default_vocab_size": len(vocab) + 5,
              "default_num_special_tokens": draw.choice([5, 5, 0, 20])}  # fmt: skip
    file: Any = {"config": config, "vocab": vocab, "special_tokens": [{"rank": 0, "token_str": "<s>"}]}
    if draw.random() < 0.5:
        ids = sorted(draw.sample(range(5, 2 * len(vocab)), len(vocab)))
        file[OWN] = draw.choice([{}, {"ids": ids}, {"special_tokens": {"<x>": 3}}])
        num_ids = 1 + max([len(vocab) + config["default_num_special_tokens"] - 1, *file[OWN].get("ids", [])])
        file[OWN]["scores"] = _own_scores(draw, draw.choice([num_ids, num_ids, len(vocab)]))
    for _ in range(_few(draw)):
        part = draw.choice(sorted(file))
        file[part] = _mutate_tree(draw, file[part])
    return json.dumps(file).encode(errors="surrogatepass")


def _component(draw: random.Random, members: str) -> dict[str, Any]:
    known = COMPONENTS[members]
    if draw.random() < 0.4:
        return json.loads(json.dumps(draw.choice(known)))
    if members == "normalizers" and draw.random() < 0.5:
        return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(_charsmap(draw)).decode()}
    return {"type": "Sequence", members: [_component(draw, members) for _ in range(draw.randrange(4))]}


def _mutate_tree(draw: random.Random, tree: Any) -> Any:
    """The tree with one value replaced, taken out, doubled or put into another; deep ones as often as others."""
    if isinstance(tree, dict | list) and tree and draw.random() < 0.85:
        keys = sorted(tree) if isinstance(tree, dict) else range(len(tree))
        key = draw.choice(keys)
        kind = draw.random()
        if kind < 0.06:
            del tree[key]
        elif kind < 0.12:
            other = draw.choice(keys)
            tree[key], tree[other] = tree[other], tree[key]
        elif kind < 0.16 and isinstance(tree, list):
            tree.insert(draw.randrange(len(tree) + 1), json.loads(json.dumps(tree[key])))
        elif kind < 0.18 and isinstance(tree, dict):
            tree[draw.choice(["", "type", "a", "content", "\ud800"])] = tree[key]
        else:
            tree[key] = _mutate_tree(draw, tree[key])
        return tree
    if isinstance(tree, str) and draw.random() < 0.5:
        return draw.choice(
            [tree + "\u0301", tree * 2, tree[1:], tree.upper(), tree + "\0", tree + "\ud800", tree * 300]
        )
    return json.loads(json.dumps(draw.choice([*VALUES, [tree], {"type": tree}])))


def _bytepiece(draw: random.Random) -> bytes:
    counts = {bytes([byte]): draw.choice([1, 2, 1000]) for byte in range(256)}
    counts |= {draw.choice(STRINGS[3:]): draw.choice([1, 5, 0.5, 2**63]) for _ in range(draw.randrange(9))}
    entries: Any = {
        base64.b64encode(token).decode(): [3 + i, token.decode(errors="ignore"), count]
        for i, (token, count) in enumerate(counts.items())
    }
    if draw.random() < 0.1:
        entries = json.loads(draw.choice(_files("bytepiece.json")))
    for _ in range(_few(draw)):
        entries = _mutate_tree(draw, entries)
    data = json.dumps(entries).encode()
    if draw.random() < 0.1:
        data = data[:-1] + b"," + data[1:]
    return data if draw.random() < 0.5 else _zip(draw, data)


def _zip(draw: random.Random, data: bytes) -> bytes:
    """A zip of one model or of some members, whose directory may say anything."""
    methods = [zipfile.ZIP_DEFLATED] * 5 + [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", draw.choice(methods)) as archive:
        for i_member in range(draw.choice([1] * 9 + [0, 2])):
            archive.writestr(draw.choice(["m.model"] * 6 + ["m/", "é", "a" * 300]) + "x" * i_member, data)
    zipped = bytearray(buffer.getvalue())
    for _ in range(_few(draw) if draw.random() < 0.5 else 0):
        signature = draw.choice([b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"])
        begin = max(0, zipped.rfind(signature))
        at, width = begin + draw.randrange(4, 46), draw.choice([1, 2, 4])
        zipped[at : at + width] = draw.choice(INTEGERS).to_bytes(8, "little")[:width]
    return bytes(zipped)


@cache
def sound_files() -> list[bytes]:
    """One file of every format and normalizer, none of them wrong: what a process compiles its code by."""
    draw = random.Random(0)
    rules = {key.encode(): text.encode() for key, text in RULES.items()}
    with_map = field(3, field(2, charsmap_blob(rules)))
    sentencepiece = [random_sentencepiece_model(draw, fallback) + extra for fallback in (False, True)
                     for extra in (b"", with_map, with_map + with_map.replace(b"\x1a", b"\x2a", 1))]  # fmt: skip
    files = [*_files("*.model"), *_files("*.tokenizer.json"), *_files("bytepiece.json"), *sentencepiece]
    charsmap = base64.b64encode(charsmap_blob(rules)).decode()
    steps = [{"type": "Precompiled", "precompiled_charsmap": charsmap}, *COMPONENTS["normalizers"]]
    tokens = [ADDED | {"content": content, "normalized": content == "ab"} for content in ("<s>", "ab", "漢")]
    for normalizer in [None, *steps, {"type": "Sequence", "normalizers": steps[:5]}]:
        for pre_tokenizer in [None, *COMPONENTS["pretokenizers"][:2], {"type": "WhitespaceSplit"}]:
            file = json.loads(random_hugging_face_file(draw, "<unk>", byte_fallback=pre_tokenizer is None))
            file |= {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "added_tokens": tokens}
            files.append(json.dumps(file).encode())
    tokens_of_bytes = "".join(f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))
    return [*files, json.dumps(_merges(random.Random(1))).encode(), tokens_of_bytes.encode()]
