"""Reads model files and uses what it read, in a process of bounded memory; a line says what became of each."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import resource
import signal
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpu_lattice import TextBatch, TokenBatch, Tokenizer
from gpu_lattice.kernels.cpu.bulk.encode_merges import DROPPED
from gpu_lattice.models import Model
from gpu_lattice.models.added import new_tokens, with_tokens
from gpu_lattice.models.detect import read_model
from gpu_lattice.models.saving import file_of
from gpu_lattice.models.tiktoken import ENCODINGS, is_rank_file, read_ranks
from gpu_lattice.models.whole_characters import with_whole_characters
from gpu_lattice.spans import SpanFinder
from tests.fuzz.models import model_file, sound_files

NAME = "odd.model"
# What divides text for a tiktoken file.
PATTERN, _ = ENCODINGS["cl100k_base"]
SECONDS = 10.0
MOST_BYTES = 2 << 30
TEXTS: list[str | bytes | None] = [
    "", "a", "ab", "bababa", " a  b ", "aé漢<é", "e\u0301\u0323x", "a\n\nb", "😀か\u3099", None, "a" * 70, b"\xff",
    b"a\xe3\x81", "▁ab▁", "<s>ab</s>", "\r\n\0", "Ａ①ﬁ½",
]  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--seed", type=int, required=True)
    options.add_argument("--start", type=int, required=True)
    arguments = options.parse_args()
    # What has to be compiled is compiled without limits.
    for data in sound_files():
        outcome = _outcome(data)
        assert outcome == "read", outcome
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MOST_BYTES, in_use + MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for i_input in itertools.count(arguments.start):
        _say("begin", i_input)
        # Of the processor's time, so that a machine with other work does not look like an endless loop; what waits
        # for something that never comes is given longer.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, 60 * SECONDS)
        outcome = _outcome(model_file(arguments.seed, i_input))
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say("end", i_input, outcome)


def _say(*words: object) -> None:
    print(json.dumps(words), flush=True)


def _outcome(data: bytes) -> str:
    """ "read" or "refused" as it should be, else what was wrong."""
    try:
        model = read_ranks(data, NAME, None, PATTERN) if is_rank_file(data) else read_model(data, NAME)
    except ValueError as error:
        is_named = type(error) is ValueError and str(error).startswith(NAME)
        return "refused" if is_named else _described("the error does not name the file", error)
    except BaseException as error:
        return _described("reading", error)
    try:
        tokenizer = Tokenizer(model, device="cpu", threads=1)
        if model.scores is not None:
            tokenizer = tokenizer.rescored(model.scores)
        _use(tokenizer)
        if model.merges is not None and model.vocabulary.symbols == "bytes":
            _use_whole_characters(model)
    except ValueError as error:
        return "refused" if type(error) is ValueError else _described("using", error)
    except MemoryError as error:
        return "refused" if str(error) else _described("using", error)
    except BaseException as error:
        return _described("using", error)
    try:
        _change(data, tokenizer)
    except BaseException as error:
        return _described("changing", error)
    return "read"


def _described(when: str, error: BaseException) -> str:
    [*_, last] = traceback.extract_tb(error.__traceback__)
    return f"{when}: {type(error).__name__}: {str(error)[:300]} ({Path(last.filename).name}:{last.lineno})"


def _use(tokenizer: Tokenizer) -> None:
    vocabulary: Any = tokenizer._model.vocabulary
    few = list(dict.fromkeys(vocabulary.surfaces))[:40]
    texts = [*TEXTS, *few, b"".join(few)[:2000]]
    normalized = tokenizer.normalize(texts)
    if vocabulary.symbols == "characters":
        for text in normalized.tolist():
            try:
                (text or b"").decode()
            except UnicodeDecodeError as error:
                raise AssertionError(f"normalized text is no UTF-8: {text!r:.60}") from error
    for segment in (
        tokenizer.encode,
        lambda texts: tokenizer.sample(texts, alpha=0.1, num_samples=2, return_log_prob=True, seed=0),
        lambda texts: tokenizer.sample(texts, alpha=0.1, return_log_prob=True, seed=0, rate=0.5),
    ):
        try:
            rows = segment(texts)
        except ValueError as error:
            if not _is_said(error):
                raise
            continue
        assert _drops(tokenizer.model) or tokenizer.verify(texts, rows) is None, "rows do not spell their texts"
        if len(rows.ids):
            assert 0 <= rows.ids.min() <= rows.ids.max() < tokenizer.vocab_size, "an id is out of range"
        if rows.log_prob is not None:
            assert not np.any(rows.log_prob > 1e-6), "a log_prob is above 0"
            assert not np.isnan(rows.log_prob).any(), "a log_prob is NaN"
        _check_spans(tokenizer, texts, rows)
        try:
            tokenizer.decode(rows)
        except ValueError as error:
            if "the decoder" not in str(error):
                raise


def _drops(model: Model) -> bool:
    """Whether a symbol without a piece becomes nothing, as in the tool."""
    return model.merges is not None and model.merges.unk_id == DROPPED


def _use_whole_characters(model: Model) -> None:
    try:
        whole = with_whole_characters(model, NAME)
    except ValueError:
        return
    _use(Tokenizer(whole, device="cpu", threads=1))


def _is_said(error: ValueError) -> bool:
    """Whether it is one that a sound model may raise."""
    return any(words in str(error) for words in ("cannot be spelled", "out of range"))


def _check_spans(tokenizer: Tokenizer, texts: Sequence[str | bytes | None], rows: TokenBatch) -> None:
    find = SpanFinder(tokenizer.model.in_full, tokenizer._spelling, tokenizer._parts)
    spans = find(TextBatch.from_texts(texts), rows, "bytes", 1)
    lengths = [len(text.encode() if isinstance(text, str) else text or b"") for text in texts]
    ends = np.repeat(np.repeat(lengths, len(rows) // len(texts)), np.diff(rows.offsets))
    assert np.all((spans[:, 0] >= 0) & (spans[:, 0] <= spans[:, 1]) & (spans[:, 1] <= ends)), (
        "a span is out of its text"
    )


def _change(data: bytes, tokenizer: Tokenizer) -> None:
    """Other models of this one: with other scores, written to a file, with a token added."""
    model, vocabulary = tokenizer.model, tokenizer.model.vocabulary
    generator = np.random.default_rng(len(data))
    scores = generator.choice([-1.0, -2.5, -np.inf], len(vocabulary), p=[0.5, 0.4, 0.1])
    texts = ["ab", "bababa", " a  b ", "aé漢<é"]
    other = tokenizer.rescored(scores, unspellable="raise" if len(data) % 2 else "best")
    try:
        other.encode(texts)
        rows = other.sample(texts, alpha=0.1, seed=0, rate=0.5, return_log_prob=True)
        assert _drops(model) or other.verify(texts, rows) is None, "rows by other scores do not spell their texts"
        assert not np.isnan(rows.log_prob).any(), "a log_prob by other scores is NaN"
        counts = other.expected_counts(texts)
        assert np.all(counts >= 0), "an expected count is below 0"
    except ValueError as error:
        if not _is_said(error):
            raise
    for as_unigram in True, False:
        with contextlib.suppress(ValueError):
            file_of(data, NAME, other.model, as_unigram)
    if model.kind in ("huggingface", "sentencepiece"):
        with contextlib.suppress(ValueError):
            read_model(with_tokens(data, model.kind, new_tokens(["ab", "<new>", "é"]), vocabulary), NAME)


if __name__ == "__main__":
    main()
