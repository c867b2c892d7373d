"""What the kernels' design relies on, by a simulation of their host build: busy lanes, few sectors. No GPU runs."""

import importlib
import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from cuda_on_cpu.host_device import gcc_version


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
    assert simulated["whole"]["sample"]["sectors_per_byte"] <= 5.5


def test_every_figure_is_said_to_be_simulated_or_absent(simulated: dict[str, Any]) -> None:
    assert "no GPU ran" in simulated["note"]
    for verb in ("sample", "encode"):
        whole = simulated["whole"][verb]
        assert 0 < whole["lanes_active"] <= 1
        assert (whole["instructions_per_byte"] is None) == (simulated["absent"] is not None)
        for stage in simulated["stages"][verb].values():
            assert stage["gb_per_s"]["L2"] > 0
            assert stage.get("spilled_bytes", 0) == 0
