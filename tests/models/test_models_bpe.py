"""BPE models: canonical encoding as by the package tokenizers, and perfect samples of all segmentations."""

from __future__ import annotations

import json
import pickle
import random
import warnings
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from bpe_files import BYTE_PIECES, MODELS, corpus, trained
from brute_force import brute_force, counted, p_value
from conftest import DATA
from hf_files import added_token, texts
from hypothesis import given, settings
from tokenizers import Tokenizer as Tool

from gpu_lattice import Tokenizer
from gpu_lattice.cli import main
from gpu_lattice.models.hf_tokenizers import read
from gpu_lattice.text_batch import TextBatch
from gpu_lattice.tokenizer import _warn_of_alpha
from gpu_lattice.vocabulary import Kind

DRAWS = 100_000
LEAST_P = 1e-4
PLAIN = {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5, "<unk>": 6}
ODD = [
    "",
    " ",
    "  two  spaces\n\n \t\r\n",
    "I'M don't 'LL they'd 12345 3.14",
    "<|end|>x<|im_start|> <s>",
    "naïve e\u0301 ﬁ Ω",
    "👩\u200d🚀🇫🇮 漢字かな交じり文",
    "\x00\x7f\x85\u2028\ufeff\U0010ffff",
    "x = {'a': [1, 2]}  # 注釈\n\tif x:\n\t\tpass",
    "<0x41> ▁▁ ▁a<unk>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]


def made(name: str) -> tuple[Tokenizer, Tool]:
    text = json.dumps(trained(name))
    return Tokenizer(read(text.encode(), f"{name}.json"), device="cpu", threads=1), Tool.from_str(text)


def plain(**parts):
    model = {"type": "BPE", "vocab": PLAIN, "merges": ["a b", "b c", "ab c"]}
    return {"version": "1.0", "added_tokens": [], "model": model | parts}


def load(file):
    return read(json.dumps(file).encode(), "t.json")


@pytest.mark.parametrize("name", MODELS)
def test_encoding_is_the_tools_on_real_and_odd_text(name):
    tokenizer, tool = made(name)
    docs = [
        line for text in ("en", "ja", "zh", "odd") for line in (DATA / f"{text}.txt").read_text("utf-8").split("\n")
    ]
    docs = [*docs[::7], (DATA / "en.txt").read_text("utf-8")[:20_000], *ODD]
    out = tokenizer.encode(docs)
    wanted = tool.encode_batch(docs)
    assert out.tolist() == [encoding.ids for encoding in wanted]
    assert tokenizer.encode(docs).tolist() == out.tolist()
    assert tokenizer.decode(out) == tool.decode_batch([encoding.ids for encoding in wanted], skip_special_tokens=True)


@pytest.mark.parametrize("name", ["llama3", "qwen", "llama2", "fused", "unknown"])
def test_encoding_is_the_tools_on_generated_text(name):
    tokenizer, tool = made(name)

    @settings(max_examples=60)
    @given(texts)
    def check(text):
        assert tokenizer.encode([text]).tolist() == [tool.encode(text).ids]

    check()


@pytest.mark.parametrize("flags", [{}, {"single_word": True}, {"lstrip": True, "rstrip": True}, {"normalized": True}])
def test_added_tokens_are_cut_out_first_as_by_the_tool(flags):
    """Among them characters that stand for a byte each as pieces, and for themselves as tokens."""
    contents = ["new", "é", "Ġ", "Ã"]
    tokens = [added_token(0, "<|end|>", special=True), *(added_token(999, content, **flags) for content in contents)]
    file = trained("llama3") | {"added_tokens": tokens}
    docs = ["a new  newer new", " new <|end|>new", "ne w", "café Ġ aĠé", "Ãé Ã", "日本 ñ", "Ã©"]
    tokenizer, tool = Tokenizer(load(file), device="cpu"), Tool.from_str(json.dumps(file))
    out = tokenizer.encode(docs)
    assert out.tolist() == [encoding.ids for encoding in tool.encode_batch(docs)]
    assert tokenizer.verify(docs, out) is None
    assert tokenizer.verify(docs, tokenizer.sample(docs, alpha=0, num_samples=2, seed=0)) is None
    assert tokenizer.verify(["é"], tokenizer.encode(["Ġ"])) == 0


@pytest.mark.parametrize("name", ["gpt2", "llama2"])
def test_a_megabyte_without_a_boundary_is_encoded_as_by_the_tool(name):
    tokenizer, tool = made(name)
    draw = random.Random(22)
    docs = ["a" * 1_000_000, "".join(draw.choices("etaoinshrd", k=1_000_000))]
    assert tokenizer.encode(docs).tolist() == [encoding.ids for encoding in tool.encode_batch(docs)]


@pytest.mark.parametrize("settings_of_model", [{}, {"unk_token": "<unk>"}, {"unk_token": "<unk>", "fuse_unk": True}])
@pytest.mark.parametrize("merges", [["a b", "b c", "ab c"], ["b c", "a b", "b c"], ["b c", "a bc"], [["a", "b"]], []])
def test_small_models_encode_as_by_the_tool(settings_of_model, merges):
    file = plain(merges=merges, **settings_of_model)
    tool = Tool.from_str(json.dumps(file))
    docs = ["abcabcab", "bcbcabc", "cab", "aXYbZc", "XY", "abX<unk>c"]
    out = Tokenizer(load(file), device="cpu").encode(docs).tolist()
    assert out == [encoding.ids for encoding in tool.encode_batch(docs)]


def test_ids_may_have_gaps_and_the_names_are_the_tools():
    file = plain(vocab=PLAIN | {"ab": 9}) | {"added_tokens": [added_token(0, "<new>", special=True)]}
    file["model"]["vocab"] = {piece: i for piece, i in file["model"]["vocab"].items() if piece != "<unk>"}
    model, tool = load(file), Tool.from_str(json.dumps(file))
    assert model.vocabulary.names == [tool.id_to_token(i) or "" for i in range(10)]
    assert model.vocabulary.id_of == tool.get_vocab()
    assert Tokenizer(model, device="cpu").encode("abc<new>").tolist() == [tool.encode("abc<new>").ids]


def test_a_byte_level_vocabulary_is_one_of_bytes_without_scores():
    vocabulary = load(trained("llama3")).vocabulary
    assert vocabulary.symbols == "bytes"
    assert not vocabulary.scores.any()
    assert vocabulary.surfaces[vocabulary.id_of["Ġthe"]] == b" the"
    assert {vocabulary.surfaces[i] for i in np.flatnonzero(vocabulary.in_lattice)} >= {bytes([b]) for b in range(256)}
    assert not vocabulary.in_lattice[vocabulary.id_of["<|end|>"]]


def test_a_vocabulary_of_characters_spells_others_in_byte_pieces():
    vocabulary = load(trained("llama2")).vocabulary
    assert vocabulary.symbols == "characters"
    assert vocabulary.byte_ids.tolist() == [vocabulary.id_of[piece] for piece in BYTE_PIECES]
    assert not vocabulary.in_lattice[vocabulary.byte_ids].any()
    assert vocabulary.kinds[vocabulary.unk_id] == Kind.CONTROL


def bytes_in_lattice(tokenizer: Tokenizer) -> dict[bytes, float]:
    vocabulary = tokenizer.model.vocabulary
    return {vocabulary.surfaces[i]: 0.0 for i in np.flatnonzero(vocabulary.in_lattice)}


@pytest.mark.parametrize("text", ["the whale", "漢字"])
def test_samples_are_uniform_over_all_segmentations_of_the_pre_tokens(text):
    """Pre-tokens are sampled independently, so their path sets multiply; no piece crosses from one to the next."""
    tokenizer, _ = made("llama3")
    pieces = bytes_in_lattice(tokenizer)
    ids = np.flatnonzero(tokenizer.model.vocabulary.in_lattice)
    batch = tokenizer._normalize(TextBatch.from_texts([text]))
    chunks = [batch.values[a:b].tobytes() for a, b in pairwise(batch.chunk_offsets)]
    assert b"".join(chunks) == text.encode()
    probabilities = {(): 1.0}
    for chunk in chunks:
        every = brute_force(chunk, pieces).probabilities(0)
        probabilities = {
            (*front, *(int(ids[i]) for i in back)): p * q
            for front, p in probabilities.items()
            for back, q in every.items()
        }
    out = tokenizer.sample(text, alpha=0, num_samples=DRAWS, seed=22, return_log_prob=True)
    assert p_value(counted(out.tolist()), probabilities) > LEAST_P
    assert out.log_prob == pytest.approx(-np.log(len(probabilities)))
    lattice = tokenizer.lattice(text)
    assert list(lattice.num_paths()) == [len(probabilities)]
    assert set(map(tuple, tokenizer.nbest(text, len(probabilities)).tolist()[0])) == set(probabilities)
    assert lattice.log_prob([out.tolist()[0]], alpha=0) == pytest.approx(out.log_prob[0])


def test_sums_over_a_lattice_are_those_of_its_uniform_segmentations():
    tokenizer, _ = made("llama3")
    lattice = tokenizer.lattice("the whale 漢")
    n = int(lattice.num_paths()[0])
    paths = tokenizer.nbest("the whale 漢", n).tolist()[0]
    counts = np.bincount(np.concatenate(paths), minlength=tokenizer.vocab_size) / n
    assert lattice.expected_counts(alpha=0) == pytest.approx(counts)
    assert lattice.entropy(alpha=0) == pytest.approx(np.log(n)) == lattice.log_partition(alpha=0)


@pytest.mark.parametrize("name", MODELS)
def test_samples_spell_their_texts_and_the_canonical_ids_are_a_path(name):
    tokenizer, _ = made(name)
    docs = ["The whale, the WHALE!", "  12 apples' don't", "漢字かな 👩", "a<unk>b"]
    out = tokenizer.sample(docs, alpha=0, num_samples=3, seed=1)
    assert tokenizer.verify(docs, out) is None
    if name != "unknown":
        assert tokenizer.verify(docs, tokenizer.encode(docs)) is None
    if tokenizer.model.vocabulary.symbols == "bytes":
        assert tokenizer.lattice(docs).is_path(tokenizer.encode(docs)).all()
        assert tokenizer.decode(out) == [doc for doc in docs for _ in range(3)]


@pytest.mark.parametrize("byte_fallback", [True, False])
def test_a_piece_taken_out_is_merged_before_it_is_undone(byte_fallback):
    pieces = ["<unk>", "a", "b", "x", "ab", "xa", *BYTE_PIECES]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    file = plain(vocab=vocab, merges=["a b", "x a"], unk_token="<unk>", byte_fallback=byte_fallback)
    tokenizer = Tokenizer(load(file), device="cpu")
    assert tokenizer.encode("xab").pieces() == [["x", "ab"]]
    assert tokenizer.without(["ab"]).encode("xab").pieces() == [["x", "a", "b"]]


def test_pickled_tokenizers_give_the_same_ids():
    tokenizer, _ = made("qwen")
    again = pickle.loads(pickle.dumps(tokenizer))
    docs = ["The whale.", "漢字"]
    assert again.encode(docs).tolist() == tokenizer.encode(docs).tolist()
    assert again.sample(docs, alpha=0, seed=0).tolist() == tokenizer.sample(docs, alpha=0, seed=0).tolist()
    assert again.decode(again.encode(docs)) == docs


def test_an_alpha_above_zero_is_said_once_to_change_nothing():
    tokenizer, _ = made("gpt2")
    _warn_of_alpha.cache_clear()
    with pytest.warns(UserWarning, match="alpha changes nothing"):
        out = tokenizer.sample("The whale", alpha=0.5, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenizer.sample("The whale", alpha=7.0, seed=3).tolist() == out.tolist()
    assert tokenizer.sample("The whale", alpha=0, seed=3).tolist() == out.tolist()


def test_the_repr_says_what_runs_the_pre_tokenizer():
    assert "; compiled)" in repr(load(trained("gpt2")).normalizer)
    assert "compiled, but what NFC may change goes through the package" in repr(load(trained("qwen")).normalizer)
    spaces = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    other = load(trained("gpt2") | {"pre_tokenizer": spaces}).normalizer
    assert "not compiled, run by the package tokenizers: the pre-tokenizers are [ByteLevel]" in repr(other)


def test_what_the_tool_drops_is_dropped_by_encode_and_refused_by_sample_unless_its_word_may_stay(tmp_path, capsys):
    """Falcon, StarCoder and GPT-NeoX lack bytes that few texts have."""
    file = plain(vocab={"a": 0}, merges=[])
    tokenizer = Tokenizer(load(file), device="cpu")
    assert tokenizer.encode("aXa").tolist() == [[0, 0]]
    with pytest.raises(ValueError, match=r"document 0 cannot be spelled .* byte 2.* unspellable='best'"):
        tokenizer.sample("aXa", alpha=0, seed=0)
    kept = tokenizer.without([], unspellable="best")
    assert kept.sample(["aXa", "a"], alpha=0, seed=0).tolist() == kept.encode(["aXa", "a"]).tolist() == [[0, 0], [0]]
    assert tokenizer.without([]) is tokenizer
    (tmp_path / "t.json").write_text(json.dumps(file))
    (tmp_path / "a.txt").write_text("aXa\na\n")
    where = ["--model", str(tmp_path / "t.json"), "--device", "cpu", "--alpha", "0", "--unspellable", "best"]
    assert main(["encode", "aXa", "a", *where, "--output-format", "ids"]) == 0
    assert capsys.readouterr().out == "0 0\n0\n"
    assert main(["retokenize", str(tmp_path / "a.txt"), *where, "-o", str(tmp_path / "out")]) == 0
    assert pq.read_table(tmp_path / "out")["input_ids"].to_pylist() == [[0, 0], [0]]


def test_an_unknown_token_that_is_no_piece_is_an_error_where_it_is_needed():
    tokenizer = Tokenizer(load(plain(unk_token="[UNK]")), device="cpu")
    assert tokenizer.encode("abc").tolist() == [[5]]
    with pytest.raises(ValueError, match="document 1 cannot be spelled"):
        tokenizer.encode(["abc", "aX"])


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (plain(continuing_subword_prefix="##"), "continuing_subword_prefix = '##', which is not supported"),
        (plain(end_of_word_suffix="</w>"), "end_of_word_suffix = '</w>', which is not supported"),
        (plain(dropout=0.1), "dropout = 0.1, so that its encoding is random"),
        (plain(type="WordPiece"), "holds a WordPiece model"),
        (plain(type="WordLevel"), "holds a WordLevel model"),
        (plain(vocab=[["a", 0.0]]), "not an object of piece: id"),
        (plain(vocab={"a": -1}), "the id of 'a' is -1"),
        (plain(vocab={"a": True}), "the id of 'a' is True"),
        (plain(vocab={"a": 1 << 40}), "the id of 'a' is 1099511627776"),
        (plain(vocab={"a": 0, "b": 0}), "'a' and 'b' both have the id 0"),
        (plain(vocab={"a": 0, "": 1}), "piece 1 is empty"),
        (plain(merges=["a  b"]), "merge 0 is .*, not a pair"),
        (plain(merges=["a b", "b d"]), "merge 1 is of 'd', which is no piece"),
        (plain(merges=["a b", ["b", "c"]]), "its merges are not all"),
        (plain(merges={}), "its merges are {}, not a list"),
        (plain(merges=[["a", 1]]), "merge 0 is .*, not a pair"),
        (plain(fuse_unk=1), "fuse_unk is 1"),
        (plain(unk_token=3), "unk_token is 3"),
        (
            plain() | {"normalizer": {"type": "ByteLevel"}, "pre_tokenizer": {"type": "ByteLevel", "use_regex": False}},
            "ByteLevel is among the normalizer and pre-tokenizer 2 times",
        ),
        (
            plain(vocab={"a": 0, "b": 1, "ab": 3}, merges=[])
            | {"added_tokens": [added_token(2, "x"), added_token(3, "y"), added_token(4, "z")]},
            "the added token 'x' gets the next id, 3",
        ),
    ],
)
def test_what_is_not_covered_is_refused_by_name(file, message):
    with pytest.raises(ValueError, match=message):
        load(file)


