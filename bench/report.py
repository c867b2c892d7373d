"""Every table and figure of measurements in README.md and docs/, from bench/results and nothing else."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"

NAMES = {
    "mix32k.model": "SentencePiece 32k",
    "ja8k.model": "SentencePiece 8k",
    "zh8k_bytefb.model": "SentencePiece 8k, byte fallback",
    "en8k.tokenizer.json": "Hugging Face 8k",
    "bytepiece.plus.40k.zip": "BytePiece 40k",
    "gpt35turbo.tokenizer.json": "BPE, cl100k",
    "llama3.tokenizer.json": "BPE, Llama 3",
    "cl100k.tokenizer.json": "BPE, cl100k",
    "llama2.tokenizer.json": "BPE, Llama 2",
    "gemma3.tokenizer.json": "BPE, Gemma 3",
    "qwen3.tokenizer.json": "BPE, Qwen 3",
    "mistral_v1.model": "SentencePiece BPE, Mistral v1",
    "default.model": "the shipped model, 8k",
}
STREAMS = {
    "english": "English",
    "python": "Python source",
    "html": "HTML",
    "logs": "logs",
    "digits": "random numbers",
    "newwords": "words that do not exist",
    "japanese": "Japanese",
    "chinese": "Chinese",
    "chinese_msr": "Chinese",
    "shipped": "the shipped corpus",
}
TEXTS = {"wikitext2_valid": "English", "wagahai": "Japanese"}
LATTICE_OPERATIONS = {
    "lattice": "`tok.lattice(texts)`",
    "to_ragged": "and the arcs as arrays",
    "log_partition": "`log_partition`",
    "entropy": "`entropy`",
    "expected_counts": "`expected_counts`",
    "forward_scores": "`forward_scores`, by `buckets`",
    "marginals": "`marginals`, by `buckets`",
    "viterbi": "`viterbi`",
    "sample": "`sample`",
    "nbest": "`nbest(8)`",
}
BLOCK = re.compile(r"(<!-- report: (\w+) -->\n)(.*?)(<!-- end of report -->)", re.DOTALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="write nothing; fail if anything would change")


def run(arguments: argparse.Namespace) -> int:
    changed = 0
    for path in pages():
        old = path.read_text("utf-8")
        new = filled(old)
        if new == old:
            continue
        changed += 1
        if arguments.check:
            lines = difflib.unified_diff(old.split("\n"), new.split("\n"), str(path), "bench report", lineterm="", n=0)
            print("\n".join(lines), file=sys.stderr)
        else:
            path.write_text(new, "utf-8")
            print(path.relative_to(ROOT))
    if not arguments.check:
        _lattice_figure(ROOT / "docs" / "lattice.svg")
        _exactness_figure(ROOT / "docs" / "exactness.svg")
    return min(changed, 1) if arguments.check else 0


def pages() -> list[Path]:
    """The files that hold reports."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def filled(text: str) -> str:
    """The text with what stands between the marks of each report made anew; KeyError for an unknown report."""
    return BLOCK.sub(lambda block: block[1] + TABLES[block[2]]() + "\n" + block[4], text)


