"""Write gpu_lattice/data/categories.npz, the classes of characters that pre-tokenizer patterns are made of.

They are those of tokenizers 0.23.3 and of tiktoken 0.14.0, which agree: each class is asked for on all code points.
Both have them from the Unicode Character Database, under the Unicode License v3, https://www.unicode.org/license.txt.

    pip install tokenizers==0.23.3 tiktoken==0.14.0
    python tools/make_category_table.py
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tiktoken
import tokenizers
from tokenizers import Regex, normalizers

from gpu_lattice.normalizers import pre_token_states as states
from gpu_lattice.normalizers.code_points import BLOCK_SIZE

SOURCES = {"tokenizers": "0.23.3", "tiktoken": "0.14.0"}
TARGET = Path(__file__).resolve().parents[1] / "gpu_lattice" / "data" / "categories.npz"
CLASSES = [
    (states.UPPER, r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"),
    (states.LOWER, r"\p{Ll}\p{Lm}\p{Lo}\p{M}"),
    (states.LETTER, r"\p{L}"),
    (states.NUMBER, r"\p{N}"),
    (states.SPACE, r"\s"),
    (states.NEWLINE, r"\r\n"),
    (states.SYMBOL, r"\p{P}\p{S}"),
]
EVERY = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))


BYTES = {bytes([byte]): byte for byte in range(256)}


def main() -> None:
    for module in (tokenizers, tiktoken):
        if module.__version__ != SOURCES[module.__name__]:
            raise SystemExit(f"install {module.__name__}=={SOURCES[module.__name__]}, not {module.__version__}")
    classes = classes_by(members_in_tokenizers)
    if np.any(classes != classes_by(members_in_tiktoken)):
        raise SystemExit("the tools' classes differ, so each needs a table of its own")
    blocks, index = np.unique(classes.reshape(-1, BLOCK_SIZE), axis=0, return_inverse=True)
    np.savez_compressed(TARGET, index=index.astype(np.uint8), blocks=blocks, source=np.array(str(SOURCES)))
    print(f"{TARGET}: {len(blocks)} blocks, {TARGET.stat().st_size} bytes")


def classes_by(members: Callable[[str], str]) -> np.ndarray:
    classes = np.zeros(0x110000, np.uint8)
    for bit, written in CLASSES:
        classes[[ord(character) for character in members(written)]] |= bit
    return classes


def members_in_tokenizers(written: str) -> str:
    return str(normalizers.Replace(Regex(f"[^{written}]+"), "").normalize_str(EVERY))


def members_in_tiktoken(written: str) -> str:
    tool = tiktoken.Encoding("bytes", pat_str=f"[{written}]", mergeable_ranks=BYTES, special_tokens={})
    return bytes(tool.encode_ordinary(EVERY)).decode()


if __name__ == "__main__":
    main()
