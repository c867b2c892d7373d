"""The README's example and its commands print what it says."""

import contextlib
import io
import re
import shlex

import pytest
from conftest import ROOT

from gpu_lattice.cli import main

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_examples_print_what_the_readme_shows() -> None:
    names: dict[str, object] = {}
    examples = re.findall(r"```python\n((?:(?!```).)*)```\n```\n(.*?)```", README, re.DOTALL)
    assert len(examples) >= 2
    for code, printed in examples:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, "README.md", "exec"), names)
        assert out.getvalue() == printed


@pytest.mark.parametrize(("command", "printed"), re.findall(r"\$ gpu-lattice (.*?)\n(.*?)```", README, re.DOTALL))
def test_a_command_prints_what_the_readme_shows(command: str, printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(shlex.split(command)) == 0
    assert out.getvalue() == printed


def test_the_readme_shows_every_command_that_prints_a_table() -> None:
    assert set(re.findall(r"\$ gpu-lattice (\w+)", README)) >= {"encode", "show", "preview"}