@pytest.mark.parametrize("name", ["llama2", "llama3", "gpt4o"])
def test_vocabularies_of_thousands_encode_the_shipped_corpus_as_by_the_tool(name):
    text = json.dumps(trained(name, 8000))
    docs = [*corpus()[::5], "\n".join(corpus()[::9])]
    wanted = [encoding.ids for encoding in Tool.from_str(text).encode_batch(docs)]
    assert Tokenizer(read(text.encode(), name), device="cpu").encode(docs).tolist() == wanted


@pytest.mark.parametrize("name", ["llama3", "llama2"])
def test_rows_are_canonical_if_encode_gives_them(name):
    tokenizer, _ = made(name)
    docs = ["The whale, the whale", "12 漢字", "", None]
    best = tokenizer.encode(docs)
    assert tokenizer.is_canonical(best).tolist() == [True] * 4
    out = tokenizer.sample(docs[:2], alpha=0, seed=2)
    assert tokenizer.is_canonical(out).tolist() == [
        a == b for a, b in zip(out.tolist(), best.tolist()[:2], strict=True)
    ]
    assert tokenizer.canonical(out).tolist() == best.tolist()[:2]
    assert tokenizer.canonical(out[0]).tolist() == best.tolist()[:1]
    assert tokenizer.is_canonical([]).tolist() == [True]
    assert not tokenizer.is_canonical(best[1][:-1]).all()
