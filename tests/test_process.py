"""The command as a process: signals at any moment, streams that are closed, and what is left behind."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gpu_lattice.corpus.manifest import MANIFEST, RECORDS
from gpu_lattice.runtime.files import LOCK, PREFIX, SUFFIX

ROOT = Path(__file__).resolve().parents[1]
MODULE = [sys.executable, "-m", "gpu_lattice"]
LINES = 20_000
ENDS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated"), signal.SIGHUP: (129, "hung up")}
# A process started in the background of a shell, or by nohup, would ignore the signals.
HEED = """import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)"""


def start(*arguments: object, before: str = "pass", **options: object) -> subprocess.Popen[str]:
    """The command in a process of its own, which does `before` first."""
    code = f"import sys\n{HEED}\n{before}\nfrom gpu_lattice.__main__ import run; sys.exit(run())"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, cwd=ROOT, text=True, **streams)  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for name in "abc":
        (folder / f"{name}.txt").write_text(f"a line of some words in {name}\n" * LINES)
    return folder


def retokenize(corpus: Path, out: Path) -> subprocess.Popen[str]:
    options = ("--batch-bytes", "4KB", "--overwrite", "--no-progress")
    return start("retokenize", corpus, "--output", out, *options)


def wait_for(is_there: Callable[[], object], process: subprocess.Popen[str]) -> None:
    give_up = time.monotonic() + 120
    while not is_there() and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.005)


def assert_complete(process: subprocess.Popen[str]) -> None:
    _, stderr = process.communicate(timeout=300)
    assert (process.returncode, stderr) == (0, "")


def assert_only_whole_files(out: Path) -> None:
    assert {path.name for path in out.iterdir() if path.suffix != ".parquet"} <= {MANIFEST, RECORDS}
    assert {path.suffix for path in out.glob(f"{RECORDS}/*")} <= {".json"}
    assert_whole(out)


def assert_whole(out: Path) -> None:
    for path in out.glob("*.parquet"):
        assert pq.read_table(path).num_rows == LINES


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_is_one_line_and_leaves_nothing(corpus: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = retokenize(corpus, tmp_path)
    wait_for(lambda: list(tmp_path.glob(f"{PREFIX}*{SUFFIX}")), process)
    process.send_signal(number)
    code, word = ENDS[number]
    assert (*process.communicate(timeout=60), process.returncode) == ("", f"gpu-lattice: {word}\n", code)
    assert_only_whole_files(tmp_path)
    assert_whole(tmp_path)


@pytest.mark.parametrize("pause", [0.0, 0.001, 0.01, 0.05])
def test_several_signals_are_as_one(corpus: Path, tmp_path: Path, pause: float) -> None:
    process = start("retokenize", corpus, "--output", tmp_path, "--batch-bytes", "4KB")
    wait_for(lambda: list(tmp_path.glob(f"{PREFIX}*{SUFFIX}")), process)
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process.send_signal(number)
        time.sleep(pause)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode in (130, 143, 129)
    assert stdout == ""
    assert "Traceback" not in stderr
    assert stderr.count("gpu-lattice: ") == 1
    assert_only_whole_files(tmp_path)


@pytest.mark.parametrize("module", ["gpu_lattice.cli", "argparse", "numpy", "pyarrow.parquet", "numba", "pyarrow.fs"])
def test_an_interrupt_during_an_import_is_one_line(corpus: Path, tmp_path: Path, module: str) -> None:
    finder = f"""
import os
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""
    process = start("retokenize", corpus / "a.txt", "--output", tmp_path / "out", before=finder)
    assert (*process.communicate(timeout=120), process.returncode) == ("", "gpu-lattice: interrupted\n", 130)


@pytest.mark.parametrize(
    ("line", "module", "name"),
    [
        ("fit INPUT -o OUT", "gpu_lattice.fitting", "maximum"),
        ("fit INPUT -o OUT", "gpu_lattice.models.saving", "file_of"),
        ("bench default INPUT --rounds 1 --json OUT", "gpu_lattice.benchmark.compare", "in_turns"),
        ("preview INPUT -o OUT.svg", "gpu_lattice.show.preview", "excerpt"),
        ("warm", "gpu_lattice.tokenizer", "read_model"),
    ],
)
def test_interrupts_end_every_command_with_one_line_and_without_a_file(
    tmp_path: Path, line: str, module: str, name: str
) -> None:
    interrupt = f"""
import os, {module} as module
real = module.{name}
def interrupted(*arguments, **options):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    return real(*arguments, **options)
module.{name} = interrupted
"""
    (tmp_path / "a.txt").write_text("a line of some words\n")
    paths = {"INPUT": tmp_path / "a.txt", "OUT": tmp_path / "out", "OUT.svg": tmp_path / "out.svg"}
    process = start(*(paths.get(word, word) for word in line.split()), before=interrupt)
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout) == (130, "")
    # What shows progress shows it before.
    assert stderr.split("\n")[-2:] == ["gpu-lattice: interrupted", ""]
    assert "Traceback" not in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("number", ENDS)
