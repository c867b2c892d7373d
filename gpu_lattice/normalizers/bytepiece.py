"""BytePiece's text rules: NFC, and lines as chunks that are segmented on their own."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.utf8 import character_length, code_point
from gpu_lattice.normalizers import AS_THEY_ARE, NormalizedBatch, listed
from gpu_lattice.normalizers.hf_alignment import repaired_from
from gpu_lattice.runtime.threads import byte_ranges, map_ranges
from gpu_lattice.text_batch import TextBatch, to_ragged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from gpu_lattice.kernels.cpu.bulk.spans import Alignment

# Blocks whose characters never combine or decompose, by Unicode's stability policy: looking them up one by one would
# dominate the time to build the table.
INERT_BLOCKS = [
    (0x3400, 0x4DC0),  # unified ideographs, extension A
    (0x4E00, 0xA000),  # unified ideographs
    (0xAC00, 0xD7A4),  # Hangul syllables; the letters that may join them are not inert
    (0xE000, 0xF900),  # private use
    (0x20000, 0x2A6E0),  # unified ideographs, extensions B and later
    (0x2A700, 0x2EE60),
    (0x30000, 0x323B0),
]
SCANNED_BLOCKS = [(0, 0x3400), (0x4DC0, 0x4E00), (0xA000, 0xAC00), (0xD7A4, 0xD800), (0xF900, 0x20000)]

HANGUL_VOWELS = range(0x1161, 0x1176)
HANGUL_FINALS = range(0x11A8, 0x11C3)

# Arrow sorts marks by swapping neighbours, in quadratic time. Longer sequences of marks than this are sorted first;
# Unicode's stream-safe texts have at most 30.
MOST_MARKS = 64
# The mark with the highest combining class.
LAST_MARK = "\u0345"

SOUND = 0
NEEDS_NFC = 1
MALFORMED = 2


class BytePieceNormalizer:
    """NFC, then chunks of one line and its run of trailing newlines: what `bytepiece.Tokenizer` does to a text.

    Characters that NFC does not affect are copied; runs of others go through Arrow's `utf8_normalize`, so Arrow's
    Unicode version decides for code points that Python's `unicodedata` does not know.
    A byte that is not part of valid UTF-8 becomes U+FFFD.

    Example:
        >>> normal = BytePieceNormalizer()(TextBatch.from_texts(["cafe\u0301\\n\\nbar"]))
        >>> normal.values.tobytes().decode(), normal.chunk_offsets.tolist()
        ('café\\n\\nbar', [0, 7, 10])
    """

    def __repr__(self) -> str:
        return "BytePieceNormalizer(NFC, chunks end at runs of newlines; combining characters by Arrow)"

    def __call__(self, texts: TextBatch, threads: int = 1) -> NormalizedBatch:
        """Normalize a batch on `threads` threads; a null document comes out empty."""
        return self._normalized(texts, threads)[0]

    def _normalized(self, texts: TextBatch, threads: int) -> tuple[NormalizedBatch, NDArray[np.uint8]]:
        """The batch, and of each document whether it changes, and why."""
        # Compiled once for both: Arrow's arrays are read-only, NumPy's are not.
        values, offsets = _read_only(texts.values), _read_only(texts.offsets)
        state = np.empty(len(texts), np.uint8)
        num_chunks = np.zeros(len(texts) + 1, np.int64)
        ranges = byte_ranges(offsets)
        inert = inert_code_points()

        def survey(start: int, stop: int) -> Any:
            _survey(values, offsets, start, stop, inert, state, num_chunks)
            return _rewritten(values, offsets, start, stop, state, inert)

        changes = map_ranges(survey, ranges, threads)
        if any(change is not None for change in changes):
            values, offsets = _assemble(values, offsets, ranges, changes, threads)
        else:
            values, offsets = values[offsets[0] : offsets[-1]], _read_only(offsets - offsets[0])
        chunk_bounds = np.cumsum(num_chunks)
        chunk_offsets = np.empty(chunk_bounds[-1] + 1, np.int64)
        chunk_offsets[-1] = offsets[-1]
        map_ranges(lambda a, b: _cut_lines(values, offsets, a, b, chunk_bounds, chunk_offsets), ranges, threads)
        return NormalizedBatch(values, offsets, chunk_offsets), state

    def aligned(self, texts: TextBatch) -> tuple[NormalizedBatch, Alignment]:
        """The same, and where its bytes come from; those of a sequence that NFC changes come from all of it."""
        batch, state = self._normalized(texts, 1)
        if not state.any():
            return batch, AS_THEY_ARE
        by_doc = np.diff(batch.offsets)
        starts = np.arange(len(batch.values)) - np.repeat(batch.offsets[:-1], by_doc)
        stops = starts + 1
        is_changed = np.repeat(state > 0, by_doc)
        starts[is_changed], stops[is_changed] = _alignment_of(
            _read_only(texts.values), _read_only(texts.offsets), np.flatnonzero(state), state, inert_code_points()
        )
        return batch, listed(starts, stops)


@lru_cache(maxsize=1)
def inert_code_points() -> NDArray[np.uint8]:
    """Bits over code points: 1 if a character neither changes in NFC nor affects how its neighbours change.

    uint8 [0x110000 / 8], bit c % 8 of byte c // 8. Inert means: assigned, combining class 0, NFC_Quick_Check = Yes.
    """
    inert = np.zeros(0x110000, np.bool_)
    for start, stop in INERT_BLOCKS:
        inert[start:stop] = True
    seconds: set[str] = set()  # characters that end some canonical decomposition: a composition may include them
    for start, stop in SCANNED_BLOCKS:
        characters = [chr(c) for c in range(start, stop)]
        combining = np.fromiter(map(unicodedata.combining, characters), np.uint8, len(characters))
        categories = list(map(unicodedata.category, characters))
        inert[start:stop] = (combining == 0) & np.array([category != "Cn" for category in categories])
        for c, mapping in zip(characters, map(unicodedata.decomposition, characters), strict=True):
            if mapping and mapping[0] != "<":
                seconds.update(chr(int(code, 16)) for code in mapping.split()[1:])
                if unicodedata.normalize("NFC", c) != c:
                    inert[ord(c)] = False
    inert[[ord(c) for c in seconds]] = False
    inert[HANGUL_VOWELS.start : HANGUL_VOWELS.stop] = False
    inert[HANGUL_FINALS.start : HANGUL_FINALS.stop] = False
    return _read_only(np.packbits(inert, bitorder="little"))


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _rewritten(
    values: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    start: int,
    stop: int,
    state: NDArray[np.uint8],
    inert: NDArray[np.uint8],
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]] | None:
    """The documents of a range that normalization changes: their indices, and their new bytes and offsets."""
    i_docs = start + np.flatnonzero(state[start:stop])
    if len(i_docs) == 0:
        return None
    sound, sound_offsets = _repaired(values, offsets, i_docs, state)
    for bounds, runs in _changes(sound, sound_offsets, inert):
        sound, sound_offsets = _spliced(sound, sound_offsets, bounds, *runs)
    return i_docs, sound, sound_offsets


def _repaired(
    values: NDArray[np.uint8], offsets: NDArray[np.int64], i_docs: NDArray[np.int64], state: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    lengths = offsets[i_docs + 1] - offsets[i_docs]
    sound = np.empty(3 * int(lengths.sum()), np.uint8)
    sound_offsets = np.zeros(len(i_docs) + 1, np.int64)
    _repair(values, offsets, i_docs, state, sound, sound_offsets)
    return sound, sound_offsets


def _changes(
    text: NDArray[np.uint8], offsets: NDArray[np.int64], inert: NDArray[np.uint8]
) -> Iterator[tuple[NDArray[np.int64], tuple[NDArray[np.uint8], NDArray[np.int64]]]]:
    """What `_spliced` does to valid text, one after the other: bounds, and the runs in their place."""
    long = _bounds(_find_long_sequences, text, offsets, inert)
    if len(long):
        ordered = [_in_canonical_order(text[a:b].tobytes()) for a, b in long.reshape(-1, 2).tolist()]
        run_values, run_offsets = to_ragged(ordered)
        runs = _read_only(run_values), _read_only(run_offsets)
        yield long, runs
        text, offsets = _spliced(text, offsets, long, *runs)
    bounds = _bounds(_find_active_runs, text, offsets, inert)
    yield bounds, _nfc(text, bounds)


def _alignment_of(
    values: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    i_docs: NDArray[np.int64],
    state: NDArray[np.uint8],
    inert: NDArray[np.uint8],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(starts, stops) of all bytes of the documents that normalization changes, in them."""
    docs = TextBatch.from_texts([values[offsets[i] : offsets[i + 1]].tobytes() for i in i_docs])
    text, text_offsets = _repaired(values, offsets, i_docs, state)
    starts = repaired_from(docs.values, docs.offsets)[:-1] - np.repeat(docs.offsets[:-1], np.diff(text_offsets))
    stops = starts + 1
    for bounds, (run_values, run_offsets) in _changes(text, text_offsets, inert):
        n_in = np.diff(np.concatenate([[0], bounds, text_offsets[-1:]]))
        n_out = n_in.copy()
        n_out[1::2] = np.diff(run_offsets)
        firsts = np.repeat(np.cumsum(n_in) - n_in, n_out)
        ends = np.repeat(np.cumsum(n_in), n_out)
        within = np.arange(len(firsts)) - np.repeat(np.cumsum(n_out) - n_out, n_out)
        new_text, new_offsets = _spliced(text, text_offsets, bounds, run_values, run_offsets)
        same = firsts + within
        piece = np.repeat(np.arange(len(n_in)), n_out)
        differs = (same >= ends) | (new_text != text[np.minimum(same, len(text) - 1)])
        changed = ((np.bincount(piece, differs, len(n_in)) > 0) | (n_in != n_out))[piece]
        starts, stops = starts[np.where(changed, firsts, same)], stops[np.where(changed, ends - 1, same)]
        text, text_offsets = new_text, new_offsets
    return starts, stops


