"""How long work takes on a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.backends.cuda_launcher import THREADS_PER_BLOCK, typed
from gpu_lattice.kernels.cuda.loader import define_options, kernels_in
from gpu_lattice.runtime.arguments import in_order

MICRO = str(Path(__file__).with_name("gpu"))
WARM_UPS = 2


class Clock:
    """Time on the device, by events in the current stream; with NumPy's arrays, the time of day."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self._cuda = None if device.xp is np else device.xp.cuda

    def mark(self) -> Any:
        if self._cuda is None:
            return time.perf_counter()
        event = self._cuda.Event()
        event.record()
        return event

    def seconds(self, first: Any, last: Any) -> float:
        if self._cuda is None:
            return float(last - first)
        last.synchronize()
        return float(self._cuda.get_elapsed_time(first, last)) / 1000

    def wall(self, work: Callable[[int], Any], rounds: int) -> list[float]:
        """Seconds of work(0), work(1), ... as the caller sees them, until the device is at rest again."""
        seconds = []
        with self.device:
            for i in range(WARM_UPS + rounds):
                start = time.perf_counter()
                work(i)
                self.seconds(self.mark(), self.mark())
                seconds.append(time.perf_counter() - start)
        return seconds[WARM_UPS:]

    def micro(self, name: str, constants: dict[str, object], threads: int, rounds: int, /, **args: Any) -> list[float]:
        """Device seconds of launches of a kernel of gpu.cu."""
        kernel = self.device.kernel(MICRO, name, define_options(MICRO, constants))
        values = typed(in_order(name, kernels_in(MICRO)[name], args))
        seconds = []
        for _ in range(WARM_UPS + rounds):
            start = self.mark()
            kernel((-(-threads // THREADS_PER_BLOCK),), (THREADS_PER_BLOCK,), values)
            seconds.append(self.seconds(start, self.mark()))
        return seconds[WARM_UPS:]

    def kernels(self, backend: CudaBackend, work: Callable[[int], Any], rounds: int) -> dict[str, list[float]]:
        """Device seconds of work(0), ... by kernel; "all" is from the first one's start to the last one's end."""
        find, marks = backend.launcher.kernel, []

        def marked(name: str) -> Any:
            def launch(*args: Any) -> None:
                start = self.mark()
                find(name)(*args)
                marks.append((name, start, self.mark()))

            return launch

        seconds: dict[str, list[float]] = {}
        backend.launcher.kernel = marked  # type: ignore[assignment]
        with self.device:
            for i in range(WARM_UPS + rounds):
                marks.clear()
                work(i)
                one = {"all": self.seconds(marks[0][1], marks[-1][2])}
                for name, start, stop in marks:
                    one[name] = one.get(name, 0.0) + self.seconds(start, stop)
                for name, spent in one.items():
                    seconds.setdefault(name, []).append(spent)
        backend.launcher.kernel = find
        return {name: spent[WARM_UPS:] for name, spent in seconds.items()}
