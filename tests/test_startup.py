"""What a program waits for before its first tokens, in processor time of processes of their own."""

import ast
import itertools
import json
import pickle
import random
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import DATA, ROOT
from handmade import Piece, hugging_face_file, sentencepiece_model

import gpu_lattice
from gpu_lattice import Tokenizer

SMALL = DATA / "en_nmt_nfkc.model"
ATTEMPTS = 8
NUM_PIECES = 250_000

IMPORT = """
import time
before = time.process_time()
import gpu_lattice
print(time.process_time() - before)
"""
ENCODE = """
import sys
from gpu_lattice.kernels import compiled
made, njit = [], compiled.njit
compiled.njit = lambda function, **options: made.append(function) or njit(function, **options)
from gpu_lattice import cli
cli.main(["encode", "Hello"])
print("pyarrow" in sys.modules, "pandas" in sys.modules, len(made), sep="\\n")
"""
FIRST_SAMPLE = """
import sys, time
import gpu_lattice
gpu_lattice.Tokenizer.from_file(sys.argv[1], device="cpu").sample(["The first text of a process."], alpha=0.2)
print(time.process_time())
"""
LOAD_AND_SAMPLE = """
import sys, time
from gpu_lattice import Tokenizer
Tokenizer.from_file(sys.argv[2], device="cpu").sample(["The first text of a process."], alpha=0.2)
before = time.process_time()
Tokenizer.from_file(sys.argv[1], device="cpu").sample(["The first text of a process."], alpha=0.2)
print(time.process_time() - before)
"""


def run(script: str, *args: object) -> str:
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def least_seconds(script: str, bound: float, *args: object) -> float:
    """The least that some processes print, of as many as it takes to stay within the bound."""
    least = float("inf")
    for _ in range(ATTEMPTS):
        least = min(least, float(run(script, *args)))
        if least < bound:
            break
    return least


def test_the_package_imports_without_what_only_a_tokenizer_needs() -> None:
    script = "import sys, gpu_lattice; print(*[name for name in ('numba', 'numpy', 'pyarrow') if name in sys.modules])"
    assert run(script).strip() == ""


def test_public_names_are_there_before_they_are_loaded() -> None:
    assert set(gpu_lattice.__all__) <= set(run("import gpu_lattice; print(*dir(gpu_lattice))").split())
    with pytest.raises(AttributeError, match="no attribute 'Tokeniser'"):
        gpu_lattice.Tokeniser  # noqa: B018


def test_type_checkers_are_told_the_same_public_names() -> None:
    tree = ast.parse(Path(gpu_lattice.__file__).read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    same = [(name.name, node.module) for node in imports for name in node.names if name.asname == name.name]
    homes = {name: module for name, module in same if name != "__version__"}
    assert homes == gpu_lattice._HOMES
    assert all(getattr(gpu_lattice, name).__name__ == name for name in gpu_lattice.__all__)


def test_a_tokenizer_goes_to_a_process_that_has_loaded_nothing(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(SMALL, device="cpu")
    (tmp_path / "pickled").write_bytes(pickle.dumps(tokenizer))
    script = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).encode('a text').tolist())"
    assert run(script, tmp_path / "pickled").strip() == str(tokenizer.encode("a text").tolist())


def test_the_command_encodes_without_arrow_and_with_little_compiled_code_once_its_tables_are_cached() -> None:
    run(ENCODE)
    text, has_arrow, has_pandas, num_functions = run(ENCODE).splitlines()
    assert text == "▁He llo"
    assert (has_arrow, has_pandas) == ("False", "False")
    assert int(num_functions) <= 6


def test_the_package_is_imported_within_a_third_of_a_second() -> None:
    assert least_seconds(IMPORT, 0.3) < 0.3


def test_a_process_has_its_first_sample_within_two_seconds() -> None:
    run(FIRST_SAMPLE, SMALL)  # which leaves the compiled functions in Numba's cache
    assert least_seconds(FIRST_SAMPLE, 2.0, SMALL) < 2.0


@pytest.mark.parametrize("kind", ["SentencePiece", "Hugging Face", "BytePiece"])
def test_a_model_of_250_000_pieces_is_there_within_a_second_the_second_time(
    kind: str, pieces: list[Piece], tmp_path: Path
) -> None:
    """As much as a model of this size adds to a small one's loading and first sample, once the cache has it."""
    small, data = {
        "SentencePiece": (SMALL, sentencepiece_model),
        "Hugging Face": (DATA / "en_split.tokenizer.json", hugging_face_model),
        "BytePiece": (DATA / "bytepiece.json", byte_piece_model),
    }[kind]
    path = tmp_path / "large"
    path.write_bytes(data(pieces))
    run(LOAD_AND_SAMPLE, path, small)
    assert least_seconds(LOAD_AND_SAMPLE, 1.0, path, small) < 1.0


def hugging_face_model(pieces: list[Piece]) -> bytes:
    return hugging_face_file([(piece, score) for piece, score, _ in pieces], 0, False)


def byte_piece_model(pieces: list[Piece]) -> bytes:
    """With the single bytes, which such a model needs, in place of the last pieces."""
    tokens = [bytes([byte]) for byte in range(256)] + [piece.encode() for piece, _, _ in pieces[:-256]]
    return json.dumps({b64encode(token).decode(): [3 + i, "", 1 + i] for i, token in enumerate(tokens)}).encode()


@pytest.fixture(scope="module")
def pieces() -> list[Piece]:
    return list(itertools.islice(many_pieces(), NUM_PIECES))


def many_pieces() -> Iterator[Piece]:
    """Words of syllables of several scripts, no two the same."""
    yield "<unk>", 0.0, "UNKNOWN"
    generator = random.Random(5)
    scripts = [
        "etaoinshrdlucmfwyp",
        "оеаинтсрвлкмдпу",
        "αιοετσνρπκ",
        "かきくさしたちつなのはまやらん",
        "的一是不了人我在有他这",
    ]
    syllables = [["".join(generator.choices(script, k=2)) for _ in range(300)] for script in scripts]
    seen = set()
    for i in itertools.count():
        words = syllables[i % len(syllables)]
        piece = "▁" * (i % 2) + "".join(generator.choices(words, k=generator.randint(1, 4)))
        if piece not in seen:
            seen.add(piece)
            yield piece, -5 - len(seen) / NUM_PIECES, "NORMAL"
