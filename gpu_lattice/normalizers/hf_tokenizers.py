"""Normalizer, pre-tokenizer and added tokens of a Hugging Face tokenizer.json, as one rule object.

The recipes that SentencePiece models are converted to are compiled (hf_text.py). Any other that tokenizers supports is
run by that package. This is decided when the model is read, and the rule object's repr says which it is.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import pairwise, starmap
from math import prod
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.kernels.compiled import Bound, as_written, readonly
from gpu_lattice.kernels.cpu.bulk.spans import LISTED, TO_END, Alignment
from gpu_lattice.kernels.cpu.machine import ONES
from gpu_lattice.kernels.cpu.utf8 import are_valid, bytes_of_character
from gpu_lattice.normalizers import BY_CHARACTERS, NormalizedBatch, listed
from gpu_lattice.normalizers.byte_level import bytes_of
from gpu_lattice.normalizers.charsmap import CharsMap, longest_replacement, parse_charsmap
from gpu_lattice.normalizers.hf_alignment import (
    collapse_sources,
    cut_sources,
    extents_of,
    own_sources,
    precompiled_sources,
    prepend_sources,
    repaired_from,
    replace_sources,
)
from gpu_lattice.normalizers.hf_text import (
    ALWAYS,
    FIRST,
    MOST_FIRSTS,
    NEVER,
    STRIP_LEFT,
    STRIP_RIGHT,
    Cutter,
    Parts,
    TokenTrie,
    apply_precompiled,
    collapse_spaces,
    cut,
    cut_plain,
    find_tokens,
    has_two_spaces,
    may_compose,
    precompiled,
    prepend,
    repair,
    replace,
    strip,
    whole_documents,
)
from gpu_lattice.runtime.threads import byte_ranges, map_ranges, num_ranges
from gpu_lattice.text_batch import TextBatch, to_ragged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.normalizers.pre_token_states import Pattern

    Step = Callable[[NDArray[np.uint8], Parts], tuple[NDArray[np.uint8], Parts]]
    Sources = Callable[[NDArray[np.uint8], Parts, NDArray[np.uint32], NDArray[np.uint8], Parts], NDArray[np.uint32]]


Component = dict[str, Any]

NORMALIZERS = frozenset(
    [
        "BertNormalizer",
        "ByteLevel",
        "Lowercase",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Nmt",
        "Precompiled",
        "Prepend",
        "Replace",
        "Sequence",
        "Strip",
        "StripAccents",
    ]
)
PRE_TOKENIZERS = frozenset(
    [
        "BertPreTokenizer",
        "ByteLevel",
        "CharDelimiterSplit",
        "Digits",
        "FixedLength",
        "Metaspace",
        "Punctuation",
        "Sequence",
        "Split",
        "UnicodeScripts",
        "Whitespace",
        "WhitespaceSplit",
    ]
)
PREFIXES = {"never": NEVER, "first": FIRST, "always": ALWAYS}
TOOL_BATCH = 1024
# Each part may output a text many times as long as its input. Published files have about five parts.
MOST_PARTS = 10
MOST_GROWTH = 1 << 18
# Of U+0300.
FIRST_BYTE_COMPOSED = 0xCC
LAST_BYTE = 0xFF


@dataclass(frozen=True)
class AddedToken:
    """A string that is matched before anything else, and its id."""

    content: str
    id: int
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False


class NotCompiledError(Exception):
    """Why a recipe has to be run by the package tokenizers."""


def hf_normalizer(
    normalizer: Component | None,
    pre_tokenizer: Component | None,
    added_tokens: Sequence[AddedToken],
    name: str,
    to_bytes: bool = False,
    by_tiktoken: bool = False,
) -> CompiledNormalizer | ToolNormalizer:
    """The rule object for parts of a tokenizer.json.

    name: the file's name in errors; to_bytes: whether the pre-tokens of a byte-level recipe are the bytes that its
    characters stand for; by_tiktoken: whether its own patterns mean what they mean to it.
    Raises ValueError for a component that is unknown or broken, and for an added token that is empty after
    normalization; ImportError if tokenizers is needed and not installed.
    """
    steps = _flat(normalizer, "normalizers", NORMALIZERS, f"{name}: the normalizer")
    cutters = _flat(pre_tokenizer, "pretokenizers", PRE_TOKENIZERS, f"{name}: the pre-tokenizer")
    where = f"{name}: the normalizer"
    charsmaps = [_read_charsmap(step, where) if step.get("type") == "Precompiled" else None for step in steps]
    check_growth(steps, where, *(longest_replacement(one.replacements) for one in charsmaps if one is not None))
    check_growth(cutters, f"{name}: the pre-tokenizer")
    if any(step.get("type") == "Prepend" and step.get("prepend") == "" for step in steps):
        raise ValueError(f"{where} Prepend has prepend = '', which tokenizers cannot run on all texts; take it out")
    shown = _Shown(name, _types(steps), _types(cutters), len(added_tokens))
    rules: CompiledNormalizer | ToolNormalizer
    try:
        pattern = _pattern_of(cutters, by_tiktoken) if to_bytes else None
        rules = CompiledNormalizer(_compile(steps, charsmaps, cutters, added_tokens, name, pattern), shown)
    except NotCompiledError as reason:
        for cutter in cutters:
            if cutter.get("type") == "FixedLength" and cutter.get("length") == 0:
                raise ValueError(
                    f"{name}: the pre-tokenizer FixedLength has length = 0; give it a positive length"
                ) from None
        to_bytes = to_bytes and is_byte_level(normalizer, pre_tokenizer, name)
        rules = ToolNormalizer(normalizer, pre_tokenizer, added_tokens, shown, str(reason), to_bytes)
    for token in added_tokens:
        # The tool finds such a token between any two bytes, and panics if they belong to one character.
        if token.normalized and not rules.normalize_str(token.content):
            raise ValueError(
                f"{name}: the added token {token.content!r:.60} is empty after normalization; give it "
                '"normalized": false, or take it out of added_tokens'
            )
    return rules


def is_byte_level(normalizer: Component | None, pre_tokenizer: Component | None, name: str) -> bool:
    """Whether text becomes GPT-2's characters for bytes. Raises ValueError for a recipe that does so twice."""
    times = _kinds(normalizer, pre_tokenizer, name).count("ByteLevel")
    if times > 1:
        raise ValueError(f"{name}: ByteLevel is among the normalizer and pre-tokenizer {times} times; keep one of them")
    return times == 1


