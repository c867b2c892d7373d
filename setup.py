"""What pyproject.toml cannot say: a build starts from nothing, or what an earlier one left would enter the wheel."""

from pathlib import Path
from shutil import rmtree

from setuptools import setup
from setuptools.command.build import build


class CleanBuild(build):
    def run(self) -> None:
        if Path(self.build_lib).exists():
            rmtree(self.build_lib)
        super().run()


setup(cmdclass={"build": CleanBuild})
