"""Make the small models, the texts and the expected ids under tests/data from the corpus that ships with the package.

The expected ids are what each model's own tool gives: sentencepiece 0.2.3, tokenizers 0.23.3, bytepiece 0.6.3.
The same tools give the same files on every run:

    python tools/make_test_models.py [--out tests/data]
"""

import argparse
import base64
import collections
import contextlib
import io
import itertools
import json
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import bytepiece
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sentencepiece
import tokenizers

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / "gpu_lattice" / "data" / "corpus.parquet"

Rules = Iterable[tuple[str, str]]

ODD_LINES = [
    "",
    " ",
    "a",
    "  two  spaces   at  every  place  ",
    "tab\tand\t\ttabs\t",
    "\u3000ideographic\u3000space\u3000",
    "no-break\u00a0space, thin\u2009space, zero\u200bwidth, joiner\u200d, \ufeffbyte order mark",
    "\u2581a \u2581\u2581b \u2581",
    "<s> </s> <unk> <pad> <0x41> <0xE3>",
    "<sep><ctl>First Citizen First First CitizenFirst",
    ".......... ---------- ======== aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "1234567890 3.14159 2025-01-01 12:34:56 １２３４ Ⅳ ½ ①",
    "THE KING IS DEAD. Straße ÄÖÜ ŜĜĴ ΑΒΓ ΣΟΦΟΣ ДОН İstanbul ǅ",
    "cafe\u0301 e\u0323\u0301 A\u030a \u212b ﬁne ﬂow ® ™ …",
    "ＦＵＬＬ　ＷＩＤＴＨ ｶﾞｷﾞｸﾞ ﾊﾟﾋﾟ ｱｲｳ ガキグ か\u3099",
    "한국어 \u1112\u1161\u11ab\u1100\u116e\u11a8 नमस्ते สวัสดี Привет שלום مرحبا",
    "😀 👩\u200d👩\u200d👧\u200d👦 🇯🇵 👍🏽 \U0001f9ff \U00020bb7 \ue000 \U000e0041",
    "bell\x07 escape\x1b[0m delete\x7f unit\x1f soft\u00adhyphen",
    'def f(x): return {"a": [x, 1.5], "b\\n": x**2 - 1}  # code',
    "https://example.org/a/b?c=d&e=%20#f mail@example.org",
    "日本語とEnglishと中文混ぜて123書く、「引用」。",
    "supercalifragilisticexpialidociousantidisestablishmentarianism",
]


def documents(languages: list[str], max_chars: int) -> list[str]:
    """The first documents of each language, in the order of the corpus."""
    table = pq.read_table(CORPUS)
    taken: list[str] = []
    for language in languages:
        texts = table.filter(pc.equal(table["language"], language))["text"].to_pylist()
        starts = itertools.accumulate(map(len, texts), initial=0)
        taken += [text for text, start in zip(texts, starts, strict=False) if start < max_chars]
    return taken


