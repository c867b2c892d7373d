"""Hugging Face tokenizer.json files with a Unigram or BPE model, as tokenizers 0.23.3 understands them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.models import FIRST_TEXT, SECOND_TEXT, Decoder, Layout, Merges, Model
from gpu_lattice.models import hf_bpe as bpe
from gpu_lattice.models.json_text import load_json, serde_float, serde_int
from gpu_lattice.models.own import OWN, own_scores
from gpu_lattice.normalizers.byte_level import bytes_of
from gpu_lattice.normalizers.hf_tokenizers import (
    AddedToken,
    check_growth,
    goes_on_with_bytes,
    hf_normalizer,
    is_byte_level,
    member,
    metaspace_scheme,
    tool_errors,
)
from gpu_lattice.runtime.cache import cached
from gpu_lattice.text_batch import decoded, to_ragged, to_strings
from gpu_lattice.vocabulary import LARGEST_SCORE, Kind, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEYS = (
    "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder",
    "model",
)  # fmt: skip
UNK_PENALTY = 10.0
# What begins a text, ends it, and pads rows in the tokenizers of public models.
BOS = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "[BOS]", "[CLS]")
EOS = ("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "[EOS]", "[SEP]")
PAD = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>")
# Every post-processor works on all ids that earlier ones put around a text.
MOST_AROUND = 1024
# Where the ids of the text itself go among those that a post-processor adds.
TEXT = None

_FIRST_KEY = re.compile(rf'\s*\{{\s*"({"|".join(KEYS)})"\s*:'.encode())
_BARE_MODEL = re.compile(rb'\s*\{\s*("type"\s*:\s*"|"unk_id"\s*:|"vocab"\s*:)')
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")

Component = dict[str, Any]


def looks_like(data: bytes) -> bool:
    """Whether data begins like a tokenizer.json, with any model, or like the model in one."""
    head = data[:4096]
    return _FIRST_KEY.match(head) is not None or _BARE_MODEL.match(head) is not None


def read(data: bytes, name: str) -> Model:
    """Read a tokenizer.json from its bytes; name: the file's name in error messages.

    The ids are those of tokenizers 0.23.3: an added token that is not in the vocabulary gets the next free id, whatever
    the file says. A file does not say which ids begin and end a text, or pad; these are the special added tokens with a
    customary name (BOS, EOS, PAD), but where the file pads, its id for that.
    A decoder that is not compiled is run by the package tokenizers; one that it does not know either is an error when
    text is decoded.
    Raises ValueError for a file that is damaged, or holds another model or an unknown component; ImportError if the
    normalizer has to be run by the package tokenizers, and it is not installed.

    Example:
        >>> model = read(Path("tokenizer.json").read_bytes(), "tokenizer.json")
        >>> model.normalizer
        HuggingFaceNormalizer(name='tokenizer.json', normalizer=[Precompiled, Strip, Replace], ...; compiled)
    """
    try:
        return _read(data, name)
    except RecursionError:
        raise ValueError(f"{name} is not a tokenizer.json: its lists are nested too deep; get the file again") from None


def _read(data: bytes, name: str) -> Model:
    parts = cached(TokenizerJson, [data], lambda: _parts(data, name))
    file, scores = load_json(parts.rest.tobytes().decode()), parts.scores
    surfaces = to_strings(parts.values, parts.offsets)
    model, pieces = file["model"], decoded(surfaces)
    is_bpe = model["type"] == "BPE"
    id_of = dict(zip(pieces, range(len(pieces)), strict=True))
    id_of.pop("", None)  # the name of an id that no piece has
    added = _added_tokens(file.get("added_tokens", []), id_of, pieces, name)
    components = file.get("normalizer"), file.get("pre_tokenizer")
    normalizer = hf_normalizer(*components, added, name, is_bpe)
    names = _names(pieces, added, normalizer.normalize_str)
    vocabulary: Vocabulary
    merges: Merges | None = None
    if is_bpe:
        unk_id = bpe.unknown_id(model, id_of)
        kinds = _kinds(names, added, unk_id, bool(model.get("byte_fallback")))
        kinds[[i for i, piece in enumerate(names) if not piece]] = Kind.CONTROL
        is_bytes = is_byte_level(*components, name)
        vocabulary, merges = bpe.bpe_vocabulary(model, parts.merges, id_of, names, kinds, added, is_bytes, name)
    else:
        unk_id = model.get("unk_id")
        vocabulary = _vocabulary(model, surfaces, scores, id_of, added, names, name)
    prefix_ids, suffix_ids = _around(file.get("post_processor"), len(names), name)
    return Model(
        kind="huggingface",
        vocabulary=vocabulary,
        normalizer=normalizer,
        decoder=_decoder(file.get("decoder"), unk_id, names, name),
        prefix_ids=prefix_ids,
        suffix_ids=suffix_ids,
        layouts=_layouts(file.get("post_processor"), len(names), f"{name}: the post-processor"),
        trims=_trims(file.get("post_processor"), f"{name}: the post-processor"),
        merges=merges,
        pre_tokenized=components[1] is not None,
        splits_characters=is_bpe and is_bytes and goes_on_with_bytes(*components, name),
        scores=np.append(scores, np.zeros(len(names) - len(scores))) if is_bpe and scores.any() else None,
        **_special_ids(added) | _lengths(file, len(names), name),
    )


def _special_ids(added: Sequence[AddedToken]) -> Component:
    """bos_id, eos_id and pad_id, as far as there are special added tokens with these names."""
    ids = {token.content: token.id for token in added if token.special}
    kinds = {"bos_id": BOS, "eos_id": EOS, "pad_id": PAD}
    return {kind: next((ids[name] for name in names if name in ids), None) for kind, names in kinds.items()}


def _lengths(file: Component, num_ids: int, name: str) -> Component:
    """How the file truncates and pads rows, as fields of a Model."""
    truncation, padding = (member(file, key, (dict, NoneType), f"{name}:") for key in ("truncation", "padding"))
    found: Component = {}
    if truncation:
        found["max_length"] = member(truncation, "max_length", int, f"{name}: truncation")
        if not 0 <= found["max_length"] < 2**63:
            raise ValueError(f"{name}: truncation has max_length = {found['max_length']}; it must not be below 0")
        found["truncation_side"] = _side(truncation, f"{name}: truncation")
    if padding:
        found["pad_id"] = member(padding, "pad_id", int, f"{name}: padding")
        found["padding_side"] = _side(padding, f"{name}: padding")
        if not 0 <= found["pad_id"] < num_ids:
            raise ValueError(f"{name} pads with the id {found['pad_id']}; this model has ids 0 to {num_ids - 1}")
    return found


def _side(component: Component, where: str) -> str:
    direction = component.get("direction", "Right")
    if direction not in ("Right", "Left"):
        raise ValueError(f"{where} has the direction {direction!r:.60}, not 'Right' or 'Left'; get the file again")
    return str(direction).lower()


class TokenizerJson(NamedTuple):
    """What a file holds: pieces values[offsets[i]:offsets[i + 1]] in UTF-8, their scores, and the rest as JSON.

    merges int32 [M, 4]: as in Merges.pairs; scores are then those of our own field (own.py), or 0
    """

    values: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    scores: NDArray[np.float64]
    merges: NDArray[np.int32]
    rest: NDArray[np.uint8]


def _parts(data: bytes, name: str) -> TokenizerJson:
    file = _parse(data, name)
    model = _model(file, name)
    merges = np.zeros((0, 4), np.int32)
    if model["type"] == "BPE":
        bpe.check(model, name)
        pieces = bpe.pieces_of(vocab := model.pop("vocab", None), name)
        own, merges = own_scores(model, len(pieces), name), bpe.merges_of(model.pop("merges", None), vocab, name)
        scores = np.zeros(len(pieces)) if own is None else own
        model.pop(OWN, None)
    else:
        pieces, scores = _pieces(model.pop("vocab", None), name)
    try:
        values, offsets = to_ragged([piece.encode() for piece in pieces])
        rest = json.dumps(file, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        around = str(error.object)[max(0, error.start - 40) : error.end + 20]
        raise ValueError(f"{name} holds half of a surrogate pair, in {around!r}; get the file again") from None
    return TokenizerJson(values, offsets, scores, merges, np.frombuffer(rest, np.uint8))


def _parse(data: bytes, name: str) -> Component:
    try:
        file = load_json(data.decode(), parse_constant=_not_a_number, parse_float=serde_float, parse_int=serde_int)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not a tokenizer.json: it is not UTF-8 ({error}); get the file again") from None
    except ValueError as error:
        raise ValueError(f"{name} is not valid JSON, perhaps cut short ({error}); get the file again") from None
    if not isinstance(file, dict):
        raise ValueError(f"{name} holds a JSON {type(file).__name__} where a tokenizer.json has an object")
    if "model" not in file:
        what = "is a bare model" if "vocab" in file else "has no model"
        raise ValueError(
            f"{name} {what}; give a whole tokenizer.json, which holds the normalizer too (Tokenizer.save writes it)"
        )
    unknown = [key for key in file if key not in KEYS]
    if unknown:
        raise ValueError(f"{name} has the unknown key {unknown[0]!r:.60}, which tokenizers rejects too; remove it")
    version = file.get("version", "1.0")
    if version != "1.0":
        raise ValueError(f"{name} is of version {version!r:.60}; only version '1.0' is known")
    return file


def _not_a_number(constant: str) -> float:
    raise ValueError(f"it holds {constant}, which is not a number in JSON")


def _model(file: Component, name: str) -> Component:
    model = file["model"]
    if not isinstance(model, dict):
        raise ValueError(f"{name}: its model is {model!r:.60}, not an object; get the file again")
    kind = model.get("type")
    if kind is None:
        kind = model["type"] = _kind_of_untyped(model)
    if kind not in ("Unigram", "BPE"):
        raise ValueError(
            f"{name} holds a {kind} model; only Unigram and BPE models are supported, so give the "
            "tokenizer.json of one (T5, XLM-RoBERTa, Llama, Qwen ..)"
        )
    return model


def _kind_of_untyped(model: Component) -> str:
    """The type of a model in an old file, which does not state it."""
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    if "merges" in model:
        return "BPE"
    return "WordPiece" if "max_input_chars_per_word" in model else "WordLevel"


def _pieces(vocab: Any, name: str) -> tuple[list[str], NDArray[np.float64]]:
    if not isinstance(vocab, list) or not vocab:
        raise ValueError(f"{name}: its vocab is {vocab!r:.60}, not a list of [piece, score]; get the file again")
    if set(map(type, vocab)) != {list} or set(map(len, vocab)) != {2}:
        raise _bad_entry(vocab, name)
    pieces, raw = [piece for piece, _ in vocab], [score for _, score in vocab]
    if set(map(type, pieces)) != {str} or not set(map(type, raw)) <= {int, float}:
        raise _bad_entry(vocab, name)
    try:
        scores = np.array(raw, np.float64)
        "".join(pieces).encode()
    except (OverflowError, UnicodeEncodeError):
        raise _bad_entry(vocab, name) from None
    if "" in pieces or not np.all(np.abs(scores) <= LARGEST_SCORE):
        raise _bad_entry(vocab, name)
    return pieces, scores


def _bad_entry(vocab: list[Any], name: str) -> ValueError:
    """What is wrong with the first entry that is not a text with a finite score."""
    for i, entry in enumerate(vocab):
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str) or not _is_number(entry[1]):
            return ValueError(
                f"{name}: entry {i} of the vocab is {entry!r:.80}, not [piece, score]; get the file again"
            )
        piece, score = entry
        if not piece:
            return ValueError(f"{name}: piece {i} is empty, so no text can ever match it; remove or rename it")
        if not abs(score) <= LARGEST_SCORE:
            return ValueError(
                f"{name}: the score of piece {i} ({piece!r:.60}) is {score!r:.60}; it must be finite, and from "
                f"-{LARGEST_SCORE:g} to {LARGEST_SCORE:g} so that sums of scores are, too"
            )
        try:
            piece.encode()
        except UnicodeEncodeError:
            return ValueError(
                f"{name}: piece {i} is {piece!r:.60}, which holds half of a surrogate pair; get the file again"
            )
    raise AssertionError("unreachable")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _added_tokens(entries: Any, id_of: dict[str, int], pieces: list[str], name: str) -> list[AddedToken]:
    """The added tokens by id, as in the tool: of two with the same content the last one's properties count.

    id_of: the ids of the pieces. A new token's id is the number of pieces, and so on.
    """
    if not isinstance(entries, list):
        raise ValueError(f"{name}: added_tokens is {entries!r:.60}, not a list; get the file again")
    new_ids: dict[str, int] = {}
    num_pieces = len(pieces) - pieces.count("")
    tokens: dict[int, AddedToken] = {}
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    for i, entry in enumerate(entries):
        content = entry.get("content") if isinstance(entry, dict) else None
        is_token = isinstance(content, str) and all(isinstance(entry.get(flag), bool) for flag in flags)
        if not is_token or type(entry.get("id")) is not int or not 0 <= entry["id"] < 2**32:
            raise ValueError(
                f"{name}: entry {i} of added_tokens is {entry!r:.80}; it must have a content and an id, and say "
                f"true or false for {', '.join(flags)}"
            )
        if not content:
            continue
        token_id = id_of.get(content)
        if token_id is None:
            token_id = new_ids.setdefault(content, num_pieces + len(new_ids))
            if token_id < len(pieces) and pieces[token_id]:
                raise ValueError(
                    f"{name}: the added token {content!r:.60} gets the next id, {token_id}, as in tokenizers, but "
                    f"{pieces[token_id]!r:.60} has it; give the pieces ids without gaps, or add the token to the vocab"
                )
        tokens[token_id] = AddedToken(content, token_id, **{flag: entry[flag] for flag in flags})
    return [tokens[i] for i in sorted(tokens)]


def _names(pieces: list[str], added: Sequence[AddedToken], normalize_str: Any) -> list[str]:
    """What the tool prints for every id; for a token that is matched in normalized text, its normalized content."""
    names = pieces + [""] * (1 + max([token.id for token in added], default=-1) - len(pieces))
    for token in added:
        if token.normalized:
            names[token.id] = normalize_str(token.content)
        elif token.id >= len(pieces) or not pieces[token.id]:
            names[token.id] = token.content
    return names


def _vocabulary(
    unigram: Component,
    surfaces: list[bytes],
    scores: NDArray[np.float64],
    id_of: dict[str, int],
    added: Sequence[AddedToken],
    names: list[str],
    name: str,
) -> Vocabulary:
    unk_id, byte_fallback = unigram.get("unk_id"), unigram.get("byte_fallback", False)
    is_id = isinstance(unk_id, int) and not isinstance(unk_id, bool) and 0 <= unk_id < len(surfaces)
    if unk_id is not None and not is_id:
        raise ValueError(f"{name}: unk_id is {unk_id!r:.60}; it must be null or an id from 0 to {len(surfaces) - 1}")
    if not isinstance(byte_fallback, bool):
        raise ValueError(f"{name}: byte_fallback is {byte_fallback!r:.60}, not true or false; get the file again")
    contents = {token.id: token.content for token in added}
    extra = range(len(surfaces), len(names))
    all_scores = np.concatenate([scores, np.zeros(len(extra))])
    unk_score = float(scores.min()) - UNK_PENALTY
    in_lattice = np.zeros(len(names), np.bool_)
    in_lattice[list(id_of.values())] = True
    return Vocabulary(
        names=names,
        surfaces=surfaces + [contents[i].encode() for i in extra],
        kinds=_kinds(names, added, unk_id, byte_fallback),
        in_lattice=in_lattice,
        scores=all_scores,
        best_scores=all_scores,
        symbols="characters",
        unk_id=unk_id,
        unk_score=unk_score,
        best_unk_score=unk_score,
        byte_ids=np.array([id_of.get(f"<0x{b:02X}>", -1) for b in range(256)], np.int32) if byte_fallback else None,
        unknown_runs="lookup",
        id_of=id_of | {token.content: token.id for token in added},
    )


def _kinds(names: list[str], added: Sequence[AddedToken], unk_id: int | None, byte_fallback: bool) -> Any:
    """Kinds as decoding needs them: ids that the tool skips are CONTROL, found by name as in the tool."""
    specials = {token.content for token in added if token.special}
    kinds = np.full(len(names), Kind.NORMAL, np.uint8)
    if byte_fallback:
        kinds[[i for i, piece in enumerate(names) if _BYTE_PIECE.fullmatch(piece)]] = Kind.BYTE
    if specials:
        kinds[[i for i, piece in enumerate(names) if piece in specials]] = Kind.CONTROL
    if unk_id is not None and kinds[unk_id] != Kind.CONTROL:
        kinds[unk_id] = Kind.UNKNOWN
    return kinds


def _around(post_processor: Component | None, num_ids: int, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the post-processor puts before and after the ids of a text."""
    where = f"{name}: the post-processor"
    encodings: list[list[int | None]] = [[TEXT]]
    for processor in _members(post_processor, "processors", where):
        encodings = _process(processor, encodings, where)
        if sum(map(len, encodings)) > MOST_AROUND:
            raise ValueError(f"{where} puts more than {MOST_AROUND} ids around a text; take some out of it")
    ids = [i for encoding in encodings for i in encoding]
    if ids.count(TEXT) != 1:
        raise ValueError(f"{where} puts the text {ids.count(TEXT)} times into a row; only once is supported")
    wrong = next((i for i in ids if i is not TEXT and not 0 <= i < num_ids), None)
    if wrong is not None:
        raise ValueError(f"{where} adds the id {wrong}; this model has ids 0 to {num_ids - 1}")
    at = ids.index(TEXT)
    return tuple(i for i in ids[:at] if i is not None), tuple(i for i in ids[at + 1 :] if i is not None)


