"""The command `gpu-lattice` as a process of its own, which no interrupt ends with a traceback.

What it needs is imported within `run`, where an interrupt is noted already.
"""

from __future__ import annotations

import os
import sys

from gpu_lattice.runtime.interrupts import noted_interrupts, report_interrupt


def run() -> int:
    """Run the command with the process's arguments; returns the exit code. Interrupts pass after that."""
    _occupy_closed_streams()
    with noted_interrupts(is_last=True) as interrupts:
        try:
            from gpu_lattice import cli

            return cli.run(None, interrupts)
        except KeyboardInterrupt:  # before the command began, or as it ended
            return report_interrupt(interrupts)


def _occupy_closed_streams() -> None:
    """Or else a file that is opened next gets such a stream's number, and what a library prints goes into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")


if __name__ == "__main__":
    sys.exit(run())
