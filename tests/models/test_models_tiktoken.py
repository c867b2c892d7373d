"""Models without stated merges: tiktoken files, tekken.json and SentencePiece BPE, against their own tools."""

from __future__ import annotations

import base64
import io
import json
import pickle
import random

import pytest
import sentencepiece
from bpe_files import CL100K, trained
from conftest import DATA
from hf_files import texts
from hypothesis import given, settings
from sentencepiece_files import MODEL_TYPE, UNK, UNUSED, A, model_bytes, piece

from gpu_lattice import Tokenizer
from gpu_lattice.cli import main
from gpu_lattice.models.detect import read_model
from gpu_lattice.models.hf_tokenizers import read as read_json
from gpu_lattice.models.tiktoken import ENCODINGS, read_ranks

tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is absent: pip install 'gpu_lattice[test]'")

TEXTS = [(DATA / f"{name}.txt").read_text("utf-8") for name in ("en", "ja", "zh", "odd")]
LINES = [line for text in TEXTS for line in text.split("\n")][::5]
ODD = [
    "",
    "  two  spaces\n\n \t\r\n",
    "I'M don't 'LL 12345",
    "<|endoftext|>x",
    "👩\u200d🚀 e\u0301",
    "a" * 300,
    "the<x><x>then a e",
    "x \n  ",
    "a\n\n\t ",
]
BPE = {MODEL_TYPE: 2}


def ranks() -> dict[bytes, int]:
    """Tokens in the order in which a trainer made them."""
    vocabulary = read_json(json.dumps(trained("gpt2")).encode(), "gpt2.json").vocabulary
    tokens = [token for token, is_arc in zip(vocabulary.surfaces, vocabulary.in_lattice, strict=True) if is_arc]
    return {token: rank for rank, token in enumerate(tokens)}


def tiktoken_file() -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks().items())


def tekken_file(**parts) -> bytes:
    vocab = [
        {"rank": i, "token_bytes": base64.b64encode(token).decode(), "token_str": None} for token, i in ranks().items()
    ]
    config = {
        "pattern": CL100K,
        "num_vocab_tokens": len(vocab),
        "default_vocab_size": 420,
        "default_num_special_tokens": 20,
    }
    return json.dumps({"config": config, "vocab": vocab} | parts).encode()


def trained_bpe(**options) -> bytes:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=written,
        model_type="bpe",
        vocab_size=700,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return written.getvalue()


@pytest.mark.parametrize("encoding", ["gpt2", "cl100k_base", "o200k_harmony"])
def test_a_tiktoken_file_encodes_as_by_tiktoken(encoding, tmp_path):
    (tmp_path / "x.tiktoken").write_bytes(tiktoken_file())
    tokenizer = Tokenizer.from_tiktoken(tmp_path / "x.tiktoken", encoding=encoding, device="cpu", threads=1)
    pattern, specials = ENCODINGS[encoding]
    tool = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks(), special_tokens=specials)
    wanted = tool.encode_ordinary_batch([*LINES, *ODD])
    assert tokenizer.encode([*LINES, *ODD]).tolist() == wanted
    assert tokenizer.decode(wanted) == tool.decode_batch(wanted)
    assert tokenizer.vocab_size == tool.n_vocab
    cut = [row[:-1] for row in wanted]
    assert tokenizer.decode(cut) == tool.decode_batch(cut)
    assert Tokenizer.from_tiktoken(tool, device="cpu").encode([*LINES, *ODD]).tolist() == wanted
    with pytest.raises(ValueError, match="leave encoding and pattern out"):
        Tokenizer.from_tiktoken(tool, encoding=encoding)
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode(ODD).tolist() == tokenizer.encode(ODD).tolist()
    out = tokenizer.sample(ODD, alpha=0, num_samples=2, seed=0)
    assert tokenizer.verify(ODD, out) is None
    assert tokenizer.decode(out) == [text for text in ODD for _ in range(2)]


def test_a_digest_tells_what_was_said_of_a_tiktoken_file(tmp_path):
    path = tmp_path / "x.tiktoken"
    path.write_bytes(tiktoken_file())

    def digest(source=path, **what):
        return Tokenizer.from_tiktoken(source, device="cpu", **what).digest

    pattern, specials = ENCODINGS["gpt2"]
    tools = [tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks(), special_tokens=s) for s in (specials, {})]
    different = [digest(encoding="gpt2"), digest(encoding="cl100k_base"), digest(pattern=CL100K), digest(tools[1])]
    assert len(set(different)) == 4
    assert digest(tools[0]) == digest(encoding="gpt2")
    assert digest(pattern=CL100K, characters=True) != digest(pattern=CL100K)


def test_encodings_are_those_of_tiktoken(monkeypatch):
    from tiktoken_ext import openai_public as public

    for load in ("load_tiktoken_bpe", "data_gym_to_mergeable_bpe_ranks"):
        monkeypatch.setattr(public, load, lambda *_, **__: {})
    made = {name: make() for name, make in public.ENCODING_CONSTRUCTORS.items()}
    assert {name: (parts["pat_str"], parts["special_tokens"]) for name, parts in made.items()} == ENCODINGS


def test_a_megabyte_of_one_pre_token_is_encoded_as_by_tiktoken():
    model = read_ranks(tiktoken_file(), "x", None, CL100K)
    tool = tiktoken.Encoding("x", pat_str=CL100K, mergeable_ranks=ranks(), special_tokens={})
    text = "".join(random.Random(22).choices("etaoinshrd", k=100_000))
    assert Tokenizer(model, device="cpu").encode(text).tolist() == [tool.encode_ordinary(text)]
    rows = Tokenizer(model, device="cpu").encode(10 * text)
    assert Tokenizer(model, device="cpu").decode(rows) == [10 * text]


