"""A simulation, without a GPU: the kernels' host build run as warps, and the bounds that this sets on a device."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import gpu_lattice as gl
from bench.devices import DEVICES, DRAM_WAIT, GATHERED, ISSUED, L1_WAIT, L2_WAIT, Device
from bench.texts import lines, shipped
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.text_batch import TextBatch

ROOT = Path(__file__).resolve().parents[1]
VERBS = ("sample", "encode")
NOTE = "a simulation of the host build on a CPU: no GPU ran; fills, scans and copies by CuPy are not in it"
UNKNOWN_REGISTERS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="model file; the default model if left out")
    parser.add_argument("--text", help="UTF-8 text, a document per line; the shipped corpus if left out")
    parser.add_argument("--bytes", type=int, default=1 << 60, help="of the text, from its beginning on")
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--device", choices=DEVICES, default="H200")
    parser.add_argument("--json", help="write the results to this file")


def run(arguments: argparse.Namespace) -> int:
    sys.path.insert(0, str(ROOT / "tests"))
    from cuda_on_cpu.host_device import gcc_version

    from bench import sass

    if gcc_version() < 12:
        print("python -m bench simt: g++ 12 or later is absent, which builds the kernels for this machine")
        return 2
    absent = sass.missing()
    tok = (
        gl.Tokenizer.default(device="cpu")
        if arguments.model is None
        else gl.Tokenizer.from_file(arguments.model, device="cpu")
    )
    texts = _first(lines(arguments.text) if arguments.text else shipped("en", "ja", "zh"), arguments.bytes)
    batch = tok.model.normalizer(TextBatch.from_texts(texts))
    n = int(batch.offsets[-1] - batch.offsets[0])
    result: dict[str, Any] = {
        "note": NOTE,
        "device": arguments.device,
        "absent": absent,
        "model": Path(arguments.model or "default.model").name,
        "text": Path(arguments.text or "shipped").name,
        "alpha": arguments.alpha,
        "normalized_bytes": n,
        "stages": {},
        "whole": {},
    }
    device = DEVICES[arguments.device]
    print(f"SIMULATION for {arguments.device}: {NOTE}")
    print(f"{result['model']}, {result['text']}, alpha {arguments.alpha}; each figure per byte of normalized text")
    if absent:
        print(f"{absent}: no instructions, and {UNKNOWN_REGISTERS} registers a thread are assumed")
    for verb in VERBS:
        launches = _launches(tok, texts, verb, arguments.alpha, device, absent is None)
        stages = {launch.kernel: _stage(launch, n, device, absent is None) for launch in launches}
        result["stages"][verb], result["whole"][verb] = stages, _whole(list(stages.values()))
        _show(verb, stages, result["whole"][verb])
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _first(texts: list[str], n_bytes: int) -> list[str]:
    ends = np.cumsum([len(text.encode()) for text in texts])
    return texts[: int(np.searchsorted(ends, n_bytes)) + 1]


def _launches(
    tok: gl.Tokenizer, texts: list[str], verb: str, alpha: float, device: Device, has_code: bool
) -> list[Any]:
    """The launches of all kernels of a call."""
    from cuda_on_cpu.traced_device import TracedDevice

    from bench.sass import code_of

    def residence(file: str, kernel: str, options: tuple[str, ...], threads: int) -> tuple[int, int]:
        code = code_of(file, options, device.number)[kernel] if has_code else None
        return device.residence(code.registers if code else UNKNOWN_REGISTERS, code.shared if code else 0, threads)

    traced = TracedDevice(residence, device.l2_share)
    other = tok.on(CudaBackend(tok.model, traced))
    other.encode(texts) if verb == "encode" else other.sample(texts, alpha=alpha, seed=0)
    return traced.launches


def _stage(launch: Any, n: int, device: Device, has_code: bool) -> dict[str, Any]:
    """What one launch does per byte of n, and the GB/s that each resource allows."""
    from cuda_on_cpu.traced_device import LANES, SHARED

    from bench.sass import code_of, executed

    loops = [block for block in launch.blocks if block.begins_loop and block.lanes > launch.grid * launch.threads]
    main = max(loops, key=lambda block: block.lanes, default=None)
    warps = main.warps if main else sum(block.warps for block in launch.blocks)
    lanes = main.lanes if main else sum(block.lanes for block in launch.blocks)
    traffic = [of for name, of in launch.traffic.items() if name != SHARED]
    sectors = sum(of.l2_loads + of.store_sectors for of in traffic)
    dram = 32 * sum(of.dram_sectors for of in traffic), 128 * sum(of.dram_lines for of in traffic)
    stage: dict[str, Any] = {
        "warps_resident": launch.resident * launch.threads // LANES,
        "iterations_per_byte": main.lanes / n if main else 0.0,
        "lanes_active": lanes / (LANES * warps),
        "sectors_per_byte": sectors / n,
        "dram_bytes_per_byte": [dram[0] / n, dram[1] / n],
    }
    per_second = {
        "L2": device.l2_sectors * GATHERED / sectors,
        "DRAM by sectors": device.dram_bytes / max(1, dram[0]),
        "DRAM by lines": device.dram_bytes / max(1, dram[1]),
    }
    cycles = device.multiprocessors * device.hertz
    waits = sum(
        L1_WAIT * (of.loads - of.l2_waits - of.dram_waits) + L2_WAIT * of.l2_waits + DRAM_WAIT * of.dram_waits
        for of in traffic
    )
    per_second["waiting"] = cycles * stage["warps_resident"] / max(1, waits)
    if has_code:
        code = code_of(launch.file, launch.options, device.number)[launch.kernel]
        done = executed(code, launch)
        stage |= {
            "registers": code.registers,
            "spilled_bytes": code.spilled,
            "shared_bytes": code.shared,
            "instructions_per_byte": done.instructions / n,
            "instructions_per_iteration": done.instructions / main.warps if main else 0.0,
        }
        per_second["issue"] = cycles * ISSUED / max(1.0, done.instructions)
        per_second["float64"] = cycles * device.doubles / LANES / max(1.0, done.doubles)
    stage["gb_per_s"] = {name: n * rate / 1e9 for name, rate in per_second.items()}
    stage["arrays"] = {
        name: {
            "lanes_per_load": of.load_lanes / max(1, of.loads),
            "sectors_per_load": of.load_sectors / max(1, of.loads),
            "l2_sectors_per_byte": (of.l2_loads + of.store_sectors) / n,
        }
        for name, of in launch.traffic.items()
        if of.loads + of.stores
    }
    return _rounded(stage)


def _whole(stages: list[dict[str, Any]]) -> dict[str, Any]:
    """All stages one after the other; lanes_active weighs each by its iterations, or else by its threads."""
    total: dict[str, Any] = {"sectors_per_byte": sum(stage["sectors_per_byte"] for stage in stages)}
    weights = [stage.get("instructions_per_byte", stage["iterations_per_byte"]) for stage in stages]
    active = sum(weight * stage["lanes_active"] for weight, stage in zip(weights, stages, strict=True))
    total["lanes_active"] = active / max(1e-9, sum(weights))
    total["instructions_per_byte"] = (
        sum(stage["instructions_per_byte"] for stage in stages) if "instructions_per_byte" in stages[0] else None
    )
    total["dram_bytes_per_byte"] = [sum(stage["dram_bytes_per_byte"][i] for stage in stages) for i in (0, 1)]
    slowest = [min(stage["gb_per_s"].values()) for stage in stages]
    fastest = [min(rate for name, rate in stage["gb_per_s"].items() if name != "DRAM by lines") for stage in stages]
    total["gb_per_s"] = [1 / sum(1 / rate for rate in rates) for rates in (slowest, fastest)]
    return _rounded(total)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _show(verb: str, stages: dict[str, Any], whole: dict[str, Any]) -> None:
    print(
        f"\n{verb:14}{'warps':>6}{'regs':>5}{'iter.':>7}{'lanes':>6}{'instr.':>8}{'/iter.':>7}{'sectors':>8}"
        f"{'DRAM bytes':>16}   GB/s"
    )
    for name, stage in stages.items():
        bound, rate = min(stage["gb_per_s"].items(), key=lambda item: item[1])
        print(
            f"{name:14}{stage['warps_resident']:6}{stage.get('registers', '-'):>5}{stage['iterations_per_byte']:7.2f}"
            f"{stage['lanes_active']:6.2f}{stage.get('instructions_per_byte', 0):8.2f}"
            f"{stage.get('instructions_per_iteration', 0):7.0f}{stage['sectors_per_byte']:8.2f}"
            f"{stage['dram_bytes_per_byte'][0]:8.1f}{stage['dram_bytes_per_byte'][1]:8.1f}{rate:7.0f} {bound}"
        )
    instructions = whole["instructions_per_byte"] or 0
    print(
        f"{'whole':32}{whole['lanes_active']:6.2f}{instructions:8.2f}{'':7}{whole['sectors_per_byte']:8.2f}"
        f"{whole['dram_bytes_per_byte'][0]:8.1f}{whole['dram_bytes_per_byte'][1]:8.1f}"
        f"{whole['gb_per_s'][0]:7.0f} to {whole['gb_per_s'][1]:.0f}"
    )
