"""The engine ray: the same files as the local engine gives, shard for shard, even if a worker dies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

pytest.importorskip("ray", reason="ray is absent: pip install 'gpu_lattice[ray]'")

# In a process of its own, for Ray starts others, and threads that outlive a test.
COMPARE = """
import hashlib, json, os, signal, sys, threading, time
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import ray
from gpu_lattice import Tokenizer, retokenize
from gpu_lattice.corpus.manifest import RECORDS
from gpu_lattice.corpus.ray_engine import SampleBatches

folder, kill = Path(sys.argv[1]), sys.argv[2] == "kill"
ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
tokenizer = Tokenizer.default(device="cpu", threads=1)
options = {"tokenizer": tokenizer, "alpha": 0.1, "progress": False, "append_eos": True}
local = retokenize(folder / "in", folder / "local", **options)
killed = []

def kill_one():
    while not killed:
        time.sleep(0.01)
        has_begun = any((folder / "ray" / RECORDS).glob("*.json"))
        for pid in [pid for pid, name in below(os.getpid()) if "_Worker" in name][:has_begun]:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

def below(root):
    # (number, command) of the processes that a process has started, or those have.
    stats = {int(path.parent.name): path for path in Path("/proc").glob("[0-9]*/stat")}
    parent_of = {}
    for pid, path in stats.items():
        try:
            parent_of[pid] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass
    for pid in parent_of:
        above = parent_of[pid]
        while above in parent_of and above != root:
            above = parent_of[above]
        # Others of them end meanwhile.
        with suppress(OSError):
            if above == root:
                yield pid, (Path("/proc") / str(pid) / "cmdline").read_text()

if kill:
    threading.Thread(target=kill_one, daemon=True).start()
there = retokenize(folder / "in", folder / "ray", engine="ray", workers=2, **options)

def content(out):
    files = [path for path in out.rglob("*") if path.is_file()]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

texts = ["some words", "others"]
dataset = ray.data.from_arrow(pa.table({"text": texts, "id": [7, 8]}))
rows = dataset.map_batches(
    SampleBatches, fn_constructor_args=(tokenizer,), fn_constructor_kwargs={"id_column": "id", "alpha": 0.1},
    batch_format="pyarrow", batch_size=2, compute=ray.data.ActorPoolStrategy(size=1),
).take_all()
print(json.dumps({
    "same": content(folder / "local") == content(folder / "ray"),
    "counts": [local.documents == there.documents, local.tokens == there.tokens, local.num_bytes == there.num_bytes],
    "killed": len(killed),
    "batches": [list(map(int, row["input_ids"])) for row in rows]
    == tokenizer.sample(texts, alpha=0.1, seed=0, doc_ids=[7, 8]).tolist(),
}))
"""


@pytest.mark.parametrize("kill", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ray_gives_what_the_local_engine_gives(tmp_path: Path, kill: bool) -> None:
    for i in range(12):
        (tmp_path / "in" / f"{i % 3}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / f"{i % 3}" / f"{i}.txt").write_text(f"some words in line {i}\n" * (20_000 if kill else 50))
    # On a busy machine, Ray takes longer to start than it waits by default.
    rays = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "300"}
    environment = {**os.environ, **rays, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", COMPARE, str(tmp_path), "kill" if kill else "live"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    # Ray may print of the worker that died, before and after.
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert found == {"same": True, "counts": [True] * 3, "killed": int(kill), "batches": True}
