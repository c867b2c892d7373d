"""Corpus files in, files of token ids out: streamed, resumable, the same however the work is dealt."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gpu_lattice.corpus.bad_rows import ON_ERROR
from gpu_lattice.corpus.documents import ReaderOptions, as_separator
from gpu_lattice.corpus.draws import checked_shard, deal
from gpu_lattice.corpus.inputs import InputFile, expand_inputs, identity
from gpu_lattice.corpus.job import Draw, Job, Shard
from gpu_lattice.corpus.manifest import MANIFEST, RECORDS, Manifest, Record, for_report
from gpu_lattice.corpus.outputs import BAD_ROWS, ENDINGS, OutputOptions, resolved
from gpu_lattice.corpus.pipeline import run_shards
from gpu_lattice.corpus.plan import plan
from gpu_lattice.corpus.progress import Progress
from gpu_lattice.corpus.storage import Local, Storage, resolve
from gpu_lattice.runtime.arguments import check_tokenizer, checked_alpha, checked_integer, checked_penalty, checked_rate
from gpu_lattice.runtime.files import locked, remove_leftovers
from gpu_lattice.runtime.interrupts import put_off_interrupts
from gpu_lattice.runtime.seeds import epoch_seed
from gpu_lattice.runtime.version import DRAWS, __version__

if TYPE_CHECKING:
    from gpu_lattice.models.rescored import Unspellable
    from gpu_lattice.tokenizer import Tokenizer

# The memory of larger batches is given back and met anew each time; a GPU works on one part while it gets the next.
CPU_BATCH_BYTES, GPU_BATCH_BYTES = 16_000_000, 64_000_000
# Twice as much still fits into 64 bits.
MOST_BATCH_BYTES = 2**62
ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Summary:
    """The results of a run: of what it did itself, not of what `resume` found done.

    documents   rows of the inputs, nulls and bad rows that were replaced too
    num_bytes   bytes of their texts
    rows        rows written: documents * num_samples, or packed sequences
    tokens      ids written, with padding
    bad_rows    documents that were skipped or replaced
    dropped_tokens   ids that filled no sequence, without a pad_id
    resumed     shards that were already done
    seconds     wall time
    outputs     the files of this run's shards, in the order of the inputs; of those done earlier too
    settings    what made them, as in the manifest
    """

    documents: int
    num_bytes: int
    rows: int
    tokens: int
    bad_rows: int
    dropped_tokens: int
    resumed: int
    seconds: float
    outputs: tuple[str, ...]
    num_samples: int
    settings: dict[str, Any] = field(repr=False)

    @property
    def bytes_per_token(self) -> float:
        """Average bytes of text per token; 0 without tokens."""
        return self.num_bytes * self.num_samples / self.tokens if self.tokens else 0.0

    @property
    def megabytes_per_second(self) -> float:
        """Text read per second, in 10^6 bytes, however many samples are drawn from it."""
        return self.num_bytes / 1e6 / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        options = self.settings["options"]
        drawn = "best segmentation" if options["alpha"] is None else f"alpha {options['alpha']}, seed {options['seed']}"
        if options["token_penalty"]:
            drawn += f", token penalty {options['token_penalty']:g}"
        if options["rate"] != 1:
            drawn += f", rate {options['rate']:g}"
        parts = [
            f"{self.documents} documents, {self.num_bytes} bytes, {self.tokens} tokens, "
            f"{self.bytes_per_token:.3f} bytes/token, {self.megabytes_per_second:.1f} MB/s",
            f"{drawn}, model {self.settings['model']['sha256'][:16]}",
        ]
        counts = {"bad rows": self.bad_rows, "tokens dropped": self.dropped_tokens, "shards done before": self.resumed}
        parts += [f"{number} {what}" for what, number in counts.items() if number]
        return "; ".join(parts)


def retokenize(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    tokenizer: Tokenizer,
    alpha: float | None = None,
    nbest_size: int = -1,
    num_samples: int = 1,
    seed: int | None = None,
    token_penalty: float = 0.0,
    rate: float = 1.0,
    exclude: Iterable[Any] = (),
    unspellable: Unspellable = "raise",
    epochs: int | None = None,
    epoch: int | None = None,
    text_column: str = "text",
    id_column: str | None = None,
    input_format: str = "auto",
    separator: str | bytes | None = None,
    root: str | os.PathLike[str] | None = None,
    format: str = "parquet",
    dtype: str | None = None,
    append_eos: bool = False,
    prepend_bos: bool = False,
    append_id: int | None = None,
    prepend_id: int | None = None,
    pack: int | None = None,
    pack_whole: bool = False,
    pad_id: int | None = None,
    max_tokens_per_file: int | None = None,
    split_bytes: int = 1 << 30,
    shard: str | tuple[int, int] | None = None,
    on_error: str = "raise",
    resume: bool = False,
    overwrite: bool = False,
    batch_bytes: int | None = None,
    verify: bool = False,
    progress: bool = True,
    report: str | os.PathLike[str] | None = None,
    engine: str = "local",
    workers: int | None = None,
) -> Summary:
    """Segment every document of the inputs into files of ids, one for each input, in the same folders.

    Rows are never cut, whatever the model's file says of truncation.

    inputs       files, folders, glob patterns, URLs, "-" for stdin: Parquet, Arrow, JSONL, CSV, TSV and plain text,
                 compressed or not; what a file is shows in its content (`input_format` says it for all)
    output       the folder to write to, a path or a URL; made if it does not exist
    alpha        None: the best segmentation; else samples, as in Tokenizer.sample, with nbest_size
    num_samples  K rows for each document, sample 0 to K - 1
    token_penalty, rate   as in Tokenizer.sample
    exclude      pieces (names, bytes or ids) to take out of the lattice, and unspellable, as in Tokenizer.rescored
    seed         0 by default; with epochs=E, or epoch=K alone, folders epoch-000 and so on, each drawn as
                 Tokenizer.sample draws it with epoch=
    text_column, id_column   "a.b" is the field b of a column a. Without an id column, a document's id is a 64-bit hash
                 of its file's path below the root and of its row, so its tokens do not depend on the other files.
    separator    what separates documents in plain text; None: line ends
    root         the folder that paths are relative to; by default a folder given, the part of a pattern before its
                 first wildcard, and of files the deepest folder that holds all of them
    format       "parquet", "arrow", "megatron" (.bin, .idx), "datatrove" (.ds), "bin" (nanoGPT), "llmc"; dtype: of the
                 ids, int32, uint16 or uint32
    append_eos, prepend_bos   put the model's ids around every document; append_id, prepend_id: these ids
    pack         sequences of this length instead of a row for each sample; with pack_whole, documents are not divided
                 among them; rests are filled with pad_id, or dropped and counted
    max_tokens_per_file  begin another file before this many tokens are exceeded
    split_bytes  larger Parquet files are divided at row groups into shards of about this size
    shard        "I/N": do the I-th of N parts of the work, I from 0; all may share the output folder
    on_error     a row that cannot be used ends the run ("raise"), is left out ("skip"), or is replaced by null; they
                 are listed in _bad_rows/
    resume       do what is missing; refused if the manifest, _gpu_lattice.json, is that of another job
    overwrite    remove what the manifest in the folder lists, and do it again
    batch_bytes  most text at a time, counted num_samples times, by default 16 MB, with a GPU 64; it bounds memory and
                 changes no byte. A longer document is still held whole, with about 12 bytes of memory for each of
                 its own
    verify       check that every row spells its normalized text
    progress     show a bar on a terminal, else a line every 30 seconds, on stderr
    report       a file for the summary, as JSON
    engine       "local", or "ray": the shards are dealt to workers on a cluster (extra: ray)

    A file appears under its name only when it is complete and on disk. A run that fails, or is interrupted, leaves
    nothing of the shards that were not complete; what a run that was killed has left is removed by the next. SIGTERM
    and SIGHUP, if the program does not handle them itself, raise SystemExit between batches.
    Raises ValueError for a missing column, an unreadable file or wrong options, OSError for a full disk, ImportError
    for a URL or an engine that needs another package, and BlockingIOError while another run does the same work there.

    Example:
        >>> summary = retokenize("corpus/*.jsonl.zst", "tokens", tokenizer=Tokenizer.default(), alpha=0.2)
    """
    check_tokenizer(tokenizer)
    draw = _checked_draw(alpha, nbest_size, num_samples, seed, verify, token_penalty, rate)
    if (gone := list(exclude)) or unspellable != "raise":
        tokenizer = tokenizer.without(gone, unspellable=unspellable)
    if batch_bytes is None:
        batch_bytes = CPU_BATCH_BYTES if tokenizer.device == "cpu" else GPU_BATCH_BYTES
    batch_bytes = checked_integer("batch_bytes", batch_bytes, 1, MOST_BATCH_BYTES)
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error is {on_error!r:.60}; choose one of {', '.join(ON_ERROR)}")
    if engine not in ENGINES or (workers is not None and engine == "local"):
        raise ValueError(f"the engine is {engine!r:.60} with {workers} workers; give local, or ray and workers")
    if resume and overwrite:
        raise ValueError("resume keeps what is there and overwrite removes it; choose one")
    reading = ReaderOptions(
        text_column=text_column,
        id_column=id_column,
        batch_bytes=max(1, batch_bytes // draw.num_samples),
        separator=as_separator(separator),
        input_format=input_format,
    )
    written = resolved(
        tokenizer, format=format, dtype=dtype, prepend_bos=prepend_bos, append_eos=append_eos, prepend_id=prepend_id,
        append_id=append_id, pack=pack, pack_whole=pack_whole, pad_id=pad_id, max_tokens_per_file=max_tokens_per_file,
    )  # fmt: skip
    split_bytes = checked_integer("split_bytes", split_bytes, 1, 2**62)
    part = (0, 1) if shard is None else checked_shard(shard)
    storage, folder = _output_folder(output)
    files = _inputs(inputs, root, os.fspath(output))
    if resume and any(file.is_stdin for file in files):
        raise ValueError("stdin is read once, so what is missing cannot be done later; leave resume out")
    if report is not None:
        _check_report(os.fspath(report), files, os.fspath(output), written)
    shards = plan(files, reading, written, split_bytes)
    summaries = []
    for folder_of_epoch, seed_of_epoch, number in _epochs(folder, draw, epochs, epoch):
        drawn = replace(draw, seed=seed_of_epoch)
        settings = _settings(tokenizer, reading, drawn, seed, number, written, split_bytes, on_error)
        inputs_there = [{"path": file.relative, "size": file.size, "time": file.time} for file in files]
        manifest = Manifest(storage, folder_of_epoch, settings, inputs_there, len(shards))
        job = Job(tokenizer, manifest, reading, drawn, written, on_error)
        run = _Run(job, shards, part, resume, overwrite, progress, engine, workers)
        summaries.append(run())
    summary = _total(summaries)
    if report is not None:
        _write_report(os.fspath(report), manifest, summary)
    return summary


def _checked_draw(
    alpha: float | None, nbest_size: int, num_samples: int, seed: int | None, verify: bool, token_penalty: float,
    rate: float,
) -> Draw:  # fmt: skip
    for name, value, is_given in (
        ("num_samples", num_samples, num_samples != 1),
        ("nbest_size", nbest_size, nbest_size >= 0),
        ("seed", seed, seed is not None),
        ("token_penalty", token_penalty, token_penalty != 0),
        ("rate", rate, rate != 1),
    ):
        if alpha is None and is_given:
            raise ValueError(f"{name} is {value}, but without alpha there is one best segmentation; give alpha too")
    if alpha is not None:
        alpha = checked_alpha(alpha)
    return Draw(
        alpha,
        nbest_size,
        checked_integer("num_samples", num_samples, 1, 2**31 - 1),
        0 if seed is None else checked_integer("seed", seed, 0, 2**64 - 1),
        verify,
        checked_penalty(token_penalty),
        checked_rate(rate, nbest_size),
    )


def _output_folder(output: str | os.PathLike[str]) -> tuple[Storage, str]:
    storage, folder = resolve(os.fspath(output))
    status = storage.status(folder)
    if status is not None and not status.is_folder:
        raise ValueError(f"the output {output} is a file; name a folder")
    return storage, folder


def _inputs(inputs: Any, root: str | os.PathLike[str] | None, output: str) -> list[InputFile]:
    names = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    return expand_inputs(names, None if root is None else os.fspath(root), leave_out=output)


def _epochs(folder: str, draw: Draw, epochs: int | None, epoch: int | None) -> list[tuple[str, int, int | None]]:
    """(folder, seed, epoch) of each that is to be done."""
    if epochs is None and epoch is None:
        return [(folder, draw.seed, None)]
    if draw.alpha is None:
        raise ValueError("without alpha there is one best segmentation in every epoch; give alpha too")
    if epochs is not None:
        epochs = checked_integer("epochs", epochs, 1, 10**6)
    chosen = range(epochs or 0) if epoch is None else [checked_integer("epoch", epoch, 0, (epochs or 10**6) - 1)]
    below = f"{folder.rstrip('/')}/" if folder else ""
    return [(f"{below}epoch-{number:03d}", epoch_seed(draw.seed, number), number) for number in chosen]


def _settings(
    tokenizer: Tokenizer,
    reading: ReaderOptions,
    draw: Draw,
    seed: int | None,
    epoch: int | None,
    written: OutputOptions,
    split_bytes: int,
    on_error: str,
) -> dict[str, Any]:
    """All that decides the bytes of the outputs, as JSON has it."""
    options = {
        "alpha": draw.alpha,
        "nbest_size": draw.nbest_size,
        "num_samples": draw.num_samples,
        "seed": None if draw.alpha is None else seed or 0,
        "token_penalty": draw.token_penalty,
        "rate": draw.rate,
        "epoch": epoch,
        "text_column": reading.text_column,
        "id_column": reading.id_column,
        "separator": None if reading.separator is None else reading.separator.decode(errors="backslashreplace"),
        "input_format": reading.input_format,
        "split_bytes": split_bytes,
        "on_error": on_error,
        **asdict(written),
    }
    model: dict[str, Any] = {
        "sha256": tokenizer.digest,
        "kind": tokenizer.model.kind,
        "vocab_size": tokenizer.vocab_size,
    }
    if tokenizer.excluded_ids:
        model["excluded_ids"] = tokenizer.excluded_ids
    versions = {"library": __version__, "draws": DRAWS, "arrow": pa.__version__}
    return {"gpu_lattice": versions, "model": model, "options": options}


@dataclass(frozen=True)
class _Run:
    """One run's part of a job."""

    job: Job
    shards: list[Shard]
    part: tuple[int, int]
    resume: bool
    overwrite: bool
    progress: bool
    engine: str
    workers: int | None

    def __call__(self) -> Summary:
        dealt = deal([shard.size for shard in self.shards], self.part[1])
        mine = [shard for shard, run in zip(self.shards, dealt, strict=True) if run == self.part[0]]
        manifest = self.job.manifest
        self._refuse_inputs_as_outputs()
        self._missing(mine)
        manifest.storage.make_folder(manifest.folder)
        with self._locked(), put_off_interrupts() as let_interrupts_in:
            if self.overwrite:
                self._clear()
            records = manifest.records() if self.resume else {}
            missing = self._missing(mine)  # again, now that no other run can do any
            self._remove_leftovers()
            seconds, made = self._do(missing, let_interrupts_in)
            if self.engine == "ray":
                self._remove_leftovers()  # of workers that died
            done = {shard.number: made.get(shard.number) or records[shard.number] for shard in mine}
            manifest.finish()
        return self._summary(mine, made, done, seconds)

    def _do(self, missing: list[Shard], let_interrupts_in: Any) -> tuple[float, dict[int, Record]]:
        made: dict[int, Record] = {}
        with Progress(sum(shard.size for shard in missing), self.progress) as bar:
            records: Iterable[Record]
            if self.engine == "ray":
                from gpu_lattice.corpus.ray_engine import run_on_ray

                start = time.perf_counter()
                records = run_on_ray(self.job, missing, self.workers, bar, let_interrupts_in)
            else:
                _warm_up(self.job)
                bar.restart()
                start = time.perf_counter()
                records = run_shards(self.job, missing, bar, let_interrupts_in)
            for record in records:
                made[record["shard"]] = record
        return time.perf_counter() - start, made

    def _missing(self, mine: list[Shard]) -> list[Shard]:
        """The shards to do; ValueError if something is there that is neither to be kept nor to be replaced."""
        manifest = self.job.manifest
        if self.overwrite:
            return mine
        is_there = manifest.check()
        done = manifest.records() if is_there else {}
        others = {} if is_there else manifest.files()
        missing = [shard for shard in mine if shard.number not in done]
        for shard in mine:
            first = self._first_file(shard)
            url = manifest.storage.url(manifest.path(first))
            if is_there and shard.number in done and not self.resume:
                raise ValueError(
                    f"{url} exists; go on with what is missing (--resume), write to another "
                    "folder, or replace what is there (--overwrite)"
                )
            if first in others:
                raise ValueError(
                    f"{url} exists, and no {MANIFEST} says what it is; write to another "
                    "folder, or replace it (--overwrite)"
                )
        return missing

    def _first_file(self, shard: Shard) -> str:
        output = self.job.output
        number = "" if output.max_tokens_per_file is None else "-00000"
        return f"{shard.stem}{number}{ENDINGS[output.format][-1]}"

    def _refuse_inputs_as_outputs(self) -> None:
        manifest = self.job.manifest
        paths = (manifest.path(self._first_file(shard)) for shard in self.shards)
        may_be_there = os.path.exists if isinstance(manifest.storage, Local) else bool
        there = {identity(manifest.storage, path): path for path in paths if may_be_there(path)}
        inputs = {identity(shard.file.storage, shard.file.path) for shard in self.shards} if there else set()
        for name in there.keys() & inputs:
            raise ValueError(f"the output {there[name]} is an input as well; write to another folder")

    def _clear(self) -> None:
        manifest = self.job.manifest
        if self.part[1] > 1:
            raise ValueError("one of several runs cannot replace what all of them have done; remove the folder first")
        manifest.clear()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Only this machine's folders have locks."""
        manifest = self.job.manifest
        with ExitStack() as stack:
            if isinstance(manifest.storage, Local):
                stack.enter_context(locked(Path(manifest.folder), self.part))
            yield

    def _remove_leftovers(self) -> None:
        manifest = self.job.manifest
        if isinstance(manifest.storage, Local):
            folders = {PurePosixPath(shard.stem).parent.as_posix() for shard in self.shards}
            for name in {".", RECORDS, *folders, *(f"{BAD_ROWS}/{folder}" for folder in folders)}:
                remove_leftovers(Path(manifest.path(name)))

    def _summary(self, mine: list[Shard], made: dict[int, Record], done: dict[int, Record], seconds: float) -> Summary:
        def total(name: str) -> int:
            return sum(record.get(name, 0) for record in made.values())

        manifest = self.job.manifest
        paths = [file["path"] for shard in mine for file in done[shard.number]["files"]]
        return Summary(
            documents=total("documents"),
            num_bytes=total("text_bytes"),
            rows=total("rows"),
            tokens=total("tokens"),
            bad_rows=total("bad_rows"),
            dropped_tokens=total("dropped_tokens"),
            resumed=len(done) - len(made),
            seconds=seconds,
            outputs=tuple(manifest.storage.url(manifest.path(path)) for path in paths),
            num_samples=self.job.draw.num_samples,
            settings=dict(manifest.settings),
        )


