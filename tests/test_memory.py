"""Memory for one long document: what is worked out for its parts is dropped part by part."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bpe_files import MODELS, trained
from conftest import DATA, ROOT

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is measured as on Linux"
)
BYTES = 10_000_000
UNKNOWN = "characters that no piece has"
JOINED = "letters without a cut between them"
MARKS = "combining marks, 200,000 in a row"
MADE = {UNKNOWN: "".join(map(chr, range(0xE000, 0xF900))), JOINED: "a" * 4000, MARKS: "a" + "\u0301\u0323" * 100_000}
# Bytes of memory for each byte of text, besides the text and its ids.
MOST = 12
MEASURE = """
import json, sys
from pathlib import Path
from gpu_lattice import Tokenizer, retokenize

def resident(key):
    return 1024 * int(Path("/proc/self/status").read_text().split(key)[1].split()[0])

name, path, size = *sys.argv[1:3], int(sys.argv[3])
tokenizer = Tokenizer.default(device="cpu") if name == "default" else Tokenizer.from_file(name)
text = Path(path).read_bytes()
text *= size // len(text) + 1
"""
OF_TEXTS = (
    MEASURE
    + """
text = text[:size]
for call in (tokenizer.encode, tokenizer.sample):
    call([text[: size // 20]] * 2)  # what is compiled, and each thread's memo
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS:")
    ids = call([text]).ids
    print((resident("VmHWM:") - before - ids.nbytes) / size)
    del ids
"""
)
OF_A_LINE = (
    MEASURE
    + """
def needed(size, alpha):
    file = Path(f"{size}.jsonl")
    file.write_text(json.dumps({"text": text[:size].decode()}))
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS:")
    seen = retokenize(file, f"{size}-{alpha}", tokenizer=tokenizer, alpha=alpha, progress=False)
    return resident("VmHWM:") - before - 4 * seen.tokens - size

for alpha in (None, 0.1):
    needed(size // 20, alpha)
    print(needed(size, alpha) / size)
"""
)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("default", UNKNOWN),
        ("default", JOINED),
        ("en_symbols.model", UNKNOWN),
        ("en_split.tokenizer.json", UNKNOWN),
        ("en_split.tokenizer.json", JOINED),
        ("bytepiece.json", JOINED),
        ("bytepiece.json", MARKS),
        ("gpt2", JOINED),
        ("default", "en.txt"),
        ("default", "ja.txt"),
        ("en_symbols.model", "en.txt"),
        ("en_split.tokenizer.json", "en.txt"),
        ("ja_whole.tokenizer.json", "ja.txt"),
        ("bytepiece.json", "zh.txt"),
    ],
)
def test_a_long_document_takes_at_most_twelve_bytes_a_byte(tmp_path: Path, model: str, text: str) -> None:
    name, path = model if model == "default" else DATA / model, DATA / text
    if model in MODELS:
        file = json.loads(json.dumps(trained(model)))
        bpe, name = file["model"], tmp_path / "tokenizer.json"
        bpe["vocab"]["aa"] = len(bpe["vocab"]) + len(file["added_tokens"])
        bpe["merges"].append(["a", "a"])
        name.write_text(json.dumps(file))
    if text in MADE:
        path = tmp_path / "made.txt"
        path.write_text(MADE[text])
    assert max(measured(OF_TEXTS, name, path)) < MOST


def test_a_long_line_of_jsonl_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert max(measured(OF_A_LINE, "default", DATA / "en.txt")) < MOST


def measured(script: str, *arguments: object) -> list[float]:
    """Of encoding, then of sampling."""
    command = [sys.executable, "-c", script, *map(str, arguments), str(BYTES)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    encode, sample = map(float, done.stdout.split())
    return [encode, sample]