def _bounds(
    find: Callable[..., int], text: NDArray[np.uint8], offsets: NDArray[np.int64], inert: NDArray[np.uint8]
) -> NDArray[np.int64]:
    bounds = np.empty(2 * find(text, offsets, inert, np.empty(0, np.int64)), np.int64)
    find(text, offsets, inert, bounds)
    return bounds


def _spliced(
    text: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    bounds: NDArray[np.int64],
    run_values: NDArray[np.uint8],
    run_offsets: NDArray[np.int64],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The documents with text[bounds[2k]:bounds[2k + 1]] replaced by run k."""
    growth = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.diff(run_offsets) - (bounds[1::2] - bounds[::2]))])
    new_offsets = offsets + growth[np.searchsorted(bounds[1::2], offsets, side="right")]
    new_values = np.empty(new_offsets[-1], np.uint8)
    _splice(text[: offsets[-1]], bounds, run_values, run_offsets, new_values)
    return new_values, new_offsets


def _in_canonical_order(sequence: bytes) -> bytes:
    """Canonical decomposition, in linear time; its NFC is that of the sequence."""
    characters = sequence.decode()
    distinct = sorted(set(characters))
    forms = dict(zip(distinct, _nfd(distinct), strict=True))
    characters = "".join(map(forms.__getitem__, characters))
    ranks = _ranks(sorted(set(characters)))
    groups = groupby(characters, lambda character: ranks[character] > 0)
    return "".join(
        "".join(sorted(group, key=ranks.__getitem__) if moves else group) for moves, group in groups
    ).encode()


def _ranks(characters: list[str]) -> dict[str, int]:
    """A number in the order of combining classes for each decomposed character, 0 for those that stay in place.

    Arrow does not tell classes, only which of two characters it puts first.
    """
    moves = [
        after != LAST_MARK + c for c, after in zip(characters, _nfd([LAST_MARK + c for c in characters]), strict=True)
    ]
    marks = [c for c, is_moved in zip(characters, moves, strict=True) if is_moved or c == LAST_MARK]
    [ordered] = _nfd(["".join(marks)])
    swapped = [b + a for a, b in pairwise(ordered)]
    ranks = accumulate((again != pair for pair, again in zip(swapped, _nfd(swapped), strict=True)), initial=1)
    return dict.fromkeys(characters, 0) | dict(zip(ordered, ranks, strict=False))


def _nfd(texts: list[str]) -> list[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    decomposed: list[str] = pc.utf8_normalize(pa.array(texts, pa.large_string()), form="NFD").to_pylist()
    return decomposed


def _nfc(text: NDArray[np.uint8], bounds: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Normalize text[bounds[2k]:bounds[2k + 1]] for every k; bytes and offsets."""
    n = len(bounds) // 2
    if n == 0:
        return _read_only(np.empty(0, np.uint8)), _read_only(np.zeros(1, np.int64))
    import pyarrow as pa
    import pyarrow.compute as pc

    between_too = pa.LargeStringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds), pa.py_buffer(text))
    normalized = pc.utf8_normalize(between_too.take(pa.array(np.arange(0, len(bounds), 2))), form="NFC")
    _, offsets, values = normalized.buffers()
    return np.frombuffer(values, np.uint8), np.frombuffer(offsets, np.int64)[: n + 1]


