"""The lattice of a text, shown: exact probabilities, a path for every segmentation, pictures whose labels are free."""

import html
import importlib
import itertools
import math
import os
import random
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brute_force import brute_force
from conftest import DATA
from handmade import (
    BYTE_NAMES,
    hugging_face_file,
    random_hugging_face_file,
    random_sentencepiece_model,
    sentencepiece_model,
    tokenizer_of,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import Case, cases

from gpu_lattice import Tokenizer
from gpu_lattice.cli import main
from gpu_lattice.show import picture
from gpu_lattice.show.lattice_figure import LONGEST_PICTURE, lattice_figure, paint_lattice
from gpu_lattice.show.lattice_layout import LABEL_SIZE, layout, lines, width_of
from gpu_lattice.show.picture import Fonts, columns_of, fonts_for, render, visible
from gpu_lattice.show.portrait import Portrait, portrait
from gpu_lattice.show.table import table

RELAXED = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])

TEXTS = {
    "english": ("en_nmt_nfkc.model", "The unreasonable matter"),
    "chinese": ("zh_bytes.model", "今天天气不错，天下之事"),
    "bytes": ("bytepiece.json", "天下 and the sun"),
    "markup": ("zh_bytes.model", "a <b>&\"' $x^2$ {y} \n\t\x00 \\ \U0001f600"),
}


def seen_of(name: str, alpha: float = 0.2) -> Portrait:
    model, text = TEXTS[name]
    return portrait(Tokenizer.from_file(DATA / model, device="cpu"), text, alpha=alpha)


def test_a_notebook_shows_the_lattice_of_one_text_as_its_picture() -> None:
    tokenizer = Tokenizer.from_pieces({"ab": -1.0, "a": -2.0, "b": -2.5})
    shown = ElementTree.fromstring(tokenizer.lattice("ab")._repr_html_() or "")
    assert shown.tag.endswith("svg")
    assert "ab" in "".join(shown.itertext())
    for texts in (["ab", "a"], [None], [], "c", "ab" * LONGEST_PICTURE):
        assert tokenizer.lattice(texts)._repr_html_() is None


def test_a_lattice_without_matplotlib_has_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_lattice.show.lattice_figure.find_spec", lambda name: None)
    assert Tokenizer.from_pieces(["a"]).lattice("a")._repr_html_() is None


def assert_is_path(seen: Portrait, arcs: tuple[int, ...]) -> None:
    bounds = [0, *(seen.arcs[i_arc].end for i_arc in arcs)]
    assert [seen.arcs[i_arc].start for i_arc in arcs] == bounds[:-1]
    assert bounds[-1] == len(seen.text)


@RELAXED
@given(cases(longest_text=7, always_spelled=True), st.sampled_from([0.0, 0.3, 1.0]))
def test_segmentations_and_arcs_have_their_exact_probabilities(case: Case, alpha: float) -> None:
    text = case.texts[0]
    expected = brute_force(text, case.pieces, case.unk_piece)
    if not expected.ids:
        with pytest.raises(ValueError, match="has no segmentation"):
            portrait(case.tokenizer(), text, alpha=alpha)
        return
    seen = portrait(case.tokenizer(), text, alpha=alpha, top=10_000)
    probabilities = expected.probabilities(alpha)
    assert {one.ids: pytest.approx(math.exp(one.log_prob), rel=1e-12) for one in seen.segmentations} == probabilities
    (first,) = portrait(case.tokenizer(), text, alpha=alpha, top=1).segmentations
    assert math.exp(first.log_prob) == pytest.approx(probabilities[first.ids], rel=1e-12)
    assert seen.num_paths == len(expected.ids)
    assert len(seen.best_arcs) == len(seen.segmentations[0].arcs)
    size = len(seen.text)
    posteriors = np.zeros((len(seen.arcs), size))
    for i_arc, arc in enumerate(seen.arcs):
        posteriors[i_arc, arc.start : arc.end] = arc.posterior
    assert posteriors.sum(axis=0) == pytest.approx(np.ones(size), rel=1e-12)
    for one in seen.segmentations:
        assert_is_path(seen, one.arcs)
        known = [seen.arcs[i_arc].id for i_arc in one.arcs if not seen.arcs[i_arc].is_unknown]
        unknown_id = list(case.pieces).index(case.unk_piece) if case.unk_piece else None
        assert known == [i for i in one.ids if i != unknown_id]


