"""What the tests share: where data lies, skips that say why, a cache that is not the user's, no deadlines."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cuda_on_cpu.host_device import write_coverage
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"

# The first example of a test may wait for Numba.
settings.register_profile("gpu_lattice", deadline=None)
settings.load_profile("gpu_lattice")


def pytest_sessionfinish() -> None:
    write_coverage()


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GPU_LATTICE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real models and texts kept beside a checkout; not part of the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: the real models and texts are not part of the repository")
    return folder


@pytest.fixture(scope="session")
def matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is absent: pip install 'gpu_lattice[viz]'")