def _assemble(
    values: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    ranges: list[tuple[int, int]],
    changes: list[tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]] | None],
    threads: int,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All documents in order: the changed ones in their new form, the others copied."""
    lengths = np.diff(offsets)
    for change in changes:
        if change is not None:
            i_docs, _, new_offsets = change
            lengths[i_docs] = np.diff(new_offsets)
    out_offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    out = np.empty(out_offsets[-1], np.uint8)
    change_of = dict(zip(ranges, changes, strict=True))
    unchanged = np.empty(0, np.int64), np.empty(0, np.uint8), np.zeros(1, np.int64)

    def copy(start: int, stop: int) -> None:
        i_docs, new_values, new_offsets = change_of[start, stop] or unchanged
        _copy(values, offsets, start, stop, i_docs, new_values, new_offsets, out, out_offsets)

    map_ranges(copy, ranges, threads)
    return _read_only(out), _read_only(out_offsets)


@compiled
def _survey(
    values: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    start: int,
    stop: int,
    inert: NDArray[np.uint8],
    state: NDArray[np.uint8],
    num_chunks: NDArray[np.int64],
) -> None:
    """state[i] of each document, and in num_chunks[i + 1] its number of chunks, which rewriting does not change."""
    for i_doc in range(start, stop):
        doc = values[offsets[i_doc] : offsets[i_doc + 1]]
        num_chunks[i_doc + 1] = _count_chunks(doc)
        state[i_doc] = _look_closely(doc, _ascii_prefix(doc), inert)


@compiled
def _count_chunks(doc: NDArray[np.uint8]) -> int:
    if len(doc) == 0:
        return 0
    # Two slices indexed from 0, because an index p - 1 that might be negative prevents vectorization.
    before, after = doc[:-1], doc[1:]
    count = 1
    for p in range(len(after)):
        if before[p] == 10 and after[p] != 10:
            count += 1
    return count


@compiled
def _ascii_prefix(doc: NDArray[np.uint8]) -> int:
    """A number of leading bytes that are ASCII, in whole blocks."""
    for i in range(0, len(doc), 64):
        block = doc[i : i + 64]
        bits = np.uint8(0)
        for p in range(len(block)):
            bits |= block[p]
        if bits >= 128:
            return i
    return len(doc)


@compiled
def _look_closely(doc: NDArray[np.uint8], i: int, inert: NDArray[np.uint8]) -> int:
    code: int | np.int64
    state = SOUND
    while i < len(doc):
        first = np.int64(doc[i])
        if first < 0x80:
            i += 1
            continue
        length = 0
        if first >> 4 == 0xE and i + 2 < len(doc):
            # Most text beyond ASCII, worth a fast path; _decode handles what this does not.
            second, third = np.int64(doc[i + 1]), np.int64(doc[i + 2])
            code = (first & 0x0F) << 12 | (second & 0x3F) << 6 | (third & 0x3F)
            surrogate = code >> 11 == 0xD800 >> 11
            if (second >> 6 == 2) & (third >> 6 == 2) & (code >= 0x800) & (not surrogate):
                length = 3
        if length == 0:
            length, code = _decode(doc, i)
        if length == 0:
            state |= MALFORMED
            i += 1
            continue
        if not (inert[code >> 3] >> (code & 7)) & 1:
            state |= NEEDS_NFC
        i += length
    return state


@compiled(inline="always")
def _decode(doc: NDArray[np.uint8], i: int) -> tuple[int, int | np.int64]:
    """(length, code point) of the character of two bytes or more at i; length 0 if it is malformed (Unicode D92)."""
    length = character_length(doc, i, len(doc))
    return length, code_point(doc, i)[0] if length > 0 else np.int64(0)


@compiled
def _repair(
    values: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    i_docs: NDArray[np.int64],
    state: NDArray[np.uint8],
    sound: NDArray[np.uint8],
    sound_offsets: NDArray[np.int64],
) -> None:
    """Copy the documents i_docs, with U+FFFD for each malformed byte."""
    q = 0
    for k in range(len(i_docs)):
        doc = values[offsets[i_docs[k]] : offsets[i_docs[k] + 1]]
        if state[i_docs[k]] & MALFORMED:
            q = _replace_malformed(doc, sound, q)
        else:
            sound[q : q + len(doc)] = doc
            q += len(doc)
        sound_offsets[k + 1] = q


@compiled
def _replace_malformed(doc: NDArray[np.uint8], out: NDArray[np.uint8], q: int) -> int:
    i = 0
    while i < len(doc):
        length = 1
        if doc[i] >= 0x80:
            length, _ = _decode(doc, i)
        if length == 0:
            out[q], out[q + 1], out[q + 2] = 0xEF, 0xBF, 0xBD
            q += 3
            i += 1
        else:
            out[q : q + length] = doc[i : i + length]
            q += length
            i += length
    return q


@compiled
def _find_active_runs(
    text: NDArray[np.uint8], offsets: NDArray[np.int64], inert: NDArray[np.uint8], bounds: NDArray[np.int64]
) -> int:
    """The runs that NFC may change, as pairs in `bounds` as far as it has room; returns their number.

    NFC of a text is NFC of the parts between any two inert characters, so such a run is a sequence of characters that
    are not inert, with the one inert character before it; adjacent runs are merged.
    """
    n = 0
    for i_doc in range(len(offsets) - 1):
        i = starter = offsets[i_doc]
        run_end = np.int64(-1)
        while i < offsets[i_doc + 1]:
            if text[i] < 0x80:
                starter = i
                i += 1
                continue
            length, code = _decode(text, i)
            if (inert[code >> 3] >> (code & 7)) & 1:
                starter = i
            else:
                if run_end < starter:
                    if 2 * n < len(bounds):
                        bounds[2 * n] = starter
                    n += 1
                run_end = i + length
                if 2 * n <= len(bounds):
                    bounds[2 * n - 1] = run_end
            i += length
    return n


@compiled
def _find_long_sequences(
    text: NDArray[np.uint8], offsets: NDArray[np.int64], inert: NDArray[np.uint8], bounds: NDArray[np.int64]
) -> int:
    """The sequences of more than MOST_MARKS characters that are not inert, in the form of _find_active_runs."""
    n = 0
    for i_doc in range(len(offsets) - 1):
        i = begin = offsets[i_doc]
        size = 0
        while i < offsets[i_doc + 1]:
            length: int | np.int64 = 1
            code: int | np.int64 = 0
            if text[i] >= 0x80:
                length, code = _decode(text, i)
            i += length
            if (inert[code >> 3] >> (code & 7)) & 1:
                begin = i
                size = 0
                continue
            size += 1
            if size == MOST_MARKS + 1:
                if 2 * n < len(bounds):
                    bounds[2 * n] = begin
                n += 1
            if size > MOST_MARKS and 2 * n <= len(bounds):
                bounds[2 * n - 1] = i
    return n


@compiled
def _splice(
    text: NDArray[np.uint8],
    bounds: NDArray[np.int64],
    run_values: NDArray[np.uint8],
    run_offsets: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> None:
    """Copy text with its k-th active run replaced by run k."""
    i, q = np.int64(0), 0
    for k in range(len(run_offsets) - 1):
        before = text[i : bounds[2 * k]]
        out[q : q + len(before)] = before
        q += len(before)
        run = run_values[run_offsets[k] : run_offsets[k + 1]]
        out[q : q + len(run)] = run
        q += len(run)
        i = bounds[2 * k + 1]
    out[q:] = text[i:]


@compiled
def _copy(
    values: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    start: int,
    stop: int,
    i_docs: NDArray[np.int64],
    new_values: NDArray[np.uint8],
    new_offsets: NDArray[np.int64],
    out: NDArray[np.uint8],
    out_offsets: NDArray[np.int64],
) -> None:
    k = 0
    for i_doc in range(start, stop):
        q = out_offsets[i_doc]
        num_bytes = out_offsets[i_doc + 1] - q
        if k < len(i_docs) and i_docs[k] == i_doc:
            out[q : q + num_bytes] = new_values[new_offsets[k] : new_offsets[k] + num_bytes]
            k += 1
        else:
            out[q : q + num_bytes] = values[offsets[i_doc] : offsets[i_doc] + num_bytes]


@compiled
def _cut_lines(
    values: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    start: int,
    stop: int,
    chunk_bounds: NDArray[np.int64],
    chunk_offsets: NDArray[np.int64],
) -> None:
    """Begin a chunk at each document and after each run of newlines inside one."""
    for i_doc in range(start, stop):
        if chunk_bounds[i_doc] == chunk_bounds[i_doc + 1]:
            continue
        k = chunk_bounds[i_doc]
        begin = offsets[i_doc]
        chunk_offsets[k] = begin
        before, after = values[begin : offsets[i_doc + 1] - 1], values[begin + 1 : offsets[i_doc + 1]]
        for p in range(len(after)):
            if before[p] == 10 and after[p] != 10:
                k += 1
                chunk_offsets[k] = begin + 1 + p