@settings(RELAXED, max_examples=100)
@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_every_way_to_read_unknown_text_is_followed(
    tmp_path_factory: pytest.TempPathFactory, seed: int, byte_fallback: bool, is_hugging_face: bool
) -> None:
    generator = random.Random(seed)
    make: Callable[..., bytes] = random_sentencepiece_model
    arguments: tuple[Any, ...] = (generator, byte_fallback)
    if is_hugging_face:
        make, arguments = random_hugging_face_file, (generator, "<unk>", byte_fallback)
    tokenizer = tokenizer_of(make(*arguments), tmp_path_factory.mktemp("model"))
    text = "".join(generator.choices("abé漢<?u>", k=8))
    for one in (seen := portrait(tokenizer, text, alpha=0, top=20)).segmentations:
        assert_is_path(seen, one.arcs)


def test_unknown_text_may_be_bytes_or_one_piece(tmp_path: Path) -> None:
    bytes_model: Any = [("<unk>", 0.0, "UNKNOWN"), *((name, 0.0, "BYTE") for name in BYTE_NAMES), ("a", -1.0, "NORMAL")]
    seen = portrait(tokenizer_of(sentencepiece_model(bytes_model, True), tmp_path), "aéa", alpha=1)
    (only,) = seen.segmentations
    assert seen.pieces(only) == ["a", "<0xC3>", "<0xA9>", "a"]
    assert [seen.label(seen.arcs[i_arc]) for i_arc in only.arcs] == ["a", "é", "a"]
    whole = hugging_face_file([("<unk>", -1.0), ("é", -20.0), ("xy", -3.0)], 0, False)
    seen = portrait(tokenizer_of(whole, tmp_path), "éxy", alpha=1)
    assert seen.pieces(seen.segmentations[0]) == ["é", "xy"]
    # Two unknown arcs, and the piece that they read as.
    assert seen.segmentations[0].log_prob == pytest.approx(0.0, abs=1e-12)


def test_ids_around_a_row_are_shown_and_take_no_arc() -> None:
    seen = portrait(Tokenizer.from_file(DATA / "en_split.tokenizer.json", device="cpu"), "the end", alpha=1)
    assert seen.pieces(seen.segmentations[0])[0] == "<s>"
    assert seen.pieces(seen.segmentations[0])[-1] == "</s>"
    assert_is_path(seen, seen.segmentations[0].arcs)


def test_the_table_says_everything_in_order() -> None:
    tokenizer = Tokenizer.from_pieces(
        {"a": 0.0, " b": 0.0, "a b": 0.0, "?": 0.0, " ": 0.0, "b": 0.0}, unk_piece="?", device="cpu"
    )
    assert table(portrait(tokenizer, "a bé", alpha=0, top=2)).split("\n") == [
        "5 bytes, 6 arcs, 3 segmentations",
        "alpha 0: log Z 1.0986, entropy 1.0986 nats (0.2197 per byte)",
        "",
        " probability  segmentation",
        "     33.33 %  a▁b ?",
        "     33.33 %  a ▁b ?",
        "     66.67 %  in 2 of 3 segmentations",
        "",
        "   posterior                            bytes  arc",
        "     66.67 %  █████████████▍              0-1  a",
        "     33.33 %  ██████▋                     0-3  a▁b  best",
        "     33.33 %  ██████▋                     1-2  ▁",
        "     33.33 %  ██████▋                     1-3  ▁b",
        "     33.33 %  ██████▋                     2-3  b",
        "    100.00 %  ████████████████████        3-5  é    best unknown",
    ]


def test_draws_are_those_of_sample_and_a_rate_mixes_the_best_in() -> None:
    tokenizer = Tokenizer.default(device="cpu")
    whole, options = portrait(tokenizer, "hello", alpha=0.5, top=14), {"alpha": 0.5, "num_samples": 400, "seed": 3}
    assert whole.best_arcs == frozenset(whole.segmentations[0].arcs)
    for rate in (1.0, 0.25):
        seen = portrait(tokenizer, "hello", top=4, rate=rate, **options)
        drawn = list(map(tuple, tokenizer.sample("hello", rate=rate, **options).tolist()))
        times = [one.times for one in seen.segmentations]
        assert times == [drawn.count(one.ids) for one in seen.segmentations] == sorted(times, reverse=True)
        assert seen.segmentations[0].is_best
        for one, of_all in zip(seen.arcs, whole.arcs, strict=True):
            is_best = seen.arcs.index(one) in whole.best_arcs
            assert one.posterior == pytest.approx(rate * of_all.posterior + (1 - rate) * is_best)
        mixed = [rate * math.exp(one.log_prob) + (1 - rate) * one.is_best for one in whole.segmentations]
        assert math.exp(seen.segmentations[0].log_prob) == pytest.approx(mixed[0])
        assert seen.entropy == pytest.approx(-sum(p * math.log(p) for p in mixed))
        assert f"{times[0]:>6}  ▁he llo" in table(seen).split("\n")[4]
    assert seen.measures.startswith("alpha 0.5, rate 0.25: log Z -7.6343")