def _layouts(post_processor: Component | None, num_ids: int, where: str) -> tuple[Layout, Layout] | None:
    """What rows of one text and of two are made of; None if that of two cannot be."""
    layouts: list[Layout] = []
    for texts in ([FIRST_TEXT], [FIRST_TEXT, SECOND_TEXT]):
        encodings: list[list[int | None]] = [[text] for text in texts]
        types = [0, 1][: len(texts)]
        try:
            for processor in _members(post_processor, "processors", where):
                if processor.get("type") == "TemplateProcessing":
                    template = processor.get("single" if len(encodings) == 1 else "pair") or []
                    types = [next(iter(part.values()))["type_id"] for part in template]
                encodings = _process(processor, encodings, where)
        except (ValueError, KeyError, AttributeError, TypeError):
            return None
        layout = tuple((i, kind) for row, kind in zip(encodings, types, strict=True) for i in row if i is not None)
        if sorted(i for i, _ in layout if i < 0) != sorted(texts) or any(i >= num_ids for i, _ in layout):
            return None
        layouts.append(layout)
    return layouts[0], layouts[1]


def _trims(post_processor: Component | None, where: str) -> tuple[bool, ...]:
    """Of every post-processor that cuts spaces off offsets, whether text began with a space of its own.

    A RobertaProcessing that does not say both is taken for a BertProcessing by the tool.
    """
    parts = _members(post_processor, "processors", where)
    parts = [part for part in parts if part.get("type") in ("ByteLevel", "RobertaProcessing")]
    flags = [(part.get("trim_offsets"), part.get("add_prefix_space")) for part in parts]
    return tuple(begins for trims, begins in flags if trims is True and isinstance(begins, bool))


