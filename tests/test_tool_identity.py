"""`encode` and `decode` against the tools that the models come from: sentencepiece, tokenizers and bytepiece."""

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_reference import encode_ids
from conftest import DATA
from handmade import (
    SYMBOLS,
    hugging_face_file,
    random_hugging_face_file,
    random_pieces,
    random_sentencepiece_model,
    sentencepiece_model,
    tokenizer_of,
)

from gpu_lattice import Tokenizer

EXPECTED = json.loads((DATA / "expected.json").read_text("utf-8"))
Encode = Callable[[list[str]], list[list[int]]]
Decode = Callable[[list[list[int]]], list[str]]
VERSIONS = {"sentencepiece": "0.2.3", "tokenizers": "0.23.3", "bytepiece": "0.6.3"}

SENTENCEPIECE = ["mix32k", "en8k", "ja8k", "zh8k_bytefb", "en4k_suffix", "en_identity_uds", "en_nmt_cf",
                 "botchan_en_unigram_1000"]  # fmt: skip
HUGGING_FACE = ["en8k", "ja8k_nosplit"]
BYTEPIECE = ["bytepiece.plus.40k", "bytepiece_80k", "bytepiece.eu.plus.160k"]
TEXTS = ["wikitext2_valid", "shakespeare", "botchan", "wagahai", "chinese_msr", "code_python"]


def tool(name: str) -> Any:
    """The tool's module; a skip that says why where it is absent or another version."""
    module = pytest.importorskip(name, reason=f"{name} is not installed")
    version = getattr(module, "__version__", None)
    if version != VERSIONS[name]:
        pytest.skip(f"{name} {version} is installed; the ids are those of {VERSIONS[name]}")
    return module


def lines(name: str) -> list[str]:
    return (DATA / name).read_bytes().decode().split("\n")