def read(name: str) -> dict[str, Any]:
    """A result file."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return found


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _where(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return f"{machine['processor']}, {machine['cpus']} CPUs, {machine['date']}"


def _stream() -> str:
    """Text that comes once, for each model and stream."""
    rows = []
    results = [read(path.stem) for path in sorted(RESULTS.glob("stream_*.json"), key=_stream_order)]
    for result in results:
        tool = _tool(result)
        for name, stream in result["streams"].items():
            rates, ratios = stream["median_mb_per_s"], stream["ratios"]
            cells = [f"{rates['ours sample']:.1f}", _times(ratios, "sample")]
            cells += [f"{rates['ours encode']:.1f}", _times(ratios, "encode")]
            rows.append([NAMES.get(result["model"], result["model"]), STREAMS.get(name, name), tool, *cells])
    head = [
        "model",
        "text that comes once",
        "its tool",
        "sample, MB/s",
        "times the tool",
        "encode, MB/s",
        "times the tool",
    ]
    note = (
        f"One thread, processor time, alpha {results[0]['alpha']:g}, chunks of 256 KB in turns ({_where(results[0])})."
    )
    return f"{table(head, rows)}\n\n{note}"


def _stream_order(path: Path) -> tuple[bool, str]:
    return path.stem != "stream_mix32k", path.stem


def _tool(result: dict[str, Any]) -> str:
    package = "tokenizers" if result["model"].endswith("tokenizer.json") else "sentencepiece"
    return f"{package} {result['machine']['versions'][package]}"


def _times(ratios: dict[str, float], verb: str) -> str:
    return f"{ratios[verb]:.1f}" if verb in ratios else "-"


def _headline() -> str:
    """English that comes once, in a sentence."""
    result = read("stream_mix32k")
    english = result["streams"]["english"]
    rates, ratios = english["median_mb_per_s"], english["ratios"]
    return (
        f"On English text that comes only once, one thread samples {rates['ours sample']:.0f} MB/s, "
        f"{ratios['sample']:.0f} times the rate of {_tool(result)}, and encodes {rates['ours encode']:.0f} MB/s, "
        f"{ratios['encode']:.1f} times its rate ({_where(result)})."
    )


def _again() -> str:
    """The same text again and again, for each model."""
    rows = []
    names = ["english", "japanese", "chinese", "tokenizer_json", "bytepiece"]
    names += sorted(path.stem.removeprefix("cpu_") for path in RESULTS.glob("cpu_bpe_*.json"))
    results = [read(f"cpu_{name}") for name in names]
    for result in results:
        rates = result["median_mb_per_s"]
        tools = [name.split(" ")[0] for name in reversed(rates) if name.endswith(" encode")]
        for tool in tools if len(tools) > 1 and "tiktoken" in tools else tools[:1]:
            version = result["machine"]["versions"].get(tool, "")
            sampled = f"{rates[f'{tool} sample']:.1f}" if f"{tool} sample" in rates else "-"
            cells = [f"{rates['sample']:.0f}", sampled, f"{rates['encode']:.0f}", f"{rates[f'{tool} encode']:.1f}"]
            rows.append([NAMES.get(result["model"], result["model"]), result["text"], f"{tool} {version}", *cells])
    head = ["model", "text", "its tool", "sample, MB/s", "the tool", "encode, MB/s", "the tool"]
    first, last = results[0], results[-1]
    note = (
        f"One thread, alpha {first['alpha']:g} ({_where(first)}, commit {first['machine']['commit']}); BPE: alpha "
        f"{last['alpha']:g} ({last['machine']['date']}, commit {last['machine']['commit']})."
    )
    return f"{table(head, rows)}\n\n{note}"


def _sizing() -> str:
    """How long corpora take, computed from the rates of a thread."""
    rows, job = [], read("retokenize")
    left = job["medians"]["sample"] / job["medians"]["job"]
    for name, model, text in (("stream_mix32k", "english", "English"), ("stream_tokenizer_json", "english", "English")):
        result = read(name)
        rate = result["streams"][model]["median_mb_per_s"]["ours sample"]
        for terabytes in (1, 10):
            seconds = [terabytes * 1e6 / rate / left / cores for cores in (64, 1024)]
            what = f"{terabytes} TB of {text}, {NAMES[result['model']]}"
            rows.append([what, f"{rate:.0f} MB/s", *map(_duration, seconds)])
    note = (
        f"The rate of one thread, times cores, times {left:.2f}: sampling's share of a job's processor time "
        f"beside reading, compressing and writing Parquet ({_where(job)})."
    )
    return f"{table(['corpus', 'rate of a core', '64 cores', '1,024 cores'], rows)}\n\n{note}"


def _duration(seconds: float) -> str:
    for unit, size in ("hours", 3600), ("minutes", 60):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _exactness() -> str:
    """Distances at the most draws that all took, by word and tool."""
    result = read("exactness")
    words = result["short"]
    tools = [name for name in next(iter(words.values())) if name not in ("segmentations", "expected")]
    n = min(len(found[name]) for found in words.values() for name in tools) - 1
    rows = [["a perfect sampler's mean", *(f"{found['expected'][n]:.4f}" for found in words.values())]]
    rows += [[name, *(f"{found[name][n]:.4f}" for found in words.values())] for name in tools]
    head = ["", *(f"{word} ({found['segmentations']} segmentations)" for word, found in words.items())]
    return f"{table(head, rows)}\n\nTotal variation distance of {10 ** (n + 2):,} draws at alpha {result['alpha']:g}."


def _long_exactness() -> str:
    """How often a word of two equally probable segmentations is whole, after so many characters."""
    long = read("exactness")["long"]
    lengths = [10 ** (3 + i) for i in range(len(long["shares"]["gpu_lattice"]))]
    rows = [[name, *(f"{share:.4f}" for share in shares)] for name, shares in long["shares"].items()]
    error = 0.5 / (long["marks"] * long["draws"]) ** 0.5
    note = f"0.5 is right; the standard error is {error:.4f}."
    return f"{table(['after characters', *(f'{n:,}' for n in lengths)], rows)}\n\n{note}"


def _lattice_figure(path: Path) -> None:
    from gpu_lattice import Tokenizer
    from gpu_lattice.show.lattice_figure import paint_lattice

    paint_lattice(Tokenizer.default(device="cpu"), "a new dawn", path, alpha=0.2, top=4)


def _exactness_figure(path: Path) -> None:
    """Distance against the number of draws, for each word."""
    from gpu_lattice.show.picture import load_matplotlib, render

    result = read("exactness")

    draws = [10 ** (2 + i) for i in range(len(next(iter(result["short"].values()))["expected"]))]
    distances = (0.001, 0.01, 0.1, 1)

    def paint(_: Any) -> Any:
        figure = load_matplotlib().figure.Figure(figsize=(10, 3.4), facecolor="white")
        grid = {"left": 0.07, "right": 0.8, "bottom": 0.15, "top": 0.9, "wspace": 0.1}
        panels = figure.subplots(1, len(result["short"]), sharey=True, gridspec_kw=grid)
        for axes, (word, found) in zip(panels, result["short"].items(), strict=True):
            for name in (name for name in found if name != "segmentations"):
                style = {"ls": ":", "color": "black"} if name == "expected" else {"marker": "o", "ms": 3}
                label = "a perfect sampler's mean" if name == "expected" else name
                axes.plot(draws, found[name], label=label, **style)
            axes.set(xscale="log", yscale="log", xlabel="draws", title=f"{word}, alpha {result['alpha']:g}")
            axes.set_xticks(draws, [f"{n:,}" for n in draws])
            axes.set_yticks(distances, map(str, distances))
            axes.minorticks_off()
            axes.tick_params(labelsize=7)
        panels[0].set_ylabel("total variation distance")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="center right", fontsize=7, frameon=False)
        return figure

    path.write_bytes(render(path.suffix, "", paint))


def _samplers() -> str:
    """The samplers of the literature, on a BPE vocabulary."""
    mean = read("samplers_mistral_v1")["mean"]
    rows = [[name, *(f"{one[to]:.3f}" for to in ("uniform", "posterior", "canonical"))] for name, one in mean.items()]
    return table(["", "from uniform", "from the posterior", "changed words"], rows)


def _statistics() -> str:
    """Expected counts beside sampling, and fitting."""
    result = read("statistics_mix32k")
    rows = [
        [
            STREAMS.get(name, name),
            *(f"{one['median_mb_per_s'][case]:.1f}" for case in ("sample", "expected counts", "token statistics")),
            f"{one['counts to sample']:.2f}",
        ]
        for name, one in result["texts"].items()
    ]
    head = ["", "sample, MB/s", "expected counts", "statistics by document", "counts / sample"]
    note = f"{NAMES[result['model']]}, one thread, processor time, alpha {result['alpha']:g} ({_where(result)})."
    return f"{table(head, rows)}\n\n{note}"


def _calls() -> str:
    """Microseconds a text, by texts in a call."""
    result = read("calls")
    names = list(next(iter(result["microseconds_per_text"].values())))
    rows = [
        [f"{int(n):,}" if n.isdigit() else n, *(f"{times[name]:.1f}" for name in names)]
        for n, times in result["microseconds_per_text"].items()
    ]
    note = f"Microseconds a text, one thread, alpha {result['alpha']:g} ({_where(result)})."
    return f"{table(['texts in a call', *names], rows)}\n\n{note}"


def _offsets() -> str:
    """Times the time of ids alone, for each model and text."""
    result = read("offsets")
    columns = ["encode, bytes", "encode, characters", "sample, bytes", "sample, characters"]
    rows = [
        [NAMES[model], STREAMS[text], *(f"{one['once'][key]:.2f} / {one['again'][key]:.2f}" for key in columns)]
        for model, texts in result["ratios"].items()
        for text, one in texts.items()
    ]
    note = f"Text that is new / that has come before, one thread, alpha {result['alpha']:g}, BPE: 0 ({_where(result)})."
    return f"{table(['', 'text', *columns], rows)}\n\n{note}"


def _lattice() -> str:
    """Operations on lattices, for each model and text."""
    results = [read(path.stem) for path in sorted(RESULTS.glob("lattice_*.json"))]
    rows = [
        [what, *(f"{result['median_mb_per_s'][case]:.0f}" for result in results)]
        for case, what in LATTICE_OPERATIONS.items()
    ]
    names = [f"{NAMES[result['model']]}, {TEXTS[result['text']]}" for result in results]
    first = results[0]
    note = (
        f"MB of text a second of processor time, one thread, lattices of {first['bytes'] / 1e6:.1f} MB of lines, alpha "
        f"{first['alpha']:g} ({_where(first)}, a busy machine)."
    )
    return f"{table(['', *names], rows)}\n\n{note}"


TABLES: dict[str, Callable[[], str]] = {
    "again": _again,
    "calls": _calls,
    "exactness": _exactness,
    "headline": _headline,
    "lattice": _lattice,
    "long_exactness": _long_exactness,
    "offsets": _offsets,
    "samplers": _samplers,
    "sizing": _sizing,
    "statistics": _statistics,
    "stream": _stream,
}