def _process(processor: Component, encodings: list[list[int | None]], where: str) -> list[list[int | None]]:
    """One post-processor over the encodings that earlier ones made of one text."""
    kind = processor.get("type")
    if kind == "ByteLevel":
        return encodings
    if kind in ("BertProcessing", "RobertaProcessing"):
        first, last = [_special_id(processor, key, where) for key in ("cls", "sep")]
        later = [last] if kind == "RobertaProcessing" else []
        return [([first] if i == 0 else later) + encoding + [last] for i, encoding in enumerate(encodings)]
    if kind == "TemplateProcessing" and len(encodings) <= 2:
        template = processor.get("single" if len(encodings) == 1 else "pair")
        if not isinstance(template, list):
            raise ValueError(f"{where} has the template {template!r:.60}, not a list; get the file again")
        return [_template_part(part, processor, encodings, where) for part in template]
    if kind == "TemplateProcessing":
        raise ValueError(f"{where} has a TemplateProcessing after another, which tokenizers cannot run either")
    raise ValueError(
        f"{where} has a component of the unknown type {kind!r:.60}; known are BertProcessing, ByteLevel, "
        "RobertaProcessing, Sequence and TemplateProcessing"
    )


def _template_part(part: Any, processor: Component, encodings: list[list[int | None]], where: str) -> list[int | None]:
    try:
        if "Sequence" in part:
            return encodings[{"A": 0, "B": 1}[part["Sequence"]["id"]]]
        ids = processor["special_tokens"][part["SpecialToken"]["id"]]["ids"]
    except (KeyError, IndexError, TypeError):
        raise ValueError(
            f"{where} has {part!r:.80} in a template for one text, which is neither that text nor one of its "
            "special_tokens; get the file again"
        ) from None
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        raise ValueError(f"{where} has a special token with the ids {ids!r:.60}; get the file again")
    return list(ids)


