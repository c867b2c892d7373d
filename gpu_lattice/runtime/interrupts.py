"""Interrupts: when Ctrl-C, a termination request or a closed terminal may stop work, and how they are handled."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

# How each is reported when it ends the process.
INTERRUPTS = {
    getattr(signal, name): what
    for name, what in (("SIGINT", "interrupted"), ("SIGTERM", "terminated"), ("SIGHUP", "hung up"))
    if hasattr(signal, name)
}
SECONDS_UNTIL_AGAIN = 0.1
# Further interrupts within this time belong to the same request to end; they would break into the cleanup.
SECONDS_TO_END = 5.0


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an interrupt caused the error: compiled code that is interrupted raises SystemError instead."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _in_main_thread() -> bool:
    """Interrupts are received, and handlers set, only there."""
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def noted_interrupts(is_last: bool = False) -> Iterator[list[int]]:
    """A list to which each interrupt of the block is added, besides raising KeyboardInterrupt; of several in quick
    succession, only the first raises it. Those that the process ignores are left alone.

    is_last: the process ends after the block, and ignores what comes then.

    One that comes while LLVM calls back into Python, or an object is freed, is dropped there; while an extension module
    imports NumPy, it is printed, and an ImportError in its place may be too. It is sent again, and the list shows that
    an error that follows from it is not an error of its own.
    """
    before = {number: signal.getsignal(number) for number in INTERRUPTS} if _in_main_thread() else {}
    heeded = [number for number, handler in before.items() if handler not in (None, signal.SIG_IGN)]
    hook, print_error, noted, quiet_until = sys.unraisablehook, sys.excepthook, list[int](), 0.0
    again: list[threading.Timer] = []

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal quiet_until
        noted.append(number)
        if time.monotonic() >= quiet_until:
            quiet_until = time.monotonic() + SECONDS_TO_END
            raise KeyboardInterrupt

    def send_again() -> None:
        nonlocal quiet_until
        quiet_until = 0.0
        again.append(threading.Timer(SECONDS_UNTIL_AGAIN, os.kill, (os.getpid(), noted[0])))
        again[-1].start()

    def drop(dropped: sys.UnraisableHookArgs) -> None:
        if not noted:
            hook(dropped)
        elif isinstance(dropped.exc_value, KeyboardInterrupt):
            send_again()

    def print_other(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if noted and isinstance(error, KeyboardInterrupt):
            send_again()
        else:
            print_error(kind, error, traceback)

    if heeded:
        sys.unraisablehook, sys.excepthook = drop, print_other
    for number in heeded:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number in heeded:
            signal.signal(number, lambda number, frame: None)
        for timer in again:
            timer.cancel()
            timer.join()
        for number in heeded:
            signal.signal(number, signal.SIG_IGN if is_last else before[number])
        sys.unraisablehook, sys.excepthook = hook, print_error


def report_interrupt(interrupts: list[int]) -> int:
    """Print what ended the process, and return the exit code that a shell reports of a program ended by it."""
    number = signal.Signals(interrupts[0] if interrupts else signal.SIGINT)
    report(INTERRUPTS[number])
    return 128 + number


def report(message: str) -> None:
    """Print why the command ends; without a stderr, or a terminal behind it, the exit code must do."""
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            print(f"gpu-lattice: {message}", file=sys.stderr, flush=True)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def put_off_interrupts() -> Iterator[Callable[[], None]]:
    """Have an interrupt raise KeyboardInterrupt at the end of the block, or where what the block gets is called.

    What threads share cannot be left at any point: an executor's condition stays locked forever if its holder is
    interrupted, and Arrow's writer cannot be closed after a call that was cut short. SIGTERM and SIGHUP, by which a
    process ends at once unless it handles them, raise SystemExit there, so that nothing half-done remains. The block
    runs as it is in threads that receive no interrupts, and for those that are ignored.

    Example:
        >>> with put_off_interrupts() as let_in:
        ...     for _ in range(3):
        ...         let_in()
    """
    before = {number: signal.getsignal(number) for number in INTERRUPTS} if _in_main_thread() else {}
    handlers = {number: handler for number, handler in before.items() if callable(handler)}
    handlers |= {n: _end for n, handler in before.items() if handler is signal.SIG_DFL and n != signal.SIGINT}
    put_off: list[tuple[int, FrameType | None]] = []

    def let_in() -> None:
        if put_off:
            number, frame = put_off[0]
            put_off.clear()
            handlers[number](number, frame)

    for number in handlers:
        signal.signal(number, lambda number, frame: put_off.append((number, frame)))
    try:
        yield let_in
    finally:
        for number in handlers:
            signal.signal(number, before[number])
        let_in()
