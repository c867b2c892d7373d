"""A process that answers each line with a line, so that several can take turns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


class Worker:
    """A module of this folder as a process."""

    def __init__(self, module: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
        )

    def ask(self, question: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise SystemExit(f"a worker ended, asked for {question!r}: its error is above")
        return answer

    def end(self) -> None:
        self._process.communicate()


def answer(to: Callable[[str], object]) -> None:
    """Be the process: answer until no more is asked."""
    for question in map(str.strip, sys.stdin):
        print(to(question), flush=True)