def _special_id(processor: Component, key: str, where: str) -> int:
    pair = processor.get(key)
    if not isinstance(pair, list) or len(pair) != 2 or type(pair[1]) is not int:
        raise ValueError(f"{where} has {key} = {pair!r:.60}, not [content, id]; get the file again")
    return pair[1]


def _members(component: Any, members: str, where: str) -> list[Component]:
    """The components in a tree of sequences, in order."""
    if component is None:
        return []
    if not isinstance(component, dict):
        raise ValueError(f"{where} is {component!r:.60}, not an object; get the file again")
    kind = component.get("type")
    if not isinstance(kind, str | None):
        raise ValueError(f"{where} has a component of the type {kind!r:.60}, which is not a name; get the file again")
    if kind != "Sequence":
        return [component]
    parts = component.get(members)
    if not isinstance(parts, list) or None in parts:
        raise ValueError(f"{where} has a Sequence whose {members} are {parts!r:.60}, not a list of objects")
    return [flat for part in parts for flat in _members(part, members, where)]


def _decoder(component: Component | None, unk_id: int | None, names: list[str], name: str) -> Decoder:
    where = f"{name}: the decoder"
    parts = _members(component, "decoders", where)
    check_growth(parts, where)
    steps = tuple(step for part in parts if (step := _decoder_step(part, where)) is not None)
    strips = any(step.kind == "Strip" or (step.kind == "Metaspace" and step.count) for step in steps)
    return Decoder(
        metaspace=any(step.kind in ("Metaspace", "Replace") for step in steps),
        strip="prefix" if strips else None,
        unknown="" if unk_id is None else names[unk_id],
        errors="replace",
        chain=DecoderChain(steps, " " if component is None else "")
        if len(steps) == len(parts)
        else ToolDecoder(json.dumps(component), where),
    )


