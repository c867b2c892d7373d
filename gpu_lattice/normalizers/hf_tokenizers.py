"""Normalizer, pre-tokenizer and added tokens of a Hugging Face tokenizer.json, as one rule object.

The recipes that SentencePiece models are converted to are compiled (hf_text.py). Any other that tokenizers knows is
run by that package. Which of the two it is is decided when the model is read, and the rule object's repr says it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.normalizers import NormalizedBatch
from gpu_lattice.normalizers.charsmap import CharsMap, identity, parse_charsmap
from gpu_lattice.normalizers.graphemes import grapheme_table
from gpu_lattice.normalizers.hf_text import (
    ALWAYS,
    COLLAPSE_SPACES,
    FIRST,
    NEVER,
    PRECOMPILED,
    PREPEND,
    REPLACE,
    STRIP,
    STRIP_LEFT,
    STRIP_RIGHT,
    AddedTokens,
    Precompiled,
    PreTokens,
    Rules,
    Steps,
    are_valid,
    direct_bytes,
    normalize_text,
    pre_tokenize_range,
    repair,
)
from gpu_lattice.parallel import byte_ranges, map_ranges
from gpu_lattice.text_batch import TextBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.normalizers import Normalizer

Component = dict[str, Any]

NORMALIZERS = frozenset(
    "BertNormalizer ByteLevel Lowercase NFC NFD NFKC NFKD Nmt Precompiled Prepend Replace Sequence Strip "
    "StripAccents".split()
)
PRE_TOKENIZERS = frozenset(
    "BertPreTokenizer ByteLevel CharDelimiterSplit Digits FixedLength Metaspace Punctuation Sequence Split "
    "UnicodeScripts Whitespace WhitespaceSplit".split()
)
PREFIXES = {"never": NEVER, "first": FIRST, "always": ALWAYS}
TOOL_BATCH = 1024


@dataclass(frozen=True)
class AddedToken:
    """A string that is looked for before anything else, and the id that it is."""

    content: str
    id: int
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False


class NotCompiled(Exception):
    """Why a recipe has to be run by the package tokenizers."""


def hf_normalizer(
    normalizer: Component | None,
    pre_tokenizer: Component | None,
    added_tokens: Sequence[AddedToken],
    name: str,
    ignored: Sequence[str] = (),
) -> CompiledNormalizer | ToolNormalizer:
    """The rule object for parts of a tokenizer.json.

    name: what errors call the file; ignored: settings of the file that have no effect here, for the repr.
    Raises ValueError for a component that is unknown or broken, ImportError when it needs tokenizers and that is not
    installed.
    """
    steps = _flat(normalizer, "normalizers", NORMALIZERS, f"{name}: the normalizer")
    cutters = _flat(pre_tokenizer, "pretokenizers", PRE_TOKENIZERS, f"{name}: the pre-tokenizer")
    shown = _Shown(name, _types(steps), _types(cutters), tuple(ignored))
    try:
        rules = _compile(steps, cutters, added_tokens, name)
    except NotCompiled as reason:
        return ToolNormalizer(normalizer, pre_tokenizer, added_tokens, shown, str(reason))
    return CompiledNormalizer(rules, added_tokens, shown)


@dataclass(frozen=True)
class _Shown:
    """What the repr of either rule object shows."""

    name: str
    steps: str
    cutters: str
    ignored: tuple[str, ...]

    def text(self, num_tokens: int, how: str) -> str:
        ignored = "".join(f"; {setting} ignored" for setting in self.ignored)
        return (
            f"HuggingFaceNormalizer(name={self.name!r}, normalizer={self.steps}, pre_tokenizer={self.cutters}, "
            f"added_tokens={num_tokens}; {how}{ignored})"
        )


class CompiledNormalizer:
    """Texts to pre-tokens by compiled rules.

    Example:
        >>> normalize = hf_normalizer(None, {"type": "Metaspace", "replacement": "▁"}, [], "tokenizer.json")
        >>> normalize(TextBatch.from_texts(["a b"])).chunk_offsets.tolist()
        [0, 4, 8]
    """

    def __init__(self, rules: Rules, added_tokens: Sequence[AddedToken], shown: _Shown) -> None:
        self._rules = rules
        self._added_tokens = added_tokens
        self._shown = shown

    def __call__(self, texts: TextBatch, threads: int = 1) -> NormalizedBatch:
        """Pre-tokenize a batch on `threads` threads; a null document comes out empty."""
        texts = _with_valid_text(texts, threads)
        if not len(texts):
            return _empty_batch()

        def work(start: int, stop: int) -> Any:
            return pre_tokenize_range(self._rules, texts.values, texts.offsets, start, stop)

        parts = map_ranges(work, byte_ranges(texts.offsets), threads)
        bytes_before = np.cumsum([0, *(len(values) for values, _, _, _ in parts)])
        chunks_before = np.cumsum([0, *(len(ends) for _, _, ends, _ in parts)])
        hits = np.concatenate([hits + [num, 0] for num, (_, _, _, hits) in zip(chunks_before, parts, strict=False)])
        return NormalizedBatch(
            np.concatenate([values for values, _, _, _ in parts]),
            _join_ends([offsets[1:] for _, offsets, _, _ in parts], bytes_before),
            _join_ends([ends for _, _, ends, _ in parts], bytes_before),
            _chunk_ids(int(chunks_before[-1]), hits) if len(hits) else None,
        )

    def normalize_str(self, text: str) -> str:
        """Text by the normalizer alone, without added tokens and pre-tokenizer."""
        values = _read_only(np.frombuffer(text.encode(), np.uint8))
        normalized: NDArray[np.uint8] = normalize_text(self._rules, values, 0, len(values))
        return normalized.tobytes().decode()

    def __repr__(self) -> str:
        return self._shown.text(len(self._added_tokens), "compiled")


class ToolNormalizer:
    """Texts to pre-tokens by the package tokenizers, for recipes that are not compiled."""

    def __init__(
        self,
        normalizer: Component | None,
        pre_tokenizer: Component | None,
        added_tokens: Sequence[AddedToken],
        shown: _Shown,
        reason: str,
    ) -> None:
        self._added_tokens = added_tokens
        self._shown = shown
        self._reason = reason
        self._tool = _tool_tokenizer(normalizer, pre_tokenizer, added_tokens, shown.name, reason)
        self._contents = {self._tool.token_to_id(token.content): token for token in added_tokens}

    def __call__(self, texts: TextBatch, threads: int = 1) -> NormalizedBatch:
        """Pre-tokenize a batch; a null document comes out empty. The package decides on its threads itself."""
        texts = _with_valid_text(texts, threads)
        chunks: list[bytes] = []
        hits: list[tuple[int, int]] = []
        chunks_before = [0]
        for start in range(0, len(texts), TOOL_BATCH):
            docs = [(doc or b"").decode() for doc in texts.slice(start, start + TOOL_BATCH).tolist()]
            for encoding in self._tool.encode_batch(docs, add_special_tokens=False):
                for i, text in zip(encoding.ids, encoding.tokens, strict=True):
                    token = self._contents.get(i)
                    if token is not None:
                        hits.append((len(chunks), token.id))
                        text = token.content
                    chunks.append(text.encode())
                chunks_before.append(len(chunks))
        chunk_offsets = np.cumsum([0, *map(len, chunks)], dtype=np.int64)
        return NormalizedBatch(
            np.frombuffer(b"".join(chunks), np.uint8),
            chunk_offsets[chunks_before],
            chunk_offsets,
            _chunk_ids(len(chunks), np.array(hits)) if hits else None,
        )

    def normalize_str(self, text: str) -> str:
        """Text by the normalizer alone, without added tokens and pre-tokenizer."""
        normalizer = self._tool.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def __repr__(self) -> str:
        how = f"not compiled, run by the package tokenizers: {self._reason}"
        return self._shown.text(len(self._added_tokens), how)


def _chunk_ids(num_chunks: int, hits: NDArray[np.int64]) -> NDArray[np.int32]:
    chunk_ids = np.full(num_chunks, -1, np.int32)
    chunk_ids[hits[:, 0]] = hits[:, 1]
    return chunk_ids


def _join_ends(parts: list[NDArray[np.int64]], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Offsets [n + 1] from the ends of every part, counted from where the part starts."""
    return np.concatenate([[0], *(ends + start for ends, start in zip(parts, starts, strict=False))])