def goes_on_with_bytes(normalizer: Component | None, pre_tokenizer: Component | None, name: str) -> bool:
    """Whether anything follows after text has become GPT-2's characters for bytes: it may part those of a character."""
    return _kinds(normalizer, pre_tokenizer, name)[-1:] != ["ByteLevel"]


def _kinds(normalizer: Component | None, pre_tokenizer: Component | None, name: str) -> list[Any]:
    """The types of all steps."""
    parts = _flat(normalizer, "normalizers", NORMALIZERS, f"{name}: the normalizer")
    parts += _flat(pre_tokenizer, "pretokenizers", PRE_TOKENIZERS, f"{name}: the pre-tokenizer")
    return [part.get("type") for part in parts]


@dataclass(frozen=True)
class _Shown:
    """The facts that the repr of either rule object shows."""

    name: str
    steps: str
    cutters: str
    num_tokens: int

    def text(self, how: str) -> str:
        return (
            f"HuggingFaceNormalizer(name={self.name!r}, normalizer={self.steps}, pre_tokenizer={self.cutters}, "
            f"added_tokens={self.num_tokens}; {how})"
        )


NO_TOKENS = TokenTrie(
    np.full(256, -1, np.int32), np.zeros(1, np.int32), np.empty(0, np.uint8), np.empty(0, np.int32),
    np.empty(0, np.bool_), np.empty(0, np.bool_),
)  # fmt: skip


NO_EXTENTS = np.empty((0, 2), np.int64)
_are_valid, _find_tokens, _cut, _strip, _has_two_spaces = map(
    Bound, (are_valid, find_tokens, cut, strip, has_two_spaces)
)


