"""The compiled SentencePiece normalizer against the sentencepiece package, byte for byte."""

import io
import itertools
import json
import struct
from functools import cache

import numpy as np
import pytest
import sentencepiece
from handmade import charsmap_blob, from_first_leaf
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece_files import (
    ADD_DUMMY_PREFIX,
    AS_SUFFIX,
    CHARSMAP,
    ESCAPE,
    REMOVE_EXTRA,
    UNK,
    USER_DEFINED,
    A,
    model_bytes,
    piece,
)

from gpu_lattice.models import sentencepiece as reader
from gpu_lattice.normalizers.charsmap import identity, longest_match, parse_charsmap, shortest_match
from gpu_lattice.normalizers.sentencepiece import SentencePieceNormalizer
from gpu_lattice.text_batch import TextBatch

RULES = ["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"]
# Replacements that begin and end with spaces, that are nothing, and keys that begin with two ASCII bytes.
CUSTOM_RULE = "61 62\t78 20 20 79\n63\t\n64\t20 20\n65\t20 7A\n66 67\t66 20\n7A\t41\n3042 3044\t20\n"
# Keys that are more than their first character: after a space, a character that is replaced or one that is not, with a
# second of two, three or four bytes, which may have a key of its own.
PAIRS_RULE = (
    "20 308\t78\n61 301\t20\n61 301 323\t79 79\n41\t61\n41 301\tE1\n304B 3099\t304C\n304B 3099 308\t\n3042\t20\n"
    "3042 3099\t41\n9C7 9BE\t9CB\n9BE\t7A\n62 1F600\t42\n3044 1F600\t43\n3044 62\t44\nE9 3099\t20 45 20\n9\t20\n"
)
SYMBOLS = ["ab", "abc", "AB", "A  B", " ", "▁▁", "é", "\u3000x", "かが", "ﬀ", "a b ", "か"]