@pytest.mark.usefixtures("matplotlib")
def test_a_long_text_has_a_table_and_no_picture(tmp_path: Path) -> None:
    tokenizer, text = Tokenizer.default(device="cpu"), "over and over " * 1000
    lines = table(portrait(tokenizer, text, alpha=0.1)).split("\n")
    assert "e" in lines[0].split(", ")[2]  # a number of more than 15 digits
    assert lines[4].split()[0].startswith(("1.", "2.", "3.", "4.", "5.", "6.", "7.", "8.", "9."))
    assert "e-" in lines[4].split()[0]
    assert lines[-1].endswith(" more arcs")
    assert len(lines) < 80
    with pytest.raises(ValueError, match=f"a picture has room for {LONGEST_PICTURE}; give a part of it"):
        paint_lattice(tokenizer, text, tmp_path / "long.svg")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("matplotlib")
def test_an_empty_text_is_shown(tmp_path: Path) -> None:
    tokenizer = Tokenizer.default(device="cpu")
    assert paint_lattice(tokenizer, "", tmp_path / "empty.png").num_paths == 1
    assert "0 bytes, 0 arcs, 1 segmentation\n" in table(portrait(tokenizer, ""))


@pytest.mark.parametrize("texts", [["a", "b"], [None], []])
def test_one_text_is_shown_at_a_time(texts: list[Any]) -> None:
    with pytest.raises(ValueError, match="one text is shown at a time"):
        portrait(Tokenizer.default(device="cpu"), texts)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("missing", [frozenset(), frozenset("天气公园下")])
def test_arcs_of_a_lane_lie_beside_each_other_above_those_within(name: str, missing: frozenset[str]) -> None:
    seen = seen_of(name)
    placed = layout(seen, missing)
    for i, j in itertools.permutations(range(len(seen.arcs)), 2):
        one, other = seen.arcs[i], seen.arcs[j]
        if one.start < other.end and other.start < one.end:
            assert placed.lanes[i] != placed.lanes[j]
        if one.start <= other.start and other.end <= one.end:
            assert placed.lanes[i] > placed.lanes[j]
    for arc, label in zip(seen.arcs, placed.labels, strict=True):
        assert width_of(label, LABEL_SIZE) < placed.x[arc.end] - placed.x[arc.start]
    assert list(placed.x.values()) == sorted(placed.x.values())


@pytest.mark.parametrize("width", [1.0, 150.0, 400.0])
@pytest.mark.parametrize("name", TEXTS)
def test_long_texts_are_wrapped_where_no_arc_is_cut(name: str, width: float) -> None:
    seen = seen_of(name)
    parts = lines(seen, width)
    assert b"".join(part.text for part in parts) == seen.text
    starts = [0, *itertools.accumulate(len(part.text) for part in parts)]
    arcs = [
        (arc.start + start, arc.end + start, arc.id)
        for part, start in zip(parts, starts[:-1], strict=True)
        for arc in part.arcs
    ]
    assert arcs == [(arc.start, arc.end, arc.id) for arc in seen.arcs]
    for i, one in enumerate(seen.segmentations):
        ids = [part.arcs[i_arc].id for part in parts for i_arc in part.segmentations[i].arcs]
        assert ids == [seen.arcs[i_arc].id for i_arc in one.arcs]
    for part in parts:
        inner = [*itertools.accumulate(len(character.encode()) for character in part.text.decode())][:-1]
        free = [at for at in inner if all(not arc.start < at < arc.end for arc in part.arcs)]
        assert layout(part).width <= width or not free


