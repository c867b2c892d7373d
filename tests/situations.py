"""Models with any combination of rules for unknown text, and documents of every kind that a backend meets."""

import dataclasses
import json
from typing import Any

import numpy as np
from by_reference import with_byte_pieces
from conftest import DATA
from hypothesis import strategies as st
from strategies import cases

from gpu_lattice.models import Model
from gpu_lattice.models.pieces import from_pieces
from gpu_lattice.normalizers import NormalizedBatch
from gpu_lattice.text_batch import TextBatch

MODELS = sorted({entry["model"] for entry in json.loads((DATA / "expected.json").read_text("utf-8"))})


@dataclasses.dataclass(frozen=True)
class Situation:
    """A model with any combination of rules for unknown text, and documents in chunks, some of them tokens."""

    model: Model
    batch: NormalizedBatch
    is_null: Any
    doc_ids: Any


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    case = draw(cases(longest_text=30))
    model = from_pieces(case.pieces, case.unk_piece)
    vocabulary = model.vocabulary
    changes: dict[str, Any] = {}
    if draw(st.booleans()):
        changes["best_scores"] = vocabulary.best_scores.astype(np.float32)
        changes["best_unk_score"] = float(np.float32(vocabulary.best_unk_score))
    known_bytes = set(range(256))
    has_bytes = "none"
    if vocabulary.unk_id is not None:
        has_bytes = draw(st.sampled_from(["none", "all", "some"]))
        if has_bytes == "some":
            known_bytes -= set(draw(st.lists(st.sampled_from(list(b"?ab\xc3\xa9\xe6\x00")), max_size=4)))
        changes["unknown_runs"] = draw(st.sampled_from(["merge", "lookup", *["apart"] * (has_bytes == "none")]))
        surface = draw(st.sampled_from(["b?", "?", "??", "é?"])).encode()
        if draw(st.booleans()) and surface not in vocabulary.surfaces:
            i = vocabulary.unk_id
            changes["surfaces"] = [*vocabulary.surfaces[:i], surface, *vocabulary.surfaces[i + 1 :]]
            changes["in_lattice"] = np.ones(len(vocabulary), np.bool_)
    around = st.lists(st.integers(0, 9), max_size=2).map(tuple)
    vocabulary = dataclasses.replace(vocabulary, **changes)
    model = dataclasses.replace(
        model,
        vocabulary=vocabulary if has_bytes == "none" else with_byte_pieces(vocabulary, known_bytes),
        prefix_ids=draw(around),
        suffix_ids=draw(around),
    )
    batch = model.normalizer(TextBatch.from_texts(case.texts))
    is_null = np.array([draw(st.booleans()) and length == 0 for length in np.diff(batch.offsets)], np.bool_)
    if draw(st.booleans()):
        batch = draw(in_chunks(batch, vocabulary.symbols == "bytes"))
    doc_ids = np.array([draw(st.integers(0, 2**64 - 1)) for _ in case.texts], np.uint64)
    return Situation(model, batch, is_null, doc_ids)


@st.composite
def in_chunks(draw: st.DrawFn, batch: NormalizedBatch, is_bytes: bool) -> NormalizedBatch:
    inner = [p for p, byte in enumerate(batch.values.tolist()) if is_bytes or byte & 0xC0 != 0x80]
    some = draw(st.lists(st.sampled_from(inner), max_size=8)) if inner else []
    chunk_offsets = np.unique([*batch.offsets.tolist(), *some])
    ids = draw(
        st.lists(st.sampled_from([-1, -1, 0, 1, 7]), min_size=len(chunk_offsets) - 1, max_size=len(chunk_offsets) - 1)
    )
    return NormalizedBatch(batch.values, batch.offsets, chunk_offsets, np.array(ids, np.int32))