def _warm_up(job: Job) -> None:
    """Compile the kernels, as the first call after an installation does, before the clock starts."""
    with suppress(ValueError):  # A model that cannot spell "a" has still compiled them.
        if job.draw.alpha is None:
            job.tokenizer.encode(["a"])
        else:
            job.tokenizer.sample(["a"], alpha=job.draw.alpha, nbest_size=job.draw.nbest_size)


def _total(summaries: Sequence[Summary]) -> Summary:
    """The sums of all epochs, and the settings of the last."""
    names = ("documents", "num_bytes", "rows", "tokens", "bad_rows", "dropped_tokens", "resumed", "seconds")
    sums = {name: sum(getattr(one, name) for one in summaries) for name in names}
    return replace(summaries[-1], **sums, outputs=tuple(path for one in summaries for path in one.outputs))


def _check_report(name: str, files: Sequence[InputFile], output: str, written: OutputOptions) -> None:
    """Raise ValueError, before any work, for a report that could not be written, or would replace a file of the job."""
    storage, path = resolve(name)
    status, place, folder = storage.status(path), identity(storage, path), identity(*resolve(output)).rstrip("/")
    may_be_output = path.endswith((MANIFEST, *ENDINGS[written.format])) and place.startswith(f"{folder}/")
    if may_be_output or place in {identity(file.storage, file.path) for file in files}:
        raise ValueError(f"the report {name} is an input or may be an output; name another file")
    # The output folder will be there.
    around = os.path.dirname(place)
    is_in_none = isinstance(storage, Local) and around != folder and not os.path.isdir(around)
    if is_in_none or (status is not None and status.is_folder):
        raise ValueError(f"the report {name} is a folder, or in none that is there; name a file in one")


def _write_report(name: str, manifest: Manifest, summary: Summary) -> None:
    results = asdict(summary)
    del results["settings"], results["num_samples"]
    data = for_report(manifest, **results, megabytes_per_second=summary.megabytes_per_second)
    storage, path = resolve(name)
    with storage.whole_file(path) as file:
        file.write(data)