@dataclass(frozen=True)
class DecoderStep:
    """One decoder of the tool: what it finds, what it writes instead, and how often at the start and at the end."""

    kind: str
    found: str = ""
    content: str = ""
    count: int = 0
    count_at_end: int = 0


@dataclass(frozen=True)
class DecoderChain:
    """The tool's decoders, from the names of a row's ids (without those of kind CONTROL) to its text.

    Example:
        >>> DecoderChain((DecoderStep("Metaspace", "▁", " ", count=1),), "")(["▁a", "▁b"])
        'a b'
    """

    steps: tuple[DecoderStep, ...]
    separator: str

    def __call__(self, names: Sequence[str]) -> str:
        tokens = list(names)
        for step in self.steps:
            tokens = _DECODERS[step.kind](step, tokens)
        return self.separator.join(tokens)


@dataclass(frozen=True)
class ToolDecoder:
    """The tool's own decoders, from JSON, for components that are not compiled; loaded on first use."""

    component: str
    where: str

    def __call__(self, names: Sequence[str]) -> str:
        decoder = _tool_decoder(self.component, self.where)
        with tool_errors(f"{self.where} {self.component:.100}: tokenizers cannot run it"):
            return str(decoder.decode(list(names)))


@cache
def _tool_decoder(component: str, where: str) -> Any:
    try:
        from tokenizers import Tokenizer, models
    except ImportError:
        raise ImportError(
            f"{where} {component:.100} is run by the package tokenizers; install it with: pip install 'gpu-lattice[hf]'"
        ) from None
    file = json.loads(Tokenizer(models.Unigram()).to_str()) | {"decoder": json.loads(component)}
    with tool_errors(f"{where} {component:.100}: tokenizers cannot load it"):
        return Tokenizer.from_str(json.dumps(file)).decoder


