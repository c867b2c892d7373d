"""The model and corpus that ship with the package: there, small, readable, lossless, and of stated origin."""

import re
import runpy
from collections.abc import Iterator
from importlib import resources

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece

DATA = resources.files("gpu_lattice") / "data"


@pytest.fixture(scope="module")
def corpus() -> pa.Table:
    with resources.as_file(DATA / "corpus.parquet") as path:
        return pq.read_table(path)


@pytest.fixture(scope="module")
def model() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=(DATA / "default.model").read_bytes())


def readme_rows(heading: str) -> Iterator[list[str]]:
    """Cells of the table rows under a heading of the data's README."""
    section = (DATA / "README.md").read_text("utf-8").split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    for line in section.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(("name", "max_bytes"), [("corpus.parquet", 1_500_000), ("default.model", 400_000)])
def test_shipped_files_stay_small(name: str, max_bytes: int) -> None:
    assert 0 < len((DATA / name).read_bytes()) <= max_bytes


def test_corpus_has_the_documented_columns_and_no_holes(corpus: pa.Table) -> None:
    assert corpus.schema.remove_metadata() == pa.schema(
        [("id", pa.int64()), ("text", pa.string()), ("language", pa.string()), ("source", pa.string())]
    )
    assert corpus["id"].to_pylist() == list(range(corpus.num_rows))
    assert [corpus[name].null_count for name in corpus.column_names] == [0, 0, 0, 0]
    assert all(text.strip() for text in corpus["text"].to_pylist())


def test_corpus_can_be_streamed_in_several_row_groups() -> None:
    with resources.as_file(DATA / "corpus.parquet") as path, pq.ParquetFile(path) as file:
        assert file.num_row_groups > 2


def test_corpus_holds_english_japanese_and_chinese(corpus: pa.Table) -> None:
    assert {"en", "ja", "zh"} <= set(corpus["language"].to_pylist())


def test_corpus_holds_no_markup_or_boilerplate_of_its_sources(corpus: pa.Table) -> None:
    marks = re.compile(r"Gutenberg|Aozora|青空文庫|［＃|《[ぁ-ん]+》|\x1b|<\w+[ >]|\\|Debian|\ufffd", re.IGNORECASE)
    assert [text for text in corpus["text"].to_pylist() if marks.search(text)] == []


def test_readme_says_origin_and_licence_of_every_source_and_counts_them_right(corpus: pa.Table) -> None:
    texts, names, languages = (corpus[name].to_pylist() for name in ("text", "source", "language"))
    counted: dict[str, list[str | int]] = {}
    for text, name, language in zip(texts, names, languages, strict=True):
        row = counted.setdefault(name, [language, 0, 0])
        row[1:] = int(row[1]) + 1, int(row[2]) + len(text)
    stated = {row[0].strip("`"): row[1:] for row in readme_rows("Sources")}
    assert {name: f"{row[0]} {row[1]:,} {row[2]:,}" for name, row in counted.items()} == {
        name: " ".join(row[:3]) for name, row in stated.items()
    }
    origins = " ".join(row[0] for row in readme_rows("Where the files came from"))
    assert set(re.findall(r"`([\w-]+)`", origins)) == set(counted)


def test_default_model_gives_back_every_document_of_the_corpus(
    corpus: pa.Table, model: sentencepiece.SentencePieceProcessor
) -> None:
    texts = corpus["text"].to_pylist()
    assert model.decode(model.encode(texts)) == texts


@pytest.mark.parametrize(
    "text",
    ["", " ", "\n", "  a  b  ", "\r\n\t", "\x00\x7f", "😀 é e\u0301 ﬁ Ａ", "<s></s><unk>", "नमस्ते", "\ufffd\U0010ffff"],
)
def test_default_model_gives_back_text_unlike_its_corpus(
    text: str, model: sentencepiece.SentencePieceProcessor
) -> None:
    assert model.decode(model.encode(text)) == text


def test_default_model_samples_decode_to_the_text_too(model: sentencepiece.SentencePieceProcessor) -> None:
    text = "A  new dawn:\n新しい朝が來た。"
    sampled = [model.encode(text, enable_sampling=True, alpha=0.1, nbest_size=-1) for _ in range(20)]
    assert len(set(map(tuple, sampled))) > 1
    assert set(model.decode(sampled)) == {text}


def test_default_model_is_a_unigram_of_8000_pieces_with_all_bytes_and_ascii(
    model: sentencepiece.SentencePieceProcessor,
) -> None:
    pieces = [model.id_to_piece(i) for i in range(model.vocab_size())]
    ascii_characters = {chr(code) for code in range(33, 127)} | {"\t", "\n", "\r", "▁"}
    assert len(pieces) == len(set(pieces)) == 8000
    assert sum(model.is_byte(i) for i in range(8000)) == 256
    assert ascii_characters <= set(pieces)


def test_digits_stand_alone_in_the_default_model(model: sentencepiece.SentencePieceProcessor) -> None:
    pieces = [model.id_to_piece(i) for i in range(model.vocab_size()) if not model.is_byte(i)]
    assert [piece for piece in pieces if re.search(r"\d", piece) and len(piece) > 1] == []


@pytest.mark.slow
def test_the_shipped_corpus_rebuilds_the_shipped_model_byte_for_byte(request: pytest.FixtureRequest) -> None:
    if sentencepiece.__version__ != "0.2.3":
        pytest.skip(f"sentencepiece {sentencepiece.__version__} trains other models than 0.2.3")
    tool = runpy.run_path(str(request.config.rootpath / "tools" / "make_default_model.py"))
    with resources.as_file(DATA / "corpus.parquet") as path:
        texts = pq.read_table(path)["text"].to_pylist()
    assert tool["train"](texts) == (DATA / "default.model").read_bytes()