@pytest.mark.usefixtures("matplotlib")
def test_a_browser_shows_the_page_as_wide_as_its_text(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    tokenizer = Tokenizer.default(device="cpu")
    page, shot = tmp_path / "page.html", tmp_path / "page.png"
    seen = paint_lattice(tokenizer, "hello 天气", page)
    offline = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    browser = [chromium, "--headless", "--no-sandbox", "--disable-gpu", *offline]
    browser.append(f"--user-data-dir={tmp_path / 'profile'}")
    dump = [*browser, "--dump-dom", page.as_uri()]
    shown = subprocess.run(dump, capture_output=True, text=True, timeout=120, check=True)
    text = html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", "\n", shown.stdout, flags=re.DOTALL))
    words = {line.strip() for line in text.split("\n")}
    assert {visible(seen.text), *seen.pieces(seen.segmentations[0])} <= words
    assert text.count(seen.sizes) == 1
    take = [*browser, "--window-size=900,700", f"--screenshot={shot}", page.as_uri()]
    subprocess.run(take, capture_output=True, timeout=120, check=True)
    pixels = importlib.import_module("matplotlib.image").imread(shot)
    assert pixels.shape[:2] == (700, 900)
    assert 0.5 < (pixels[..., :3].min(axis=2) > 0.95).mean() < 0.99  # mostly white, and something on it


@pytest.mark.usefixtures("matplotlib")
@pytest.mark.parametrize("name", TEXTS)
def test_no_writing_of_the_picture_covers_another(name: str) -> None:
    seen, text = seen_of(name), TEXTS[name][1]

    def checked(fonts: Fonts) -> Any:
        figure = lattice_figure(seen, fonts)
        canvas = importlib.import_module("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
        canvas.draw()
        (axes,) = figure.axes
        boxes = [words.get_window_extent() for words in axes.texts if words.get_text()]
        assert len(boxes) > 2 * len(seen.arcs)
        for one, other in itertools.combinations(boxes, 2):
            across = min(one.x1, other.x1) - max(one.x0, other.x0)
            along = min(one.y1, other.y1) - max(one.y0, other.y0)
            # Boxes leave room for accents and descenders, which these may share.
            assert across <= 1 or along <= 4, (name, one, other)
        for box in boxes:
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1
        return figure

    assert render(".png", visible(text.encode()), checked)


@pytest.mark.usefixtures("matplotlib")
@pytest.mark.parametrize("name", TEXTS)
def test_an_svg_says_everything_in_the_viewers_fonts(name: str, tmp_path: Path) -> None:
    model, text = TEXTS[name]
    tokenizer = Tokenizer.from_file(DATA / model, device="cpu")
    seen = paint_lattice(tokenizer, text, tmp_path / "lattice.svg", alpha=0.2)
    data = (tmp_path / "lattice.svg").read_bytes()
    texts = list(ElementTree.fromstring(data).iter("{http://www.w3.org/2000/svg}text"))
    words = [element.text for element in texts]
    assert {*layout(seen).labels} <= set(words)
    assert f"{seen.sizes} {seen.measures} best segmentation" in " ".join(word or "" for word in words)
    characters = [visible(character.encode()) for character in seen.text.decode()]
    large = [element.text for element in texts if "font-size: 14px" in element.get("style", "")]
    assert large == [character for character in characters if columns_of(character) <= 2]
    assert {element.get("x") is not None and "text-anchor" in element.get("style", "") for element in texts} == {True}


@pytest.mark.usefixtures("matplotlib")
@pytest.mark.parametrize(("suffix", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("html", b"<!DOCTYPE html>")])
def test_a_picture_is_the_same_at_every_call(tmp_path: Path, suffix: str, magic: bytes) -> None:
    tokenizer = Tokenizer.default(device="cpu")
    for name in (f"a.{suffix}", f"b.{suffix.upper()}"):
        paint_lattice(tokenizer, "a dawn", tmp_path / name)
    data = (tmp_path / f"a.{suffix}").read_bytes()
    assert data.startswith(magic)
    assert b"date" not in data
    assert (tmp_path / f"b.{suffix.upper()}").read_bytes() == data


@pytest.mark.usefixtures("matplotlib")
def test_a_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    pieces = ["<script>", "&", "</script>", "<", "script>", "/script>", "{", "}"]
    seen = paint_lattice(Tokenizer.from_pieces(pieces), "<script>{&}</script>", tmp_path / "page.html", alpha=0)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("<svg") == 1
    assert "<script" not in page
    assert '<span class="piece">&lt;script&gt;</span>' in page
    assert page.count("<tr") == 2 + len(seen.segmentations) + len(seen.arcs)
    assert not [word for word in page.split() if word.startswith(("src=", "href="))]


@pytest.mark.usefixtures("matplotlib")
def test_characters_without_a_glyph_are_written_as_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(picture, "OTHER_FONTS", ())
    assert fonts_for("a漢é") == Fonts(["DejaVu Sans Mono"], frozenset("漢"))
    labels = layout(seen_of("chinese"), frozenset("天")).labels
    assert "U+5929" in labels
    # A missing glyph would be a warning, and so an error here.
    paint_lattice(Tokenizer.from_file(DATA / "zh_bytes.model", device="cpu"), "天下", tmp_path / "a.png")


@pytest.mark.usefixtures("matplotlib")
def test_other_fonts_are_taken_where_they_have_the_glyphs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only_there = "ᶁ"  # d with palatal hook
    monkeypatch.setattr(picture, "OTHER_FONTS", ("No Such Font", "STIXGeneral"))
    assert fonts_for(f"a{only_there}") == Fonts(["DejaVu Sans Mono", "STIXGeneral"], frozenset())
    paint_lattice(Tokenizer.from_pieces(["a", only_there]), f"a{only_there}", tmp_path / "a.png")


@pytest.mark.usefixtures("matplotlib")
@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_what_cannot_be_written_leaves_the_file_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failing: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.svg"
    path.write_text("as it was")
    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left"):
        paint_lattice(Tokenizer.default(device="cpu"), "a", path)
    monkeypatch.undo()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.svg", "as it was")]


def test_show_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = Tokenizer.default(device="cpu")
    assert main(["show", "A new dawn", "--alpha", "0.5", "--top", "3"]) == 0
    assert capsys.readouterr().out == table(portrait(tokenizer, "A new dawn", alpha=0.5, top=3)) + "\n"
    assert main(["show", "A new dawn", "--samples", "9", "--rate", "0.5", "--seed", "2"]) == 0
    seen = portrait(tokenizer, "A new dawn", num_samples=9, rate=0.5, seed=2)
    assert capsys.readouterr().out == table(seen) + "\n"


def test_colours_are_for_terminals_that_want_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["show", "a"]) == 0
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["show", "a"]) == 0
    coloured = capsys.readouterr().out
    assert "\x1b[33m" in coloured
    for code in ("0", "1", "2", "33", "34", "36"):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert [line.rstrip() for line in coloured.split("\n")] == plain.split("\n")
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["show", "a"]) == 0
    assert capsys.readouterr().out == plain