normalize = SentencePieceNormalizer()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The bytes of a small model per rule name, and of the rules above as "custom" and "pairs"."""
    folder = tmp_path_factory.mktemp("rules")
    options = {rule: {"normalization_rule_name": rule} for rule in RULES}
    for name, rules in (("custom", CUSTOM_RULE), ("pairs", PAIRS_RULE)):
        (folder / name).write_text(rules)
        options[name] = {"normalization_rule_tsv": str(folder / name)}
    models = {}
    for rule, chosen in options.items():
        out = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["xyz xxy yy", "zz xz yx"] * 5),
            model_writer=out,
            vocab_size=20,
            hard_vocab_limit=False,
            minloglevel=2,
            **chosen,
        )
        models[rule] = out.getvalue()
    return models


def with_options(data: bytes, flags: tuple[int, int, int, int] = (1, 1, 1, 0), symbols: tuple[str, ...] = ()) -> bytes:
    """The model with other flags and more user-defined symbols: a later field of a message wins."""
    dummy, remove_extra, escape, as_suffix = flags
    more = [piece(symbol, 0.0, USER_DEFINED) for symbol in symbols]
    normalizer = {ADD_DUMMY_PREFIX: dummy, REMOVE_EXTRA: remove_extra, ESCAPE: escape}
    return data + model_bytes(*more, trainer={AS_SUFFIX: as_suffix}, normalizer=normalizer)


@cache
def loaded(data: bytes):
    return sentencepiece.SentencePieceProcessor(model_proto=data), reader.read(data, "m.model").normalizer


def as_list(batch) -> list[bytes]:
    blob = batch.values.tobytes()
    return [blob[a:b] for a, b in itertools.pairwise(batch.offsets.tolist())]


def assert_same(data: bytes, docs: list[bytes]) -> None:
    tool, normalizer = loaded(data)
    assert as_list(normalizer(TextBatch.from_texts(docs))) == [tool.normalize(doc) for doc in docs]


@pytest.mark.parametrize(
    ("rule", "flags", "text", "expected"),
    [
        ("nmt_nfkc", (1, 1, 1, 0), "", ""),
        ("nmt_nfkc", (1, 1, 1, 0), "      ", ""),
        ("nmt_nfkc", (1, 1, 1, 0), "\u3000", ""),
        ("nmt_nfkc", (1, 1, 1, 0), " A  B  C ", "▁A▁B▁C"),
        ("nmt_nfkc", (1, 1, 1, 0), "   ＡＢＣ   ", "▁ABC"),
        ("nmt_nfkc", (1, 1, 1, 0), "㍿", "▁株式会社"),
        ("nmt_nfkc", (1, 1, 1, 0), " ｸﾞｰｸﾞﾙ ", "▁グーグル"),
        ("nmt_nfkc", (1, 1, 1, 0), "\x7f", ""),
        ("nmt_nfkc", (1, 1, 1, 0), "a\tb\r\nc", "▁a▁b▁c"),
        ("nmt_nfkc", (1, 1, 1, 0), "\u200bx", "▁x"),
        ("nmt_nfkc", (1, 1, 1, 0), "e\u0301", "▁é"),
        ("nmt_nfkc", (1, 1, 1, 0), "e\u0301\u0323", "▁é\u0323"),
        ("nmt_nfkc", (1, 1, 1, 0), "각", "▁각"),
        ("nmt_nfkc", (1, 1, 1, 0), "\0a", "▁\0a"),
        ("nmt_nfkc", (1, 1, 1, 0), "▁a", "▁a"),
        ("nmt_nfkc", (1, 0, 1, 0), " A  B ", "▁▁A▁▁B▁"),
        ("nmt_nfkc", (1, 0, 1, 0), "\x7f", "▁"),
        ("nmt_nfkc", (0, 1, 1, 0), " A  B ", "A▁B"),
        ("nmt_nfkc", (1, 1, 0, 0), " A  B ", " A B"),
        ("nmt_nfkc", (1, 1, 1, 1), " A  B ", "A▁B▁"),
        ("nmt_nfkc", (1, 1, 1, 1), "  ", ""),
        ("nmt_nfkc", (1, 1, 1, 1), "\x7f", "▁"),
        ("nmt_nfkc_cf", (1, 1, 1, 0), "ＡＢ É Σ", "▁ab▁é▁σ"),
        ("identity", (1, 1, 1, 0), "▁▁a▁ ", "▁▁▁a"),
        ("identity", (1, 1, 0, 0), "a▁ ", " a▁"),
    ],
)
def test_known_texts_normalize_to_known_texts(trained, rule, flags, text, expected):
    tool, normalizer = loaded(with_options(trained[rule], flags))
    assert tool.normalize(text) == expected
    assert as_list(normalizer(TextBatch.from_texts([text]))) == [expected.encode()]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("616263807879", "abc\ufffdxy"),
        ("616263c3", "abc\ufffd"),
        ("6162e3817879", "ab\ufffd\ufffdxy"),
        ("61f381817879", "a\ufffd\ufffd\ufffdxy"),
        ("6162c0827879", "ab\ufffd\ufffdxy"),
        ("eda080", "\ufffd\ufffd\ufffd"),
        ("f5808080", "\ufffd\ufffd\ufffd\ufffd"),
        ("f48fbfbf", "\U0010ffff"),
        ("f4908080", "\ufffd\ufffd\ufffd\ufffd"),
        ("e080af", "\ufffd\ufffd\ufffd"),
        ("e08395", "\ufffd\ufffd\ufffd"),
        ("c1a1", "\ufffd\ufffd"),
        ("61e99499e994", "a\u9519\ufffd\ufffd"),
        ("f08fbfbf", "\ufffd\ufffd\ufffd\ufffd"),
    ],
)
def test_every_byte_of_no_character_becomes_one_replacement_character(trained, raw, expected):
    for rule in ("identity", "nmt_nfkc"):
        tool, normalizer = loaded(with_options(trained[rule], (0, 0, 1, 0)))
        assert tool.normalize(bytes.fromhex(raw)) == expected.encode()
        assert as_list(normalizer(TextBatch.from_texts([bytes.fromhex(raw)]))) == [expected.encode()]


def test_every_pair_of_two_bytes_is_as_in_sentencepiece(trained):
    """Decides every entry of the table of direct bytes, and every first byte of a character."""
    pairs = [bytes(pair) for pair in itertools.product(range(256), repeat=2)]
    for rule in ("nmt_nfkc_cf", "custom", "pairs"):
        assert_same(with_options(trained[rule], (0, 0, 1, 0)), pairs)


def test_every_code_point_is_as_in_sentencepiece(trained):
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    text = "".join(points[:0x30000] + points[0xE0000:0xE1000]).encode()
    for rule in ("nmt_nfkc", "nfkc_cf", "pairs"):
        assert_same(with_options(trained[rule]), [text])


def test_every_three_bytes_between_characters_that_are_copied_are_as_in_sentencepiece(trained):
    """Characters of three bytes are copied two at a time: these are the first of two, the second, and after three."""
    copied = "水".encode()
    units = [chr(point).encode("utf-8", "surrogatepass") for point in range(0x800, 0x10000)]
    # Too short a character, one that is cut off, and continuations without a beginning.
    units += [bytes([0xE0, 0x80 | high, 0x80]) for high in range(0x20)]
    units += [b"\xe6\xb0a", b"\xe6aa", b"\xe6\xe6\x80", b"\xe6\xb0\xe6", b"\x80\x80\x80", b"\xf0\x9f\x98", b"a\x80\xe6"]
    docs = [n * copied + unit + (2 + n) * copied for unit in units for n in (0, 1, 3)]
    for rule in ("nmt_nfkc", "identity", "pairs"):
        assert_same(with_options(trained[rule]), docs)


def test_what_ends_a_run_of_letters_may_stand_anywhere_in_a_word_of_eight_bytes(trained):
    ends = [
        "",
        " ",
        "  ",
        "\t",
        "\x7f",
        "é",
        "か",
        "\u0301",
        "か\u3099",
        "，",
        "\u3000",
        "😀",
        " \u0308",
        "A",
        "[",
        "~",
    ]
    docs = ["".join([" " * (length % 3), "Abc[zyxW~"[: length % 10] * 2, end, "a" * (length % 9), end]).encode()
            for length in range(20) for end in ends]  # fmt: skip
    docs += [doc + b"\xe3\x81" for doc in docs]
    for rule in ("nmt_nfkc", "nmt_nfkc_cf", "pairs"):
        for flags, symbols in (((1, 1, 1, 0), ()), ((0, 0, 0, 0), ("b", "[z", "か"))):
            assert_same(with_options(trained[rule], flags, symbols), docs)


@pytest.mark.parametrize("flags", list(itertools.product((0, 1), repeat=4)))
def test_a_character_is_looked_up_again_when_what_follows_makes_it_a_key(trained, flags):
    firsts = ["a", " ", "A", "か", "あ", "い", "\u09c7", "b", "é", "x", "\t", "\U0001f600", ""]
    seconds = ["\u0301", "\u0308", "\u3099", "\u09be", "\U0001f600", "b", "\u0301\u0323", "\u3099\u0308", ""]
    pairs = ["".join(pair) for pair in itertools.product(firsts, seconds)]
    docs = [
        (before + pair + after).encode()
        for pair in pairs
        for before in ("", " ", "x ", "xyzxyzx")
        for after in ("", " ")
    ]
    for rule in ("pairs", "nmt_nfkc"):
        assert_same(with_options(trained[rule], flags), docs)
    assert_same(with_options(trained["pairs"], flags, ("a", "か\u3099", "\u0308")), docs)


WORDS = [
    *" \u00a0\u2000\u200b\u3000\ufeff\u00ad\u2581\t\n\r\0\x01\x7f\x85",
    *"abcdefgz AB ŠßİﬀⅣ㍿ﷺ①ａｶﾞ゛かがはあい猫",
    *"\u0301\u0323\u0308\u09c7\u09be\u3099\u309a\u1100\u1161\u11a8각\U0001d15e\U0001f600\ud7ff\ufffd\uffff",
    *SYMBOLS,
]
RAW = [b"\x80", b"\xc3", b"\xe3\x81", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xff", b"\xe2\x96", b"\xc0\x80", b"\xf5"]
DOCUMENT = st.lists(st.sampled_from([word.encode() for word in WORDS] + RAW), max_size=14).map(b"".join)


@settings(max_examples=400)
@given(
    rule=st.sampled_from([*RULES, "custom", "pairs"]),
    flags=st.tuples(*[st.integers(0, 1)] * 4),
    symbols=st.sampled_from([(), tuple(SYMBOLS[:1]), tuple(SYMBOLS)]),
    docs=st.lists(DOCUMENT | st.binary(max_size=12) | st.text(max_size=8).map(lambda t: t.encode()), max_size=6),
)
def test_odd_texts_under_all_flags_are_as_in_sentencepiece(trained, rule, flags, symbols, docs):
    assert_same(with_options(trained[rule], flags, symbols), docs)


def test_symbols_are_not_normalized_the_longest_first(trained):
    docs = ["AB A  B ａAＢab", "A B", "ABC  ", "e\u0301é"]
    assert_same(with_options(trained["nmt_nfkc_cf"], symbols=tuple(SYMBOLS)), [doc.encode() for doc in docs])


def test_of_many_nested_symbols_sentencepiece_sees_sixty_four(trained):
    data = with_options(trained["custom"], symbols=tuple("f" + "e" * length for length in range(80)))
    docs = [b"f" + b"e" * length for length in (0, 62, 63, 64, 65, 79, 200)]
    assert_same(data, docs)
    assert loaded(data)[0].normalize(docs[3]).decode() == "▁f" + "e" * 63 + "▁z"


@pytest.mark.parametrize("flags", list(itertools.product((0, 1), repeat=4)))
def test_texts_of_which_nothing_is_left_are_as_in_sentencepiece(trained, flags):
    docs = [b"", b" ", b"   ", b"\t \xe3\x80\x80", b"c", b"c ", b" c", b"d", b"d ", "▁".encode(), " ▁ ▁".encode()]
    for rule in ("nmt_nfkc", "custom"):
        for symbols in ((), ("  ",), (" ",), ("▁ ",)):
            assert_same(with_options(trained[rule], flags, symbols), [*docs, b"\x7f", b" \x7f "])


def test_replacements_much_longer_than_the_text_fit(trained):
    for flags in ((1, 1, 1, 0), (1, 0, 1, 1)):
        data = with_options(trained["nmt_nfkc"], flags)
        assert_same(data, ["ﷺ".encode() * 1000, b"", "㍿".encode(), b"x" * 50, "ﷺ ".encode() * 3])
        assert_same(data, ["ﷺ".encode() + b" " * 1000])
        assert_same(data, [b" " * 1000 + "ﷺ".encode() * 3 + b"\xff" * 1000])


def test_a_document_does_not_depend_on_batch_threads_or_nulls(trained):
    _, normalizer = loaded(trained["nmt_nfkc"])
    rng = np.random.default_rng(0)
    words = [word.encode() for word in WORDS]
    docs = [b"".join(rng.choice(words, size=size)) for size in rng.integers(0, 3000, 300)]
    docs[7] = b" "
    alone = [as_list(normalizer(TextBatch.from_texts([doc])))[0] for doc in docs]
    assert sum(map(len, docs)) > 1 << 19, "several ranges"
    batch = TextBatch.from_texts(docs)
    assert as_list(normalizer(batch)) == alone
    assert as_list(normalizer(batch, threads=3)) == alone
    assert as_list(normalizer(batch.slice(50, 90), threads=2)) == alone[50:90]
    assert as_list(normalizer(TextBatch.from_texts([None, *docs[:9], None]))) == [b"", *alone[:9], b""]


def test_no_documents_and_only_empty_ones_normalize():
    for docs in ([], [b""], [b"", None, b""]):
        out = normalize(TextBatch.from_texts(docs))
        assert out.values.dtype == np.uint8
        assert out.offsets.tolist() == [0] * (len(docs) + 1)
        assert out.chunk_offsets is None


def test_the_batch_given_is_left_as_it_is():
    values = np.frombuffer(b" a b", np.uint8).copy()
    batch = TextBatch(values, np.array([0, 4]))
    normalize(batch)
    assert values.flags.writeable
    assert batch.offsets.flags.writeable
    assert values.tobytes() == b" a b"


def test_repr_says_what_it_does(trained):
    _, normalizer = loaded(with_options(trained["nfkc"], (1, 0, 1, 1), ("ab",)))
    assert repr(normalizer).startswith("SentencePieceNormalizer(name='nfkc', charsmap=")
    assert "user_defined=1, dummy_space='suffix', remove_extra_whitespaces=False" in repr(normalizer)


def test_an_empty_symbol_is_refused():
    with pytest.raises(ValueError, match="user-defined symbol is empty"):
        SentencePieceNormalizer(user_defined=[b"a", b""])


def charsmap_of(data: bytes) -> bytes:
    """The blob of a model, by the fields of its normalizer_spec."""
    for number, start, stop in reader._fields(data, 0, len(data), {}):
        if number == 3:
            return next(data[a:b] for inner, a, b in reader._fields(data, start, stop, {}) if inner == CHARSMAP)
    raise LookupError("no normalizer_spec")


def lookup(find, tables, text: bytes) -> tuple[int, bytes | None]:
    length, at = find(tables, np.frombuffer(text, np.uint8), 0, len(text))
    if at < 0:
        return length, None
    return length, tables.replacements[at:].tobytes().split(b"\0", 1)[0]


def test_longest_and_shortest_match_find_their_keys(trained):
    tables = parse_charsmap(charsmap_of(trained["nmt_nfkc"]), "m.model")
    assert lookup(longest_match, tables, "か\u3099x".encode()) == (6, "が".encode())
    assert lookup(longest_match, tables, "①②".encode()) == (3, b"1")
    assert lookup(longest_match, tables, b"a") == (0, None)
    assert lookup(longest_match, tables, b"") == (0, None)
    assert lookup(longest_match, tables, "ﾊﾟ".encode()) == (6, "パ".encode())
    assert lookup(shortest_match, tables, "ﾊﾟ".encode()) == (3, "ハ".encode())
    assert lookup(shortest_match, tables, b"a") == (0, None)
    for find in (longest_match, shortest_match):
        assert lookup(find, identity(), "①".encode()) == (0, None)


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"abc", "3 bytes, too few for its header"),
        (struct.pack("<I", 1024) + bytes(1024), "an array of 1024 bytes, of which 1024 are left"),
        (struct.pack("<I", 0) + b"a\0", "not a multiple of 1024"),
        (struct.pack("<I", 1000) + bytes(1001), "not a multiple of 1024"),
        (struct.pack("<I", 1024) + bytes(1024) + b"a", "does not end with a zero byte"),
        (struct.pack("<I", 1024) + bytes(1025), "no valid root"),
        (struct.pack("<257I", 1024, 1 << 10, *[1 << 20] * 255) + b"\0", "points outside its array"),
        (struct.pack("<257I", 1024, 1 << 10, *[1 << 8] * 255) + bytes(5), "leaf is missing"),
        (struct.pack("<257I", 1024, 1 << 10, *[1 << 31 | 9] * 255) + bytes(5), "leaf points outside"),
    ],
)
def test_broken_character_maps_are_refused_with_the_reason(blob, reason):
    with pytest.raises(ValueError, match=r"^m\.model: the precompiled character map is broken: ") as error:
        parse_charsmap(blob, "m.model")
    assert reason in str(error.value)
    with pytest.raises(RuntimeError):
        sentencepiece.SentencePieceProcessor(model_proto=model_bytes(UNK, A, normalizer={CHARSMAP: blob}))


PARTS = [part.encode() for part in "aA か\u3099\u0301é😀"]
BYTES = sorted({bytes([byte]) for part in PARTS for byte in part})
KEYS = st.lists(st.sampled_from(PARTS + BYTES), min_size=1, max_size=4).map(b"".join)
CONTENTS = st.lists(st.sampled_from([*PARTS, b"  ", b"longer than it was"]), max_size=2).map(b"".join)


@settings(max_examples=200)
@given(
    rules=st.dictionaries(KEYS, CONTENTS, min_size=1, max_size=8),
    flags=st.tuples(*[st.integers(0, 1)] * 4),
    data=st.data(),
)
def test_keys_may_be_any_bytes(rules, flags, data):
    """Keys that end within a character, go on with half of one, or begin with a space."""
    atoms = [*rules, *rules, *(key[:-1] for key in rules), *PARTS, b"letters"]
    docs = [*rules, *data.draw(st.lists(st.lists(st.sampled_from(atoms), max_size=8).map(b"".join), max_size=8))]
    assert_same(with_options(model_bytes(UNK, A, normalizer={CHARSMAP: charsmap_blob(rules)}), flags), docs)


@pytest.mark.parametrize(
    "keys",
    [
        ["か", "か\u3099"],
        ["か\u3099", "か"],
        ["か", b"\xe3"],
        ["か", b"\xe3\x81"],
        ["か\u3099", "\u3099"],
        ["か".encode() + b"\xe3"],
        ["か".encode() + b"\xe3\x82"],
        ["か".encode() + b"\xe3a"],
        ["か".encode() + b"\xe3\x82a"],
        ["か".encode() + b"\xe0\x83\x95"],
        ["か".encode() + b"\xed\xa0\x80"],
        ["か".encode() + b"\x82"],
        ["か😀", "a😀", b"\xf0\x9f"],
        [" \u3099", "  "],
        ["a\u3099", "aa"],
    ],
)
def test_keys_that_go_on_in_odd_ways_are_found(keys):
    rules = {key if isinstance(key, bytes) else key.encode(): b"y" if i else b"w  v" for i, key in enumerate(keys)}
    atoms = [
        "か".encode(),
        "\u3099".encode(),
        b"a",
        b" ",
        b"\xe3",
        b"\xe3\x82",
        b"\xe0\x83\x95",
        b"\xed\xa0\x80",
        *rules,
    ]
    docs = [b"".join(parts) for size in (1, 2, 3) for parts in itertools.product(atoms, repeat=size)]
    for flags in ((1, 1, 1, 0), (0, 0, 0, 0)):
        assert_same(with_options(model_bytes(UNK, A, normalizer={CHARSMAP: charsmap_blob(rules)}), flags), docs)


# Every byte leads back to where it came from, so the map holds as many beginnings as there are strings.
ENDLESS = struct.pack("<I512I", 2048, 256 << 10, *[0] * 255, *(byte << 10 | byte for byte in range(256))) + b"\0"


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (charsmap_blob({b"a": b"\xff"}), "replacements are not UTF-8 at byte 0"),
        (charsmap_blob({b"a": b"x", b"b": b"y\xe3\x81"}), "replacements are not UTF-8 at byte 3"),
        (charsmap_blob({b"a": "\ud800".encode(errors="surrogatepass")}), "replacements are not UTF-8 at byte 0"),
        (from_first_leaf({b"a": "é".encode()}, 1), "a leaf points into a character"),
        (charsmap_blob({b"a": b"x" * 1025}), "replacements of more than 1024 bytes"),
        (charsmap_blob({b"a" * 513: b"x"}), "keys of more than 512 bytes, or without an end"),
        (ENDLESS, "keys of more than 512 bytes, or without an end"),
    ],
    ids=["no character", "half a character", "a surrogate", "within a character", "long text", "long key", "endless"],
)
@pytest.mark.parametrize("spec", ["normalizer", "denormalizer"])
def test_maps_that_compiled_code_cannot_be_given_are_refused(blob, reason, spec):
    """SentencePiece reads these, and writes text that is no UTF-8 or takes a time that grows with the text's square."""
    data = model_bytes(UNK, A, **{spec: {CHARSMAP: blob}})
    sentencepiece.SentencePieceProcessor(model_proto=data)
    with pytest.raises(ValueError, match=f"^m.model: the precompiled character map is broken: .*{reason}"):
        reader.read(data, "m.model")


