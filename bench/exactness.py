"""How far draws are from the true distribution, ours and the tools': on short texts, and at the end of long ones."""

from __future__ import annotations

import argparse
import base64
import json
import math
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import gpu_lattice as gl
from bench.peers import convert, model_path
from gpu_lattice.benchmark.machine import describe, version_of

WORDS = ("hello", "sampling", "lattice")
ALPHA = 0.5
DRAWS = (100, 1_000, 10_000, 100_000)

# A text of FILLER, which has one segmentation, and then MARKED many times, which has two of equal probability. Scores
# of real models are no multiples of a power of two either.
FILLER, MARKED = "x", "ab"
SCORES = {"x": -6.1, "a": -1.15, "b": -1.15, "ab": -2.3}
LENGTHS = (1_000, 10_000, 100_000, 1_000_000)
MARKS, LONG_DRAWS = 4_000, 10

Segmentation = tuple[str, ...]
# n draws of a text, as pieces.
Sampler = Callable[[str, int], Iterator[Segmentation]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--draws", type=int, default=DRAWS[-1], help="the most of a short text")
    parser.add_argument("--length", type=int, default=LENGTHS[-1], help="the longest text, in characters")
    parser.add_argument("--long-draws", type=int, default=LONG_DRAWS, help="of each long text")
    parser.add_argument("--json", help="write the results to this file")


def run(arguments: argparse.Namespace) -> None:
    draws = [n for n in DRAWS if n <= arguments.draws]
    lengths = [n for n in LENGTHS if n <= arguments.length]
    result = {
        "machine": describe(),
        "alpha": ALPHA,
        "short": {word: _short(word, draws) for word in WORDS},
        "long": {"marks": MARKS, "draws": arguments.long_draws, "shares": _long(lengths, arguments.long_draws)},
    }
    _show(result)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


def _short(word: str, draws: list[int]) -> dict[str, Any]:
    """Total variation distances by tool and number of draws; "expected": of a perfect sampler."""
    tok = gl.Tokenizer.default(device="cpu")
    truth = _enumerate(tok, word)
    found: dict[str, Any] = {"segmentations": len(truth), "expected": _expected(np.array(list(truth.values())), draws)}
    with tempfile.TemporaryDirectory() as folder:
        for name, sampler in _short_samplers(tok, word, Path(folder)).items():
            counts: Counter[Segmentation] = Counter()
            distances, done = [], 0
            for n in draws:
                counts.update(sampler(word, n - done))
                done = n
                distances.append(_distance(truth, counts))
            found[name] = distances
    return found


def _enumerate(tok: gl.Tokenizer, word: str) -> dict[Segmentation, float]:
    """The probability of every segmentation, from the n-best list of all."""
    lattice = tok.lattice(word)
    paths = lattice.nbest(lattice.num_paths()[0])
    log_probs = ALPHA * paths.scores
    probabilities = np.exp(log_probs - log_probs.max())
    rows = [tuple(tok.id_to_piece(ids)) for ids in paths.tolist()[0]]
    return dict(zip(rows, (probabilities / probabilities.sum()).tolist(), strict=True))


def _distance(truth: dict[Segmentation, float], counts: Counter[Segmentation]) -> float:
    n = counts.total()
    return sum(abs(truth.get(one, 0.0) - counts[one] / n) for one in truth.keys() | counts.keys()) / 2


def _expected(probabilities: NDArray[np.float64], draws: list[int]) -> list[float]:
    """The mean distance of n perfect draws, over 200 times n."""
    random = np.random.default_rng(0)
    return [
        float(np.abs(random.multinomial(n, probabilities, 200) / n - probabilities).sum(axis=1).mean() / 2)
        for n in draws
    ]


def _short_samplers(tok: gl.Tokenizer, word: str, folder: Path) -> dict[str, Sampler]:
    seeds = iter(range(1 << 30))

    def ours(text: str, n: int) -> Iterator[Segmentation]:
        return _named(tok, tok.sample(text, alpha=ALPHA, num_samples=n, seed=next(seeds)))

    def viterbi(text: str, n: int) -> Iterator[Segmentation]:
        return _named(tok, tok.lattice(text).viterbi_sample(alpha=ALPHA, num_samples=n, seed=next(seeds)))

    samplers: dict[str, Sampler] = {"gpu_lattice": ours, "Viterbi Sampling": viterbi}
    path = model_path(None)
    if version_of("sentencepiece"):
        samplers[f"sentencepiece {version_of('sentencepiece')}"] = _sentencepiece(path, ALPHA)
    if version_of("tokenizers"):
        samplers[f"tokenizers {version_of('tokenizers')}"] = _tokenizers(convert(path), ALPHA)
    if version_of("bytepiece"):
        (normalized,) = tok.normalize(word).tolist()
        assert normalized is not None
        text = normalized.decode()
        scores = {piece: tok.score(i) for i, piece in enumerate(map(tok.id_to_piece, range(len(tok)))) if piece in text}
        draw = _bytepiece(folder, scores, ALPHA)
        samplers[f"bytepiece {version_of('bytepiece')}"] = lambda _, n: draw(text, n)
    return samplers


def _named(tok: gl.Tokenizer, out: gl.TokenBatch) -> Iterator[Segmentation]:
    return (tuple(tok.id_to_piece(row)) for row in out)


def _sentencepiece(path: Path, alpha: float) -> Sampler:
    import sentencepiece

    tool = sentencepiece.SentencePieceProcessor(model_file=str(path))
    options: dict[str, Any] = {"enable_sampling": True, "nbest_size": -1, "alpha": alpha, "out_type": str}
    return lambda text, n: (tuple(tool.encode(text, **options)) for _ in range(n))


def _tokenizers(tool: Any, alpha: float) -> Sampler:
    tool.model.alpha = alpha
    return lambda text, n: (tuple(tool.encode(text).tokens) for _ in range(n))


def _bytepiece(folder: Path, scores: dict[str, float], alpha: float) -> Sampler:
    """BytePiece normalizes counts; one more piece makes their sum 1, so that it leaves the scores as they are."""
    import bytepiece

    counts = {piece: math.exp(score) for piece, score in scores.items()}
    counts["\0"] = 1 - sum(counts.values())
    entries = {
        base64.b64encode(piece.encode()).decode(): [i, piece, count] for i, (piece, count) in enumerate(counts.items())
    }
    (folder / "bytepiece.model").write_text(json.dumps(entries), "utf-8")
    tool = bytepiece.Tokenizer(str(folder / "bytepiece.model"))
    return lambda text, n: (tuple(piece.decode() for piece in tool.tokenize(text, alpha=alpha)) for _ in range(n))


def _long(lengths: list[int], draws: int) -> dict[str, list[float]]:
    """By tool, for each length, the share of the marked words that are one piece; 0.5 is right."""
    texts = [FILLER * length + MARKED * MARKS for length in lengths]
    with tempfile.TemporaryDirectory() as folder:
        samplers = _long_samplers(Path(folder))
        return {
            name: [_share_whole(sampler(text, draws), draws) for text in texts] for name, sampler in samplers.items()
        }


def _share_whole(rows: Iterator[Segmentation], draws: int) -> float:
    return sum(row.count(MARKED) for row in rows) / (draws * MARKS)


def _long_samplers(folder: Path) -> dict[str, Sampler]:
    path = folder / "long.model"
    path.write_bytes(_sentencepiece_model())
    tok = gl.Tokenizer.from_file(path, device="cpu")

    def ours(text: str, n: int) -> Iterator[Segmentation]:
        return _named(tok, tok.sample(pa.array([text]), alpha=1.0, num_samples=n, seed=0))

    samplers: dict[str, Sampler] = {"gpu_lattice": ours}
    if version_of("sentencepiece"):
        samplers[f"sentencepiece {version_of('sentencepiece')}"] = _sentencepiece(path, 1.0)
    if version_of("tokenizers"):
        import tokenizers

        unigram = tokenizers.models.Unigram([("<unk>", -20.0), *SCORES.items()], 0, False)
        samplers[f"tokenizers {version_of('tokenizers')}"] = _tokenizers(tokenizers.Tokenizer(unigram), 1.0)
    if version_of("bytepiece"):
        samplers[f"bytepiece {version_of('bytepiece')}"] = _bytepiece(folder, SCORES, 1.0)
    return samplers


def _sentencepiece_model() -> bytes:
    """A ModelProto of the pieces: unigram, text taken as it is."""

    def field(number: int, value: bytes | int | float) -> bytes:
        if isinstance(value, bytes):
            return bytes([number << 3 | 2, len(value)]) + value
        return (
            bytes([number << 3 | 5]) + struct.pack("<f", value)
            if isinstance(value, float)
            else bytes([number << 3, value])
        )

    pieces = [("<unk>", 0.0, 2), *((piece, score, 1) for piece, score in SCORES.items())]
    data = b"".join(
        field(1, field(1, text.encode()) + field(2, score) + field(3, kind)) for text, score, kind in pieces
    )
    return data + field(2, field(3, 1)) + field(3, field(1, b"identity") + field(3, 0) + field(4, 0))


def _show(result: dict[str, Any]) -> None:
    for word, found in result["short"].items():
        print(f"{word!r}, {found['segmentations']} segmentations, alpha {result['alpha']}: total variation distance")
        print(f"  {'draws':24s}" + "".join(f"{n:>12,}" for n in DRAWS[: len(found["expected"])]))
        for name, distances in found.items():
            if name != "segmentations":
                print(f"  {name:24s}" + "".join(f"{distance:12.5f}" for distance in distances))
    print("\na word of two equally probable segmentations after so many characters: how often it is whole")
    shares = result["long"]["shares"]
    print(f"  {'characters':24s}" + "".join(f"{n:>12,}" for n in LENGTHS[: len(shares["gpu_lattice"])]))
    for name, row in shares.items():
        print(f"  {name:24s}" + "".join(f"{share:12.4f}" for share in row))
