"""Write tests/golden/samples.json: the ids of samples that no later version may change.

Run it only on purpose: `python tools/make_golden.py`. A change of this file is a change of what every user's seeds
give, on every device.
"""

import hashlib
import json
from pathlib import Path

from gpu_lattice import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
GOLDEN = ROOT / "tests" / "golden" / "samples.json"
MODELS = [
    "bytepiece.json",
    "en_casefold.model",
    "en_nmt_nfkc.model",
    "en_split.tokenizer.json",
    "en_suffix.model",
    "en_symbols.model",
    "ja_bytes.model",
    "ja_whole.tokenizer.json",
    "zh_bytes.model",
]
TEXTS = ["en.txt", "ja.txt", "zh.txt", "odd.txt"]
DRAWS = [(0.0, 0), (0.1, 2**64 - 1), (1.0, 7)]
NUM_SAMPLES = 2
ROWS_IN_FULL = 6


def main() -> None:
    """Write the file."""
    cases = []
    for model in MODELS:
        tokenizer = Tokenizer.from_file(DATA / model, device="cpu")
        for text in TEXTS:
            documents = (DATA / text).read_bytes().decode().split("\n")
            for alpha, seed in DRAWS:
                out = tokenizer.sample(documents, alpha=alpha, seed=seed, num_samples=NUM_SAMPLES)
                content = out.ids.astype("<i4").tobytes() + out.offsets.astype("<i8").tobytes()
                cases.append(
                    {
                        "model": model,
                        "text": text,
                        "alpha": alpha,
                        "seed": seed,
                        "num_samples": NUM_SAMPLES,
                        "rows": len(out),
                        "tokens": len(out.ids),
                        "sha256": hashlib.sha256(content).hexdigest(),
                        "first_rows": out.tolist()[:ROWS_IN_FULL],
                    }
                )
    lines = ",\n".join(json.dumps(case) for case in cases)
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(f'{{"cases": [\n{lines}\n]}}\n', "utf-8")


if __name__ == "__main__":
    main()
