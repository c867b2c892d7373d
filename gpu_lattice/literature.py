"""The samplers of the literature beside the perfect one: named, seeded, and on the CPU alone, to compare with.

    bpe_dropout       Provilkov, Emelianenko and Voita 2020   merges are left out at random
    maxmatch_dropout  Hiraoka 2022                            long matches are passed over at random
    stochastok        Sims et al. 2025                        ids are split in two at random
    grampa            Bauwens, Kaczer and de Lhoneux 2025     walks by the number of paths; uniform at temperature 1
    Lattice.viterbi_sample   Su 2023, BytePiece 0.4           a coin for every comparison of the best path's search

Kudo's sampling (2018) and that of Cognetta, Zouhar and Okazaki (2024) are `Tokenizer.sample`, at alpha and at 0. What
each does is defined in kernels/reference_samplers.py. A row depends on the model, the text, the options, the seed, the
document's id and the sample's index alone. `python -m bench samplers` measures how far each is from uniform.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.backends import NoPathError
from gpu_lattice.backends.cpu import batch_of
from gpu_lattice.kernels.cpu.bulk.encode_merges import encode_merges
from gpu_lattice.kernels.cpu.bulk.group import Batch
from gpu_lattice.kernels.cpu.bulk.memo import new_memo
from gpu_lattice.kernels.cpu.samplers import bpe_dropout_rows, maxmatch_paths, split_rows, walk_paths
from gpu_lattice.kernels.fixed import fixed_exp
from gpu_lattice.kernels.tables.merges import build_merge_table
from gpu_lattice.lattice.paths import BrokenLatticeError, SampleOptions
from gpu_lattice.runtime.arguments import check_tokenizer, checked_integer, id_rows, to_float
from gpu_lattice.text_batch import TextBatch
from gpu_lattice.token_batch import TokenBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gpu_lattice.lattice import Lattice
    from gpu_lattice.models import Model
    from gpu_lattice.text_batch import Texts
    from gpu_lattice.tokenizer import Tokenizer

# Exponents of weights, within which exp is a normal number.
MOST_EXPONENT = 700.0


def bpe_dropout(
    tokenizer: Tokenizer,
    texts: Texts,
    *,
    dropout: float = 0.1,
    num_samples: int = 1,
    seed: int = 0,
    doc_ids: Any = None,
) -> TokenBatch:
    """BPE in which each pair that may merge is left out with probability `dropout` in each step; 0 is canonical.

    Rows and the other arguments are as in `Tokenizer.sample`, without the ids that the tool puts around rows. Raises
    ValueError for a model without merges, and for options out of range.
    Source: Provilkov, Emelianenko and Voita 2020 (arXiv 1910.13267); the steps are those of subword-nmt.
    """
    check_tokenizer(tokenizer)
    model, merges = tokenizer.model, tokenizer.backend.tables.merges
    if model.merges is None or merges is None:
        raise ValueError("this model has no merges; use maxmatch_dropout, or Tokenizer.sample")
    share, texts = _share("dropout", dropout), TextBatch.from_texts(texts)
    options = SampleOptions.checked(num_samples, seed, doc_ids, len(texts))
    normalized = model.normalizer(texts)
    batch = batch_of(normalized)
    # Each chunk as a document by itself, and nothing to merge: its symbols.
    pairs, symbols_of, ids_of = model.merges.pairs[:0], model.merges.symbols, model.merges.symbol_ids
    no_pairs = build_merge_table(pairs, symbols_of, ids_of, merges.pieces.is_bytes, merges.unk_id)
    units = Batch(batch.values, batch.chunk_offsets, batch.chunk_offsets, batch.chunk_ids)
    plain = merges._replace(table=no_pairs, whole_pieces=False, by_cuts=False)
    symbols, starts, lengths, bad = encode_merges(units, batch.chunk_offsets, plain, new_memo())
    if bad >= 0:
        raise NoPathError(int(bad))
    offsets = np.append(starts[:, 0], starts[-1, 0] + lengths[-1, 0]) if len(starts) else np.zeros(1, np.int64)
    doc_units = np.searchsorted(batch.chunk_offsets, batch.offsets)
    ids, counts = bpe_dropout_rows(
        symbols, offsets, doc_units, merges.table, share, np.uint64(options.seed), options.doc_ids, options.num_samples
    )
    return _batch(ids, counts, texts.valid, options.num_samples)


def maxmatch_dropout(
    lattice: Lattice, *, dropout: float = 0.1, num_samples: int = 1, seed: int = 0, doc_ids: Any = None
) -> TokenBatch:
    """The longest match from left to right, each match passed over with probability `dropout`, but the shortest never.

    Rows and the other arguments are as in `Lattice.sample`. Raises ValueError for a text in which a match ends where
    none begins, and for options out of range.
    Source: Hiraoka 2022 (arXiv 2209.04126).

    Example:
        >>> lattice = Tokenizer.from_pieces(["a", "b", "ab"]).lattice("abab")
        >>> maxmatch_dropout(lattice, dropout=0).tolist(), maxmatch_dropout(lattice, dropout=1).tolist()
        ([[2, 2]], [[0, 1, 0, 1]])
    """
    share, options = _share("dropout", dropout), _options(lattice, num_samples, seed, doc_ids)
    arrays = lattice._arrays
    ends = np.repeat(np.arange(len(arrays.marks)), np.diff(arrays.arc_offsets))
    begins = ends - arrays.lengths
    out_arcs = np.lexsort((arrays.lengths, begins))
    out_offsets = np.searchsorted(begins[out_arcs], np.arange(len(arrays.marks) + 1))
    path = _marks(lattice, options)
    dead = maxmatch_paths(
        arrays.doc_positions, out_offsets, out_arcs, arrays.arc_offsets, arrays.lengths, share,
        np.uint64(options.seed), options.doc_ids, options.num_samples, path,
    )  # fmt: skip
    if dead >= 0:
        i_doc = int(np.searchsorted(arrays.doc_positions, dead, side="right")) - 1
        raise BrokenLatticeError(i_doc, int(dead - arrays.doc_positions[i_doc]))
    return lattice._tokens(path, *lattice._sample_rows(options.num_samples))


def grampa(
    lattice: Lattice,
    *,
    temperature: float = 1.0,
    least_length: int = 1,
    num_samples: int = 1,
    seed: int = 0,
    doc_ids: Any = None,
) -> TokenBatch:
    """Walks from a text's end along arcs, each with weight (number of paths to its start)^(1 / temperature).

    temperature 1 is uniform over segmentations; below 0, longer pieces are preferred, the more the nearer it is to 0.
    least_length: pieces of fewer bytes are left out, but for the longest that ends at a position, if all are shorter.
    Rows and the other arguments are as in `Lattice.sample`. Raises ValueError for a text that no path spells and for
    options out of range.
    Source: Bauwens, Kaczer and de Lhoneux 2025 (https://aclanthology.org/2025.acl-long.1180).

    Example:
        >>> lattice = Tokenizer.from_pieces(["a", "b", "ab"]).lattice("abab")
        >>> grampa(lattice, least_length=2).tolist()
        [[2, 2]]
    """
    temperature = to_float(temperature)
    if not (np.isfinite(temperature) and temperature != 0):
        raise ValueError(f"temperature is {temperature}; give a number other than 0, 1 for the uniform distribution")
    least_length = checked_integer("least_length", least_length, 1, 2**31 - 1)
    options = _options(lattice, num_samples, seed, doc_ids)
    arrays = lattice._arrays
    ends = np.repeat(np.arange(len(arrays.marks)), np.diff(arrays.arc_offsets))
    is_arc = np.ones(len(ends))
    if least_length > 1:
        # What no path leads to is no choice.
        lengths = np.where(np.isneginf(_log_paths(lattice, is_arc)[ends - arrays.lengths]), 0, arrays.lengths)
        longest = np.zeros(len(arrays.marks), np.int32)
        np.maximum.at(longest, ends, lengths)
        is_arc = (lengths >= np.clip(longest[ends], 1, least_length)).astype(np.float64)
    logs = _log_paths(lattice, is_arc)
    for i_doc, stop in enumerate(arrays.doc_positions[1:] - 1):
        if np.isneginf(logs[stop]):
            raise BrokenLatticeError(i_doc, int(stop - arrays.doc_positions[i_doc]))
    with np.errstate(invalid="ignore"):
        exponents = (logs[ends - arrays.lengths] - logs[ends]) / temperature
    is_way = (is_arc > 0) & np.isfinite(exponents)
    weights = np.where(is_way, fixed_exp(np.clip(np.where(is_way, exponents, 0.0), -MOST_EXPONENT, MOST_EXPONENT)), 0.0)
    path = _marks(lattice, options)
    walk_paths(
        arrays.doc_positions, arrays.arc_offsets, arrays.lengths, weights, np.uint64(options.seed), options.doc_ids,
        options.num_samples, path,
    )  # fmt: skip
    return lattice._tokens(path, *lattice._sample_rows(options.num_samples))


def stochastok(
    tokenizer: Tokenizer,
    rows: TokenBatch | Sequence[Sequence[int]],
    *,
    share: float = 0.1,
    num_samples: int = 1,
    seed: int = 0,
    doc_ids: Any = None,
) -> TokenBatch:
    """Rows of ids with some split in two: floor(share * length) times an id is drawn, and split into two pieces if any
    two are its text.

    rows: as `Tokenizer.encode` gives them. Raises ValueError for options out of range and for ids that the model does
    not have.
    Source: Sims et al. 2025 (arXiv 2506.01687).

    Example:
        >>> tok = Tokenizer.from_pieces(["a", "b", "ab"])
        >>> stochastok(tok, [[2, 2]], share=0.5).tolist() in ([[0, 1, 2]], [[2, 0, 1]])
        True
    """
    given = rows.tolist() if isinstance(rows, TokenBatch) else id_rows("rows", list(rows))
    options = SampleOptions.checked(num_samples, seed, doc_ids, len(given))
    ids = np.array([i for row in given for i in row or ()], np.int64)
    if len(ids) and not 0 <= ids.min() <= ids.max() < tokenizer.vocab_size:
        raise ValueError(f"rows have ids {ids.min()} to {ids.max()} of a model with 0 to {tokenizer.vocab_size - 1}")
    offsets = np.append(0, np.cumsum([len(row or ()) for row in given], dtype=np.int64))
    out, counts = split_rows(
        ids.astype(np.int32), offsets, *splits_of(tokenizer.model), _share("share", share), np.uint64(options.seed),
        options.doc_ids, options.num_samples,
    )  # fmt: skip
    valid = np.array([row is not None for row in given], np.bool_)
    return _batch(out, counts, None if valid.all() else valid, options.num_samples)


@lru_cache(maxsize=4)
def splits_of(model: Model) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(int32 [S, 2], int64 [V + 1]): the pairs of pieces that a piece's text is made of, shortest left piece first."""
    vocabulary = model.vocabulary
    id_of = {vocabulary.surfaces[i]: i for i in np.flatnonzero(vocabulary.in_lattice).tolist()}
    pairs: list[tuple[int, int]] = []
    offsets = [0]
    for i, (surface, is_arc) in enumerate(zip(vocabulary.surfaces, vocabulary.in_lattice.tolist(), strict=True)):
        for k in range(1, len(surface) if is_arc and id_of[surface] == i else 1):
            left, right = id_of.get(surface[:k]), id_of.get(surface[k:])
            if left is not None and right is not None:
                pairs.append((left, right))
        offsets.append(len(pairs))
    return np.array(pairs, np.int32).reshape(-1, 2), np.array(offsets, np.int64)


def _log_paths(lattice: Lattice, is_arc: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [P]: the log of the number of paths to each position, of arcs with 1 in is_arc [A]."""
    rows = zip(lattice.forward_scores(weights=is_arc[:, None]), lattice.num_bytes, strict=True)
    return np.concatenate([np.empty(0), *(row[: n + 1] for row, n in rows)])


def _options(lattice: Lattice, num_samples: Any, seed: Any, doc_ids: Any) -> SampleOptions:
    if lattice.device != "cpu":
        raise ValueError(f"this lattice is on {lattice.device}, and the samplers of the literature run on the CPU")
    return SampleOptions.checked(num_samples, seed, doc_ids, len(lattice))


def _marks(lattice: Lattice, options: SampleOptions) -> NDArray[np.int32]:
    return np.full((options.num_samples, len(lattice._arrays.marks)), -1, np.int32)


def _share(name: str, value: Any) -> float:
    share = to_float(value)
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is {share}; give a number from 0 to 1")
    return share


def _batch(
    ids: NDArray[np.int32], counts: NDArray[np.int64], valid: NDArray[np.bool_] | None, num_samples: int
) -> TokenBatch:
    offsets = np.append(0, np.cumsum(counts))
    return TokenBatch(ids, offsets, None, None if valid is None else np.repeat(valid, num_samples))