def test_a_tekken_file_is_told_by_content_and_encodes_as_tiktoken_with_its_special_ids_before():
    model = read_model(tekken_file(), "tekken.json")
    used = {token: rank for token, rank in ranks().items() if rank < 400}
    tool = tiktoken.Encoding("x", pat_str=CL100K, mergeable_ranks=used, special_tokens={})
    wanted = [[20 + i for i in row] for row in tool.encode_ordinary_batch([*LINES, *ODD])]
    tokenizer = Tokenizer(model, device="cpu")
    assert tokenizer.encode([*LINES, *ODD]).tolist() == wanted
    assert tokenizer.decode(wanted) == [*LINES, *ODD]
    assert [tokenizer.id_to_piece(i) for i in (0, 3, 19)] == ["<unk>", "[INST]", "[TOOL_CONTENT]"]
    assert tokenizer.vocab_size == 420


@pytest.mark.parametrize(
    "options",
    [
        {"byte_fallback": True, "character_coverage": 0.98},
        {"character_coverage": 0.98},
        {"normalization_rule_name": "identity", "add_dummy_prefix": False, "remove_extra_whitespaces": False},
        {"split_by_whitespace": False, "treat_whitespace_as_suffix": True},
        {"user_defined_symbols": ["the", "<x>", "th", " a", "e"], "byte_fallback": True},
    ],
)
def test_sentencepiece_bpe_encodes_as_by_sentencepiece(options):
    data = trained_bpe(**options)
    tool = sentencepiece.SentencePieceProcessor(model_proto=data)
    tokenizer = Tokenizer(read_model(data, "m.model"), device="cpu", threads=1)
    docs = [*LINES, *ODD]
    assert tokenizer.encode(docs).tolist() == tool.encode(docs)
    assert tokenizer.decode(tool.encode(docs)) == tool.decode(tool.encode(docs))
    assert not tokenizer.model.vocabulary.scores.any()

    @settings(max_examples=50)
    @given(texts)
    def check(text):
        assert tokenizer.encode([text]).tolist() == [tool.encode(text)]

    check()


def test_pieces_of_equal_score_merge_from_the_left():
    data = model_bytes(UNK, A, piece("b", -2.0), piece("ab", -5.0), piece("ba", -5.0), piece("▁", -9.0), trainer=BPE)
    tool = sentencepiece.SentencePieceProcessor(model_proto=data)
    for text in ("aba", "baba", "bab abab"):
        assert Tokenizer(read_model(data, "m"), device="cpu").encode(text).tolist() == [tool.encode(text)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (model_bytes(UNK, A, piece("b", 0.0, UNUSED), trainer=BPE), "piece 2, 'b', is unused"),
        (model_bytes(UNK, A, piece("ab"), trainer=BPE), "piece 'ab' holds a character that is no piece"),
        (tekken_file(vocab=[{"rank": 0, "token_bytes": "YQ=="}]), "the byte 0x00 has no token"),
        (tekken_file(special_tokens=[{"rank": 0, "token_str": 5}]), "is not a whole tekken.json"),
        (tekken_file(config={}), "is not a whole tekken.json"),
        (
            tekken_file(config={"pattern": "a", "default_vocab_size": 420, "default_num_special_tokens": 0.5}),
            "is not a whole tekken.json",
        ),
        (tiktoken_file(), "is a tiktoken file, .* use from_tiktoken"),
    ],
)
def test_files_that_are_not_covered_are_refused_by_name(data, message):
    with pytest.raises(ValueError, match=message):
        read_model(data, "m")


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"", ("cl100k_base", None), "the byte 0x00 has no token"),
        (tiktoken_file() + b"IQ==\n", ("cl100k_base", None), "line 601 is b'IQ==', not base64 and a rank"),
        (tiktoken_file() + b"IXh4eHg= 3\n", ("cl100k_base", None), "its rank is taken"),
        (tiktoken_file() + b"IXh4eHg= 99999999\n", ("cl100k_base", None), "far above all others"),
        (tiktoken_file(), ("cl99k", None), "encoding is 'cl99k'; known are gpt2"),
        (tiktoken_file(), (None, None), "give either encoding"),
        (tiktoken_file(), ("gpt2", "a"), "give either encoding"),
        (tiktoken_file(), (None, r"\p{N}{1,3}+"), r"the pattern has '\{1,3}\+', which"),
        (tiktoken_file(), (None, r"[^\s]+|\w"), r"the pattern has '\\\\w', which"),
        (tiktoken_file(), (None, r"[^\s$]+|\s+$"), r"the pattern has '\$', which"),
        (tiktoken_file(), (None, r"[[:alpha:]]"), r"the pattern has '\[:alpha:\]', which"),
        (tiktoken_file(), (None, "("), "tokenizers cannot load"),
    ],
)
def test_tiktoken_files_that_cannot_be_read_are_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        read_ranks(data, "x.tiktoken", *options)


def test_a_fit_that_no_file_can_hold_is_refused_before_the_work(tmp_path, capsys, monkeypatch):
    model, text = tmp_path / "tekken.json", tmp_path / "a.txt"
    model.write_bytes(tekken_file())
    text.write_text("a new dawn")
    monkeypatch.delattr(Tokenizer, "fit")
    assert main(["fit", str(text), "--model", str(model), "-o", str(tmp_path / "new"), "--device", "cpu"]) == 2
    assert capsys.readouterr().err.endswith("is in a format without scores (tiktoken); pickle the tokenizer\n")
