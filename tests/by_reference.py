"""The tokenizer's two operations by kernels.reference: chunk by chunk, slowly, ids as the definition gives them."""

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from gpu_lattice import TextBatch, Tokenizer
from gpu_lattice.kernels import reference
from gpu_lattice.kernels.reference import Rules
from gpu_lattice.vocabulary import Kind, Vocabulary
from gpu_lattice.weights import arc_weights

SENTENCEPIECE_RESET = 1e5
# By the numbers of kernels/cpu/bulk/words.py.
DIVISIONS = ("chunk", "cut", "mark", "mark behind")


def rules_of(tokenizer: Tokenizer, unk_weight: float = 0.0) -> Rules:
    """The arcs of a tokenizer's vocabulary."""
    vocabulary = tokenizer._model.vocabulary
    pieces = {vocabulary.surfaces[i]: int(i) for i in np.flatnonzero(vocabulary.in_lattice)}
    return Rules(pieces, vocabulary.symbols, unk_weight if vocabulary.has_unknown_arcs else None)


def sample_ids(
    tokenizer: Tokenizer,
    texts: Any,
    *,
    alpha: float,
    seed: int = 0,
    num_samples: int = 1,
    doc_ids: Any = None,
    token_penalty: float = 0.0,
) -> list[list[int]]:
    """What tokenizer.sample(...).tolist() must be, for texts without nulls."""
    weights = arc_weights(tokenizer._model.vocabulary, alpha, token_penalty).tolist()
    rules = rules_of(tokenizer, weights[-1])
    rows = []
    for i_doc, chunks in enumerate(_chunks(tokenizer, texts)):
        doc_id = i_doc if doc_ids is None else int(doc_ids[i_doc])
        for i_sample in range(num_samples):
            row = list(tokenizer._model.prefix_ids)
            for offset, chunk, chunk_id in chunks:
                if chunk_id >= 0:
                    row.append(chunk_id)
                    continue
                path, _ = reference.sample(chunk, rules, weights, seed, doc_id, i_sample, offset)
                row += _emitted(tokenizer, path, chunk, rules)
            rows.append([*row, *tokenizer._model.suffix_ids])
    return rows


def encode_ids(tokenizer: Tokenizer, texts: Any) -> list[list[int]]:
    """What tokenizer.encode(...).tolist() must be, for texts without nulls."""
    vocabulary = tokenizer._model.vocabulary
    rules = rules_of(tokenizer)
    number = vocabulary.best_scores.dtype.type
    reset = SENTENCEPIECE_RESET if number is np.float32 else None
    rows = []
    for chunks in _chunks(tokenizer, texts):
        row = list(tokenizer._model.prefix_ids)
        for _, chunk, chunk_id in chunks:
            if chunk_id >= 0:
                row.append(chunk_id)
                continue
            path = reference.viterbi(chunk, rules, vocabulary.best_scores, number(vocabulary.best_unk_score), reset)
            row += _emitted(tokenizer, path, chunk, rules)
        rows.append([*row, *tokenizer._model.suffix_ids])
    return rows


def resampled_ids(
    tokenizer: Tokenizer, texts: Any, *, alpha: float, rate: float, seed: int = 0, num_samples: int = 1
) -> list[list[int]]:
    """What tokenizer.sample(..., rate=rate).tolist() must be, for texts without nulls."""
    vocabulary = tokenizer._model.vocabulary
    weights = arc_weights(vocabulary, alpha).tolist()
    rules = rules_of(tokenizer, weights[-1])
    number = vocabulary.best_scores.dtype.type
    best_unk = number(vocabulary.best_unk_score)
    reset = SENTENCEPIECE_RESET if number is np.float32 else None
    rows = []
    for doc_id, chunks in enumerate(_chunks(tokenizer, texts)):
        for i_sample in range(num_samples):
            row = list(tokenizer._model.prefix_ids)
            for offset, chunk, chunk_id in chunks:
                if chunk_id >= 0:
                    row.append(chunk_id)
                    continue
                best = reference.viterbi(chunk, rules, vocabulary.best_scores, best_unk, reset)
                drawn, _ = reference.sample(chunk, rules, weights, seed, doc_id, i_sample, offset)
                borders = words_of(tokenizer, chunk)
                path = reference.resampled(best, drawn, borders, rate, seed, doc_id, i_sample, offset)
                row += _emitted(tokenizer, path, chunk, rules)
            rows.append([*row, *tokenizer._model.suffix_ids])
    return rows


def words_of(tokenizer: Tokenizer, chunk: bytes, division: int | None = None) -> list[tuple[int, int]]:
    """The words of a chunk."""
    tables = tokenizer._backend.tables
    name = DIVISIONS[tables._division if division is None else division]
    return reference.words(chunk, rules_of(tokenizer), name, tables.pieces.unk_id, tables.pieces.spells)


def _emitted(tokenizer: Tokenizer, path: list[tuple[int, int]], chunk: bytes, rules: Rules) -> list[int]:
    vocabulary = tokenizer._model.vocabulary
    unk_id = -1 if vocabulary.unk_id is None else vocabulary.unk_id
    byte_ids = None if vocabulary.byte_ids is None else vocabulary.byte_ids.tolist()
    return reference.emit(path, chunk, rules, unk_id, byte_ids, vocabulary.unknown_runs)


def _chunks(tokenizer: Tokenizer, texts: Any) -> Iterator[list[tuple[int, bytes, int]]]:
    """The chunks of every document: (byte offset in the normalized document, bytes, id or -1)."""
    batch = tokenizer._model.normalizer(TextBatch.from_texts(texts))
    blob = batch.values.tobytes()
    docs = batch.offsets.tolist()
    bounds = docs if batch.chunk_offsets is None else batch.chunk_offsets.tolist()
    chunk_ids = [-1] * (len(bounds) - 1) if batch.chunk_ids is None else batch.chunk_ids.tolist()
    chunks = list(zip(bounds, bounds[1:], chunk_ids, strict=False))
    for start, stop in pairwise(docs):
        yield [(a - start, blob[a:b], chunk_id) for a, b, chunk_id in chunks if start <= a < b <= stop]


def with_byte_pieces(vocabulary: Vocabulary, known_bytes: Iterable[int]) -> Vocabulary:
    """The vocabulary with pieces of these bytes after its own."""
    known = sorted(known_bytes)
    byte_ids = np.full(256, -1, np.int32)
    byte_ids[known] = np.arange(len(known)) + len(vocabulary)
    none = np.zeros(len(known))
    return dataclasses.replace(
        vocabulary,
        names=[*vocabulary.names, *(f"<0x{byte:02X}>" for byte in known)],
        surfaces=[*vocabulary.surfaces, *(bytes([byte]) for byte in known)],
        kinds=np.append(vocabulary.kinds, np.full(len(known), Kind.BYTE, np.uint8)),
        in_lattice=np.append(vocabulary.in_lattice, none.astype(np.bool_)),
        scores=np.append(vocabulary.scores, none),
        best_scores=np.append(vocabulary.best_scores, none.astype(vocabulary.best_scores.dtype)),
        byte_ids=byte_ids,
    )
