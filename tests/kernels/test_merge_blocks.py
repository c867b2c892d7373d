"""A long text that is merged a block at a time becomes what it becomes as a whole."""

import random
from itertools import pairwise
from operator import itemgetter

import numpy as np
import pytest

from gpu_lattice.kernels.cpu.bulk.encode_merges import Work, merge_blocks
from gpu_lattice.kernels.tables.merges import build_merge_table


def random_merges(draw: random.Random) -> list[tuple[int, int, int, int]]:
    """Rows of Merges.pairs over the symbols 0, 1, 2, of any ranks, so that what was made may merge before others."""
    pieces, rows = [(0,), (1,), (2,)], []
    for _ in range(draw.randrange(1, 14)):
        i, k = draw.randrange(len(pieces)), draw.randrange(len(pieces))
        piece = pieces[i] + pieces[k]
        if len(piece) <= 12:
            pieces += [] if piece in pieces else [piece]
            rows.append((i, k, len(rows), pieces.index(piece)))
    ranks = list(range(len(rows)))
    if draw.random() < 0.5:
        draw.shuffle(ranks)
    return [(i, k, rank, made) for (i, k, _, made), rank in zip(rows, ranks, strict=True)]


def merged(text: list[int], pairs: list[list[int]]) -> list[int]:
    """By the definition: of all pairs that may merge the one of least rank, the leftmost, until there is none."""
    table = {(left, right): (rank, made) for left, right, rank, made in pairs}
    ids = list(text)
    while found := [(*table[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in table]:
        _, made, i = min(found, key=itemgetter(0))
        ids[i : i + 2] = [made]
    return ids


@pytest.mark.parametrize(("block", "overlap"), [(8, 4), (16, 3), (64, 32)])
def test_blocks_give_the_merges_of_the_whole(block: int, overlap: int) -> None:
    draw, n_done = random.Random(block), 0
    rows = np.empty((5, block + 16), np.int32)
    work = Work(*rows, np.empty(3 * block, np.int64))
    for _ in range(400):
        pairs = np.array(random_merges(draw), np.int32).reshape(-1, 4)
        table = build_merge_table(pairs, np.arange(3, dtype=np.int32), np.arange(3, dtype=np.int32), True, -1)
        text = draw.choices(range(3), k=draw.randrange(1, 300)) if draw.random() < 0.7 else [0] * 200
        symbols = np.array(text, np.int32)
        n = merge_blocks(symbols, len(symbols), table, work, block, overlap)
        if n:
            assert symbols[:n].tolist() == merged(text, pairs.tolist())
            n_done += 1
    assert n_done > 300
