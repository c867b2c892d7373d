"""Ctrl-C comes as KeyboardInterrupt, where work can be left, and what is called next works."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from gpu_lattice import Tokenizer
from gpu_lattice.cli import main
from gpu_lattice.corpus.retokenize import retokenize
from gpu_lattice.runtime.interrupts import is_interrupt, noted_interrupts, put_off_interrupts
from gpu_lattice.runtime.threads import map_ranges


@pytest.fixture(autouse=True)
def heed() -> Iterator[None]:
    """A process started in the background of a shell would ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    done = []

    def interrupted() -> None:
        with put_off_interrupts():
            interrupt()
            interrupt()
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_may_be_let_in_before_and_is_raised_once() -> None:
    done = []
    with put_off_interrupts() as let_in:
        let_in()
        interrupt()
        done.append(1)
        with pytest.raises(KeyboardInterrupt):
            let_in()
        let_in()
        done.append(2)
    assert done == [1, 2]


def test_an_inner_block_leaves_an_interrupt_to_the_outer_one() -> None:
    done = []

    def interrupted() -> None:
        with put_off_interrupts():
            with put_off_interrupts() as let_in:
                interrupt()
                let_in()
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [1]


def test_threads_that_receive_no_interrupts_run_the_block_as_it_is() -> None:
    seen: list[Any] = []

    def run() -> None:
        with put_off_interrupts() as let_in:
            let_in()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_a_handler_that_is_not_pythons_is_left_alone() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with put_off_interrupts():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def print_and_drop() -> None:
    """As an extension module whose import of NumPy fails: it has PyErr_Print call the hook."""
    try:
        interrupt()
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]


@pytest.mark.parametrize("drop", [ctypes.CFUNCTYPE(None)(interrupt), print_and_drop], ids=["a callback", "an import"])
def test_an_interrupt_that_c_code_drops_comes_again_and_is_not_printed(
    capsys: pytest.CaptureFixture[str], drop: Callable[[], None]
) -> None:
    hooks, dropped = (sys.unraisablehook, sys.excepthook), []

    def wait() -> None:
        drop()
        dropped.append(1)
        time.sleep(60)

    with noted_interrupts() as interrupts:
        assert interrupts == []
        with pytest.raises(KeyboardInterrupt):
            wait()
    assert dropped == [1]
    assert interrupts == [signal.SIGINT] * 2
    assert capsys.readouterr().err == ""
    assert (sys.unraisablehook, sys.excepthook) == hooks
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_that_comes_of_a_dropped_interrupt_is_reported_as_an_interrupt(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        ctypes.CFUNCTYPE(None)(interrupt)()
        raise RuntimeError("no compiled object yet")

    monkeypatch.setattr(Tokenizer, "encode", interrupted)
    assert main(["encode", "some words"]) == 130
    assert capsys.readouterr().err == "gpu-lattice: interrupted\n"


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_of_compiled_code_is_raised_as_one(threads: int) -> None:
    def interrupted(start: int, stop: int) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as cause:
            raise SystemError("a compiled function returned a result with an exception set") from cause

    def broken(start: int, stop: int) -> None:
        raise SystemError("a defect")

    with pytest.raises(KeyboardInterrupt):
        map_ranges(interrupted, [(0, 1), (1, 2)], threads)
    with pytest.raises(SystemError, match="a defect"):
        map_ranges(broken, [(0, 1), (1, 2)], threads)
    assert not is_interrupt(SystemError("a defect"))


def test_a_tokenizer_works_as_before_after_thousands_of_interrupts() -> None:
    code = """if True:
        import faulthandler, random, signal
        from gpu_lattice import Tokenizer

        def interrupt(number, frame):
            raise KeyboardInterrupt

        tokenizer = Tokenizer.default(device="cpu", threads=2)
        texts = ["a line of some words"] * 2000
        expected = tokenizer.sample(texts, alpha=0.1, seed=1).ids.tobytes()
        random.seed(1)
        signal.signal(signal.SIGALRM, interrupt)
        for _ in range(3000):
            faulthandler.dump_traceback_later(60, exit=True)
            try:
                try:
                    # Once more after a second: the interpreter drops what is raised while it frees a generator.
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 2e-3), 1)
                    while True:
                        tokenizer.sample(texts, alpha=0.1, seed=1)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                pass
        assert tokenizer.sample(texts, alpha=0.1, seed=1).ids.tobytes() == expected
        print("done")
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_an_interrupted_batch_is_finished_the_next_not_begun_and_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("a line of some words\n" * 1000)
    tokenizer = Tokenizer.default(device="cpu")
    real, finished = tokenizer.encode, []

    def encode(texts: Any, **options: Any) -> Any:
        if len(texts) > 1:
            interrupt()
        out = real(texts, **options)
        finished.append(len(texts))
        return out

    monkeypatch.setattr(tokenizer, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        retokenize(tmp_path / "a.txt", tmp_path / "out", tokenizer=tokenizer, batch_bytes=4000, progress=False)
    # The first is the document that has kernels compiled.
    assert len(finished) == 2
    assert not list((tmp_path / "out").iterdir())
