"""The reader of tokenizer.json files against the package tokenizers itself."""

from __future__ import annotations

import itertools
import json
import random
import re
import sys
import tracemalloc
from contextlib import nullcontext, suppress

import numpy as np
import pytest
from hf_files import MARK, METASPACE, PIECES, STRIP_RIGHT, added_token, sequence, tokenizer_file, tool
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Tool

from gpu_lattice import Tokenizer
from gpu_lattice.models.hf_tokenizers import looks_like, read
from gpu_lattice.text_batch import TextBatch
from gpu_lattice.vocabulary import LARGEST_SCORE, Kind

LOWERCASE = {"type": "Lowercase"}
BYTES, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}
GROW = {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaa"}
ADDED = [
    added_token(0, "<unk>", special=True),
    added_token(7, "<s>", special=True),
    added_token(99, "<mask>", special=True, lstrip=True),
    added_token(8, "New", normalized=True),
    added_token(9, "ab", special=True),
    added_token(9, "", special=True),
    added_token(10, "<s>", special=True, rstrip=True),
]
DUPLICATES = [*PIECES, ["a", -9.0], ["<s>", 0.5], ["a", -4.0]]


def load(file):
    return read(json.dumps(file).encode(), "t.json")


def with_model(**parts):
    file = tokenizer_file()
    return file | {"model": file["model"] | parts}


@pytest.mark.parametrize(
    "file",
    [
        tokenizer_file(),
        tokenizer_file(added_tokens=ADDED),
        tokenizer_file(added_tokens=ADDED, normalizer=LOWERCASE),
        with_model(vocab=DUPLICATES) | {"added_tokens": ADDED},
        {"model": {"vocab": PIECES, "unk_id": None, "what": 1}},
    ],
    ids=["plain", "added tokens", "normalized", "duplicates", "old"],
)
def test_ids_and_names_are_the_tools(file):
    vocabulary, peer = load(file).vocabulary, tool(file)
    num_ids = len(vocabulary)
    assert vocabulary.names == [peer.id_to_token(i) for i in range(num_ids)]
    assert peer.id_to_token(num_ids) is None
    contents = [piece for piece, _ in file["model"]["vocab"]] + [
        token["content"] for token in file.get("added_tokens", [])
    ]
    assert vocabulary.id_of == {name: peer.token_to_id(name) for name in contents if name}


def test_every_distinct_piece_is_in_the_lattice_under_its_last_id():
    vocabulary = load(with_model(vocab=DUPLICATES) | {"added_tokens": ADDED}).vocabulary
    arcs = {vocabulary.surfaces[i].decode(): vocabulary.scores[i] for i in np.flatnonzero(vocabulary.in_lattice)}
    assert arcs == dict(DUPLICATES)
    assert len(vocabulary) == len(DUPLICATES) + 2
    assert vocabulary.best_scores.dtype == np.float64
    assert vocabulary.unknown_runs == "lookup"
    assert vocabulary.symbols == "characters"


def test_the_unknown_score_lies_below_the_lowest_of_all_pieces():
    vocabulary = load(with_model(vocab=[["<unk>", -100.0], ["a", -2.0], ["a", -1.0]])).vocabulary
    assert (vocabulary.unk_id, vocabulary.unk_score, vocabulary.best_unk_score) == (0, -110.0, -110.0)
    vocabulary = load(with_model(vocab=[["<unk>", 0.0], ["a", -200.0], ["a", -1.0]], unk_id=None)).vocabulary
    assert (vocabulary.unk_id, vocabulary.unk_score) == (None, -210.0)


def test_kinds_tell_specials_bytes_and_the_unknown():
    pieces = [*PIECES, ["<0x4a>", -1.0], ["<s>", 0.0], ["<0xE3>", -3.0]]
    file = with_model(vocab=pieces, byte_fallback=True) | {"added_tokens": [added_token(8, "<s>", special=True)]}
    vocabulary = load(file).vocabulary
    kinds = dict(zip(vocabulary.names, vocabulary.kinds.tolist(), strict=True))
    assert {name: kind for name, kind in kinds.items() if kind != Kind.NORMAL} == {
        "<unk>": Kind.UNKNOWN,
        "<0x41>": Kind.BYTE,
        "<0xE3>": Kind.BYTE,
        "<s>": Kind.CONTROL,
    }
    assert vocabulary.byte_ids is not None
    assert {byte: i for byte, i in enumerate(vocabulary.byte_ids.tolist()) if i >= 0} == {0x41: 6, 0xE3: 9}
    assert load(tokenizer_file()).vocabulary.byte_ids is None
    assert vocabulary.surfaces[6] == b"<0x41>"


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "X", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
               {"SpecialToken": {"id": "Y", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "Y", "type_id": 0}},
             {"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {"X": {"id": "X", "ids": [4, 2], "tokens": ["x", "y"]},
                       "Y": {"id": "Y", "ids": [5], "tokens": ["y"]}},
}  # fmt: skip
PREFIX_TEMPLATE = TEMPLATE | {"single": TEMPLATE["single"][:2]}
TEXT_TEMPLATE = TEMPLATE | {"single": TEMPLATE["single"][1:2]}
BERT = {"type": "BertProcessing", "sep": ["y", 5], "cls": ["x", 4]}
ROBERTA = {
    "type": "RobertaProcessing",
    "sep": ["b", 3],
    "cls": ["a", 2],
    "trim_offsets": True,
    "add_prefix_space": True,
}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}


