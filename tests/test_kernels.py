"""The kernels of lattices have the same parameters on the CPU and in CUDA, and launches name each of them."""

from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.host_device import HostDevice

from gpu_lattice.backends import Launcher
from gpu_lattice.backends.cpu_launcher import CpuLauncher
from gpu_lattice.backends.cuda_launcher import CudaLauncher
from gpu_lattice.kernels.cpu.lattice import kernels
from gpu_lattice.kernels.cuda.loader import FILES, kernels_in

# On the CPU the arcs of distinct segments are found in the way of the bulk path, and copied.
ON_ONE_ALONE = {"copy_arcs", "count_arcs", "place_arcs"}


def test_a_lattice_kernel_has_the_same_parameters_everywhere() -> None:
    cpu = {kernel: ("n", *parameters) for kernel, (_, parameters) in kernels().items()}
    cuda = {kernel: parameters for name in FILES if name.startswith("lattice/") for kernel, parameters in
            kernels_in(name).items()}  # fmt: skip
    assert cpu.keys() ^ cuda.keys() == ON_ONE_ALONE
    assert all(cuda[kernel] == cpu[kernel] for kernel in cpu.keys() & cuda.keys())


def test_no_two_cuda_kernels_have_one_name() -> None:
    names = [kernel for name in FILES for kernel in kernels_in(name)]
    assert len(set(names)) == len(names)


class NoKernels(HostDevice):
    def kernel(self, file: str, name: str, options: tuple[str, ...]) -> Any:
        raise AssertionError(f"{name} is launched")


@pytest.mark.parametrize("launcher", [CpuLauncher(1), CudaLauncher(NoKernels(), {})], ids=["cpu", "cuda"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"totals": None}, "kernel row_sums lacks totals; its parameters are .*offsets, values, totals$"),
        ({"weights": 1}, "kernel row_sums does not take weights; its"),
        ({"totals": None, "total": 1}, "kernel row_sums lacks totals and does not take total; its"),
    ],
)
def test_arguments_that_are_not_the_parameters_are_named_before_a_launch(
    launcher: Launcher, changes: dict[str, Any], message: str
) -> None:
    totals = np.zeros(1)
    right = {"offsets": np.array([0, 1]), "values": np.ones(1), "totals": totals}
    args = {name: value for name, value in (right | changes).items() if value is not None}
    for n in (0, 1):
        with pytest.raises(TypeError, match=message):
            launcher.run("row_sums", n, **args)
    assert totals.tolist() == [0.0]
