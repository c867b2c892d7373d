"""The command `gpu-lattice` as a process of its own, which never ends in a traceback when interrupted.

Imports are within `run`, where interrupts are already noted.
"""

from __future__ import annotations

import os
import sys

from gpu_lattice.runtime.interrupts import noted_interrupts, report_interrupt


def run() -> int:
    """Run the command with the process's arguments; returns the exit code. Later interrupts are ignored."""
    _occupy_closed_streams()
    with noted_interrupts(is_last=True) as interrupts:
        try:
            from gpu_lattice import cli

            return cli.run(None, interrupts)
        except KeyboardInterrupt:  # before the command started, or as it ended
            return report_interrupt(interrupts)


def _occupy_closed_streams() -> None:
    """Otherwise the next file opened would get the number of such a stream, and whatever a library prints."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")


if __name__ == "__main__":
    sys.exit(run())