def sample_lines(language: str, num_bytes: int) -> list[str]:
    """Evenly spaced lines of a language's part of the corpus, about num_bytes in all."""
    lines = [line for text in documents([language], sys.maxsize) for line in text.split("\n") if 10 < len(line) < 160]
    return lines[:: sum(len(line.encode()) for line in lines) // num_bytes]


def width_rules() -> Iterator[tuple[str, str]]:
    """Full-width ASCII and half-width katakana to their usual forms, white space to a space, delete to nothing."""
    marks = {"ﾞ": "\u3099", "ﾟ": "\u309a"}
    for code in range(0xFF01, 0xFFA0):
        char = chr(code)
        if char in marks:
            continue
        yield char, unicodedata.normalize("NFKC", char)
        for half, combining in marks.items():
            voiced = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", char) + combining)
            if len(voiced) == 1:
                yield char + half, voiced
    yield from (("\u3000", " "), ("\t", " "), ("\u00a0", " "), ("\u2581", " "), ("\x7f", ""))


def case_rules() -> Iterator[tuple[str, str]]:
    """Latin, Greek and Cyrillic letters to their case-folded forms, marks composed, soft hyphens to nothing."""
    for code in itertools.chain(range(0x41, 0x250), range(0x370, 0x530)):
        folded = unicodedata.normalize("NFC", chr(code).casefold())
        if folded != chr(code):
            yield chr(code), folded
    yield from (("e\u0301", "é"), ("E\u0301", "é"), ("ﬁ", "fi"), ("ﬂ", "fl"), ("\u00ad", ""), ("\u3000", " "))


def train(texts: list[str], *, rules: Rules = (), **options: Any) -> bytes:
    """A serialized SentencePiece model, trained on one thread; rules replace the named normalization."""
    model = io.BytesIO()
    common = {"num_threads": 1, "shuffle_input_sentence": False, "max_sentence_length": 1 << 20, "minloglevel": 2}
    # The model keeps the rules' path: a relative one is the same on every run.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if rules:
            Path("rules.tsv").write_text("".join(f"{hex_codes(a)}\t{hex_codes(b)}\n" for a, b in rules), "utf-8")
            options["normalization_rule_tsv"] = "rules.tsv"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, **{**common, **options}
        )
    return model.getvalue()


def hex_codes(text: str) -> str:
    """Code points as SentencePiece's rule files write them."""
    return " ".join(f"{ord(char):X}" for char in text)


def sentencepiece_models() -> dict[str, bytes]:
    """{file name: model}, one for each thing that a reader must tell apart."""
    english = documents(["en"], 300_000)
    japanese, chinese = documents(["ja"], 60_000), documents(["zh"], 15_000)
    lossless: dict[str, Any] = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    symbols = ["<sep>", "First", "First Citizen", "ough", "\n", "、"]
    return {
        "en_nmt_nfkc.model": train(english, vocab_size=800),
        "en_casefold.model": train(english, vocab_size=600, rules=case_rules()),
        "en_suffix.model": train(
            english, vocab_size=600, treat_whitespace_as_suffix=True, normalization_rule_name="identity"
        ),
        "en_symbols.model": train(
            english, vocab_size=600, user_defined_symbols=symbols, control_symbols=["<ctl>"], **lossless
        ),
        "ja_bytes.model": train(
            japanese, vocab_size=2000, character_coverage=0.98, byte_fallback=True, rules=width_rules()
        ),
        "zh_bytes.model": train(
            chinese, vocab_size=2200, character_coverage=0.98, byte_fallback=True, add_dummy_prefix=False, **lossless
        ),
        "en_bpe.model": train(english, vocab_size=300, model_type="bpe", **lossless),
        "en_char.model": train(english, vocab_size=60, model_type="char", hard_vocab_limit=False, **lossless),
    }


def varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, end) of the protocol buffer integer at a position."""
    value, shift = 0, 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def field(message: bytes, number: int) -> bytes:
    """The last length-delimited field with a number; empty where there is none."""
    found, at = b"", 0
    while at < len(message):
        key, at = varint(message, at)
        if key & 7 == 0:
            _, at = varint(message, at)
        elif key & 7 == 2:
            size, at = varint(message, at)
            found, at = (message[at : at + size] if key >> 3 == number else found), at + size
        else:
            at += {1: 8, 5: 4}[key & 7]
    return found


def hugging_face_json(model: bytes, *, split: bool, byte_fallback: bool, wrap: bool) -> dict[str, Any]:
    """A tokenizer.json with the components that transformers makes of a SentencePiece unigram model."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    normalizer_spec, charsmap = 3, 2
    names = ["<unk>", "<s>", "</s>"]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": split}
    spelling = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]
    sequence = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    begin, end = ({"SpecialToken": {"id": name, "type_id": 0}} for name in names[1:])
    template = {
        "type": "TemplateProcessing",
        "single": [begin, sequence[0], end],
        "pair": [begin, sequence[0], end, sequence[1], end],
        "special_tokens": {name: {"id": name, "ids": [i], "tokens": [name]} for i, name in enumerate(names) if i},
    }
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": name, **flags} for i, name in enumerate(names)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {
                    "type": "Precompiled",
                    "precompiled_charsmap": base64.b64encode(field(field(model, normalizer_spec), charsmap)).decode(),
                },
                {"type": "Strip", "strip_left": False, "strip_right": True},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
            ],
        },
        "pre_tokenizer": metaspace,
        "post_processor": template if wrap else None,
        "decoder": {"type": "Sequence", "decoders": spelling} if byte_fallback else metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "vocab": [[processor.id_to_piece(i), processor.get_score(i)] for i in range(processor.vocab_size())],
            "byte_fallback": byte_fallback,
        },
    }