def test_keys_of_the_longest_kind_are_read():
    data = model_bytes(UNK, A, normalizer={CHARSMAP: charsmap_blob({b"a" * 512: b"x", "é".encode(): b"e"})})
    assert_same(data, [b"a" * 511, b"a" * 512, b"a" * 513, b"a" * 1024, "é".encode()])


@pytest.mark.parametrize(("rules", "step"), [({b"\xc3": b"x", "é".encode(): "ä".encode()}, 0), ({b"a": b"xy"}, 1)])
def test_a_leaf_may_say_any_text_and_end_a_key_anywhere(rules, step):
    data = model_bytes(UNK, A, normalizer={CHARSMAP: from_first_leaf(rules, step)})
    assert_same(data, [*rules, b"a \xc3", "éaé".encode()])


@settings(max_examples=200)
@given(data=st.data())
def test_a_damaged_character_map_is_refused_or_read_as_sentencepiece_reads_it(trained, data):
    blob = bytearray(charsmap_of(trained["custom"]))
    for _ in range(data.draw(st.integers(1, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    blob = blob[: data.draw(st.sampled_from([len(blob)] * 4 + [1024, 1028, 1029, len(blob) - 1]))]
    proto = model_bytes(UNK, A, normalizer={CHARSMAP: bytes(blob)})
    docs = [data.draw(DOCUMENT), b"abcdefgz \xe3\x81\x82\xe3\x81\x84 z", bytes(range(256))]
    try:
        tool = sentencepiece.SentencePieceProcessor(model_proto=proto)
    except RuntimeError:
        with pytest.raises(ValueError, match="character map is broken"):
            reader.read(proto, "m.model")
        return
    try:
        normalizer = reader.read(proto, "m.model").normalizer
    except ValueError as refused:
        reason = str(refused)
        assert any(words in reason for words in ("not UTF-8", "into a character", "more than"))
    else:
        assert as_list(normalizer(TextBatch.from_texts(docs))) == [tool.normalize(doc) for doc in docs]


def test_shared_vectors_hold(shared_data, trained):
    vectors = json.loads((shared_data / "vectors.json").read_text())
    assert vectors["normalizer"]
    for group in vectors["normalizer"]:
        flags = (int(group["add_dummy_prefix"]), int(group["remove_extra_whitespaces"]), 1, 0)
        _, normalizer = loaded(with_options(trained[group["rule"]], flags))
        texts = TextBatch.from_texts([case[0] for case in group["cases"]])
        assert as_list(normalizer(texts)) == [case[1].encode() for case in group["cases"]]
    _, normalizer = loaded(with_options(trained["identity"], (0, 0, 1, 0)))
    raws = [bytes.fromhex(raw) for raw, _ in vectors["normalizer_invalid_utf8"]]
    expected = [text.encode() for _, text in vectors["normalizer_invalid_utf8"]]
    assert as_list(normalizer(TextBatch.from_texts(raws))) == expected


def test_shared_texts_are_the_same_line_by_line(shared_data):
    lines = [line for path in sorted((shared_data / "text").iterdir()) for line in path.read_bytes().split(b"\n")]
    models = sorted((shared_data / "models").glob("*.model"))
    assert len(lines) > 50_000
    assert models
    for path in models:
        tool = sentencepiece.SentencePieceProcessor(model_file=str(path))
        normalizer = reader.read(path.read_bytes(), path.name).normalizer
        assert as_list(normalizer(TextBatch.from_texts(lines), threads=2)) == tool.normalize(lines)
