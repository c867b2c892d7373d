"""The README's example and its command print what it says."""

import contextlib
import io
import re

from conftest import ROOT

from gpu_lattice.cli import main

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_readme_shows() -> None:
    code, printed = re.findall(r"```(?:python)?\n(.*?)```", README, re.DOTALL)[:2]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {})
    assert out.getvalue() == printed


def test_the_encode_command_prints_what_the_readme_shows() -> None:
    arguments, printed = re.findall(r"\$ gpu-lattice (encode .*?)\n(.*?)```", README, re.DOTALL)[0]
    words = [quoted or plain for quoted, plain in re.findall(r'"(.*?)"|(\S+)', arguments)]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(words) == 0
    assert out.getvalue() == printed
