"""Memory for one long document: what is worked out for its parts is dropped part by part."""

import json
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
# Bytes of memory for each byte of text, besides the text and its ids.
MOST = 12
MEASURE = """
import sys
from pathlib import Path
from gpu_lattice import Tokenizer

def resident(key):
    return 1024 * int(Path("/proc/self/status").read_text().split(key)[1].split()[0])

tokenizer = Tokenizer.default(device="cpu") if sys.argv[1] == "default" else Tokenizer.from_file(sys.argv[1])
size = int(sys.argv[3])
text = Path(sys.argv[2]).read_bytes()
text = (text * (size // len(text) + 1))[:size]
for call in (tokenizer.encode, tokenizer.sample):
    call([text[: size // 20]] * 2)  # what is compiled, and each thread's memo
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS:")
    ids = call([text]).ids
    print((resident("VmHWM:") - before - ids.nbytes) / size)
    del ids
"""


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("default", UNKNOWN),
        ("default", JOINED),
        ("en_symbols.model", UNKNOWN),
        ("en_split.tokenizer.json", UNKNOWN),
        ("en_split.tokenizer.json", JOINED),
        ("bytepiece.json", JOINED),
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
    if text in (UNKNOWN, JOINED):
        path = tmp_path / "made.txt"
        path.write_text("".join(map(chr, range(0xE000, 0xF900))) if text == UNKNOWN else "a" * 4000)
    command = [sys.executable, "-c", MEASURE, name, path, BYTES]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=True)
    encode, sample = map(float, done.stdout.split())
    assert encode < MOST
    assert sample < MOST