@pytest.mark.parametrize(
    "processors",
    [[], [TEMPLATE], [BERT], [ROBERTA], [BERT, ROBERTA], [ROBERTA, BERT], [TEMPLATE, BERT], [PREFIX_TEMPLATE, ROBERTA],
     [PREFIX_TEMPLATE, TEMPLATE], [TEXT_TEMPLATE, TEMPLATE], [BYTE_LEVEL, TEMPLATE], [TEMPLATE, BYTE_LEVEL]],
)  # fmt: skip
def test_a_row_gets_the_ids_around_it_that_the_tool_puts(processors):
    file = tokenizer_file(post_processor=sequence("processors", *processors))
    model = load(file)
    assert [*model.prefix_ids, 1, *model.suffix_ids] == tool(file).encode(MARK).ids
    if len(processors) == 1:
        assert load(file | {"post_processor": processors[0]}).suffix_ids == model.suffix_ids


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (TEMPLATE | {"single": []}, "puts the text 0 times"),
        (TEMPLATE | {"single": TEMPLATE["single"] * 2}, "puts the text 2 times"),
        (TEMPLATE | {"single": [{"Sequence": {"id": "B", "type_id": 0}}]}, "neither that text nor one of its"),
        (TEMPLATE | {"special_tokens": {}}, "neither that text nor one of its"),
        (TEMPLATE | {"single": "[CLS] $A"}, "not a list"),
        (sequence("processors", TEMPLATE, TEMPLATE), "after another"),
        (BERT | {"sep": ["y", 50]}, "adds the id 50; this model has ids 0 to 6"),
        (BERT | {"sep": "y"}, "sep = 'y'"),
        ({"type": "PairProcessing"}, "unknown type 'PairProcessing'"),
        ({"type": "Sequence"}, "a Sequence whose processors are None"),
    ],
)
def test_post_processors_that_cannot_be_are_named(processor, message):
    with pytest.raises(ValueError, match=rf"t\.json: the post-processor .*{message}"):
        load(tokenizer_file(post_processor=processor))


