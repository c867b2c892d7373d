"""Train the model that ships with the package from the corpus that ships with the package.

The same sentencepiece gives the same bytes on every run: one thread, documents in the order of the corpus.

    python tools/make_default_model.py [--out default.model]
"""

import argparse
import io
import string
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import sentencepiece

DATA = Path(__file__).resolve().parents[1] / "gpu_lattice" / "data"

OPTIONS: dict[str, Any] = {
    "model_type": "unigram",
    "vocab_size": 8000,
    # Text comes back as it went in: nothing is rewritten, and what is not in the vocabulary is spelt in bytes.
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "byte_fallback": True,
    # Measured on the corpus, bytes per token are highest here: .98 spells too many Han characters in bytes, and
    # .998 leaves too few pieces for words.
    "character_coverage": 0.995,
    # Tab, line breaks and all of printable ASCII have pieces, however rare they are in old books.
    "required_chars": "\t\n\r" + string.digits + string.ascii_letters + string.punctuation,
    "split_digits": True,
    "max_sentence_length": 1 << 20,
    "shuffle_input_sentence": False,
    "num_threads": 1,
    "minloglevel": 2,
}


def train(texts: list[str]) -> bytes:
    """The serialized model of these documents."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=model, **OPTIONS)
    return model.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DATA / "default.model")
    args = parser.parse_args()
    model = train(pq.read_table(DATA / "corpus.parquet", columns=["text"])["text"].to_pylist())
    args.out.write_bytes(model)
    print(f"{args.out}: {len(model)} bytes, sentencepiece {sentencepiece.__version__}")


if __name__ == "__main__":
    main()
