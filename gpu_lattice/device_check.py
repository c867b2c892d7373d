"""A device is trusted when it has shown itself: a small batch of every operation gives there what the CPU gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.runtime.cache import cached, forget
from gpu_lattice.runtime.on_host import on_host
from gpu_lattice.text_batch import TextBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

TEXTS = [
    "A new dawn.",
    "",
    "吾輩は猫である。名前はまだ無い。" * 9,
    "a" * 700,
    "\U0001f600 na\u00efve \x00 \u0e01\u0e47",
    "To be, or not to be. " * 200,
]
# The lattices of all that follows are made at once.
SHORT = TEXTS[:2] + [text[:40] for text in TEXTS[2:]]


class DeviceCheck(NamedTuple):
    """What differed, in UTF-8; nothing for a device to be trusted."""

    fault: NDArray[np.uint8]


_known: dict[str, str] = {}


def fault_of(identity: str, pairs: Callable[[], Iterator[tuple[Any, Any]]], again: bool = False) -> str:
    """What a device does otherwise than the CPU, in words; "" for nothing.

    identity   the device, its driver, CuPy: the outcome is remembered for it, until the package's code changes
    pairs      the same tokenizers on the CPU and on the device
    again      forget what is remembered, and look

    Errors of the device are raised, and nothing is remembered.
    """
    inputs = [identity.encode()]
    if again:
        _known.pop(identity, None)
        forget(DeviceCheck, inputs)
    if identity not in _known:
        check = cached(DeviceCheck, inputs, lambda: _check(pairs()), least_bytes=0)
        _known[identity] = check.fault.tobytes().decode()
    return _known[identity]


def _check(pairs: Iterator[tuple[Any, Any]]) -> DeviceCheck:
    fault = next((name for cpu, device in pairs for name in _differences(cpu, device)), "")
    return DeviceCheck(np.frombuffer(fault.encode(), np.uint8))


def _differences(cpu: Any, device: Any) -> Iterator[str]:
    """The names of operations whose results are not the same bits."""
    for (name, ours), (_, theirs) in zip(_results(cpu), _results(device), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            one, other = on_host(one), on_host(other)
            if one.shape != other.shape or one.tobytes() != other.tobytes():
                yield name


def _results(tok: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every operation, and the arrays that it gives."""
    best = tok.encode(TEXTS)
    yield "encode", (best.ids, best.offsets)
    alpha = 0.3 if tok.model.merges is None else 0.0  # more would change nothing without scores, which is warned of
    out = tok.sample(TEXTS, alpha=alpha, num_samples=3, seed=7, return_log_prob=True)
    yield "sample", (out.ids, out.offsets, out.log_prob)
    out = tok.sample(TEXTS, alpha=alpha, rate=0.5, seed=7, return_log_prob=True)
    yield "sample with a rate", (out.ids, out.offsets, out.log_prob)
    texts = TextBatch.from_texts(TEXTS)
    with tok.backend.launcher:
        texts = TextBatch(tok.backend.launcher.upload(texts.values), texts.offsets)
    best = tok.encode(texts)
    yield "encode of text on the device", (best.ids, best.offsets)
    lattice = tok.lattice(SHORT)
    yield "lattice", (lattice.piece_id, lattice.length, lattice.num_arcs, *lattice.to_ragged().row_splits)
    for name in ("forward_scores", "backward_scores", "log_partition", "marginals", "expected_counts", "entropy"):
        yield name, (getattr(lattice, name)(0.5),)
    yield "num_paths", (lattice.num_paths(log=True),)
    for name, paths in (("viterbi", lattice.viterbi()), ("nbest", lattice.nbest(3))):
        yield name, (paths.tokens.ids, paths.tokens.offsets, paths.scores)
    options = {"alpha": 0.5, "seed": 3}
    for name, rows in (
        ("sample_nbest", lattice.sample_nbest(4, num_samples=2, **options)),
        ("sample_without_replacement", lattice.sample_without_replacement(2, **options).tokens),
        ("viterbi_sample", lattice.viterbi_sample(num_samples=2, **options)),
    ):
        yield name, (rows.ids, rows.offsets)
    rows = tok.encode(SHORT).tolist()
    yield "log_prob", (lattice.log_prob(rows, alpha=0.5), lattice.is_path(rows))
    ends = tok.continuations(SHORT, max_rollback=8)
    yield "continuations", (ends.rollback, ends.tokens.ids)
