"""Interrupts (Ctrl-C): when work can be left, and what compiled code makes of them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SECONDS_UNTIL_AGAIN = 0.1


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an interrupt is what began it: compiled code that it stops raises SystemError in its place."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _handler() -> Callable[[int, FrameType | None], object] | None:
    """What an interrupt calls; None where it calls nothing that may be replaced.

    Only the main thread receives interrupts, and a handler that is not Python's is left alone.
    """
    handler = signal.getsignal(signal.SIGINT)
    return handler if threading.current_thread() is threading.main_thread() and callable(handler) else None


@contextlib.contextmanager
def noted_interrupts() -> Iterator[list[int]]:
    """A list to which each interrupt of the block is added, besides raising KeyboardInterrupt.

    One that comes while LLVM calls back into Python, or an object is freed, is dropped there. It is sent once more, and
    the list tells that an error which follows from it is none of its own.
    """
    handler, hook = _handler(), sys.unraisablehook
    noted: list[int] = []
    if handler is None:
        yield noted
        return
    again: list[threading.Timer] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        handler(number, frame)

    def drop(dropped: sys.UnraisableHookArgs) -> None:
        if not noted:
            hook(dropped)
        elif isinstance(dropped.exc_value, KeyboardInterrupt):
            again.append(threading.Timer(SECONDS_UNTIL_AGAIN, os.kill, (os.getpid(), signal.SIGINT)))
            again[-1].start()

    signal.signal(signal.SIGINT, note)
    sys.unraisablehook = drop
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, lambda number, frame: None)
        for timer in again:
            timer.cancel()
            timer.join()
        signal.signal(signal.SIGINT, handler)
        sys.unraisablehook = hook


@contextlib.contextmanager
def put_off_interrupts() -> Iterator[Callable[[], None]]:
    """Have an interrupt raise KeyboardInterrupt at the end of the block, or where what the block gets is called.

    What threads share cannot be left at any point: an executor's condition stays locked for ever if its holder is
    interrupted, and Arrow's writer cannot be closed after a call that was cut short. Where no interrupt comes, or one
    is not Python's to handle, the block is run as it is.

    Example:
        >>> with put_off_interrupts() as let_in:
        ...     for _ in range(3):
        ...         let_in()
    """
    handler = _handler()
    if handler is None:
        yield lambda: None
        return
    put_off: list[tuple[int, FrameType | None]] = []

    def let_in() -> None:
        if put_off:
            first = put_off[0]
            put_off.clear()
            handler(*first)

    signal.signal(signal.SIGINT, lambda number, frame: put_off.append((number, frame)))
    try:
        yield let_in
    finally:
        signal.signal(signal.SIGINT, handler)
        let_in()