def test_an_interrupt_of_the_interpreters_end_changes_nothing(number: signal.Signals) -> None:
    before = f"import atexit, os; atexit.register(os.kill, os.getpid(), {int(number)})"
    process = start("encode", "hello world", before=before)
    assert (*process.communicate(timeout=120), process.returncode) == ("▁he llo ▁world\n", "", 0)


def test_what_the_process_ignores_it_goes_on_ignoring(tmp_path: Path, corpus: Path) -> None:
    """As under nohup, and in the background of a shell."""
    ignore = "signal.signal(signal.SIGHUP, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)"
    process = start("retokenize", corpus / "a.txt", "--output", tmp_path, "--no-progress", before=ignore)
    wait_for(lambda: (tmp_path / LOCK).exists(), process)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    assert_whole(tmp_path)


def test_a_program_that_handles_no_signals_leaves_nothing_either(corpus: Path, tmp_path: Path) -> None:
    code = f"""
from gpu_lattice import Tokenizer
from gpu_lattice.corpus.retokenize import retokenize
tokenizer = Tokenizer.default(device="cpu")
retokenize({str(corpus)!r}, {str(tmp_path)!r}, tokenizer=tokenizer, batch_bytes=4000, progress=False)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.glob(f"{PREFIX}*{SUFFIX}")), process)
    process.terminate()
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 143)
    assert_only_whole_files(tmp_path)


def other_files(folder: Path) -> set[Path]:
    return {path for path in folder.iterdir() if path.suffix != ".parquet" and path.name not in (MANIFEST, RECORDS)}


def random_moments(corpus: Path, folder: Path, moments: int, seed: int) -> None:
    """Signals at random moments of runs into one folder: each leaves whole files only, or the next clears up."""
    generator = random.Random(seed)
    began = time.monotonic()
    assert_complete(retokenize(corpus, folder))
    seconds = time.monotonic() - began
    for _ in range(moments):
        number = generator.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        before = other_files(folder)
        process = retokenize(corpus, folder)
        time.sleep(generator.uniform(0.0, seconds))
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=120)
        assert_whole(folder)
        if number == signal.SIGKILL:
            continue
        assert other_files(folder) <= before
        # Else it was too late, or came before the first line of the program.
        if process.returncode not in (0, -number) and "the site module" not in stderr and "import site" not in stderr:
            code, word = ENDS[number]
            assert (stdout, stderr, process.returncode) == ("", f"gpu-lattice: {word}\n", code)
    assert_complete(retokenize(corpus, folder))
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, "a.parquet", "b.parquet", "c.parquet"]


@pytest.mark.parametrize(("moments", "seed"), [(6, 1), pytest.param(100, 2, marks=pytest.mark.slow)])
def test_signals_at_random_moments(corpus: Path, tmp_path: Path, moments: int, seed: int) -> None:
    random_moments(corpus, tmp_path, moments, seed)


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        (">&-", 2, "stdout is closed"),
        (">/dev/full", 2, "No space left on device"),
        ("2>&-", 0, ""),
        (">&- 2>&-", 2, ""),
        ("<&-", 0, ""),
    ],
)
def test_streams_may_be_closed(redirection: str, code: int, message: str) -> None:
    command = f'"$0" -m gpu_lattice encode hello {redirection}'
    done = subprocess.run(["sh", "-c", command, sys.executable], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == bool(message)


def test_lines_of_a_closed_stdin_are_asked_for() -> None:
    command = ["sh", "-c", '"$0" -m gpu_lattice encode <&-', sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gpu-lattice: stdin is closed; give texts as arguments, or lines on stdin\n"


def test_what_is_printed_by_a_library_does_not_get_into_a_file(tmp_path: Path, corpus: Path) -> None:
    """With stderr closed, the file opened next would have its number."""
    command = f'"$0" -m gpu_lattice retokenize {corpus}/a.txt --output {tmp_path} 2>&- <&-'
    done = subprocess.run(["sh", "-c", command, sys.executable], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert_whole(tmp_path)
