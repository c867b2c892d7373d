"""The proof for a GPU that is lent goes through every stage here, on the host build; its figures mean nothing."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DATA, ROOT
from cuda_on_cpu.host_device import compiler

TOOL = [sys.executable, str(ROOT / "tools" / "prove_on_gpu.py")]
MODEL = "ja_whole.tokenizer.json"
# A process that is killed could leave half of what it noted of its coverage.
ENVIRONMENT = os.environ | {"CUDA_ON_CPU_COVERAGE": ""}
# Runs the command that it is given; of the sanitizers, the device refuses one, and two find nothing without running it.
PROFILER = """#!/bin/sh
case "$*" in
*racecheck*) echo "Error: Device not supported"; exit 1;;
*initcheck* | *synccheck*) exit 0;;
esac
while [ "$1" != PYTHON ]; do shift; done
exec "$@"
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        pytest.skip("no g++: the CUDA sources cannot be built for this machine")
    folder = tmp_path_factory.mktemp("prepared")
    what = ["--model", str(DATA / MODEL), "--text", f"English={DATA / 'en.txt'}"]
    subprocess.run([*TOOL, "--prepare", str(folder), *what], check=True)
    return folder


def prove(results: Path, prepared: Path, *options: str, **environment: str) -> tuple[int, list[dict[str, Any]]]:
    command = [*TOOL, str(results), "--prepared", str(prepared), "--host", "--size", "2KB", "--rounds", "1", *options]
    status = subprocess.run(command, env=ENVIRONMENT | environment, check=False).returncode
    lines = (results / "results.jsonl").read_text("utf-8").splitlines()
    return status, [json.loads(line) for line in lines]


def test_every_stage_runs_and_keeps_its_results(prepared: Path, tmp_path: Path) -> None:
    for name in ("ncu", "compute-sanitizer"):
        (tmp_path / name).write_text(PROFILER.replace("PYTHON", sys.executable))
        (tmp_path / name).chmod(0o755)
    status, rows = prove(tmp_path, prepared, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    outcomes = {row["run"]: row["outcome"] for row in rows if "outcome" in row}
    smi = "passed" if shutil.which("nvidia-smi") else "absent"
    assert outcomes == dict.fromkeys(
        ["machine", "smoke", "rates", "sweep", "ncu", "pytest", "memcheck", "initcheck", "whole", "synccheck", "slow"],
        "passed",
    ) | {"nvidia-smi": smi, "racecheck": "absent"}
    assert status == 0
    assert next(row["device"] for row in rows if row["run"] == "machine") == {"name": "cuda:host"}
    assert [row["call"] for row in rows if row["run"] == "smoke" and row.get("same")] == [
        "encode",
        "sample",
        "sample 3",
    ]
    settings = {(row["STRETCH"], row["resident"]) for row in rows if row["run"] == "sweep" and "STRETCH" in row}
    assert len(settings) == 4
    assert {row.get("table") for row in rows if row["run"] == "whole"} == {"rates", "curve", None}
    assert "compile" in {row["run"] for row in rows}
    assert (tmp_path / "pytest.xml").read_text("utf-8").count("<testcase")


def test_ids_that_are_not_the_cpus_are_shown_and_a_stage_that_raises_stops_no_other(
    prepared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "prepared")
    path = folder / f"{MODEL}, English, sample 3.npz"
    known = dict(np.load(path))
    row = 3 * 40 + 2
    known["ids"][known["offsets"][row] + 1] += 1
    np.savez(path, **known)
    (folder / "prepared.json").write_text(json.dumps({"models": [MODEL]}), "utf-8")
    status, rows = prove(tmp_path / "out", folder, "--stages", "machine", "smoke")
    assert status == 1
    outcomes = [(row["run"], row["outcome"]) for row in rows if "outcome" in row]
    assert outcomes == [("machine", "failed"), ("smoke", "failed")]
    assert "KeyError: 'commit'" in capfd.readouterr().out
    smoke = [row for row in rows if "same" in row]
    assert [row["same"] for row in smoke] == [True, True, False]
    place = {"call": "sample 3", "array": "ids", "document": 40, "sample": 2, "position": 1}
    assert smoke[2] | place == smoke[2]
    assert smoke[2]["expected"][0] == smoke[2]["got"][0] + 1


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_killed_keeps_what_it_has(prepared: Path, tmp_path: Path, end: signal.Signals) -> None:
    out = tmp_path / "out"
    command = [*TOOL, str(out), "--prepared", str(prepared), "--host", "--size", "2KB", "--stages", "machine", "rates"]
    process = subprocess.Popen(command, env=ENVIRONMENT)
    while not (out / "rates.log").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(end)
    assert process.wait(60) != 0
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text("utf-8").splitlines()]
    assert ["machine", "passed"] in [[row["run"], row.get("outcome")] for row in rows]


@pytest.mark.parametrize("used", [0, 1024, 4096, 17000])
@pytest.mark.parametrize("blocks", [4, 8, 12])
def test_shared_memory_keeps_further_blocks_out(blocks: int, used: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("prove_on_gpu")
    size, unused = tool.shared_memory(blocks, used)
    assert blocks * (used + unused + 1024) <= size < (blocks + 1) * (used + unused + 1024)
    assert tool.shared_memory(12, 20000) == (228 << 10, 0)


def test_what_does_not_fit_is_left_out(prepared: Path, tmp_path: Path) -> None:
    status, rows = prove(tmp_path, prepared, "--minutes", "0", "--stages", "smoke", "pytest")
    assert status == 0
    assert [row.get("outcome") for row in rows if row["run"] in ("smoke", "pytest")] == ["left out"] * 2