@dataclass(frozen=True)
class Rules:
    """Compiled rules. Tokens `raw` are matched in the text, tokens `cooked` in normalized text; None if there are none.

    token_ids  int32, the ids of the added tokens, in the order in which the tries and the cutter number them
    pattern    what the cutter leaves is divided by; None if by nothing
    """

    raw: TokenTrie | None
    steps: tuple[Step, ...]
    cooked: TokenTrie | None
    cutter: Cutter
    token_ids: NDArray[np.int32]
    pattern: Pattern | None = None

    @cached_property
    def at_once(self) -> Callable[[NDArray[np.uint8], NDArray[np.int64]], NormalizedBatch | None] | None:
        """What makes pre-tokens of plain documents (hf_text.py), and None of others, in one call; None if these rules
        take several.
        """
        raw = NO_TOKENS if self.raw is None else self.raw
        if self.cooked is not None:
            return None
        if self.pattern is not None and all(step is _compose_step for step in self.steps):
            return self._divides(raw, FIRST_BYTE_COMPOSED - 1 if self.steps else LAST_BYTE)
        kinds = [step.func if isinstance(step, partial) else None for step in self.steps]
        if self.pattern is None and kinds in ([apply_precompiled], [apply_precompiled, _strip_step]):
            return self._cuts(raw)
        return None

    def _divides(self, raw: TokenTrie, most: int) -> Callable[[NDArray[np.uint8], NDArray[np.int64]], Any]:
        """The documents themselves, divided by the pattern."""
        from gpu_lattice.normalizers.pre_tokens import automaton_of, divide_plain

        assert self.pattern is not None
        tables, run = (*automaton_of(self.pattern), raw, most), Bound(divide_plain)

        def divided(values: NDArray[np.uint8], docs: NDArray[np.int64]) -> NormalizedBatch | None:
            bounds = run(*tables, values, docs)
            return NormalizedBatch(values[docs[0] : docs[-1]], docs - docs[0], bounds) if len(bounds) else None

        return divided

    def _cuts(self, raw: TokenTrie) -> Callable[[NDArray[np.uint8], NDArray[np.int64]], Any]:
        """Documents by a character map and perhaps `strip`, cut."""
        (tables,), *strips = (step.args for step in self.steps if isinstance(step, partial))
        flags, run = strips[0][0] if strips else 0, Bound(cut_plain)

        def cut_at_once(values: NDArray[np.uint8], docs: NDArray[np.int64]) -> NormalizedBatch | None:
            cut_values, offsets, bounds = run(self.cutter, raw, tables, flags, values, docs)
            return NormalizedBatch(cut_values, offsets, bounds) if len(bounds) else None

        return cut_at_once

    @cached_property
    def _bound_steps(self) -> list[Step]:
        """The steps; those that are a compiled function with tables take them as they are."""
        bound = (apply_precompiled, prepend, replace)
        return [
            partial(Bound(step.func), *step.args) if isinstance(step, partial) and step.func in bound else step
            for step in self.steps
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def pre_tokenize(
        self, original: NDArray[np.uint8], docs: NDArray[np.int64], is_aligned: bool = False
    ) -> tuple[Any, ...]:
        """Documents of valid UTF-8, as (values, offsets, chunk ends, hits [.., 2]: (chunk, number of a token)).

        docs: where they are in `original`; from 0 on if is_aligned, and then what `cut_sources` returns follows, unless
        all values are the original.
        """
        values, parts, raw = original, whole_documents(docs), NO_EXTENTS
        if self.raw is not None:
            parts = _find_tokens(self.raw, values, parts)
            is_raw = parts.tokens >= 0
            if is_raw.any():
                raw = np.stack([parts.starts[is_raw], parts.stops[is_raw]], 1)
                # As after a step, none of the bytes is theirs.
                parts.stops[is_raw] = parts.starts[is_raw]
        values, parts, sources = self._normalize(values, parts, is_aligned)
        if self.cooked is not None:
            parts = _find_tokens(self.cooked, values, parts)
        found = _as_they_are(values, parts) if self.pattern is not None and sources is None else None
        cut_values, offsets, ends, hits = found or _cut(self.cutter, values, parts)
        places = ()
        if is_aligned and not (found and len(cut_values) == len(original)):
            sources = own_sources(values) if sources is None else sources
            extents = extents_of(parts, raw, sources, original)
            places = cut_sources(self.cutter, values, parts, sources, docs, extents, len(cut_values))
        if self.pattern is not None:
            from gpu_lattice.normalizers.pre_tokens import automaton_of, divide

            ends, hits = divide(*automaton_of(self.pattern), cut_values, ends, hits)
        return cut_values, offsets, ends, hits, *places

    def _normalize(
        self, values: NDArray[np.uint8], parts: Parts, is_aligned: bool = False
    ) -> tuple[NDArray[np.uint8], Parts, NDArray[np.uint32] | None]:
        """Also, if asked, where the bytes come from; None if no step has changed any."""
        sources = None
        for step, run in zip(self.steps, self._bound_steps, strict=True):
            new_values, new_parts = run(values, parts)
            if is_aligned and new_values is not values:
                sources = own_sources(values) if sources is None else sources
                sources = _sources_of(step)(values, parts, sources, new_values, new_parts)
            values, parts = readonly(new_values), new_parts
        return values, parts, sources

    @property
    def only_divide(self) -> bool:
        """Whether text with no added token in it is divided by the pattern, and no more."""
        return self.pattern is not None and not self.steps

    def normalize_text(self, text: bytes) -> bytes:
        """Valid UTF-8 by the steps alone."""
        values = readonly(np.frombuffer(text, np.uint8))
        values, parts, _ = self._normalize(values, whole_documents(np.array([0, len(values)])))
        return values[parts.starts[0] : parts.stops[0]].tobytes()


def _as_they_are(values: NDArray[np.uint8], parts: Parts) -> tuple[Any, ...] | None:
    """What `cut` returns where it changes nothing, without a copy of the text; None if parts are tokens, or apart."""
    starts, stops = parts.starts, parts.stops
    if not len(starts) or parts.tokens.max() >= 0 or not np.array_equal(starts[1:], stops[:-1]):
        return None
    bounds = np.append(starts, stops[-1:]) - starts[0]
    return values[starts[0] : stops[-1]], bounds[parts.docs], bounds[1:], np.empty((0, 2), np.int64)


class CompiledNormalizer:
    """Texts to pre-tokens by compiled rules.

    Example:
        >>> normalize = hf_normalizer(None, {"type": "Metaspace", "replacement": "▁"}, [], "tokenizer.json")
        >>> normalize(TextBatch.from_texts(["a b"])).chunk_offsets.tolist()
        [0, 4, 8]
    """

    def __init__(self, rules: Rules, shown: _Shown) -> None:
        self._rules = rules
        self._shown = shown

    @property
    def rules(self) -> Rules:
        return self._rules

    def __call__(self, texts: TextBatch, threads: int = 1) -> NormalizedBatch:
        """Pre-tokenize a batch on `threads` threads; a null document comes out empty."""
        plain = self._at_once(texts) if num_ranges(texts.num_bytes, threads) == 1 else None
        if plain is not None:
            return plain
        texts = _with_valid_text(texts, threads)

        def work(start: int, stop: int) -> tuple[Any, ...]:
            return self._rules.pre_tokenize(texts.values, texts.offsets[start : stop + 1])

        # The output of a single thread needs no joining.
        return self._batch(map_ranges(work, byte_ranges(texts.offsets) if threads > 1 else [(0, len(texts))], threads))

    def aligned(self, texts: TextBatch) -> tuple[NormalizedBatch, Alignment]:
        """The same on one thread, and where its bytes come from."""
        plain = self._at_once(texts) if self._rules.pattern is not None else None
        if plain is not None:
            return plain, BY_CHARACTERS
        valid = _with_valid_text(texts, 1)
        docs = valid.offsets
        done = self._rules.pre_tokenize(valid.values[docs[0] : docs[-1]], docs - docs[0], is_aligned=True)
        batch, alignment = self._batch([done[:4]]), BY_CHARACTERS
        if len(done) > 4:
            starts, of_tokens = done[4:]
            stops = np.zeros(len(of_tokens) and len(batch.chunks[1]), np.uint32)
            stops[done[3][:, 0]] = of_tokens
            alignment = Alignment(TO_END, readonly(starts), readonly(stops))
        return batch, _in_original(alignment, texts, valid, batch)

    def _at_once(self, texts: TextBatch) -> NormalizedBatch | None:
        at_once = self._rules.at_once
        return None if at_once is None else at_once(readonly(texts.values), readonly(texts.offsets))

    def _batch(self, done: list[tuple[Any, ...]]) -> NormalizedBatch:
        if not done:
            return NormalizedBatch(np.zeros(0, np.uint8), np.zeros(1, np.int64), np.zeros(1, np.int64))
        values, offsets, chunk_offsets, hits = _join(done)
        if not len(hits):
            return NormalizedBatch(values, offsets, chunk_offsets)
        hits[:, 1] = self._rules.token_ids[hits[:, 1]]
        return NormalizedBatch(values, offsets, chunk_offsets, _chunk_ids(len(chunk_offsets) - 1, hits))

    def normalize_str(self, text: str) -> str:
        """Text by the normalizer alone, without added tokens and pre-tokenizer."""
        return self._rules.normalize_text(text.encode()).decode()

    def __repr__(self) -> str:
        has_nfc = _compose_step in self._rules.steps
        what = ", but what NFC may change goes through the package tokenizers"
        return self._shown.text("compiled" + (what if has_nfc else ""))


class ToolNormalizer:
    """Texts to pre-tokens by the package tokenizers, for recipes that are not compiled."""

    _to_bytes = False

    def __init__(
        self,
        normalizer: Component | None,
        pre_tokenizer: Component | None,
        added_tokens: Sequence[AddedToken],
        shown: _Shown,
        reason: str,
        to_bytes: bool,
    ) -> None:
        self._shown = shown
        self._reason = reason
        self._to_bytes = to_bytes
        self._tool = _tool_tokenizer(normalizer, pre_tokenizer, added_tokens, shown.name, reason)
        self._contents = {self._tool.token_to_id(token.content): token for token in added_tokens}

    def __call__(self, texts: TextBatch, threads: int = 1) -> NormalizedBatch:
        """Pre-tokenize a batch; a null document comes out empty. The package chooses its own threads."""
        return self._pre_tokens(_with_valid_text(texts, threads))[0]

    def _pre_tokens(self, texts: TextBatch) -> tuple[NormalizedBatch, list[bool]]:
        """The batch, and of each chunk whether each of its bytes is a character for the tool."""
        chunks: list[bytes] = []
        are_bytes: list[bool] = []
        hits: list[tuple[int, int]] = []
        chunks_before = [0]
        for start in range(0, len(texts), TOOL_BATCH):
            docs = [(doc or b"").decode() for doc in texts.slice(start, start + TOOL_BATCH).tolist()]
            with tool_errors(f"{self._shown.name}: tokenizers cannot normalize or pre-tokenize these texts"):
                encodings = self._tool.encode_batch(docs, add_special_tokens=False)
            for encoding in encodings:
                for i, text in zip(encoding.ids, encoding.tokens, strict=True):
                    token = self._contents.get(i)
                    if token is not None:
                        hits.append((len(chunks), token.id))
                        text = token.content
                    spelled = bytes_of(text) if self._to_bytes and token is None else None
                    chunks.append(text.encode() if spelled is None else spelled)
                    are_bytes.append(spelled is not None)
                chunks_before.append(len(chunks))
        chunk_offsets = np.cumsum([0, *map(len, chunks)], dtype=np.int64)
        batch = NormalizedBatch(
            np.frombuffer(b"".join(chunks), np.uint8),
            chunk_offsets[chunks_before],
            chunk_offsets,
            _chunk_ids(len(chunks), np.array(hits)) if hits else None,
        )
        return batch, are_bytes

    def aligned(self, texts: TextBatch) -> tuple[NormalizedBatch, Alignment]:
        """The same, and where its bytes come from."""
        valid = _with_valid_text(texts, 1)
        batch, are_bytes = self._pre_tokens(valid)
        tool = _by_character(self._tool)
        spans: list[NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
        for doc in valid.tolist():
            text = (doc or b"").decode()
            with tool_errors(f"{self._shown.name}: tokenizers cannot normalize or pre-tokenize these texts"):
                offsets = np.array(tool.encode(text, add_special_tokens=False).offsets, np.int64).reshape(-1, 2)
            spans.append(np.cumsum([0, *(len(character.encode()) for character in text)])[offsets])
        starts, stops = np.repeat(np.concatenate(spans), _bytes_of_tokens(batch, are_bytes), 0).T
        return batch, _in_original(listed(starts, stops), texts, valid, batch)

    def normalize_str(self, text: str) -> str:
        """Text by the normalizer alone, without added tokens and pre-tokenizer."""
        normalizer = self._tool.normalizer
        with tool_errors(f"{self._shown.name}: tokenizers cannot normalize {text!r:.60}"):
            return text if normalizer is None else str(normalizer.normalize_str(text))

    def __repr__(self) -> str:
        return self._shown.text(f"not compiled, run by the package tokenizers: {self._reason}")


def _bytes_of_tokens(batch: NormalizedBatch, are_bytes: list[bool]) -> NDArray[np.int64]:
    """How many bytes each character of a batch has, and each added token."""
    chunk_offsets, chunk_ids = batch.chunks
    by_chunk = np.diff(chunk_offsets)
    is_first = (batch.values & 0xC0 != 0x80) | np.repeat(np.array(are_bytes, np.bool_), by_chunk)
    is_first[np.repeat(chunk_ids >= 0, by_chunk)] = False
    is_first[chunk_offsets[:-1]] = True
    return np.diff(np.append(np.flatnonzero(is_first), len(is_first)))


def _in_original(alignment: Alignment, texts: TextBatch, valid: TextBatch, batch: NormalizedBatch) -> Alignment:
    """An alignment with the texts instead of the valid ones made of them."""
    if len(valid.values) == len(texts.values):
        return alignment
    origin = repaired_from(readonly(texts.values), readonly(texts.offsets))
    by_doc = np.diff(batch.offsets)
    there, here = np.repeat(valid.offsets[:-1], by_doc), np.repeat(texts.offsets[:-1], by_doc)
    starts = there + alignment.starts if len(alignment.starts) else own_sources(batch.values).astype(np.int64)
    if alignment.kind == LISTED:
        stops = there + alignment.stops
    else:
        stops = starts + as_written(bytes_of_character)(valid.values[starts])
        chunk_offsets, chunk_ids = batch.chunks
        if batch.chunk_ids is not None:
            by_chunk = np.diff(chunk_offsets)
            is_token = np.repeat(chunk_ids >= 0, by_chunk)
            stops[is_token] = (there + np.repeat(alignment.stops, by_chunk))[is_token]
    return listed(origin[starts] - here, origin[stops] - here)


def _chunk_ids(num_chunks: int, hits: NDArray[np.int64]) -> NDArray[np.int32]:
    chunk_ids = np.full(num_chunks, -1, np.int32)
    chunk_ids[hits[:, 0]] = hits[:, 1]
    return chunk_ids


def _join(ranges: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The results of `Rules.pre_tokenize` for ranges, as (values, offsets, chunk_offsets, hits) of all documents."""
    if len(ranges) == 1:
        values, offsets, ends, hits = ranges[0]
        return values, offsets, np.concatenate([np.zeros(1, np.int64), ends]), hits
    values = np.concatenate([values for values, _, _, _ in ranges])
    bytes_before = np.cumsum([0, *(len(values) for values, _, _, _ in ranges)])
    chunks_before = np.cumsum([0, *(len(ends) for _, _, ends, _ in ranges)])
    hits = [hits + np.array([num, 0]) for num, (_, _, _, hits) in zip(chunks_before, ranges, strict=False)]
    return (
        values,
        _join_ends([offsets[1:] for _, offsets, _, _ in ranges], bytes_before),
        _join_ends([ends for _, _, ends, _ in ranges], bytes_before),
        np.concatenate(hits),
    )


def _join_ends(parts: list[NDArray[np.int64]], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Offsets [n + 1] from the ends within every part, each counted from the start of its part."""
    offsets = np.zeros(1 + sum(map(len, parts)), np.int64)
    size = 1
    for ends, start in zip(parts, starts, strict=False):
        np.add(ends, start, out=offsets[size : size + len(ends)])
        size += len(ends)
    return offsets


def _with_valid_text(texts: TextBatch, threads: int) -> TextBatch:
    """Texts as UTF-8: a byte that is not part of a character becomes U+FFFD, as in SentencePiece."""
    values, offsets, ranges = readonly(texts.values), readonly(texts.offsets), byte_ranges(texts.offsets)
    if all(map_ranges(lambda start, stop: _are_valid(values, offsets, start, stop), ranges, threads)):
        return TextBatch(values, offsets, texts.valid)
    parts = map_ranges(lambda start, stop: repair(values, offsets, start, stop), ranges, threads)
    starts = np.cumsum([0, *(len(part) for part, _ in parts)])
    offsets = _join_ends([offsets[1:] for _, offsets in parts], starts)
    return TextBatch(readonly(np.concatenate([part for part, _ in parts])), offsets, texts.valid)


def _flat(component: Component | None, members: str, known: frozenset[str], where: str) -> list[Component]:
    """The components in a tree of sequences, in order."""
    if component is None:
        return []
    if not isinstance(component, dict):
        raise ValueError(f"{where} is {component!r:.60}, not an object; get the file again")
    kind = component.get("type")
    if kind is not None and not (isinstance(kind, str) and kind in known):
        raise ValueError(
            f"{where} has a component of the unknown type {kind!r:.60}; tokenizers 0.23.3 knows "
            f"{', '.join(sorted(known))}"
        )
    if kind != "Sequence":
        return [component]
    parts = component.get(members)
    if not isinstance(parts, list):
        raise ValueError(f"{where} has a Sequence without a list {members!r}; get the file again")
    return [flat for part in parts for flat in _flat(part, members, known, where)]


def _types(components: list[Component]) -> str:
    return "[" + ", ".join(str(component.get("type", "untyped")) for component in components) + "]"


def check_growth(parts: Sequence[Component], where: str, *factors: int) -> None:
    """Raise ValueError for parts that, one after another, may turn a short text into one of any length.

    factors: how many bytes one may become by those parts that have no content of their own.
    """
    if len(parts) > MOST_PARTS:
        raise ValueError(f"{where} has {len(parts)} parts; at most {MOST_PARTS} are run, so take some out of it")
    contents = [part[key] for part in parts for key in ("content", "prepend") if isinstance(part.get(key), str)]
    if prod(max(1, factor) for factor in [*factors, *map(len, contents)]) > MOST_GROWTH:
        raise ValueError(f"{where} may make more than {MOST_GROWTH} characters from one; shorten what it inserts")


def _compile(
    steps: list[Component],
    charsmaps: list[CharsMap | None],
    cutters: list[Component],
    added_tokens: Sequence[AddedToken],
    name: str,
    pattern: Pattern | None,
) -> Rules:
    """Rules for the components. Raises NotCompiledError if there are none, ValueError if a part is broken."""
    if any(token.single_word for token in added_tokens):
        raise NotCompiledError("an added token is single_word")
    if pattern is not None or _never_splits(steps, cutters):
        cutters = []
    cutter = _compile_cutter(cutters, added_tokens, name)
    if cutter.prefix == FIRST:
        _check_first(steps, cutter, added_tokens)
    cutter = cutter._replace(collapse=_can_cut_collapse(steps, cutter, added_tokens))
    rules = Rules(
        _token_trie([b"" if token.normalized else token.content.encode() for token in added_tokens], added_tokens),
        _compile_steps(steps[:-1] if cutter.collapse else steps, charsmaps, name),
        None,
        cutter,
        np.array([token.id for token in added_tokens], np.int32),
        pattern,
    )
    patterns = [rules.normalize_text(token.content.encode()) if token.normalized else b"" for token in added_tokens]
    return dataclasses.replace(rules, cooked=_token_trie(patterns, added_tokens))


def _pattern_of(cutters: list[Component], by_tiktoken: bool) -> Pattern | None:
    """The compiled pattern of a byte-level recipe, None for any other."""
    from gpu_lattice.normalizers.pre_tokens import GPT2, PATTERNS, SEQUENCES, TIKTOKEN

    *splits, last = cutters or [{}]
    has_regex = last.get("use_regex", True)
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") is not False or not isinstance(has_regex, bool):
        return None
    most_digits = _most_digits(splits[0]) if len(splits) + has_regex == 2 else None
    if most_digits is not None:
        splits = splits[1:]
    # Matches of a single pattern cover all text, so it does not matter what becomes of the rest.
    plain = [("Isolated", False), ("Removed", True)][: 1 + (len(splits) == 1)]
    regexes = [_regex_of(split, plain) or "" for split in splits] + [GPT2] * has_regex
    if len(regexes) != 1:
        return SEQUENCES.get(tuple(regexes))
    pattern = (PATTERNS | TIKTOKEN if by_tiktoken else PATTERNS).get(regexes[0])
    if pattern is None or most_digits is None:
        return pattern
    return pattern._replace(apart=True, most_digits=min(most_digits, pattern.most_digits))


def _most_digits(split: Component) -> int | None:
    """How many digits a pre-token has, if the component divides numbers from other text, and nothing else."""
    from gpu_lattice.normalizers.pre_token_states import ANY_NUMBER
    from gpu_lattice.normalizers.pre_tokens import NUMBERS

    if split.get("type") == "Digits" and isinstance(split.get("individual_digits"), bool):
        return 1 if split["individual_digits"] else ANY_NUMBER
    return NUMBERS.get(_regex_of(split, [("Isolated", False)]) or "")


def _regex_of(split: Component, plain: list[tuple[str, bool]]) -> str | None:
    """The pattern of a Split with one of these behaviors (and inversions), None for others."""
    is_plain = (split.get("behavior"), split.get("invert")) in plain
    pattern = split.get("pattern")
    if split.get("type") != "Split" or not is_plain or not isinstance(pattern, dict):
        return None
    regex = pattern.get("Regex")
    return regex if isinstance(regex, str) else None


def _never_splits(steps: list[Component], cutters: list[Component]) -> bool:
    """Whether the only pre-tokenizer is to split at a character that the last normalizer replaces by others."""
    if [cutter.get("type") for cutter in cutters] != ["Split"] or not steps or steps[-1].get("type") != "Replace":
        return False
    found, content = steps[-1].get("pattern"), steps[-1].get("content")
    character = found.get("String") if isinstance(found, dict) else None
    return (
        isinstance(character, str)
        and len(character) == 1
        and isinstance(content, str)
        and character not in content
        and cutters[0].get("pattern") == {"String": character}
        and cutters[0].get("behavior") == "MergedWithPrevious"
        and cutters[0].get("invert") is False
    )


def _check_first(steps: list[Component], cutter: Cutter, added_tokens: Sequence[AddedToken]) -> None:
    """With "first", the tool asks where in the text a part came from. It is compiled if the answer is clear."""
    if cutter.at_whitespace or any(token.normalized for token in added_tokens):
        raise NotCompiledError('Metaspace has prepend_scheme "first" after another cut')
    for step in steps:
        keeps_start = (
            step.get("type") == "Precompiled"
            or (step.get("type") == "Strip" and not step.get("strip_left"))
            or (_is_collapse(step) and str(step.get("content")).startswith((" ", cutter.metaspace.tobytes().decode())))
        )  # fmt: skip
        if not keeps_start:
            raise NotCompiledError(
                'Metaspace has prepend_scheme "first" and the normalizer can change where a text starts'
            )


def _can_cut_collapse(steps: list[Component], cutter: Cutter, added_tokens: Sequence[AddedToken]) -> bool:
    """Whether the last step turns every run of spaces into one mark (or a space that becomes one) that is then cut."""
    mark = cutter.metaspace.tobytes().decode()
    is_last = bool(steps) and _is_collapse(steps[-1]) and steps[-1].get("content") in (" ", mark)
    return is_last and mark != "" and not cutter.at_whitespace and not any(token.normalized for token in added_tokens)


def _compile_cutter(cutters: list[Component], added_tokens: Sequence[AddedToken], name: str) -> Cutter:
    kinds = [cutter.get("type") for cutter in cutters]
    at_whitespace = kinds[:1] == ["WhitespaceSplit"]
    if kinds[at_whitespace:] not in ([], ["Metaspace"]):
        raise NotCompiledError(f"the pre-tokenizers are {_types(cutters)}")
    mark, prefix, split = b"", "never", False
    for metaspace in cutters[at_whitespace:]:
        prefix, split = metaspace_scheme(metaspace, f"{name}: the pre-tokenizer")
        mark = metaspace["replacement"].encode()
    contents = [token.content.encode() for token in added_tokens]
    return Cutter(at_whitespace, _bytes_array(mark), PREFIXES[prefix], split, False, *_ragged(contents))


def metaspace_scheme(metaspace: Component, where: str) -> tuple[str, bool]:
    """(prepend scheme, split) of a Metaspace; older files have add_prefix_space. Raises ValueError."""
    mark = metaspace.get("replacement")
    if not isinstance(mark, str) or len(mark) != 1:
        raise ValueError(f"{where} has a Metaspace with the replacement {mark!r:.60}; it must be one character")
    prefix = metaspace.get("prepend_scheme", "always")
    if not isinstance(prefix, str) or prefix not in PREFIXES:
        raise ValueError(
            f"{where} has a Metaspace with the prepend_scheme {prefix!r:.60}; it must be one of {', '.join(PREFIXES)}"
        )
    for key in ("add_prefix_space", "split"):
        member(metaspace, key, (bool, NoneType), where)
    if metaspace.get("add_prefix_space") is False and prefix != "never":
        raise ValueError(
            f'{where} has a Metaspace with add_prefix_space false and the prepend_scheme "{prefix}", which contradict '
            'each other, as tokenizers says too; set prepend_scheme to "never"'
        )
    return prefix, metaspace.get("split") is not False


def _compile_steps(steps: list[Component], charsmaps: list[CharsMap | None], name: str) -> tuple[Step, ...]:
    where = f"{name}: the normalizer"
    compiled: list[Step] = []
    for step, charsmap in zip(steps, charsmaps, strict=False):
        kind = step.get("type")
        if charsmap is not None:
            compiled.append(partial(apply_precompiled, precompiled(charsmap)))
        elif kind == "Strip":
            flags = STRIP_LEFT * member(step, "strip_left", bool, where)
            flags += STRIP_RIGHT * member(step, "strip_right", bool, where)
            compiled.append(partial(_strip_step, flags))
        elif kind == "Prepend":
            compiled.append(partial(prepend, _bytes_array(member(step, "prepend", str, where).encode())))
        elif kind == "NFC":
            compiled.append(_compose_step)
        elif kind == "Replace":
            pattern = member(step, "pattern", dict, where)
            content = _bytes_array(member(step, "content", str, where).encode())
            if _is_collapse(step):
                compiled.append(partial(_collapse_step, content))
            elif isinstance(pattern.get("String"), str) and pattern["String"]:
                compiled.append(partial(replace, _bytes_array(pattern["String"].encode()), content))
            else:
                raise NotCompiledError(f"Replace has the pattern {pattern!r:.60}")
        else:
            raise NotCompiledError(f"the normalizers are {_types(steps)}")
    return tuple(compiled)


def _sources_of(step: Step) -> Sources:
    """What goes by a step's name in hf_alignment.py; steps of earlier versions' pickles have one too."""
    if not isinstance(step, partial):
        return _compose_sources
    compiled = {
        "apply_precompiled": precompiled_sources,
        "prepend": prepend_sources,
        "replace": replace_sources,
        "_collapse_step": collapse_sources,
    }
    return partial(compiled[step.func.__name__], *step.args)


def _is_collapse(step: Component) -> bool:
    return step.get("type") == "Replace" and step.get("pattern") == {"Regex": " {2,}"}


def _strip_step(flags: int, values: NDArray[np.uint8], parts: Parts) -> tuple[NDArray[np.uint8], Parts]:
    return values, _strip(flags, values, parts)


def _compose_step(values: NDArray[np.uint8], parts: Parts) -> tuple[NDArray[np.uint8], Parts]:
    """NFC, by the package tokenizers where it may change a part.

    No character below U+0300 is changed unless one from there on follows. What is inert in one version of Unicode is so
    in all later ones.
    """
    if not len(values) or values.max() < FIRST_BYTE_COMPOSED:
        return values, parts
    from gpu_lattice.normalizers.bytepiece import inert_code_points

    is_active = may_compose(inert_code_points(), values, parts)
    if not is_active.any():
        return values, parts
    compose = _nfc().normalize_str
    texts = [values[start:stop].tobytes() for start, stop in zip(parts.starts, parts.stops, strict=True)]
    composed = [
        compose(text.decode()).encode() if active else text
        for text, active in zip(texts, is_active.tolist(), strict=True)
    ]
    bounds = np.cumsum([0, *map(len, composed)], dtype=np.int64)
    return _bytes_array(b"".join(composed)), parts._replace(starts=bounds[:-1].copy(), stops=bounds[1:].copy())


def _compose_sources(
    values: NDArray[np.uint8],
    parts: Parts,
    sources: NDArray[np.uint32],
    new_values: NDArray[np.uint8],
    new_parts: Parts,
) -> NDArray[np.uint32]:
    """The sources of what NFC writes, by the package tokenizers where it changes a part."""
    tool = _nfc_by_character()
    out = np.empty(len(new_values), np.uint32)
    for start, stop, new_start, new_stop in zip(*(a.tolist() for a in (*parts[:2], *new_parts[:2])), strict=True):
        own, old, new = sources[start:stop], values[start:stop], new_values[new_start:new_stop]
        if len(old) != len(new) or np.any(old != new):
            starts = np.array(tool.encode(old.tobytes().decode()).offsets)[:, 0]
            own = np.repeat(own[np.flatnonzero(old & 0xC0 != 0x80)[starts]], _lengths_of_characters(new))
        out[new_start:new_stop] = own
    return out


def _lengths_of_characters(text: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.diff(np.append(np.flatnonzero(text & 0xC0 != 0x80), len(text)))


@cache
def _nfc_by_character() -> Any:
    return _by_character(_tool_tokenizer({"type": "NFC"}, None, [], "NFC", "it is applied by it"))


def _nfc() -> Any:
    try:
        from tokenizers.normalizers import NFC
    except ImportError:
        raise ImportError(
            "NFC is applied by the package tokenizers; install it with: pip install 'gpu-lattice[hf]'"
        ) from None
    return NFC()


def _collapse_step(
    content: NDArray[np.uint8], values: NDArray[np.uint8], parts: Parts
) -> tuple[NDArray[np.uint8], Parts]:
    if not _has_two_spaces(values):
        return values, parts
    collapsed: tuple[NDArray[np.uint8], Parts] = collapse_spaces(content, values, parts)
    return collapsed


def _bytes_array(string: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(string, np.uint8).copy()


def _ragged(strings: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return _bytes_array(b"".join(strings)), np.cumsum([0, *map(len, strings)], dtype=np.int64)


def member(component: Component, key: str, kinds: type | tuple[type, ...], where: str) -> Any:
    """The value of a key, None if missing. Raises ValueError for another type; true and false are not numbers."""
    value = component.get(key)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int):
        names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise ValueError(
            f"{where} {component.get('type')} has {key} = {value!r:.60}, not a {names}; get the file again"
        )
    return value


def _read_charsmap(step: Component, where: str) -> CharsMap:
    encoded = step.get("precompiled_charsmap")
    if not isinstance(encoded, str) or not encoded:
        raise ValueError(
            f"{where} Precompiled has no precompiled_charsmap, which tokenizers cannot load either; "
            "take the Precompiled out of the file"
        )
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            f"{where} has a precompiled_charsmap that is not base64 ({error}); get the file again"
        ) from None
    return parse_charsmap(blob, where)


def _token_trie(patterns: list[bytes], tokens: Sequence[AddedToken]) -> TokenTrie | None:
    """The trie of patterns; pattern i stands for token i, b"" for none. None if there are no patterns."""
    number = {pattern: i for i, pattern in enumerate(patterns) if pattern}
    if not number:
        return None
    if len(number) < len(patterns) - patterns.count(b""):
        raise NotCompiledError("two added tokens are equal after normalization")
    ordered = sorted(number)
    values, offsets = to_ragged(ordered)
    n, lengths = len(ordered), np.diff(offsets)
    # The first pattern with each prefix makes its node; breadth-first means by depth, and then by pattern.
    shared = np.array([0, *starmap(_num_shared, pairwise(ordered))])
    makers = np.repeat(np.arange(n), lengths - shared)
    depths = np.arange(len(makers)) - np.repeat(np.cumsum(lengths - shared) - lengths, lengths - shared)
    order = np.argsort(depths * n + makers)
    makers, depths = makers[order], depths[order]
    labels, keys, num_roots = values[offsets[makers] + depths], depths * n + makers, int(np.sum(depths == 0))
    parents = np.searchsorted(keys, keys[num_roots:] - n, side="right") - 1
    root = np.full(256, -1, np.int32)
    root[labels[:num_roots]] = np.arange(num_roots)
    numbers = np.array([number[pattern] for pattern in ordered])
    firsts = np.unique(labels[:num_roots]).astype(np.uint64) * ONES
    return TokenTrie(
        root,
        num_roots + np.cumsum(np.append(0, np.bincount(parents, minlength=len(keys))), dtype=np.int32),
        labels,
        np.where(depths + 1 == lengths[makers], numbers[makers], -1).astype(np.int32),
        np.array([token.lstrip for token in tokens], np.bool_),
        np.array([token.rstrip for token in tokens], np.bool_),
        firsts if len(firsts) <= MOST_FIRSTS else firsts[:0],
    )


def _num_shared(one: bytes, other: bytes) -> int:
    """The length of their common prefix in bytes."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _tool_tokenizer(
    normalizer: Component | None,
    pre_tokenizer: Component | None,
    added_tokens: Sequence[AddedToken],
    name: str,
    reason: str,
) -> Any:
    """A tokenizer of the package whose tokens are the pre-tokens: all text but its one piece is unknown, and a run of
    unknown text, with that piece in it or not, is one token."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ImportError(
            f"{name} needs the package tokenizers, as {reason}; install it with: pip install 'gpu-lattice[hf]'"
        ) from None
    flags = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    pieces = [[_unused_piece(added_tokens), 0.0]]
    file = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": 1 + i, **{flag: getattr(token, flag) for flag in flags}} for i, token in enumerate(added_tokens)
        ],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False},
    }
    with tool_errors(f"{name}: tokenizers cannot load its normalizer or pre-tokenizer"):
        return Tokenizer.from_str(json.dumps(file))


def _by_character(tool: Any) -> Any:
    """A tokenizer like one of `_tool_tokenizer` whose tokens are the characters of the pre-tokens."""
    file = json.loads(tool.to_str())
    [[piece, _]] = file["model"]["vocab"]
    file["model"] = {"type": "BPE", "vocab": {piece: 0}, "merges": [], "unk_token": piece, "fuse_unk": False}
    return type(tool).from_str(json.dumps(file))


@contextmanager
def tool_errors(what: str) -> Iterator[None]:
    """Raise ValueError for whatever tokenizers raises: its panics are not Exceptions."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise ValueError(f"{what}: {error}; take the part that it names out of the file") from error


def _unused_piece(added_tokens: Sequence[AddedToken]) -> str:
    """A piece that is not an added token, as those must have ids of their own."""
    contents = {token.content for token in added_tokens}
    piece = "?"
    while piece in contents:
        piece += "?"
    return piece