TO_SPACE = {"type": "Replace", "pattern": {"String": MARK}, "content": " "}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
DECODERS = {
    "none": None,
    "Metaspace": METASPACE,
    "never": METASPACE | {"prepend_scheme": "never"},
    "bytes": sequence("decoders", TO_SPACE, BYTES, FUSE, STRIP),
    "bytes, Metaspace": sequence("decoders", BYTES, METASPACE),
    "not fused": sequence("decoders", TO_SPACE, STRIP | {"start": 2}),
    "fused first": sequence("decoders", FUSE, METASPACE, TO_SPACE),
    "stop": sequence("decoders", TO_SPACE, FUSE, STRIP | {"content": "a", "stop": 2}),
    "nothing in sequence": sequence("decoders"),
}  # fmt: skip
RUN_BY_THE_TOOL = {
    "ByteLevel": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "WordPiece": {"type": "WordPiece", "prefix": MARK, "cleanup": True},
    "BPEDecoder": {"type": "BPEDecoder", "suffix": MARK},
    "CTC": {"type": "CTC", "pad_token": "a", "word_delimiter_token": MARK, "cleanup": True},
    "a regex": {"type": "Replace", "pattern": {"Regex": "[0-9▁]+"}, "content": "-"},
    "among others": sequence(
        "decoders", TO_SPACE, {"type": "Replace", "pattern": {"Regex": " +"}, "content": "_"}, FUSE
    ),
}
DECODERS |= RUN_BY_THE_TOOL
SPOKEN = ["<unk>", MARK, "a", MARK + "a" + MARK, MARK * 2 + "b", "<0xE3>", "<0x81>", "<0x82>", "<0x41>", "<0x+1>",
          "<0x4>", "<0xzz>", " ", "  a", "<s>"]  # fmt: skip


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=60)
@given(ids=st.lists(st.integers(0, len(SPOKEN)), max_size=9))
def test_rows_decode_as_in_the_tool(name, ids):
    file = with_model(vocab=[[piece, -1.0] for piece in SPOKEN], byte_fallback=True)
    added = [added_token(14, "<s>", special=True), added_token(15, "ＮEW", normalized=True)]
    file |= {"decoder": DECODERS[name], "added_tokens": added, "normalizer": LOWERCASE}
    if name == "stop":
        ids = [*ids, 4, 4]
    model = load(file)
    vocabulary, chain = model.vocabulary, model.decoder.chain
    assert chain is not None
    spoken = [vocabulary.names[i] for i in ids if vocabulary.kinds[i] != Kind.CONTROL]
    assert chain(spoken) == tool(file).decode(ids)


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (METASPACE | {"add_prefix_space": False}, "contradict"),
        (METASPACE | {"prepend_scheme": {}}, "prepend_scheme {}"),
        (METASPACE | {"split": 1}, "Metaspace has split = 1, not a bool or NoneType"),
        (TO_SPACE | {"pattern": "a"}, "Replace has pattern = 'a', not a dict"),
        (STRIP | {"start": True}, "Strip has start = True, not a int"),
        ({"type": ["Fuse"]}, r"a component of the type \['Fuse'\], which is not a name"),
        (["Fuse"], "not an object"),
    ],
)
def test_broken_decoders_are_named(decoder, message):
    with pytest.raises(ValueError, match=rf"t\.json: the decoder .*{message}"):
        load(tokenizer_file(decoder=decoder))


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ({"type": "Rot13"}, "tokenizers cannot load it"),
        (sequence("decoders", FUSE, {"type": "Rot13"}), "tokenizers cannot load it"),
        ({"type": "Replace", "pattern": {"Regex": "("}, "content": ""}, "tokenizers cannot load it"),
        (sequence("decoders", FUSE, TO_SPACE | {"pattern": {"Regex": "(a+)+b"}}), "tokenizers cannot run it"),
    ],
)
def test_a_decoder_that_nothing_can_run_is_an_error_only_when_text_is_decoded(decoder, message):
    tokenizer = Tokenizer(load(tokenizer_file(decoder=decoder)), device="cpu")
    assert tokenizer.encode("ab").tolist() == [[4]]
    with pytest.raises(ValueError, match=rf"^t\.json: the decoder .*(Rot13|Replace).*{message}"):
        tokenizer.decode([2] * 40)