@pytest.mark.usefixtures("matplotlib")
def test_show_writes_a_picture_instead_of_printing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["show", "A new dawn", "-o", str(tmp_path / "dawn.html"), "--model", str(DATA / "bytepiece.json")]) == 0
    assert capsys.readouterr().out == ""
    assert [file.name for file in tmp_path.iterdir()] == ["dawn.html"]


@pytest.mark.usefixtures("matplotlib")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "-o", "a.pdf"], "'a.pdf' is not the name of a picture; end it in .svg, .png, .html"),
        (["a", "-o", "absent/a.svg"], "absent: No such file or directory"),
        (["a" * 500, "-o", "a.svg"], "a picture has room for 400"),
        (["a", "--top", "0"], "top is 0; give an integer from 1"),
        (["a", "--alpha", "-1"], "alpha is -1"),
        (["a", "--rate", "0.5"], "--rate 0.5 needs --samples"),
        (["a", "--alpha", "1e9"], "the largest alpha for this model"),
        ([], "arguments are required: TEXT"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["show", *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_extra_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["show", "a", "-o", str(tmp_path / "a.svg")]) == 2
    assert capsys.readouterr().err == "gpu-lattice: pictures need matplotlib: pip install 'gpu_lattice[viz]'\n"
    assert main(["show", "a"]) == 0


def test_columns_are_those_of_a_terminal() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    texts = ("", "abc", "漢字", "ｱ", "e\u0301", "😀", family, "ก็")
    assert [columns_of(text) for text in texts] == [0, 3, 4, 1, 1, 2, 2, 1]


def test_a_word_that_only_pieces_taken_out_spell_is_refused_since_no_lattice_shows_it() -> None:
    tokenizer = Tokenizer.from_pieces({"a": -1.0, "b": -2.0}, device="cpu").rescored({"b": -np.inf}, unspellable="best")
    with pytest.raises(ValueError, match="only pieces spell that were taken out"):
        portrait(tokenizer, "ab", num_samples=2)
