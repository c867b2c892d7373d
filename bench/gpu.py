"""What one CUDA device does per second: loads, stages, whole calls, files; and the CPU beside it, by size of batch."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import gpu_lattice as gl
from bench.clock import Clock
from gpu_lattice.backends import cuda
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.backends.cuda_device import CudaDevice, device_count
from gpu_lattice.benchmark.machine import describe
from gpu_lattice.cli import parse_size
from gpu_lattice.corpus.retokenize import retokenize
from gpu_lattice.normalizers import NormalizedBatch
from gpu_lattice.text_batch import TextBatch

LOADS_PER_THREAD = 256
MANY = 16
# Inputs take turns until they are this long together: no load then finds in L2 what an earlier round left there.
ROTATED_BYTES = 1 << 28
PARTS = ("gathers", "stages", "whole", "curve")
STAGES = {
    "cuts": ("mark_chunks", "place_tokens", "find_cuts"),
    "forward": ("forward", "forward_long"),
    "forward and sample": ("forward", "forward_long", "trace", "trace_long"),
    "viterbi": ("viterbi", "follow", "pass", "carry", "carry_long", "settle"),
    "emit": ("count_runs", "judge_runs", "count_ids", "measure_rows", "place_ids", "place_around"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", action="append", help="a model file, as often as you like")
    parser.add_argument("--text", action="append", metavar="NAME=FILE", help="UTF-8 text, likewise")
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--size", type=parse_size, default="64MB", help="text of a call; default: 64MB")
    parser.add_argument("--largest", type=parse_size, default="1GB", help="where the curve by size ends; default: 1GB")
    parser.add_argument("--largest-cpu", type=parse_size, default="64MB", help="the same for the CPU; default: 64MB")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure; default: all")
    parser.add_argument("--json", help="write the results to this file")
    parser.add_argument("--plot", help="plot the curve to this file (needs matplotlib: gpu_lattice[bench])")


def run(arguments: argparse.Namespace, device: Any = None) -> int:
    """Measure and show; device: another one than the first CUDA device."""
    if device is None and device_count() == 0:
        print("python -m bench gpu: no CUDA device answers through CuPy (pip install 'gpu_lattice[cuda13]')")
        return 2
    device = device or CudaDevice()
    result: dict[str, Any] = {"machine": describe() | {"device": describe_device(device)}}
    result |= {"gathers": [], "rates": [], "curve": []}
    for name, row in measured(arguments, device):
        result[name].append(row)
    _show(result)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    if arguments.plot:
        _plot(result["curve"], arguments.plot)
    return 0


def measured(arguments: argparse.Namespace, device: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """One result after another, each after the name of its table: gathers, rates or curve."""
    clock, texts, parts = Clock(device), dict(_texts(arguments)), set(arguments.parts)
    if "gathers" in parts:
        yield from (("gathers", row) for row in _gathers(clock, arguments.rounds))
    for path in arguments.model or [None]:
        cpu = gl.Tokenizer.default(device="cpu") if path is None else gl.Tokenizer.from_file(path, device="cpu")
        backend = CudaBackend(cpu.model, device)
        for text, lines in texts.items():
            labels = {"model": Path(path or "default.model").name, "text": text}
            print(*labels.values(), file=sys.stderr)
            case = Case(arguments, clock, cpu, backend, lines, cpu.model.normalizer(TextBatch.from_texts(lines)))
            if "stages" in parts:
                yield from (("rates", labels | row) for row in case.on_device())
            if "whole" in parts:
                yield from (("rates", labels | row) for row in case.end_to_end())
            if "curve" in parts:
                parts.remove("curve")
                yield from (("curve", labels | row) for row in case.by_size())


@dataclass
class Case:
    """One model and text. Rates count normalized bytes, those from end to end the bytes of the text."""

    options: argparse.Namespace
    clock: Clock
    cpu: gl.Tokenizer
    backend: CudaBackend
    lines: list[str]
    unit: NormalizedBatch

    def on_device(self) -> Iterator[dict[str, Any]]:
        """(b) to (f): the walk alone, the stages, and whole calls, but for the copy of the text to the device."""
        inputs = rotated(self.unit, self.options.size)
        size = int(np.mean([len(text_of(batch)) for batch in inputs]))
        yield self._walk(text_of(inputs[0]))

        def measure(num_samples: int) -> dict[str, list[float]]:
            work = self._work(self.backend, inputs, num_samples)
            return self.clock.kernels(self.backend, work, self.options.rounds)

        encoded, sampled, many = measure(0), measure(1), measure(MANY)
        for stage, kernels in STAGES.items():
            seconds = encoded if stage == "viterbi" else sampled
            spent = [seconds[kernel] for kernel in kernels if kernel in seconds]
            yield _rate(stage, size, [sum(one) for one in zip(*spent, strict=True)])
        yield _rate("sample, resident", size, sampled["all"])
        yield _rate(f"sample {MANY}, resident", size, many["all"])
        yield _rate("encode, resident", size, encoded["all"])

    def end_to_end(self) -> Iterator[dict[str, Any]]:
        """(g) and (h): Arrow to Arrow and Parquet to Parquet, with all that the host does."""
        unit = sum(len(line.encode()) for line in self.lines)
        copies = max(1, self.options.size // unit)
        texts, size = pa.array(self.lines * copies, pa.large_string()), unit * copies
        options: dict[str, Any] = {"alpha": self.options.alpha, "progress": False, "overwrite": True}
        with tempfile.TemporaryDirectory() as folder:
            source, out = Path(folder) / "text.parquet", Path(folder) / "out"
            pq.write_table(pa.table({"text": texts}), source)
            works: dict[str, Callable[[gl.Tokenizer, int], Any]] = {
                "sample, Arrow to Arrow": lambda one, _: one.sample(texts, alpha=self.options.alpha, seed=0).to_arrow(),
                "encode, Arrow to Arrow": lambda one, _: one.encode(texts).to_arrow(),
                "sample, Parquet to Parquet": lambda one, _: retokenize(source, out, tokenizer=one, **options),
            }
            for where, tokenizer in (("", self.cpu.on(self.backend)), (", CPU", self.cpu)):
                for stage, work in works.items():
                    seconds = self.clock.wall(partial(work, tokenizer), -(-self.options.rounds // 3))
                    yield _rate(stage + where, size, seconds)

    def by_size(self) -> Iterator[dict[str, Any]]:
        """Median seconds of `sample` from normalized text on the host, with the device and with the CPU."""
        size = 1000
        while size <= self.options.largest:
            inputs = rotated(self.unit, size)
            row = {"bytes": len(text_of(inputs[0]))}
            for name, backend in (("device", self.backend), ("cpu", self.cpu.backend)):
                if name == "device" or size <= self.options.largest_cpu:
                    work = self._work(backend, inputs, 1)
                    row[name] = statistics.median(self.clock.wall(work, self.options.rounds))
            yield row
            size *= 4

    def _work(self, backend: Any, inputs: list[NormalizedBatch], num_samples: int) -> Callable[[int], Any]:
        """Call i of `sample`, or of `encode` for no samples."""

        def work(i: int) -> Any:
            batch = inputs[i % len(inputs)]
            is_null, doc_ids = np.zeros(len(batch), np.bool_), np.arange(len(batch), dtype=np.uint64)
            if num_samples == 0:
                return backend.encode(batch, is_null)
            return backend.sample(batch, is_null, self.options.alpha, num_samples, 0, doc_ids, False)

        return work

    def _walk(self, text: Any) -> dict[str, Any]:
        device, stretches = self.clock.device, -(-len(text) // cuda.STRETCH)
        with device:
            loads = device.xp.zeros(stretches, np.uint64)
            args = {"values": device.upload(text), "n": len(text), "nodes": self.backend._best_nodes(), "loads": loads}
            seconds = self.clock.micro("walk", self.backend._constants, stretches, self.options.rounds, **args)
            return _rate("trie walk", len(text), seconds) | {"loads_per_byte": int(loads.sum()) / len(text)}


def rotated(unit: NormalizedBatch, size: int) -> list[NormalizedBatch]:
    """Batches of the unit's documents over and over, each of about `size` bytes, in all at least ROTATED_BYTES."""
    n_batches = max(1, min(64, -(-ROTATED_BYTES // size)))
    copies = -(-n_batches * size // int(unit.offsets[-1])) + 1

    def repeated(offsets: Any) -> Any:
        starts = np.arange(copies)[:, None] * offsets[-1]
        return np.append((starts + offsets[:-1]).ravel(), copies * offsets[-1])

    chunk_offsets = None if unit.chunk_offsets is None else repeated(unit.chunk_offsets)
    chunk_ids = None if unit.chunk_ids is None else np.tile(unit.chunk_ids, copies)
    values, offsets = np.tile(unit.values, copies), repeated(unit.offsets)
    marks = np.searchsorted(offsets, np.arange(n_batches + 1) * size).tolist()
    return [
        NormalizedBatch(values, offsets[first : max(last, first + 1) + 1], chunk_offsets, chunk_ids)
        for first, last in pairwise(marks)
    ]


def text_of(batch: NormalizedBatch) -> Any:
    return batch.values[batch.offsets[0] : batch.offsets[-1]]


def _gathers(clock: Clock, rounds: int) -> Iterator[dict[str, Any]]:
    """(a): random loads per second, by bytes of the table and of a load."""
    device, threads = clock.device, 64 * 32 * clock.device.warps
    for n_bytes in (1 << 20, 8 << 20, 32 << 20):
        for width in (8, 16):
            with device:
                table = device.upload(np.random.default_rng(0).integers(0, 256, n_bytes, np.uint8))
                seconds = clock.micro(
                    f"gather{width}", {"IS_BYTES": 1, "STRETCH": 1}, threads, rounds,
                    table=table, n=n_bytes // width, rounds=LOADS_PER_THREAD, sums=device.xp.zeros(threads, np.uint64),
                )  # fmt: skip
            per_second = threads * LOADS_PER_THREAD / statistics.median(seconds)
            yield {"table_bytes": n_bytes, "load_bytes": width, "loads_per_s": per_second, "seconds": seconds}


def _texts(arguments: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Those asked for, else the shipped corpus, this package's code, and letters between which there is no cut."""
    for name, _, path in (pair.rpartition("=") for pair in arguments.text or []):
        yield name or Path(path).stem, Path(path).read_text("utf-8").split("\n")
    if not arguments.text:
        package = Path(gl.__file__).parent
        rows = pq.read_table(package / "data" / "corpus.parquet", columns=["language", "text"]).to_pylist()
        for language in ("en", "zh"):
            yield language, [row["text"] for row in rows if row["language"] == language]
        yield "code", [line for path in package.glob("*.py") for line in path.open(encoding="utf-8")]
        yield "no cut", ["an" * (min(arguments.size, 10**6) // 2)]


def _rate(stage: str, size: int, seconds: list[float]) -> dict[str, Any]:
    return {"stage": stage, "bytes": size, "gb_per_s": size / 1e9 / statistics.median(seconds), "seconds": seconds}


def describe_device(device: Any) -> dict[str, Any]:
    if device.xp is np:
        return {"name": device.name}
    cupy, runtime = device.xp, device.xp.cuda.runtime
    name = runtime.getDeviceProperties(0)["name"].decode()
    return {"name": name, "driver": runtime.driverGetVersion(), "cupy": cupy.__version__}


def _show(result: dict[str, Any]) -> None:
    machine, rates, curve = result["machine"], result["rates"], result["curve"]
    print(f"{machine['device']['name']}; {machine['processor']}, {machine['cpus']} CPUs; commit {machine['commit']}\n")
    for row in result["gathers"]:
        table = f"{row['load_bytes']:2d}-byte loads over {row['table_bytes'] >> 20:2d} MiB"
        print(f"  {table:34s}{row['loads_per_s'] / 1e9:10.3f} G/s")
    for model in dict.fromkeys(row["model"] for row in rates):
        table = {(row["stage"], row["text"]): row["gb_per_s"] for row in rates if row["model"] == model}
        names = list(dict.fromkeys(text for _, text in table))
        print(f"\n{model + ', GB/s':36s}" + "".join(f"{name:>10s}" for name in names))
        for stage in dict.fromkeys(stage for stage, _ in table):
            print(f"  {stage:34s}" + "".join(f"{table[stage, name]:10.4f}" for name in names))
    if not curve:
        return
    print(f"\nsample by bytes of a call, GB/s: {curve[0]['model']}, {curve[0]['text']}")
    for row in curve:
        speeds = (f"{name} {row['bytes'] / 1e9 / row[name]:.5f}" for name in ("device", "cpu") if name in row)
        print(f"  {row['bytes']:12d}  " + "  ".join(speeds))
    faster = [row["bytes"] for row in curve if row["device"] < row.get("cpu", 0)]
    print(f"  the device is faster from {min(faster)} bytes on" if faster else "  the CPU is faster at every size")


def _plot(curve: list[dict[str, Any]], path: str) -> None:
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    for name in ("device", "cpu"):
        rows = [(row["bytes"], row["bytes"] / 1e9 / row[name]) for row in curve if name in row]
        pyplot.loglog(*zip(*rows, strict=True), "o-", label=name)
    pyplot.xlabel("bytes of normalized text in a call")
    pyplot.ylabel("sample, GB/s")
    pyplot.legend()
    pyplot.savefig(path, dpi=150)