def bytepiece_json(texts: list[str], num_pieces: int, max_bytes: int = 10) -> dict[str, list[Any]]:
    """A BytePiece model: every byte, and the byte n-grams that cover most of the texts, with their counts."""
    counts: collections.Counter[bytes] = collections.Counter()
    for text in texts:
        for line in text.encode().splitlines(keepends=True):
            for size in range(1, max_bytes + 1):
                counts.update(line[i : i + size] for i in range(len(line) - size + 1))
    grams = sorted((gram for gram in counts if len(gram) > 1), key=lambda gram: (-counts[gram] * len(gram), gram))
    pieces = [bytes([byte]) for byte in range(256)] + grams[:num_pieces]
    pieces.sort(key=lambda piece: (len(piece), piece))
    return {
        base64.b64encode(piece).decode(): [i, piece.decode(errors="ignore"), max(1, counts[piece])]
        for i, piece in enumerate(pieces, start=3)
    }


def hugging_face_encode(tokenizer: tokenizers.Tokenizer) -> Callable[[str], list[int]]:
    """Text to ids with the special tokens of the file's template, which is what tokenizers does when not told."""
    return lambda text: list(tokenizer.encode(text).ids)


def encoders(folder: Path) -> dict[str, Callable[[str], list[int]]]:
    """{file name: the tool's own encode} for every model with expected ids."""
    found: dict[str, Callable[[str], list[int]]] = {}
    for path in sorted(folder.iterdir()):
        if path.name == "bytepiece.json":
            found[path.name] = bytepiece.Tokenizer(json.loads(path.read_text("utf-8"))).encode
        elif path.name.endswith(".tokenizer.json"):
            found[path.name] = hugging_face_encode(tokenizers.Tokenizer.from_file(str(path)))
        elif path.suffix == ".model" and path.stem not in ("en_bpe", "en_char"):
            found[path.name] = sentencepiece.SentencePieceProcessor(model_file=str(path)).encode
    return found


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    separators = (",", ":") if indent is None else None
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent, separators=separators) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "data")
    folder = parser.parse_args().out.resolve()
    folder.mkdir(parents=True, exist_ok=True)

    texts = {f"{language}.txt": sample_lines(language, 3000) for language in ("en", "ja", "zh")}
    texts["odd.txt"] = ODD_LINES
    for name, lines in texts.items():
        (folder / name).write_bytes("\n".join(lines).encode())

    models = sentencepiece_models()
    for name, model in models.items():
        (folder / name).write_bytes(model)
    split = hugging_face_json(models["en_casefold.model"], split=True, byte_fallback=False, wrap=True)
    whole = hugging_face_json(models["ja_bytes.model"], split=False, byte_fallback=True, wrap=False)
    write_json(folder / "en_split.tokenizer.json", split)
    write_json(folder / "ja_whole.tokenizer.json", whole)
    write_json(folder / "bytepiece.json", bytepiece_json(documents(["en", "ja", "zh"], 60_000), 1200))

    expected = [
        {"model": model, "text": text, "ids": [encode(line) for line in lines]}
        for model, encode in encoders(folder).items()
        for text, lines in texts.items()
    ]
    (folder / "expected.json").write_text(
        "[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in expected) + "\n]\n", "utf-8"
    )
    print(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir())} bytes")


if __name__ == "__main__":
    main()