def test_without_the_package_a_decoder_that_needs_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    chain = load(tokenizer_file(decoder={"type": "BPEDecoder", "suffix": "</w>"})).decoder.chain
    with pytest.raises(ImportError, match=r"t\.json: the decoder .*BPEDecoder.*gpu-lattice\[hf\]"):
        chain(["a"])


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"model": {"vocab": {"a": 0}, "max_input_chars_per_word": 9}}, "holds a WordPiece model"),
        ({"model": {"vocab": {"a": 0}}}, "holds a WordLevel model"),
        ({"model": None}, "its model is None"),
        ({"version": "1.0"}, "has no model"),
        ({"unk_id": 0, "vocab": PIECES}, "is a bare model"),
        ([1], "holds a JSON list"),
        (tokenizer_file(version="2.0"), "version '2.0'"),
        (tokenizer_file(extra=1), "unknown key 'extra'"),
        (with_model(vocab=[]), "its vocab is"),
        (with_model(vocab={"a": 0}), "its vocab is"),
        (with_model(vocab=[["a", 1.0], ["b"]]), "entry 1 of the vocab"),
        (with_model(vocab=[["a", True]]), "entry 0 of the vocab"),
        (with_model(vocab=[["a", "1"]]), "entry 0 of the vocab"),
        (with_model(vocab=[["a", 1.0], ["", 0.0]]), "piece 1 is empty"),
        (with_model(vocab=[["\ud800", 1.0]]), "surrogate"),
        (with_model(unk_id=7), "unk_id is 7"),
        (with_model(unk_id=-1), "unk_id is -1"),
        (with_model(unk_id=True), "unk_id is True"),
        (with_model(byte_fallback=1), "byte_fallback is 1"),
        (tokenizer_file(added_tokens=None), "added_tokens is None"),
        (tokenizer_file(added_tokens=[{"id": 3, "content": "x"}]), "entry 0 of added_tokens"),
        (
            tokenizer_file(added_tokens=[added_token(9, "x"), added_token(10, "y") | {"id": []}]),
            "must have a content and an id",
        ),
        (tokenizer_file(normalizer={"type": "Spelling"}), "unknown type 'Spelling'"),
        (tokenizer_file(normalizer=sequence("normalizers", *[LOWERCASE] * 11)), "has 11 parts; at most 10 are run"),
        (
            tokenizer_file(pre_tokenizer=sequence("pretokenizers", *[BYTE_LEVEL] * 30)),
            "has 30 parts; at most 10 are run",
        ),
        (tokenizer_file(decoder=sequence("decoders", *[FUSE] * 11)), "has 11 parts; at most 10 are run"),
        (tokenizer_file(normalizer=sequence("normalizers", *[GROW] * 9)), "more than 262144 characters from one"),
        (tokenizer_file(decoder=sequence("decoders", *[GROW] * 9)), "more than 262144 characters from one"),
        (tokenizer_file(normalizer={"type": ["NFC"]}), r"unknown type \['NFC'\]"),
        (tokenizer_file(pre_tokenizer=METASPACE | {"prepend_scheme": {}}), "prepend_scheme {}"),
        (tokenizer_file(pre_tokenizer=METASPACE | {"split": "no"}), "Metaspace has split = 'no'"),
        (tokenizer_file(pre_tokenizer=METASPACE | {"add_prefix_space": 0}), "Metaspace has add_prefix_space = 0"),
        (tokenizer_file(normalizer={"type": "Prepend", "prepend": "\ud800"}), "half of a surrogate pair, in .*Prepend"),
        (tokenizer_file(added_tokens=[added_token(9, "a\udc00")]), "half of a surrogate pair"),
        (tokenizer_file(truncation=5), "truncation = 5"),
        (tokenizer_file(truncation={"max_length": "5"}), "max_length = '5', not a int"),
        (tokenizer_file(truncation={"max_length": 5, "direction": "Up"}), "the direction 'Up'"),
        (tokenizer_file(truncation={"max_length": -1}), "truncation has max_length = -1"),
        (tokenizer_file(truncation={"max_length": 2**63}), "truncation has max_length = 9223372036854775808"),
        (tokenizer_file(padding={"pad_id": 99}), "pads with the id 99"),
        (tokenizer_file(post_processor=BERT | {"sep": ["y", True]}), "sep = "),
        (tokenizer_file(post_processor=sequence("processors", *[BERT] * 600)), "more than 1024 ids around"),
        (tokenizer_file(pre_tokenizer={"type": "FixedLength", "length": 0}), "FixedLength has length = 0"),
        (
            tokenizer_file(added_tokens=[added_token(9, "\n", normalized=True)], normalizer=STRIP_RIGHT),
            r"the added token '\\n' is empty after normalization",
        ),
        (
            tokenizer_file(
                added_tokens=[added_token(9, "\n", normalized=True)],
                normalizer=sequence("normalizers", LOWERCASE, STRIP_RIGHT),
            ),
            r"the added token '\\n' is empty after normalization",
        ),
    ],
)
def test_files_that_cannot_be_are_named(file, message):
    with pytest.raises(ValueError, match=rf"t\.json.*{message}"):
        load(file)


@pytest.mark.parametrize("score", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, "1.7e308", "-1.7e308"])
def test_scores_and_their_sums_must_be_finite(score):
    data = json.dumps(tokenizer_file()).replace("-2.25", score).encode()
    with pytest.raises(ValueError, match=r"t\.json.*(not a number|must be finite)"):
        read(data, "t.json")


def numbers(rng):
    """Numbers in JSON: as programs write scores, and of any length."""

    def digits(at_most):
        return "".join(rng.choices("0123456789", k=rng.randint(1, at_most)))

    while True:
        sign, whole = rng.choice(["", "-"]), rng.choice([str(int(digits(25))), str(2**64 - 3 + rng.randrange(6))])
        fraction = rng.choice(["", ".", ".", "." + "0" * rng.randrange(30)])
        exponent = rng.choice(["", "", rng.choice(["e", "E-", "e+0"]) + str(rng.choice([rng.randrange(30), 307, 330]))])
        text = sign + whole + fraction + (digits(30) if fraction else "") + exponent
        yield repr(-rng.expovariate(1 / 9))
        if abs(float(text)) < sys.float_info.max / 2:
            yield text


