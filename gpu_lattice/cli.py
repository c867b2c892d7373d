"""The command `gpu-lattice`: encode texts, retokenize and fit to corpus files, show a lattice, preview alphas."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from gpu_lattice import __version__
from gpu_lattice.runtime.interrupts import is_interrupt, noted_interrupts, report, report_interrupt

if TYPE_CHECKING:
    from gpu_lattice.tokenizer import Tokenizer

FAILED = 2
OUTPUT_CLOSED = 141  # what a shell reports of a program that SIGPIPE ended

STDIN_BYTES = 1 << 20

PENALTY_HELP = "what each token costs a segmentation, in nats; above 0 for fewer tokens"
RATE_HELP = "the share of words that are sampled, while the others keep their best segmentation"

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\"}
# A piece must remain one word in its line.
_VISIBLE = str.maketrans({" ": "▁", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def main(argv: list[str] | None = None) -> int:
    """Run the command with these arguments (those of the process by default); returns the exit code.

    0 done, 2 an error that one line on stderr explains, 130 interrupted (143 by SIGTERM, 129 by SIGHUP), 141 the reader
    of the output went away.
    """
    with noted_interrupts() as interrupts:
        return run(argv, interrupts)


def run(argv: list[str] | None, interrupts: list[int]) -> int:
    """`main`, for callers that note interrupts themselves."""
    try:
        if sys.stdout is None:
            raise OSError("stdout is closed; send it to a file, or to /dev/null")
        options = _parser().parse_args(argv)
        options.run(options)
        sys.stdout.flush()
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if interrupts or is_interrupt(error):
            return report_interrupt(interrupts)
        return _report(error)


def _report(error: BaseException) -> int:
    """Print an error that one line explains, and return its exit code; any other is a bug, and is raised again."""
    if isinstance(error, OSError):
        _forget_output()
    if isinstance(error, BrokenPipeError):
        return OUTPUT_CLOSED
    message = _explanation(error)
    if message is None:
        raise error
    return _fail(message, FAILED)


def _forget_output() -> None:
    """If stdout cannot be written to, keep the interpreter from trying again at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explanation(error: BaseException) -> str | None:
    """What to tell the user about an error that is not a bug; None for one that is."""
    import pyarrow as pa

    if isinstance(error, OSError):
        named = error.strerror and error.filename is not None
        return f"{error.filename}: {error.strerror}" if named else str(error)
    if isinstance(error, ValueError | TypeError | ImportError | MemoryError | pa.ArrowException):
        return str(error) or type(error).__name__
    return None


def _fail(message: str, code: int) -> int:
    report(" ".join(message.split()))
    return code