def _empty_batch() -> NormalizedBatch:
    return NormalizedBatch(np.zeros(0, np.uint8), np.zeros(1, np.int64), np.zeros(1, np.int64))


def _read_only(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same bytes, always of the array type that the functions are compiled for."""
    values = values.view()
    values.flags.writeable = False
    return values


def _with_valid_text(texts: TextBatch, threads: int) -> TextBatch:
    """Texts as UTF-8: a byte that is not part of a character becomes U+FFFD, as in SentencePiece."""
    values, ranges = _read_only(texts.values), byte_ranges(texts.offsets)
    texts = TextBatch(values, texts.offsets, texts.valid)
    if all(map_ranges(lambda start, stop: are_valid(values, texts.offsets, start, stop), ranges, threads)):
        return texts
    parts = map_ranges(lambda start, stop: repair(values, texts.offsets, start, stop), ranges, threads)
    starts = np.cumsum([0, *(len(part) for part, _ in parts)])
    offsets = _join_ends([offsets[1:] for _, offsets in parts], starts)
    return TextBatch(_read_only(np.concatenate([part for part, _ in parts])), offsets, texts.valid)


def _flat(component: Component | None, members: str, known: frozenset[str], where: str) -> list[Component]:
    """The components in a tree of sequences, in their order."""
    if component is None:
        return []
    if not isinstance(component, dict):
        raise ValueError(f"{where} is {component!r:.60}, not an object; get the file again")
    kind = component.get("type")
    if kind is not None and kind not in known:
        raise ValueError(
            f"{where} has a component of the unknown type {kind!r:.60}; tokenizers 0.23.3 knows {', '.join(sorted(known))}"
        )
    if kind != "Sequence":
        return [component]
    parts = component.get(members)
    if not isinstance(parts, list):
        raise ValueError(f"{where} has a Sequence without a list {members!r}; get the file again")
    return [flat for part in parts for flat in _flat(part, members, known, where)]


def _types(components: list[Component]) -> str:
    return "[" + ", ".join(str(component.get("type", "untyped")) for component in components) + "]"


def _compile(
    steps: list[Component], cutters: list[Component], added_tokens: Sequence[AddedToken], name: str
) -> Rules:
    """Compiled rules for the components. Raises NotCompiled with the reason if there are none, ValueError if broken."""
    if any(token.single_word for token in added_tokens):
        raise NotCompiled("an added token is single_word")
    pre_tokens = _compile_cutters(cutters, name)
    precompiled, compiled_steps = _compile_steps(steps, name)
    raw = [token for token in added_tokens if not token.normalized]
    cooked = [token for token in added_tokens if token.normalized]
    rules = Rules(
        _token_trie([token.content.encode() for token in raw], raw),
        precompiled,
        compiled_steps,
        _token_trie([], []),
        pre_tokens,
    )
    if pre_tokens.prefix == FIRST:
        _check_first(rules, cooked)
    patterns = []
    for token in cooked:
        content = _read_only(np.frombuffer(token.content.encode(), np.uint8))
        patterns.append(normalize_text(rules, content, 0, len(content)).tobytes())
    return rules._replace(cooked=_token_trie(patterns, cooked))


def _check_first(rules: Rules, cooked: list[AddedToken]) -> None:
    """With "first" the tool asks where in the text the first character came from: only if that is 0 it gets a prefix."""
    steps, mark = rules.steps, rules.pre_tokens.metaspace.tobytes()
    if rules.pre_tokens.at_whitespace or cooked:
        raise NotCompiled('Metaspace has prepend_scheme "first" after another cut')
    for i_step, kind in enumerate(steps.kinds):
        content = steps.strings[steps.bounds[2 * i_step + 1] : steps.bounds[2 * i_step + 2]].tobytes()
        moves_start = kind == STRIP and steps.flags[i_step] & STRIP_LEFT or kind in (REPLACE, PREPEND)
        if moves_start or kind == COLLAPSE_SPACES and not content.startswith((b" ", mark)):
            raise NotCompiled('Metaspace has prepend_scheme "first" and the normalizer can change where a text starts')


def _compile_cutters(cutters: list[Component], name: str) -> PreTokens:
    kinds = [cutter.get("type") for cutter in cutters]
    at_whitespace = kinds[:1] == ["WhitespaceSplit"]
    rest = cutters[at_whitespace:]
    if not rest:
        return PreTokens(at_whitespace, np.zeros(0, np.uint8), NEVER, False)
    if kinds[at_whitespace:] != ["Metaspace"]:
        raise NotCompiled(f"the pre-tokenizers are {_types(cutters)}")
    prefix, split = metaspace_scheme(rest[0], f"{name}: the pre-tokenizer")
    mark = np.frombuffer(rest[0]["replacement"].encode(), np.uint8).copy()
    return PreTokens(at_whitespace, mark, PREFIXES[prefix], split)


def metaspace_scheme(metaspace: Component, where: str) -> tuple[str, bool]:
    """(prepend scheme, split) of a Metaspace, which older files give as add_prefix_space. Raises ValueError."""
    mark = metaspace.get("replacement")
    if not isinstance(mark, str) or len(mark) != 1:
        raise ValueError(f"{where} has a Metaspace with the replacement {mark!r:.60}; it must be one character")
    prefix = metaspace.get("prepend_scheme", "always")
    if prefix not in PREFIXES:
        raise ValueError(
            f"{where} has a Metaspace with the prepend_scheme {prefix!r:.60}; it must be one of {', '.join(PREFIXES)}"
        )
    if metaspace.get("add_prefix_space") is False and prefix != "never":
        raise ValueError(
            f'{where} has a Metaspace with add_prefix_space false and the prepend_scheme "{prefix}", which contradict '
            'each other, as tokenizers says too; set prepend_scheme to "never"'
        )
    split = metaspace.get("split")
    return prefix, True if split is None else bool(split)


def _compile_steps(steps: list[Component], name: str) -> tuple[Precompiled, Steps]:
    charsmap: CharsMap | None = None
    kinds: list[int] = []
    flags: list[int] = []
    strings: list[bytes] = []
    for step in steps:
        kind = step.get("type")
        flag, found, content = 0, b"", b""
        if kind == "Precompiled":
            if charsmap is not None:
                raise NotCompiled("there are two Precompiled normalizers")
            charsmap = _read_charsmap(step, f"{name}: the normalizer")
        elif kind == "Strip":
            flag = STRIP_LEFT * _member(step, "strip_left", bool, name) + STRIP_RIGHT * _member(
                step, "strip_right", bool, name
            )
        elif kind == "Prepend":
            content = _member(step, "prepend", str, name).encode()
        elif kind == "Replace":
            pattern = _member(step, "pattern", dict, name)
            content = _member(step, "content", str, name).encode()
            if pattern == {"Regex": " {2,}"}:
                kind = "Collapse"
            elif isinstance(pattern.get("String"), str) and pattern["String"]:
                found = pattern["String"].encode()
            else:
                raise NotCompiled(f"Replace has the pattern {pattern!r:.60}")
        else:
            raise NotCompiled(f"the normalizers are {_types(steps)}")
        kinds.append(_STEP_KINDS[kind])
        flags.append(flag)
        strings += [found, content]
    charsmap = identity() if charsmap is None else charsmap
    return (
        Precompiled(charsmap, grapheme_table(), direct_bytes(charsmap)),
        Steps(
            np.array(kinds, np.int64),
            np.array(flags, np.int64),
            np.frombuffer(b"".join(strings), np.uint8).copy(),
            np.cumsum([0, *map(len, strings)], dtype=np.int64),
        ),
    )


_STEP_KINDS = {
    "Precompiled": PRECOMPILED,
    "Strip": STRIP,
    "Replace": REPLACE,
    "Collapse": COLLAPSE_SPACES,
    "Prepend": PREPEND,
}


def _member(step: Component, key: str, kind: type, name: str) -> Any:
    value = step.get(key)
    if not isinstance(value, kind):
        raise ValueError(
            f"{name}: the normalizer {step.get('type')} has {key} = {value!r:.60}, not a {kind.__name__}; "
            "get the file again"
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
        raise ValueError(f"{where} has a precompiled_charsmap that is no base64 ({error}); get the file again") from None
    charsmap = parse_charsmap(blob, where)
    try:
        charsmap.replacements.tobytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} has a precompiled_charsmap whose text is no UTF-8 ({error})") from None
    return charsmap


def _token_trie(patterns: list[bytes], tokens: list[AddedToken]) -> AddedTokens:
    """The trie of patterns; pattern i stands for token i. Raises NotCompiled for an empty or repeated pattern."""
    if b"" in patterns or len(set(patterns)) < len(patterns):
        raise NotCompiled("added tokens are empty or equal after normalization")
    number = {pattern: i for i, pattern in enumerate(patterns)}
    level = sorted({pattern[:1] for pattern in patterns})
    root = np.full(256, -1, np.int32)
    root[[prefix[0] for prefix in level]] = np.arange(len(level))
    followers: dict[bytes, set[bytes]] = {}
    for pattern in patterns:
        for length in range(1, len(pattern)):
            followers.setdefault(pattern[:length], set()).add(pattern[: length + 1])
    nodes = list(level)
    first = [len(nodes)]
    for prefix in nodes:
        nodes += sorted(followers.get(prefix, ()))
        first.append(len(nodes))
    contents = [token.content.encode() for token in tokens]
    return AddedTokens(
        root,
        np.array(first, np.int32),
        np.array([prefix[-1] for prefix in nodes], np.uint8),
        np.array([number.get(prefix, -1) for prefix in nodes], np.int32),
        np.array([token.id for token in tokens], np.int32),
        np.array([token.lstrip for token in tokens], np.bool_),
        np.array([token.rstrip for token in tokens], np.bool_),
        np.frombuffer(b"".join(contents), np.uint8).copy(),
        np.cumsum([0, *map(len, contents)], dtype=np.int64),
    )


def _tool_tokenizer(
    normalizer: Component | None,
    pre_tokenizer: Component | None,
    added_tokens: Sequence[AddedToken],
    name: str,
    reason: str,
) -> Any:
    """A tokenizer of the package whose tokens are the pre-tokens: of its one piece every other text is unknown, and a
    run of unknown text, with that piece in it or not, is one token."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ImportError(
            f"{name} needs the package tokenizers, as {reason}; install it with: pip install 'gpu-lattice[hf]'"
        ) from None
    flags = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
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
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [[_unused_piece(added_tokens), 0.0]], "byte_fallback": False},
    }
    try:
        return Tokenizer.from_str(json.dumps(file))
    except BaseException as error:
        # A panic of the package is no Exception.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ValueError(f"{name}: tokenizers cannot load its normalizer or pre-tokenizer: {error}") from error


def _unused_piece(added_tokens: Sequence[AddedToken]) -> str:
    """A piece that is no added token, as those must have ids of their own."""
    contents = {token.content for token in added_tokens}
    piece = "?"
    while piece in contents:
        piece += "?"
    return piece
