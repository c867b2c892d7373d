"""A model on a user's own files: our rates beside its tool's, and whether the ids are the same."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from gpu_lattice.benchmark.machine import describe, one_line
from gpu_lattice.benchmark.peers import PACKAGE_OF, Call, Peer, ids_of, peer_of
from gpu_lattice.benchmark.rounds import Case, Timings, in_turns, ratio
from gpu_lattice.corpus.documents import ReaderOptions, as_separator
from gpu_lattice.corpus.excerpt import excerpt
from gpu_lattice.runtime.arguments import checked_alpha, checked_integer
from gpu_lattice.runtime.threads import default_threads

if TYPE_CHECKING:
    from gpu_lattice.token_batch import TokenBatch
    from gpu_lattice.tokenizer import Tokenizer

VERBS = ("sample", "encode")
CURVE_SIZES = (1, 4, 16, 64, 256, 1024, 4096)
# A tool gets at most so much of a round as it does in about this time.
PEER_SECONDS = 0.4
CURVE_CALLS = 256


class Way(NamedTuple):
    """What is timed: a verb, the tool that does it, where."""

    verb: str
    tool: str
    device: str
    threads: int

    @property
    def where(self) -> str:
        """The device, or on the CPU how many threads, in words."""
        return self.device if self.device != "cpu" else f"{self.threads} thread{'s' * (self.threads != 1)}"


class Row(NamedTuple):
    """One line of the table: MB/s of text (60 % of the rounds lie between low and high), millions of tokens a second.

    times: how many times the rate of the model's tool on one thread; None for the tool itself, or without one
    """

    way: Way
    mb_per_s: float
    low: float
    high: float
    mtokens_per_s: float
    times: float | None


class Point(NamedTuple):
    """Of the curve: the rate of sample with so many documents in a call."""

    documents: int
    device: str
    mb_per_s: float


@dataclass(frozen=True)
class Comparison:
    """What `compare` measured.

    matching, checked   documents whose ids are the tool's, of so many; both 0 without a tool
    note                why there is no tool, if there is none
    """

    machine: dict[str, Any]
    model: str
    pieces: int
    alpha: float
    rounds: int
    documents: int
    num_bytes: int
    num_files: int
    rows: tuple[Row, ...]
    curve: tuple[Point, ...]
    checked: int
    matching: int
    note: str

    def to_json(self) -> str:
        """All of it, the rows and points as objects."""
        fields = asdict(self)
        fields["rows"] = [row.way._asdict() | dict(zip(Row._fields[1:], row[1:], strict=True)) for row in self.rows]
        fields["curve"] = [point._asdict() for point in self.curve]
        return json.dumps(fields, indent=1) + "\n"

    @property
    def measured_on(self) -> str:
        """One line."""
        files = f"{self.num_files:,} file{'s' * (self.num_files != 1)}"
        text = f"{self.documents:,} documents, {self.num_bytes / 1e6:.1f} MB from {files}"
        return f"{self.model}, {self.pieces:,} pieces; {text}; alpha {self.alpha:g}; {self.rounds} rounds in turns"

    @property
    def check(self) -> str:
        """Whether ids are the same, in words."""
        if not self.checked:
            return self.note
        if self.matching == self.checked:
            return f"ids: all {self.checked:,} documents match"
        return f"ids: {self.checked - self.matching:,} of {self.checked:,} documents DIFFER"

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.machine["versions"].items())
        cells = [("", "", "MB/s", "60 % of rounds", "Mtokens/s", "times the tool")]
        for row in self.rows:
            way = row.way
            times = "-" if row.times is None else f"{row.times:.1f}"
            rates = f"{row.mb_per_s:.1f}", f"{row.low:.1f} to {row.high:.1f}", f"{row.mtokens_per_s:.2f}"
            cells.append((way.verb, f"{way.tool}, {way.where}", *rates, times))
        lines = [one_line(self.machine), versions, "", self.measured_on, "text that comes once", *_aligned(cells, 2)]
        lines += ["", self.check, "", "sample, MB/s by documents in a call"]
        devices = dict.fromkeys(point.device for point in self.curve)
        sizes = dict.fromkeys(point.documents for point in self.curve)
        speeds = {(point.device, point.documents): f"{point.mb_per_s:.1f}" for point in self.curve}
        curve = [("documents", *map(str, sizes))]
        curve += [(device, *(speeds.get((device, size), "-") for size in sizes)) for device in devices]
        return "\n".join([*lines, *_aligned(curve, 1)])


def compare(
    model: str | os.PathLike[str] | None,
    inputs: Sequence[str | os.PathLike[str]],
    *,
    alpha: float = 0.2,
    rounds: int = 8,
    max_bytes: int = 8_000_000,
    device: str = "auto",
    threads: int | None = None,
    text_column: str = "text",
    separator: str | bytes | None = None,
    input_format: str = "auto",
    progress: bool = True,
) -> Comparison:
    """Measure sample and encode on files, folders or glob patterns, as `gpu-lattice retokenize` takes them.

    model: a file, or None for the model that comes with the package. At most max_bytes of documents are divided among
    the rounds, in which each case gets every text once, in turn with the model's tool if that is installed: the case
    of a corpus. Raises what reading them raises, and ValueError for fewer documents than rounds.

    Example:
        >>> print(compare("spiece.model", ["corpus/*.parquet"]))  # doctest: +SKIP
    """
    alpha, rounds = checked_alpha(alpha), checked_integer("rounds", rounds, 1, 1000)
    max_bytes = checked_integer("max_bytes", max_bytes, 1, 2**40)
    options = ReaderOptions(text_column=text_column, separator=as_separator(separator), input_format=input_format)
    with _Progress(progress) as progressing:
        progressing.say("loading the model")
        tokenizer = _load(model, device, threads)
        progressing.say("reading")
        drawn = excerpt(inputs, options, max_bytes, 0)
        texts = [text.decode("utf-8", "replace") for text in drawn.texts]
        if len(texts) < rounds:
            raise ValueError(
                f"{len(texts)} documents cannot be divided among {rounds} rounds; give more, or --rounds 1"
            )
        parts = [texts[i::rounds] for i in range(rounds)]
        peer = _peer(tokenizer, model, alpha)
        cases = _cases(tokenizer, threads or default_threads(), peer, alpha, drawn.num_bytes / rounds)
        progressing.say("compiling, and warming up")
        _warm_up(cases)
        progressing.count("rounds", rounds * len(cases))
        timings = in_turns([case for case, _ in cases], parts, progressing.step)
        progressing.say("checking ids")
        rows = [(tokenizer.encode(part), part) for part in parts]
        same = [] if peer is None else [one == other for out, part in rows for one, other in _pairs(out, peer, part)]
        progressing.say("batch sizes")
        curve = [point for case, one in cases for point in _curve(case, one, texts)]
    return Comparison(
        machine=describe(),
        model=os.path.basename(os.fspath(model)) if model is not None else "the default model",
        pieces=len(tokenizer),
        alpha=alpha,
        rounds=rounds,
        documents=len(texts),
        num_bytes=drawn.num_bytes,
        num_files=drawn.num_files,
        rows=tuple(_row(way, timings, peer) for way in timings),
        curve=tuple(curve),
        checked=len(same),
        matching=sum(same),
        note=_note(tokenizer.model.kind) if peer is None else "",
    )


def _load(model: str | os.PathLike[str] | None, device: str, threads: int | None) -> Tokenizer:
    from gpu_lattice.tokenizer import Tokenizer

    if model is None:
        return Tokenizer.default(device=device, threads=threads)
    return Tokenizer.from_file(model, device=device, threads=threads)


def _peer(tokenizer: Tokenizer, model: str | os.PathLike[str] | None, alpha: float) -> Peer | None:
    from gpu_lattice.models.detect import model_file

    of = tokenizer.model
    path = files("gpu_lattice.data") / "default.model" if model is None else model_file(Path(model))
    return peer_of(of.kind, str(path), alpha, of.merges is not None)


def _note(kind: str) -> str:
    if kind not in PACKAGE_OF:
        return "ids: not compared, as this kind of model has no tool here"
    return f"ids: not compared, as {PACKAGE_OF[kind]} is not installed: pip install {PACKAGE_OF[kind]}"


def _cases(
    tokenizer: Tokenizer, threads: int, peer: Peer | None, alpha: float, round_bytes: float
) -> list[tuple[Case, Tokenizer | None]]:
    """Every case, with the tokenizer of its own that it has if it is ours: one would remember words for the other."""
    from gpu_lattice.tokenizer import Tokenizer

    cases: list[tuple[Case, Tokenizer | None]] = []
    places = [("cpu", n) for n in sorted({1, threads})]
    for verb in VERBS:
        for device, n in places + ([] if tokenizer.device == "cpu" else [(tokenizer.device, 1)]):
            one = Tokenizer(tokenizer.model, device=device, threads=n)
            call = partial(one.sample, alpha=alpha, seed=0) if verb == "sample" else one.encode
            cases.append((Case(Way(verb, "gpu_lattice", device, n), _column, call, _num_tokens), one))
        if peer is not None:
            share = min(1.0, PEER_SECONDS * peer.megabytes * 1e6 / round_bytes)
            work = peer.sample if verb == "sample" else peer.encode
            for _, n in places if peer.is_threaded else places[:1]:
                call = partial(_with_threads, work, n)
                cases.append((Case(Way(verb, peer.name, "cpu", n), list, call, _num_ids, share), None))
    return cases


def _column(documents: list[str]) -> Any:
    return pa.array(documents, pa.large_string())


def _with_threads(work: Call, threads: int, documents: list[str]) -> Any:
    return work(documents, threads)


def _num_tokens(out: Any) -> int:
    return len(out.ids)


def _num_ids(rows: Any) -> int:
    return sum(map(len, ids_of(rows)))


def _warm_up(cases: list[tuple[Case, Tokenizer | None]]) -> None:
    """Compile, and load what is loaded once; nothing is remembered of it."""
    with (files("gpu_lattice.data") / "corpus.parquet").open("rb") as file:
        other = pq.read_table(file, columns=["text"])["text"].to_pylist()[:200]
    for case, tokenizer in cases:
        case.call(case.prepare(other))
        if tokenizer is not None:
            tokenizer.backend.forget()


def _pairs(out: TokenBatch, peer: Peer, documents: list[str]) -> Iterator[tuple[Any, list[int]]]:
    return zip(out.tolist(), ids_of(peer.encode(documents, 1)), strict=True)


def _row(way: Way, timings: dict[Way, Timings], peer: Peer | None) -> Row:
    is_ours = peer is not None and way.tool != peer.name
    times = ratio(timings[way], timings[Way(way.verb, peer.name, "cpu", 1)]) if peer is not None and is_ours else None
    return Row(way, **timings[way].summary(), times=times)


def _curve(case: Case, tokenizer: Tokenizer | None, texts: list[str]) -> Iterator[Point]:
    """The rates of our sampling by calls of so many documents, each text once."""
    way: Any = case.name
    if tokenizer is None or way.verb != "sample" or (way.device == "cpu" and way.threads > 1):
        return
    for size in CURVE_SIZES:
        calls = [texts[i : i + size] for i in range(0, len(texts) - size + 1, size)][:CURVE_CALLS]
        if calls:
            tokenizer.backend.forget()
            timings = in_turns([case], calls)[way]
            yield Point(size, way.device, sum(timings.num_bytes) / 1e6 / sum(timings.seconds))


class _Progress:
    """A bar on stderr from the first moment."""

    def __init__(self, is_shown: bool) -> None:
        self._is_shown = is_shown and sys.stderr is not None

    def __enter__(self) -> _Progress:
        from tqdm import tqdm

        self._bar = tqdm(bar_format="{desc}", disable=not self._is_shown, leave=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def say(self, what: str) -> None:
        self._bar.bar_format = "{desc} ..."
        self._bar.set_description_str(what)

    def count(self, what: str, total: int) -> None:
        self._bar.bar_format = None
        self._bar.reset(total)
        self._bar.set_description(what)

    def step(self, _: object) -> None:
        self._bar.update()


def _aligned(rows: Sequence[tuple[str, ...]], num_left: int) -> list[str]:
    """Rows of cells, the first columns flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if i < num_left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  " + "  ".join(cells).rstrip())
    return lines