class _Parser(argparse.ArgumentParser):
    """Errors are exceptions, so that main prints them all the same way."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gpu-lattice",
        description="Perfect samples from subword lattices: segment texts, retokenize corpora.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_encode(commands)
    _add_retokenize(commands)
    _add_show(commands)
    _add_preview(commands)
    _add_fit(commands)
    _add_bench(commands)
    _add_warm(commands)
    _add_doctor(commands)
    return parser


def _add_encode(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "encode",
        help="print the pieces or ids of texts",
        description="Print the pieces or ids of texts, one text per line.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_encode)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts; by default the lines of stdin")
    _add_model(parser)
    _add_draw(parser)
    parser.add_argument("--output-format", choices=["pieces", "ids"], default="pieces", help="default: pieces")


def _add_retokenize(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "retokenize",
        help="segment corpus files into files of ids",
        description="Segment Parquet, Arrow, JSONL, CSV, TSV and plain text (.gz, .zst, .bz2, .xz too; by content) "
        "into files of token ids, one for each input, in the same folders. A manifest, _gpu_lattice.json, says how "
        "they were made; with --resume, a run does what another one left undone.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_retokenize)
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="a file, a folder, a glob pattern, a URL (s3://, gs://, hf://), or -"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to write to; a URL, too")
    _add_model(parser)
    _add_draw(parser)
    epochs = parser.add_argument_group("epochs and machines")
    epochs.add_argument("--epochs", type=int, metavar="E", help="folders epoch-000 and so on, each drawn anew")
    epochs.add_argument("--epoch", type=int, metavar="K", help="that epoch alone, from 0")
    epochs.add_argument("--shard", metavar="I/N", help="part I of N of the work, I from 0; all may share DIR")
    epochs.add_argument(
        "--split-bytes", type=parse_size, default="1GiB", metavar="SIZE",
        help="larger Parquet files are divided at row groups; default: 1GiB",
    )  # fmt: skip
    epochs.add_argument("--engine", choices=["local", "ray"], default="local", help="default: local")
    epochs.add_argument("--workers", type=int, metavar="N", help="with --engine ray: actors; default: one a CPU or GPU")
    reading = parser.add_argument_group("inputs")
    reading.add_argument(
        "--text-column", default="text", metavar="NAME", help="a.b is field b of column a; default: text"
    )
    reading.add_argument(
        "--id-column", metavar="NAME", help="integers or strings; default: made of the file's path and the row"
    )
    _add_text_format(reading)
    reading.add_argument(
        "--root", metavar="DIR", help="what paths in ids and outputs are relative to; default: the folder given"
    )
    reading.add_argument(
        "--on-error", choices=["raise", "skip", "replace"], default="raise",
        help="what becomes of a row that cannot be used; they are listed in _bad_rows; default: raise",
    )  # fmt: skip
    writing = parser.add_argument_group("outputs")
    writing.add_argument(
        "--format", default="parquet", metavar="FORMAT",
        help="parquet, arrow, megatron, datatrove, bin (nanoGPT), llmc; default: parquet",
    )  # fmt: skip
    writing.add_argument(
        "--dtype", metavar="TYPE", help="of ids: int32, uint16, uint32; default: what the format takes"
    )
    writing.add_argument("--append-eos", action="store_true", help="put the model's end id after every document")
    writing.add_argument("--prepend-bos", action="store_true", help="put the model's begin id before every document")
    writing.add_argument("--append-id", type=int, metavar="ID", help="put this id after every document")
    writing.add_argument("--prepend-id", type=int, metavar="ID", help="put this id before every document")
    writing.add_argument("--pack", type=int, metavar="N", help="join documents into sequences of N tokens")
    writing.add_argument("--pack-whole", action="store_true", help="divide no document among them; needs --pad-id")
    writing.add_argument("--pad-id", type=int, metavar="ID", help="fill them with this id; default: drop the last rest")
    writing.add_argument("--max-tokens-per-file", type=int, metavar="N", help="begin another file; default: no limit")
    running = parser.add_argument_group("the run")
    running.add_argument("--resume", action="store_true", help="do what is missing in DIR")
    running.add_argument("--overwrite", action="store_true", help="remove what an earlier run wrote into DIR first")
    running.add_argument("--batch-bytes", type=parse_size, metavar="SIZE", help="default: 16MB, with a GPU 64MB")
    running.add_argument("--verify", action="store_true", help="check that every row spells its normalized text")
    running.add_argument(
        "--no-progress", action="store_true", help="no bar, and no line every 30 s where it is no terminal"
    )
    running.add_argument("--report", metavar="FILE", help="write the summary as JSON")


def _add_show(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "show",
        help="show the lattice of a text, as a table or a picture",
        description="Show the lattice of a text: its most probable segmentations, and the posterior of each arc.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_show)
    parser.add_argument("text", metavar="TEXT")
    _add_model(parser)
    parser.add_argument("--alpha", type=float, default=0.1, metavar="A", help="default: 0.1")
    parser.add_argument("--token-penalty", type=float, default=0.0, metavar="B", help=f"{PENALTY_HELP}; default: 0")
    parser.add_argument("--rate", type=float, default=1.0, metavar="P", help=f"{RATE_HELP}, with --samples; default: 1")
    parser.add_argument(
        "--samples", "--num-samples", type=int, metavar="K", help="list what K draws give most often, not the best"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the samples; default: 0")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="segmentations to list; default: 5")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write a picture (.svg, .png, .html) instead of printing a table"
    )


def _add_preview(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "preview",
        help="measure what alpha does to a corpus",
        description="Measure on a sample of a corpus what each alpha does: tokens per byte, how many texts differ from "
        "their best segmentation, entropy, and how much of the vocabulary is used.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_preview)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="a file, a folder, or a glob pattern")
    _add_model(parser)
    parser.add_argument(
        "--alphas", type=_numbers, default="0,0.1,0.2,0.5,1", metavar="A,...", help="default: 0,0.1,0.2,0.5,1"
    )
    parser.add_argument(
        "--token-penalty", type=_numbers, default="0", metavar="B,...", help=f"{PENALTY_HELP}; default: 0"
    )
    parser.add_argument("--rate", type=_numbers, default="1", metavar="P,...", help=f"{RATE_HELP}; default: 1")
    _add_documents(parser)
    parser.add_argument(
        "--max-bytes", type=parse_size, default="1MB", metavar="SIZE", help="how much text to measure on; default: 1MB"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    parser.add_argument("-o", "--output", metavar="FILE", help="also write plots (.svg, .png, .html)")


def _add_fit(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "fit",
        help="fit the scores of a model to a corpus",
        description="Fit the scores of a model's pieces to corpus files by expectation maximization, and write the "
        "model with them, in the format that it came in: a BPE model as a unigram one of the same pieces, or with the "
        "scores beside its merges where that would divide texts otherwise.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_fit)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="a file, a folder, a glob pattern, a URL, or -")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the model to write")
    _add_model(parser)
    parser.add_argument("--iterations", type=int, default=10, metavar="N", help="steps at most; default: 10")
    parser.add_argument("--alpha", type=float, default=1.0, metavar="A", help="of the expected counts; default: 1")
    parser.add_argument(
        "--m-step", choices=["maximum", "sentencepiece"], default="maximum",
        help="greatest likelihood, or the step of SentencePiece's trainer; default: maximum",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=float, default=1e-6, metavar="T", help="the gain that ends it, relative; default: 1e-6"
    )
    _add_documents(parser)


def _add_bench(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure a model on files, beside its own tool",
        description="Measure how fast a model samples and encodes files, beside the tool that it was made for if that "
        "is installed, in alternating rounds in which each text comes once; and check that the ids are the tool's.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_bench)
    parser.add_argument("model", metavar="MODEL", help="a model's file, or `default` for the one in the package")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="a file, a folder, or a glob pattern")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; default: auto")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads, beside 1; default: all")
    parser.add_argument("--alpha", type=float, default=0.2, metavar="A", help="default: 0.2")
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="default: 8")
    _add_documents(parser)
    parser.add_argument(
        "--max-bytes", type=parse_size, default="8MB", metavar="SIZE", help="how much text to measure on; default: 8MB"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON")
    parser.add_argument("--plot", metavar="FILE", help="paint them (.svg, .png)")


def _add_warm(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "warm",
        help="compile what a model needs",
        description="Compile the kernels that encode, sample and retokenize need for a model, so that the first call "
        "after an installation does not have to: in an image, for instance, or before many processes start.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_warm)
    _add_model(parser)


def _add_doctor(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "doctor",
        help="describe this machine, and check its GPUs",
        description="Print machine, versions and folders, and compare a small batch of every operation on each CUDA "
        "device with the CPU. Exits with 2 if a device gives anything else.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_doctor)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="FILE",
        help="SentencePiece unigram .model, Hugging Face tokenizer.json (Unigram) or BytePiece .model; "
        "default: the small model that comes with the package",
    )
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="PIECE",
        help="take a piece out of the lattice: by its name, by its id as #12, or all of a file, one a line, as @FILE",
    )  # fmt: skip
    parser.add_argument(
        "--unspellable", choices=["raise", "best"], default="raise",
        help="of a word that the pieces left cannot spell: an error, or its best segmentation; default: raise",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; default: auto")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: all")
    parser.add_argument(
        "--memory-limit", type=parse_size, metavar="SIZE", help="GPU memory for batches; default: half of what is free"
    )


def _add_documents(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text-column", default="text", metavar="NAME", help="default: text")
    _add_text_format(parser)


def _add_text_format(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--input-format", default="auto", metavar="FORMAT", help="parquet, arrow, jsonl, csv, tsv, text; default: auto"
    )
    parser.add_argument(
        "--separator",
        type=_unescaped,
        metavar="S",
        help=r"what separates documents in plain text, with \n \r \t \0 \\; default: line ends",
    )


def _add_draw(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--alpha", type=float, metavar="A", help="sample with this temperature; default: the best segmentation"
    )
    parser.add_argument(
        "--samples", "--num-samples", type=int, default=1, metavar="K", help="samples per text; default: 1"
    )
    parser.add_argument(
        "--nbest-size", type=int, default=-1, metavar="N", help="sample among the N best segmentations; default: all"
    )
    parser.add_argument("--token-penalty", type=float, default=0.0, metavar="B", help=f"{PENALTY_HELP}; default: 0")
    parser.add_argument("--rate", type=float, default=1.0, metavar="P", help=f"{RATE_HELP}; default: 1")
    parser.add_argument("--seed", type=int, metavar="S", help="of the samples; default: 0")


def parse_size(text: str) -> int:
    """Bytes for a size such as "1000", "64MB" (10^6) or "1.5GiB" (2^30); ArgumentTypeError for anything else.

    Example:
        >>> parse_size("64MB"), parse_size("1 KiB")
        (64000000, 1024)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?I?)B?\s*", text.upper(), re.ASCII)
    size = int(Fraction(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS and len(text) < 40 else 0
    if size < 1:
        raise argparse.ArgumentTypeError(
            f"{text[:60]!r} is not a size; give bytes, or a number with KB, MB, GB, KiB, MiB or GiB"
        )
    return size


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers; give one like 0,0.1,0.5") from None


def _unescaped(text: str) -> str:
    return re.sub(r"\\([nrt0\\])", lambda found: _ESCAPES[found[1]], text)


def _check_draw(options: argparse.Namespace) -> None:
    if options.alpha is None and options.samples != 1:
        raise ValueError(f"--samples {options.samples} needs --alpha: there is one best segmentation")
    if options.alpha is None and options.nbest_size >= 0:
        raise ValueError(f"--nbest-size {options.nbest_size} needs --alpha, the temperature to sample with")
    if options.alpha is None and (options.token_penalty or options.rate != 1):
        raise ValueError("--token-penalty and --rate need --alpha, the temperature to sample with")
    if options.alpha is None and options.seed is not None:
        raise ValueError(f"--seed {options.seed} needs --alpha: there is one best segmentation")


def _load(options: argparse.Namespace) -> Tokenizer:
    from gpu_lattice.tokenizer import Tokenizer

    chosen = {"device": options.device, "threads": options.threads, "memory_limit": options.memory_limit}
    model = options.model
    tokenizer = Tokenizer.default(**chosen) if model is None else Tokenizer.from_file(model, **chosen)
    return tokenizer.without(_excluded(options.exclude), unspellable=options.unspellable)


def _excluded(given: list[str]) -> Iterator[str | int]:
    """Names and ids of pieces, those in files too."""
    for name in given:
        if name.startswith("@") and len(name) > 1:
            lines = Path(name[1:]).read_bytes().decode("utf-8", "surrogateescape").split("\n")
            yield from (_name_or_id(line.removesuffix("\r")) for line in lines if line not in ("", "\r"))
        else:
            yield _name_or_id(name)


def _name_or_id(name: str) -> str | int:
    return int(name[1:]) if re.fullmatch(r"#[0-9]{1,10}", name) else name


def _check_apart(inputs: list[str], *outputs: str | None) -> None:
    """Raise ValueError, before any work, for an output that would replace an input."""
    from gpu_lattice.corpus.inputs import expand_inputs, identity

    given = [output for output in outputs if output is not None]
    read = {identity(file.storage, file.path) for file in expand_inputs(inputs)} if given else set()
    for output in given:
        if os.path.realpath(output) in read:
            raise ValueError(f"{output} is an input, which would be replaced; name another file")


def _retokenize(options: argparse.Namespace) -> None:
    from gpu_lattice.corpus.retokenize import retokenize

    _check_draw(options)
    given = dict(vars(options))
    for name in ("command", "run", "model", "device", "threads", "memory_limit", "exclude", "unspellable"):
        del given[name]
    given["num_samples"], given["progress"] = given.pop("samples"), not given.pop("no_progress")
    print(retokenize(tokenizer=_load(options), **given))


def _encode(options: argparse.Namespace) -> None:
    _check_draw(options)
    tokenizer = _load(options)
    first = 0
    given = [os.fsencode(text) for text in options.texts]
    for texts in [given] if given else _stdin_lines():
        if options.alpha is None:
            out = tokenizer.encode(texts)
        else:
            out = tokenizer.sample(
                texts,
                alpha=options.alpha,
                nbest_size=options.nbest_size,
                num_samples=options.samples,
                seed=options.seed or 0,
                token_penalty=options.token_penalty,
                rate=options.rate,
                doc_ids=range(first, first + len(texts)),
            )
        first += len(texts)
        for row in out.tolist():
            ids = row or []
            words = map(str, ids) if options.output_format == "ids" else map(tokenizer.id_to_piece, ids)
            print(*(word.translate(_VISIBLE) for word in words))
        sys.stdout.flush()


def _show(options: argparse.Namespace) -> None:
    from gpu_lattice.show.lattice_figure import paint_lattice
    from gpu_lattice.show.picture import checked_path
    from gpu_lattice.show.portrait import portrait
    from gpu_lattice.show.table import table

    if options.output is not None:
        checked_path(options.output)
    tokenizer, text = _load(options), os.fsencode(options.text)
    if options.rate != 1 and options.samples is None:
        raise ValueError(f"--rate {options.rate} needs --samples: no order of segmentations is known for it")
    shown = {name: getattr(options, name) for name in ("alpha", "top", "token_penalty", "rate", "seed")}
    shown["num_samples"] = options.samples
    if options.output is not None:
        paint_lattice(tokenizer, text, options.output, **shown)
    else:
        in_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print(table(portrait(tokenizer, text, **shown), in_colour))


def _preview(options: argparse.Namespace) -> None:
    from gpu_lattice.show.picture import checked_path
    from gpu_lattice.show.preview import paint_preview, preview

    if options.output is not None:
        checked_path(options.output)
    _check_apart(options.inputs, options.output)
    seen = preview(
        options.inputs,
        tokenizer=_load(options),
        alphas=options.alphas,
        token_penalties=options.token_penalty,
        rates=options.rate,
        max_bytes=options.max_bytes,
        seed=options.seed,
        text_column=options.text_column,
        separator=options.separator,
        input_format=options.input_format,
    )
    print(seen)
    if options.output is not None:
        paint_preview(seen, options.output)


def _fit(options: argparse.Namespace) -> None:
    from gpu_lattice.corpus.documents import ReaderOptions, as_separator
    from gpu_lattice.corpus.inputs import expand_inputs
    from gpu_lattice.corpus.readers import check_columns, read_documents
    from gpu_lattice.fitting import fits_unigram

    reading = ReaderOptions(
        text_column=options.text_column,
        separator=as_separator(options.separator),
        input_format=options.input_format,
    )
    files = expand_inputs(options.inputs)
    for file in files:
        check_columns(file, reading)
    _check_apart(options.inputs, options.output)
    tokenizer = _load(options)
    as_unigram = fits_unigram(tokenizer)  # refuses now what could not be saved after all the work
    found = tokenizer.fit(
        (batch.texts for file in files for batch in read_documents(file, reading)),
        iterations=options.iterations,
        alpha=options.alpha,
        m_step=options.m_step,
        tolerance=options.tolerance,
    )
    found.tokenizer.save(options.output, as_unigram=as_unigram)
    for step, value in enumerate(found.log_likelihood):
        print(f"step {step}: log-likelihood {value:.8g}")
    if found.num_pruned:
        print(f"{found.num_pruned} rare segments were given up for want of memory")
    print(f"{options.output}: {'converged' if found.has_converged else 'not converged'}")


def _bench(options: argparse.Namespace) -> None:
    from gpu_lattice.benchmark.compare import compare
    from gpu_lattice.benchmark.plot import plot
    from gpu_lattice.runtime.files import write_whole
    from gpu_lattice.show.picture import checked_path

    if options.plot is not None:
        checked_path(options.plot)
    _check_apart(options.inputs, options.json, options.plot)
    seen = compare(
        None if options.model == "default" else options.model,
        options.inputs,
        alpha=options.alpha,
        rounds=options.rounds,
        max_bytes=options.max_bytes,
        device=options.device,
        threads=options.threads,
        text_column=options.text_column,
        separator=options.separator,
        input_format=options.input_format,
    )
    print(seen)
    if options.json is not None:
        write_whole(Path(options.json), seen.to_json().encode())
    if options.plot is not None:
        plot(seen, options.plot)


def _warm(options: argparse.Namespace) -> None:
    from time import perf_counter

    start = perf_counter()
    tokenizer = _load(options)
    texts = ["A new dawn.", "a" * 100]
    tokenizer.encode(texts)
    for num_samples in 1, 2:
        rows = tokenizer.sample(texts, alpha=0.2, num_samples=num_samples, seed=0, return_log_prob=num_samples > 1)
        tokenizer.decode(rows)
    print(f"{tokenizer!r} is ready, after {perf_counter() - start:.1f} s")


def _doctor(options: argparse.Namespace) -> None:
    from gpu_lattice.benchmark.doctor import examine

    is_sound = True
    for line, is_well in examine():
        print(line, flush=True)
        is_sound &= is_well
    if not is_sound:
        raise ValueError("a device gives other results than the CPU: device='auto' takes the CPU in its place")


def _stdin_lines() -> Iterator[list[bytes]]:
    """The lines of stdin without their ends, about STDIN_BYTES at a time, or one by one as they are typed."""
    if sys.stdin is None:
        raise OSError("stdin is closed; give texts as arguments, or lines on stdin")
    at_a_time = 1 if sys.stdin.isatty() else STDIN_BYTES
    while lines := sys.stdin.buffer.readlines(at_a_time):
        yield [line.removesuffix(b"\n").removesuffix(b"\r") if line.endswith(b"\n") else line for line in lines]
