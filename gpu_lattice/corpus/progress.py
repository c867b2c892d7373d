"""How far a job is: a bar on a terminal, else a line now and then, for a log file."""

from __future__ import annotations

import sys
import time
from typing import Any

SECONDS_PER_LINE = 30.0


class Progress:
    """Counts what has been done, and shows it on stderr.

    total: bytes of the input files, as stored; 0 if it is not known.
    """

    def __init__(self, total: int, show: bool) -> None:
        self._total, self._show = total, show
        self._bar: Any = None
        self._bytes = self._documents = self._tokens = 0
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        if self._show and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._total or None, unit="B", unit_scale=True, dynamic_ncols=True)
            self._bar.set_postfix_str("loading kernels")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def restart(self) -> None:
        """Start the clock."""
        self._start = self._last_line = time.monotonic()
        if self._bar is not None:
            self._bar.reset()
            self._bar.set_postfix_str("")

    def advance(self, num_bytes: int, documents: int, tokens: int) -> None:
        """What has been done since the last call."""
        self._bytes += num_bytes
        self._documents += documents
        self._tokens += tokens
        now = time.monotonic()
        if self._bar is not None:
            rate = self._tokens / max(1e-9, now - self._start)
            self._bar.set_postfix_str(f"{rate / 1e6:.2f} M tokens/s", refresh=False)
            self._bar.update(num_bytes)
        elif self._show and now - self._last_line >= SECONDS_PER_LINE:
            self._last_line = now
            print(f"gpu-lattice: {self._line(now - self._start)}", file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        share = self._bytes / self._total if self._total else 0.0
        of_total = f" of {self._total / 1e6:.1f} MB ({share:.1%})" if self._total else ""
        left = f", {_clock(seconds * (1 - share) / share)} left" if share else ""
        return (
            f"{self._bytes / 1e6:.1f}{of_total or ' MB'}, {self._documents} documents, {self._tokens} tokens, "
            f"{self._bytes / 1e6 / seconds:.1f} MB/s, {self._tokens / 1e6 / seconds:.2f} M tokens/s{left}"
        )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