@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: f"{case['model']}-{case['text']}")
def test_small_models_give_the_ids_of_their_tools(case: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_file(DATA / case["model"], device="cpu")
    assert tokenizer.encode(lines(case["text"])).tolist() == case["ids"]


class Tool:
    """encode and decode of a file's own tool, whichever it is."""

    def __init__(self, path: Path) -> None:
        if path.name.endswith(".tokenizer.json"):
            file = tool("tokenizers").Tokenizer.from_file(str(path))
            self.encode: Callable[[list[str]], list[list[int]]] = lambda texts: [
                e.ids for e in file.encode_batch(texts)
            ]
            self.decode: Decode = file.decode_batch
        elif path.suffix == ".model":
            processor = tool("sentencepiece").SentencePieceProcessor(model_file=str(path))
            self.encode, self.decode = processor.encode, lambda rows: [processor.decode(row) for row in rows]
        else:
            piece = tool("bytepiece").Tokenizer(json.loads(bytepiece_json(path)))
            self.encode = lambda texts: [piece.encode(text) for text in texts]
            self.decode = lambda rows: [piece.decode(row) for row in rows]


def bytepiece_json(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.read(archive.namelist()[0])
    return data


MODELS = sorted({case["model"] for case in EXPECTED})


@pytest.mark.parametrize("name", MODELS)
def test_small_models_decode_as_their_tools_do(name: str) -> None:
    """Best segmentations, samples, and ids in no order at all."""
    own, tokenizer = Tool(DATA / name), Tokenizer.from_file(DATA / name, device="cpu")
    texts = [line for text in ("en.txt", "ja.txt", "zh.txt", "odd.txt") for line in lines(text)]
    rows = tokenizer.encode(texts).tolist() + tokenizer.sample(texts, seed=1, num_samples=2).tolist()
    generator = random.Random(4)
    rows += [[generator.randrange(tokenizer.vocab_size) for _ in range(12)] for _ in range(500)]
    rows += [[i] for i in range(tokenizer.vocab_size)] + [[]]
    ours, theirs = tokenizer.decode(rows), own.decode(rows)
    assert [(row, a, b) for row, a, b in zip(rows, ours, theirs, strict=True) if a != b] == []


LOSSLESS = ["default", "bytepiece.json", "ja_bytes.model", "zh_bytes.model", "ja_whole.tokenizer.json"]


@pytest.mark.parametrize("name", LOSSLESS)
def test_samples_of_models_that_spell_anything_decode_to_the_normalized_text(name: str) -> None:
    tokenizer = Tokenizer.default(device="cpu") if name == "default" else Tokenizer.from_file(DATA / name, device="cpu")
    texts = [line for text in ("en.txt", "ja.txt", "zh.txt", "odd.txt") for line in lines(text)]
    best = tokenizer.decode(tokenizer.encode(texts))
    for alpha in (0.0, 0.2, 1.0):
        assert tokenizer.decode(tokenizer.sample(texts, alpha=alpha, seed=3)) == best
    if name == "default":
        assert [text for text, out in zip(texts, best, strict=True) if text != out and "▁" not in text] == []
    strip = {None: "", "prefix": " ", "leading": " "}[tokenizer._model.decoder.strip]
    for text, normalized in zip(best, tokenizer.normalize(texts).tolist(), strict=True):
        assert normalized is not None
        if b"<" in normalized:  # names of control and byte pieces, which some tools find in texts
            continue
        spelled = normalized.decode().replace("▁", " ")
        assert text.replace("▁", " ") == (spelled[1:] if strip and spelled.startswith(strip) else spelled)


def documents(text: str, form: str) -> list[str]:
    if form == "lines":
        return text.split("\n")
    size = {"4 KB": 4096, "whole": len(text)}[form]
    return [text[i : i + size] for i in range(0, len(text), size)]


def texts_under(shared_data: Path) -> Iterator[tuple[str, str]]:
    for name in TEXTS:
        yield name, (shared_data / "text" / f"{name}.txt").read_bytes().decode(errors="replace")


def differing(ours: list[list[int] | None], theirs: list[list[int]]) -> list[int]:
    return [i_doc for i_doc, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]


@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_real_sentencepiece_models_and_texts(name: str, shared_data: Path) -> None:
    path = shared_data / "models" / f"{name}.model"
    own, tokenizer = Tool(path), Tokenizer.from_file(path, device="cpu")
    for text_name, text in texts_under(shared_data):
        for form in ("lines", "4 KB", "whole"):
            docs = documents(text, form)
            assert differing(tokenizer.encode(docs).tolist(), own.encode(docs)) == [], (text_name, form)


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_real_hugging_face_models_and_texts(name: str, shared_data: Path) -> None:
    path = shared_data / "models" / f"{name}.tokenizer.json"
    own, tokenizer = Tool(path), Tokenizer.from_file(path, device="cpu")
    for text_name, text in texts_under(shared_data):
        for form in ("lines", "4 KB", "whole"):
            docs = documents(text, form)
            assert differing(tokenizer.encode(docs).tolist(), own.encode(docs)) == [], (text_name, form)


@pytest.mark.parametrize("name", BYTEPIECE)
def test_real_bytepiece_models_and_texts(name: str, shared_data: Path) -> None:
    """50,000 characters of each text: the tool does half a megabyte a second."""
    path = shared_data / "models" / f"{name}.zip"
    own, tokenizer = Tool(path), Tokenizer.from_file(path, device="cpu")
    for text_name, text in texts_under(shared_data):
        for form, size in (("lines", 25_000), ("4 KB", 25_000), ("whole", 50_000)):
            docs = documents(text[:size], form)
            assert differing(tokenizer.encode(docs).tolist(), own.encode(docs)) == [], (text_name, form)


@pytest.fixture(scope="module")
def vectors(shared_data: Path) -> dict[str, Any]:
    return json.loads((shared_data / "vectors.json").read_text("utf-8"))  # type: ignore[no-any-return]


def test_vectors_of_sentencepiece(vectors: dict[str, Any], tmp_path: Path) -> None:
    for group in vectors["viterbi"]:
        pieces = [tuple(piece) for piece in group["pieces"]]
        tokenizer = tokenizer_of(sentencepiece_model(pieces, **group["options"]), tmp_path)
        texts = [case["text"] for case in group["cases"]]
        expected = [case["ids"] for case in group["cases"]]
        assert tokenizer.encode(texts).tolist() == expected, group["name"]
        assert encode_ids(tokenizer, texts) == expected, group["name"]


@pytest.mark.parametrize("name", ["byte_fallback", "encode2"])
def test_vectors_of_hugging_face(name: str, vectors: dict[str, Any], tmp_path: Path) -> None:
    group = vectors["hf"][name]
    data = hugging_face_file(group["vocab"], group["unk_id"], byte_fallback=name == "byte_fallback")
    tokenizer = tokenizer_of(data, tmp_path)
    texts = [text for text, _ in group["cases"]]
    expected = [[token[0] for token in tokens] for _, tokens in group["cases"]]
    assert tokenizer.encode(texts).tolist() == expected
    assert encode_ids(tokenizer, texts) == expected


@pytest.mark.parametrize("seed", range(20))
def test_random_sentencepiece_models_with_every_kind_of_piece(seed: int, tmp_path: Path) -> None:
    own = tool("sentencepiece").SentencePieceProcessor()
    generator = random.Random(seed)
    data = random_sentencepiece_model(generator, byte_fallback=seed % 3 == 0)
    own.load_from_serialized_proto(data)
    tokenizer = tokenizer_of(data, tmp_path)
    texts = ["".join(generator.choices(SYMBOLS + "?😀s>", k=generator.randint(0, 30))) for _ in range(200)]
    theirs = own.encode(texts)
    assert differing(tokenizer.encode(texts).tolist(), theirs) == []
    assert differing(encode_ids(tokenizer, texts), theirs) == []


@pytest.mark.parametrize("seed", range(20))
def test_random_hugging_face_models_with_the_unknown_piece_in_texts(seed: int, tmp_path: Path) -> None:
    module = tool("tokenizers")
    generator = random.Random(seed)
    data = random_hugging_face_file(generator, "<u>" if seed % 2 else "u", byte_fallback=seed % 3 == 0)
    own, tokenizer = module.Tokenizer.from_str(data.decode()), tokenizer_of(data, tmp_path)
    texts = ["".join(generator.choices(SYMBOLS + "?u>😀", k=generator.randint(0, 30))) for _ in range(200)]
    theirs = [own.encode(text).ids for text in texts]
    assert differing(tokenizer.encode(texts).tolist(), theirs) == []
    assert differing(encode_ids(tokenizer, texts), theirs) == []


def test_a_byte_fallback_model_without_an_unknown_piece(tmp_path: Path) -> None:
    own = tool("sentencepiece").SentencePieceProcessor()
    pieces = [(f"<0x{byte:02X}>", 0.0, "BYTE") for byte in range(256)] + [("a", -1.0, "NORMAL")]
    data = sentencepiece_model(pieces, byte_fallback=True)
    own.load_from_serialized_proto(data)
    tokenizer = tokenizer_of(data, tmp_path)
    assert tokenizer.encode(["aéa"]).tolist() == own.encode(["aéa"])


def test_long_documents_with_resets_of_the_sums(tmp_path: Path) -> None:
    """Scores so low that SentencePiece subtracts them many times, at many places within a piece's length."""
    own = tool("sentencepiece").SentencePieceProcessor()
    generator = random.Random(1)
    pieces = [("<unk>", 0.0, "UNKNOWN")]
    pieces += [(piece, -generator.uniform(1, 60_000), "NORMAL") for piece in random_pieces(generator, "abc", 40)]
    data = sentencepiece_model(pieces)
    own.load_from_serialized_proto(data)
    tokenizer = tokenizer_of(data, tmp_path)
    texts = ["".join(generator.choices("abcd", k=400)) for _ in range(300)]
    theirs = own.encode(texts)
    assert differing(tokenizer.encode(texts).tolist(), theirs) == []
    assert differing(encode_ids(tokenizer, texts[:5]), theirs[:5]) == []


def test_sampling_counts_the_characters_of_user_defined_symbols_and_encoding_their_bytes(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0, "UNKNOWN"), ("猫", 0.0, "USER_DEFINED"), ("x", -1.0, "NORMAL"), ("猫x", -0.9, "NORMAL")]
    tokenizer = tokenizer_of(sentencepiece_model(pieces), tmp_path)
    assert tokenizer.encode("猫x").tolist() == [[1, 2]]
    out = tokenizer.sample("猫x", alpha=5, num_samples=2000, seed=1, return_log_prob=True)
    two = np.diff(out.offsets) == 2
    assert out.log_prob is not None
    assert np.exp(out.log_prob[two][0]) == pytest.approx(1 / (1 + np.exp(5 * 0.1)), rel=1e-6)
