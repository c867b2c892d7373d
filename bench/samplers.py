"""How far the samplers of the literature are from uniform and from the posterior: total variation, word by word."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_lattice as gl
from bench.texts import shipped
from gpu_lattice import literature
from gpu_lattice.benchmark.machine import describe

WORDS = "watching unbelievable tokenization segments international happiness misunderstood development"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="model file; the default model if left out. A BPE model gets fitted scores")
    parser.add_argument("--words", default=WORDS, help="separated by spaces")
    parser.add_argument("--draws", type=int, default=100_000, help="of each sampler and word")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="write the results to this file")


def run(arguments: argparse.Namespace) -> None:
    model = arguments.model
    made = gl.Tokenizer.from_file(model, device="cpu") if model else gl.Tokenizer.default(device="cpu")
    # The pieces of a BPE model have no scores, so that there would be no posterior.
    scored = made if made.model.merges is None else made.fit(shipped("en")).tokenizer
    words = arguments.words.split()
    results = {word: _of_word(made, scored, word, arguments.draws, arguments.seed) for word in words}
    names = next(iter(results.values()))["distances"]
    mean = {
        name: {
            target: sum(one["distances"][name][target] for one in results.values()) / len(words)
            for target in ("uniform", "posterior", "canonical")
        }
        for name in names
    }
    _show(Path(model or "default.model").name, arguments, results, mean)
    if arguments.json:
        result = {
            "machine": describe(),
            "model": Path(model or "default.model").name,
            "scores": "the model's" if scored is made else "fitted to the shipped English text",
            "draws": arguments.draws,
            "mean": mean,
            "words": results,
        }
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


def _of_word(made: gl.Tokenizer, scored: gl.Tokenizer, word: str, draws: int, seed: int) -> dict[str, Any]:
    """The distances of every sampler's draws from three distributions over the word's segmentations."""
    lattice = scored.lattice([word])
    (n_paths,) = lattice.num_paths()
    paths = lattice.nbest(n_paths)
    log_z = float(lattice.log_partition(1.0)[0])
    rows = [tuple(row) for row in paths.tolist()[0]]
    best = tuple(made.encode([word]).tolist()[0])
    targets = {
        "uniform": dict.fromkeys(rows, 1.0 / n_paths),
        "posterior": {row: math.exp(score - log_z) for row, score in zip(rows, paths.scores.tolist(), strict=True)},
        "canonical": {best: 1.0},
    }
    distances = {}
    for name, draw in _samplers(made, scored, lattice, word).items():
        counts = Counter(map(tuple, draw(num_samples=draws, seed=seed).tolist()))
        distances[name] = {
            target: sum(abs(counts[row] / draws - p.get(row, 0.0)) for row in counts.keys() | p.keys()) / 2
            for target, p in targets.items()
        }
        distances[name]["segmentations"] = len(counts)
    return {"segmentations": n_paths, "distances": distances}


def _samplers(made: gl.Tokenizer, scored: gl.Tokenizer, lattice: Any, word: str) -> dict[str, Callable[..., Any]]:
    def perfect(alpha: float) -> Callable[..., Any]:
        return lambda **options: scored.sample([word], alpha=alpha, add_special_tokens=False, **options)

    found = {f"sample, alpha {alpha:g}": perfect(alpha) for alpha in (0.0, 0.1, 1.0)}
    for alpha in (0.1, 1.0):
        found[f"Viterbi sampling, alpha {alpha:g}"] = lambda alpha=alpha, **options: lattice.viterbi_sample(
            alpha=alpha, **options
        )
    for dropout in (0.1, 0.5):
        if made.model.merges is not None:
            found[f"BPE-dropout, p {dropout:g}"] = lambda dropout=dropout, **options: literature.bpe_dropout(
                made, [word], dropout=dropout, **options
            )
        found[f"MaxMatch-dropout, p {dropout:g}"] = lambda dropout=dropout, **options: literature.maxmatch_dropout(
            lattice, dropout=dropout, **options
        )
    ids = made.encode([word], add_special_tokens=False)
    for share in (0.5, 1.0):
        found[f"StochasTok, p {share:g}"] = lambda share=share, **options: literature.stochastok(
            made, ids, share=share, **options
        )
    for temperature in (1.0, 5.0, -10.0):
        found[f"GRaMPa, t {temperature:g}"] = lambda temperature=temperature, **options: literature.grampa(
            lattice, temperature=temperature, **options
        )
    return found


def _show(model: str, arguments: argparse.Namespace, results: dict[str, Any], mean: dict[str, Any]) -> None:
    print(f"{model}: total variation distance of {arguments.draws} draws of a word's segmentations, mean over words\n")
    sizes = ", ".join(f"{word} {one['segmentations']}" for word, one in results.items())
    print(f"segmentations: {sizes}\n")
    print(f"{'':30}{'uniform':>9}{'posterior':>11}{'canonical':>11}")
    for name, one in mean.items():
        print(f"{name:30}{one['uniform']:9.3f}{one['posterior']:11.3f}{one['canonical']:11.3f}")