def _decoder_step(component: Component, where: str) -> DecoderStep | None:
    """The step of a component; None for one that is not compiled."""
    kind = component.get("type")
    if kind == "Metaspace":
        prefix, _ = metaspace_scheme(component, where)
        return DecoderStep(kind, component["replacement"], " ", count=prefix != "never")
    if kind in ("ByteFallback", "ByteLevel", "Fuse"):
        return DecoderStep(kind)
    if kind == "Replace":
        found, content = member(component, "pattern", dict, where), member(component, "content", str, where)
        is_compiled = isinstance(found.get("String"), str) and found["String"]
        return DecoderStep(kind, found["String"], content) if is_compiled else None
    if kind == "Strip":
        content = member(component, "content", str, where)
        start, stop = (member(component, key, int, where) for key in ("start", "stop"))
        return DecoderStep(kind, content, "", start, stop)
    return None


def _decode_metaspace(step: DecoderStep, tokens: list[str]) -> list[str]:
    first = [tokens[0].replace(step.found, "" if step.count else step.content)] if tokens else []
    return first + [token.replace(step.found, step.content) for token in tokens[1:]]


def _decode_replace(step: DecoderStep, tokens: list[str]) -> list[str]:
    return [token.replace(step.found, step.content) for token in tokens]


def _decode_fuse(step: DecoderStep, tokens: list[str]) -> list[str]:
    return ["".join(tokens)]


