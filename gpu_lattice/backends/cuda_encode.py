"""Best segmentation on a CUDA device, by best paths (viterbi.cu) or by merges (encode_merges.cu).

What the kernels read of a vocabulary, and in which order they run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gpu_lattice.kernels.cpu.lattice.build import CHUNK, CUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gpu_lattice.backends import Device, Stream
    from gpu_lattice.backends.tables import Tables
    from gpu_lattice.kernels.cpu.bulk.encode_merges import MergeModel

# Sizes of structs of viterbi.cu, by that of NUMBER; its constants; and the size of a struct of encode_merges.cu.
BEST_BYTES, PASSAGE_BYTES, START_BYTES = 16, {4: 40, 8: 64}, 16
PASSAGES = 2
SYMBOL_BYTES = 24
# Float32 scores, multiples of 2^-149, are scaled by this: CuPy's compiler flushes numbers below 2^-126 to zero, and the
# CPU does not. A power of two changes no decision, as long as nothing overflows.
FLOAT_SCALE = 2.0**23
LARGEST_SCALED = 2.0**100


class Texts(Protocol):
    """What is read of a job (cuda.py), and where what is found is written."""

    stream: Stream
    n: int
    values: Any
    cuts: Any
    chunk_offsets: Any
    path: Any

    @property
    def no_path(self) -> Any: ...

    @property
    def n_long(self) -> Any: ...


class BestPaths:
    """Finds the best paths of jobs.

    scores float64 [V], on the host: of every piece, scaled as all sums are; unk_score: of an unknown arc, likewise.
    stretch: bytes of text per thread.
    """

    def __init__(self, device: Device, tables: Tables, stretch: int) -> None:
        best = tables.best
        number = best.scores.dtype.type
        scale = number(FLOAT_SCALE if number is np.float32 and best.extreme < LARGEST_SCALED else 1.0)
        self.scores: NDArray[np.float64] = (best.scores * scale).astype(np.float64)
        self._xp, self._stretch = device.xp, stretch
        self._number, self._number_bytes = number, best.scores.itemsize
        self._longest = best.pieces.longest
        self.unk_score = float(best.unk_score) * float(scale)
        self._arcs = {"best_unk": self.unk_score, "lowest": float(best.lowest)}
        self._reset = float(best.reset) * float(scale)
        self._tool = self._arcs | {
            "scores": device.upload(best.scores * scale),
            "reset": self._reset,
            "rounding": best.rounding,
            "extreme": best.extreme * float(scale),
        }

    def find(
        self, job: Texts, trie: dict[str, Any], length_of: Any, arcs: dict[str, Any], threads: Callable[..., None],
        warps: Callable[..., None],
    ) -> None:  # fmt: skip
        """Queue all that fills job.path, whose cuts are known.

        trie: nodes with the scores, and piece_at; arcs: room for them; threads, warps: launch a kernel.
        """
        stream, n, n_chunks = job.stream, job.n, len(job.chunk_offsets) - 1
        n_stretches = -(-n // self._stretch)
        n_passages = PASSAGES * n_stretches
        text = {"values": job.values, "cuts": job.cuts, "n": n}
        best = stream.empty("best", n * BEST_BYTES, np.uint8)
        sums, running = (stream.empty(name, n_stretches, np.float64) for name in ("stretch_sums", "running_sums"))
        threads("viterbi", n_stretches, **text, nodes=trie["nodes"], **self._arcs, best=best)
        threads(
            "follow", n_stretches, **text,
            piece_at=trie["piece_at"], length_of=length_of, lowest=self._arcs["lowest"], best=best, path=job.path,
            sums=sums,
        )  # fmt: skip
        tool = trie | self._tool | {
            "values": job.values, "cuts": job.cuts, "length_of": length_of, "best": best, "path": job.path,
            "passages": stream.empty("passages", n_passages * PASSAGE_BYTES[self._number_bytes], np.uint8),
        }  # fmt: skip
        starts = {"starts": stream.empty("starts", n_chunks * START_BYTES, np.uint8), "n_starts": job.n_long}
        breaks = {
            "breaks": stream.empty("breaks", n_chunks * START_BYTES, np.uint8),
            "n_breaks": stream.empty("n_breaks", 1, np.uint64),
        }
        breaks["n_breaks"].fill(0)
        threads(
            "pass", n_stretches, **tool, **starts, n=n,
            chunk_offsets=job.chunk_offsets, n_chunks=n_chunks, sums=self._xp.cumsum(sums, out=running),
            resets=1 / self._reset,
        )  # fmt: skip
        threads("carry", n_chunks, **tool, **starts, **breaks)
        warps(
            "carry_long", **tool, **breaks, **arcs, n=n,
            longest=self._longest, subtracted=stream.empty("subtracted", n, self._number), no_path=job.no_path,
        )  # fmt: skip
        threads("settle", n_passages, **tool, n_passages=n_passages)


class CanonicalIds:
    """Merges the texts of jobs.

    made bool [V]: which pieces merges make of their text. stretch: bytes of text per thread. upload_trie: puts a trie's
    nodes on the device.
    """

    def __init__(
        self,
        device: Device,
        merges: MergeModel,
        made: NDArray[np.bool_],
        stretch: int,
        upload_trie: Callable[..., Any],
    ) -> None:
        table, odd_at = merges.table, merges.odd_at
        self.by_cuts = merges.by_cuts
        self._stretch = stretch
        self._model = {
            "begins": CUT if merges.by_cuts else CHUNK,
            "pairs": device.upload(table.slots),
            "n_pairs": len(table.slots) // 2,
            "filter": device.upload(table.filter),
            "filter_shift": 64 - (64 * len(table.filter) - 1).bit_length(),
            "symbol_ids": device.upload(table.symbols),
            "byte_ids": device.upload(merges.byte_ids),
            "unk_id": int(merges.unk_id),
            "fuse_unk": int(merges.fuse_unk),
            "is_bytes": int(merges.pieces.is_bytes),
            "has_odd": int(merges.whole_pieces),
            "odd_nodes": upload_trie(merges.odd_slots, np.zeros(len(odd_at))),
            "odd_at": device.upload(odd_at),
            "made": device.upload(made),
        }

    def find(self, job: Texts, trie: dict[str, Any], threads: Callable[..., None]) -> None:
        """Queue all that fills job.path, whose cuts are known, or chunks if texts are not divided by_cuts.

        trie: nodes, and piece_at; threads: launches a kernel.
        """
        stream, n = job.stream, job.n
        threads(
            "encode_merges", -(-n // self._stretch), **self._model, **trie,
            values=job.values, marks=job.cuts, n=n, symbols=stream.empty("symbols", n * SYMBOL_BYTES, np.uint8),
            queue=stream.empty("queue", 3 * n, np.int64), path=job.path, no_path=job.no_path,
        )  # fmt: skip
