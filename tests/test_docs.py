"""README and docs: examples print what they say, links lead somewhere, figures are those of the benchmarks."""

import contextlib
import importlib
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import ROOT

from gpu_lattice.cli import main

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text("utf-8")
OTHERS = [ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")]
# A block that is marked ```py is shown only: it needs a machine or a package that the tests need not have.
EXAMPLE = re.compile(r"```python\n((?:(?!```).)*)```(?:\n```\n(.*?)```)?", re.DOTALL)
COMMAND = re.compile(r"\$ gpu-lattice (.*?)\n(.*?)```", re.DOTALL)
LINES_OF_README = 150


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder but for a model and a corpus, as examples name them."""
    shutil.copyfile(ROOT / "gpu_lattice" / "data" / "default.model", tmp_path / "spiece.model")
    lines = [json.dumps({"text": text}) for text in ("A new dawn.", "To be, or not to be.", "Words, words, words.")]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run_and_print_what_the_page_shows(page: Path) -> None:
    names: dict[str, object] = {}
    for code, printed in EXAMPLE.findall(page.read_text("utf-8")):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, page.name, "exec"), names)
        assert out.getvalue() == printed


@pytest.mark.parametrize(
    ("command", "printed"), [found for page in PAGES for found in COMMAND.findall(page.read_text("utf-8"))]
)
def test_a_command_prints_what_the_page_shows(command: str, printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(shlex.split(command)) == 0
    assert out.getvalue() == printed


def test_every_command_that_prints_a_table_is_shown() -> None:
    shown = {command.split()[0] for page in PAGES for command, _ in COMMAND.findall(page.read_text("utf-8"))}
    assert shown >= {"encode", "show", "preview"}


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE) if heading else []
        assert not heading or heading in {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


def test_every_page_is_reached_from_the_readme() -> None:
    assert {page.name for page in PAGES[1:]} <= set(re.findall(r"\]\(docs/([\w-]+\.md)\)", README))


def test_tables_of_measurements_are_what_the_report_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    report = importlib.import_module("bench.report")
    used = set()
    for page in PAGES:
        text = page.read_text("utf-8")
        assert report.filled(text) == text, f"python -m bench report would change {page.name}"
        used |= set(re.findall(r"<!-- report: (\w+) -->", text))
    assert used == set(report.TABLES)


def test_the_readme_is_short() -> None:
    assert len(README.split("\n")) <= LINES_OF_README
