"""What the kernels' design relies on, by a simulation of their host build: busy lanes, few sectors. No GPU runs."""

import importlib
import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from cuda_on_cpu.host_device import gcc_version

from gpu_lattice.backends.cuda import LONGEST, STRETCH
from gpu_lattice.backends.cuda_launcher import THREADS_PER_BLOCK
from gpu_lattice.kernels.cuda.loader import define_options


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if gcc_version() < 12:
        pytest.skip("g++ is older than 12, which is the first to trace as is needed here")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        module = importlib.import_module("bench.simt")
        out = tmp_path_factory.mktemp("simt") / "out.json"
        parser = ArgumentParser()
        module.add_arguments(parser)
        assert module.run(parser.parse_args(["--bytes", "60000", "--json", str(out)])) == 0
    return json.loads(Path(out).read_text("utf-8"))


def test_forward_keeps_its_lanes_busy_and_sample_asks_little_of_l2(simulated: dict[str, Any]) -> None:
    assert simulated["stages"]["sample"]["forward"]["lanes_active"] >= 0.85
    assert simulated["whole"]["sample"]["sectors_per_byte"] <= 4


def test_sample_takes_few_instructions_and_encode_not_many_more(simulated: dict[str, Any]) -> None:
    sample, encode = simulated["whole"]["sample"], simulated["whole"]["encode"]
    assert encode["sectors_per_byte"] <= 1.1 * sample["sectors_per_byte"]
    if simulated["absent"] is None:
        assert sample["instructions_per_byte"] <= 17
        assert encode["instructions_per_byte"] <= 1.3 * sample["instructions_per_byte"]


def longest_loop(blocks: list[Any], without: set[int]) -> float:
    """The share of the code in the largest set of blocks that can all be reached from each other, without some."""
    reached: list[set[int]] = []
    for i in range(len(blocks)):
        todo, seen = [i], set[int]()
        while todo:
            following = set(blocks[todo.pop()].next) - seen - without
            seen |= following
            todo += following
        reached.append(seen)
    sizes = [sum(len(blocks[j].code) for j in reached[i] if i in reached[j]) for i in range(len(blocks))]
    return max(size for i, size in enumerate(sizes) if i not in without) / sum(len(block.code) for block in blocks)


@pytest.mark.parametrize(
    ("file", "kernel"), [("forward_sample", "forward"), ("forward_sample", "trace"), ("viterbi", "viterbi")]
)
def test_lanes_at_different_positions_meet_once_a_round_of_one_loop_in_machine_code(
    simulated: dict[str, Any], file: str, kernel: str
) -> None:
    sass = importlib.import_module("bench.sass")
    if simulated["absent"]:
        pytest.skip(simulated["absent"])
    constants = {"IS_BYTES": 0, "NUMBER": "float", "STRETCH": STRETCH, "LONGEST": LONGEST, "BLOCK": THREADS_PER_BLOCK}
    blocks = sass.code_of(f"bulk/{file}", define_options(f"bulk/{file}", constants), 90)[kernel].blocks
    meet = {i for i, block in enumerate(blocks) if any(at and at[0][0] == "warp.cuh" for _, at in block.code)}
    assert longest_loop(blocks, set()) > 1 / 2
    assert longest_loop(blocks, meet) < 1 / 4


def test_every_figure_is_said_to_be_simulated_or_absent(simulated: dict[str, Any]) -> None:
    assert "no GPU ran" in simulated["note"]
    for verb in ("sample", "encode"):
        whole = simulated["whole"][verb]
        assert 0 < whole["lanes_active"] <= 1
        assert (whole["instructions_per_byte"] is None) == (simulated["absent"] is not None)
        for stage in simulated["stages"][verb].values():
            assert stage["gb_per_s"]["L2"] > 0
            assert stage.get("spilled_bytes", 0) == 0