def _decode_strip(step: DecoderStep, tokens: list[str]) -> list[str]:
    stripped = []
    for token in tokens:
        start, stop = 0, len(token)
        while start < min(step.count, len(token)) and token[start] == step.found:
            start += 1
        while stop > max(len(token) - step.count_at_end, start) and token[stop - 1] == step.found:
            stop -= 1
        stripped.append(token[start:stop])
    return stripped


_HEX_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2}|\+[0-9A-Fa-f])>")


def _decode_bytes(step: DecoderStep, tokens: list[str]) -> list[str]:
    """Runs of byte tokens as text; every byte of a run that is not all UTF-8 reads as U+FFFD."""
    decoded: list[str] = []
    run = bytearray()
    for token in [*tokens, ""]:
        match = _HEX_BYTE.fullmatch(token)
        if match:
            run.append(int(match[1], 16))
            continue
        if run:
            try:
                decoded.append(run.decode())
            except UnicodeDecodeError:
                decoded += ["\ufffd"] * len(run)
            run.clear()
        decoded.append(token)
    return decoded[:-1]


def _decode_byte_level(step: DecoderStep, tokens: list[str]) -> list[str]:
    """The bytes that the tokens' characters stand for, as text; a token in which one stands for none is as it is."""
    spelled = [bytes_of(token) for token in tokens]
    parts = [token.encode() if part is None else part for token, part in zip(tokens, spelled, strict=True)]
    return [b"".join(parts).decode(errors="replace")]


_DECODERS = {
    "ByteFallback": _decode_bytes,
    "ByteLevel": _decode_byte_level,
    "Fuse": _decode_fuse,
    "Metaspace": _decode_metaspace,
    "Replace": _decode_replace,
    "Strip": _decode_strip,
}