def test_scores_are_read_as_the_tool_reads_them():
    texts = [text for text in itertools.islice(numbers(random.Random(1)), 5000) if abs(float(text)) <= LARGEST_SCORE]
    vocab = [[f"piece {i}", f"<{i}>"] for i in range(len(texts))]
    data = re.sub(r'"<(\d+)>"', lambda match: texts[int(match[1])], json.dumps(with_model(vocab=vocab, unk_id=0)))
    expected = [score for _, score in json.loads(Tool.from_str(data).to_str())["model"]["vocab"]]
    assert read(data.encode(), "t.json").vocabulary.scores.tolist() == expected
    assert sum(float(text) != score for text, score in zip(texts, expected, strict=True)) > 500


def test_damaged_files_are_named_wherever_the_damage_is():
    data = json.dumps(tokenizer_file(added_tokens=ADDED, pre_tokenizer=METASPACE), ensure_ascii=False).encode()
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"t\.json"):
            read(data[:size], "t.json")


def test_a_file_with_one_wrong_byte_is_read_or_named():
    data = json.dumps(tokenizer_file(added_tokens=ADDED, pre_tokenizer=METASPACE), ensure_ascii=False).encode()
    random.seed(3)
    errors = []
    for _ in range(300):
        damaged = bytearray(data)
        damaged[random.randrange(len(data))] = random.randrange(256)
        try:
            read(bytes(damaged), "t.json")
        except ValueError as error:
            errors.append(str(error))
    assert len(errors) > 100
    assert all(error.startswith("t.json") for error in errors)


def test_deep_nesting_is_an_error_of_the_file():
    with pytest.raises(ValueError, match=r"t\.json.*nested too deep"):
        read(b'{"model": ' + b"[" * 100_000, "t.json")


@pytest.mark.parametrize(
    ("part", "members"),
    [("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers"), ("post_processor", "processors"),
     ("decoder", "decoders")],
)  # fmt: skip
def test_sequences_in_sequences_are_read_or_refused(part, members):
    data = json.dumps(tokenizer_file(**{part: sequence(members)}))
    outer = f'{{"type": "Sequence", "{members}": ['
    for depth in (10, 200, 300, 400, 600, 900, 20_000):
        deep = data.replace(outer + "]}", outer * depth + "]}" * depth).encode()
        # How deep is too deep depends on who asks.
        with nullcontext() if depth == 10 else suppress(ValueError):
            read(deep, "t.json")


def test_a_long_added_token_takes_no_more_memory_than_its_bytes():
    content = "".join(random.Random(1).choices("abcdefgh", k=1 << 16))
    tokens = [added_token(7, content), added_token(8, content[:-1] + "x"), added_token(9, content[1000:])]
    data = json.dumps(tokenizer_file(added_tokens=tokens)).encode()
    tracemalloc.start()
    normalizer = read(data, "t.json").normalizer
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20
    batch = normalizer(TextBatch.from_texts([f"a{content}b{content[1000:]}", content[:-1] + "y"]))
    assert batch.chunk_ids.tolist() == [-1, 7, -1, 9, -1]


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        (json.dumps(tokenizer_file()).encode(), True),
        (json.dumps(tokenizer_file(), indent=2).encode(), True),
        (b'{"added_tokens": [', True),
        (b'{"model":{"type":"BPE"', True),
        (b'{"type":"Unigram","vocab":[]}', True),
        (b'{"vocab":[["a",0.5]]}', True),
        (b'{"bW9kZWw=": [0, "model", 5]}', False),
        (b'{"type": [0, "x", 5]}', False),
        (b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02", False),
        (b"", False),
        (b"[]", False),
    ],
)
def test_the_format_is_told_from_its_first_bytes(data, is_one):
    assert looks_like(data) == is_one


@pytest.mark.parametrize("model", ["en8k", "ja8k_nosplit"])
def test_real_files_are_read_as_by_the_tool(shared_data, model):
    data = (shared_data / "models" / f"{model}.tokenizer.json").read_bytes()
    assert looks_like(data)
    vocabulary, peer = read(data, model).vocabulary, Tool.from_str(data.decode())
    assert vocabulary.id_of == peer.get_vocab()
    assert vocabulary.names == [peer.id_to_token(i) for i in range(peer.get_vocab_size())]
    assert vocabulary.scores.tolist() == [score for _, score in json.loads(peer.to_str())["model"]["vocab"]]
