"""Byte-level BPE of tiktoken: lines of base64(token bytes) and rank, and tekken.json, which holds the same and more."""

from __future__ import annotations

import binascii
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.models import Decoder, Merges, Model
from gpu_lattice.models.json_text import load_json
from gpu_lattice.models.own import OWN, listed, own_field, own_scores
from gpu_lattice.models.rank_pairs import rank_pairs
from gpu_lattice.normalizers.hf_tokenizers import hf_normalizer
from gpu_lattice.normalizers.pre_tokens import O200K, TIKTOKEN, TIKTOKEN_CL100K, TIKTOKEN_GPT2
from gpu_lattice.text_batch import decoded
from gpu_lattice.vocabulary import Kind, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

END = "<|endoftext|>"
FILL_IN = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
# Two names have the id 200018.
HARMONY = {f"<|reserved_{i}|>": i for i in (200000, 200001, 200004, *range(200009, 200012), *range(200013, 201088))} | {
    "<|startoftext|>": 199998, END: 199999, "<|return|>": 200002, "<|constrain|>": 200003, "<|channel|>": 200005,
    "<|start|>": 200006, "<|end|>": 200007, "<|message|>": 200008, "<|call|>": 200012, "<|endofprompt|>": 200018,
}  # fmt: skip
# Patterns and special tokens of tiktoken's encodings.
ENCODINGS: dict[str, tuple[str, dict[str, int]]] = {
    "gpt2": (TIKTOKEN_GPT2, {END: 50256}),
    "r50k_base": (TIKTOKEN_GPT2, {END: 50256}),
    "p50k_base": (TIKTOKEN_GPT2, {END: 50256}),
    "p50k_edit": (TIKTOKEN_GPT2, {END: 50256, **dict(zip(FILL_IN, range(50281, 50284), strict=True))}),
    "cl100k_base": (
        TIKTOKEN_CL100K,
        {END: 100257, **dict(zip(FILL_IN, range(100258, 100261), strict=True)), "<|endofprompt|>": 100276},
    ),
    "o200k_base": (O200K, {END: 199999, "<|endofprompt|>": 200018}),
    "o200k_harmony": (O200K, HARMONY),
}

# Ids without a token, and special ids of a tekken.json; and what any vocabulary's ids may be below.
MOST_GAPS = 1 << 16
FEWEST_IDS = 1 << 18
SPECIALS_OF_TEKKEN = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip

# As which Whisper's file has a token without any bytes, whose id no text gets.
EMPTY = b"="
_FIRST_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
_TEKKEN = re.compile(rb'\s*\{\s*"(config|vocab|special_tokens)"\s*:\s*[\[{]')
# What Oniguruma, by which tokenizers reads patterns, takes otherwise than tiktoken does: repeating so often without
# backtracking, words, numbered characters and POSIX classes anywhere, and outside of classes line ends.
_OTHERWISE = re.compile(r"\{\d+(,\d*)?\}\+|\\[wWbBx]|\[:\^?[a-z]+:\]")
_ESCAPE_OR_CLASS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")
_LINE_END = re.compile(r"[$^]|\(\?[a-z]*m")


def looks_like(data: bytes) -> bool:
    """Whether data begins like a tekken.json."""
    return _TEKKEN.match(data[:4096]) is not None and b'"token_bytes"' in data[: 1 << 16]


def is_rank_file(data: bytes) -> bool:
    """Whether data begins like a tiktoken file, which does not say how text is divided."""
    return _FIRST_LINE.match(data[:4096]) is not None


def read(data: bytes, name: str) -> Model:
    """Read a tekken.json as mistral-common does; the ids are those of encode(text, bos=False, eos=False).

    Raises ValueError for a file that is damaged, ImportError without the package tokenizers, which runs its pattern.
    """
    try:
        file = load_json(data.decode())
        config, entries = file["config"], file["vocab"]
        pattern, size, n_special = (
            config[key] for key in ("pattern", "default_vocab_size", "default_num_special_tokens")
        )
        specials = {token["rank"]: token["token_str"] for token in file.get("special_tokens") or []}
        are_right = all(isinstance(text, str) for text in (pattern, *specials.values())) and type(size) is int
        if not are_right or type(n_special) is not int or not 0 <= n_special <= MOST_GAPS:
            raise ValueError(f"{n_special!r:.40} special tokens, {size!r:.40} ids, the pattern {pattern!r:.40}")
        used = [binascii.a2b_base64(entry["token_bytes"]) for entry in entries[: max(0, size - n_special)]]
        ranks = [entry["rank"] for entry in entries[: len(used)]]
        if size - n_special > len(entries) or list(map(repr, ranks)) != list(map(str, range(len(used)))):
            raise ValueError(f"{len(entries)} tokens, whose ranks do not count up to {size - n_special}")
        if len({*specials.values()}) < len(specials):
            raise ValueError("two special tokens have one name")
        own = own_field(file, name)
        ids, more = own.get("ids", range(n_special, n_special + len(used))), own.get("special_tokens", {})
        if len(ids) != len(used) or {type(i) for i in (*ids, *more.values())} - {int}:
            raise ValueError(f"{len(ids)} ids of {len(used)} tokens, {len(more)} of special ones")
        "".join((*specials.values(), *more)).encode()  # no halves of surrogate pairs
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{name} is not a whole tekken.json ({error!r:.80}); get the file again") from None
    specials = specials or dict(enumerate(SPECIALS_OF_TEKKEN))
    special_ids = {specials.get(i, f"<SPECIAL_{i}>"): i for i in range(n_special)} | more
    model = _model(dict(zip(used, ids, strict=True)), special_ids, pattern, data, name)
    return replace(model, scores=own_scores(file, len(model.vocabulary), name))


def with_scores(data: bytes, vocabulary: Vocabulary) -> bytes:
    """A tekken.json with the scores of a vocabulary in a field of our own."""
    file = load_json(data.decode())
    file[OWN] = file.get(OWN, {}) | {"scores": listed(vocabulary, len(vocabulary))}
    return json.dumps(file).encode()


def as_tekken(
    data: bytes, name: str, encoding: str | None, pattern: str | None, specials: dict[str, int] | None
) -> bytes:
    """What `read_ranks` reads as a tekken.json, whose ids and special tokens are in a field of our own."""
    pattern, specials = division_of(encoding, pattern, specials)
    ranked = sorted((i, token) for token, i in _ranks(data, name).items())
    vocab = [
        {"rank": rank, "token_bytes": binascii.b2a_base64(token, newline=False).decode(), "token_str": None}
        for rank, (_, token) in enumerate(ranked)
    ]
    config = {"pattern": pattern, "num_vocab_tokens": len(vocab), "default_vocab_size": len(vocab)}
    config |= {"default_num_special_tokens": 0, "version": "v3"}
    own = {"ids": [i for i, _ in ranked], "special_tokens": specials}
    return json.dumps({"config": config, "vocab": vocab, "special_tokens": [], OWN: own}).encode()


def parts_of(encoding: Any) -> tuple[bytes, str, dict[str, int]]:
    """(a tiktoken file, the pattern, the special tokens) of a tiktoken.Encoding."""
    try:
        ranks, pattern, specials = encoding._mergeable_ranks, encoding._pat_str, encoding._special_tokens
    except AttributeError:
        raise TypeError(f"source is {encoding!r:.60}; give a path or a tiktoken.Encoding") from None
    kinds = set(map(type, ranks)), set(map(type, specials)), set(map(type, (*ranks.values(), *specials.values())))
    if kinds[0] - {bytes} or kinds[1] - {str} or kinds[2] - {int} or not isinstance(pattern, str):
        raise TypeError(
            f"source is {encoding!r:.60}, whose ranks are not of bytes, or whose ids are not int; make it anew"
        )
    return rank_file(ranks), pattern, dict(specials)


def rank_file(ranks: dict[bytes, int]) -> bytes:
    """What `read_ranks` reads."""
    return b"".join((binascii.b2a_base64(token, newline=False) or EMPTY) + b" %d\n" % i for token, i in ranks.items())


def division_of(
    encoding: str | None, pattern: str | None, specials: dict[str, int] | None
) -> tuple[str, dict[str, int]]:
    """What a tiktoken file does not say, (the pattern, the special tokens), from the arguments of `read_ranks`.

    Raises ValueError, TypeError for arguments that are wrong.
    """
    if (encoding is None) == (pattern is None):
        raise ValueError("give either encoding, the name of one of tiktoken's, or pattern, a regular expression")
    if encoding is not None:
        if encoding not in ENCODINGS:
            raise ValueError(f"encoding is {encoding!r:.60}; known are {', '.join(ENCODINGS)}; give pattern for others")
        return ENCODINGS[encoding]
    if not isinstance(pattern, str):
        raise TypeError(f"pattern is {pattern!r:.60}; give a regular expression as a str")
    return pattern, specials or {}


def read_ranks(
    data: bytes, name: str, encoding: str | None, pattern: str | None, specials: dict[str, int] | None = None
) -> Model:
    """Read a tiktoken file. encoding: the name of one of ENCODINGS; pattern: a regular expression instead, which may
    come with special tokens.

    The ids are those of tiktoken 0.14.0's encode_ordinary: special tokens are text.
    Raises ValueError for a file that is damaged, ImportError without the package tokenizers, which runs the pattern.
    """
    pattern, specials = division_of(encoding, pattern, specials)
    return _model(_ranks(data, name), specials, pattern, data, name)


def _ranks(data: bytes, name: str) -> dict[bytes, int]:
    id_of: dict[bytes, int] = {}
    for i, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            id_of[b"" if token == EMPTY else binascii.a2b_base64(token, strict_mode=True)] = int(rank)
        except ValueError:
            raise ValueError(f"{name}: line {i} is {line!r:.60}, not base64 and a rank; get the file again") from None
    return id_of


def _model(id_of: dict[bytes, int], specials: dict[str, int], pattern: str, data: bytes, name: str) -> Model:
    otherwise = _OTHERWISE.search(pattern) or _LINE_END.search(_ESCAPE_OR_CLASS.sub("", pattern))
    if otherwise is not None and pattern not in TIKTOKEN:
        raise ValueError(
            f"{name}: the pattern has {otherwise[0]!r}, which the package tokenizers reads otherwise than tiktoken; "
            "give one that says the same without it"
        )
    ids = [*id_of.values(), *set(specials.values())]
    missing = next((byte for byte in range(256) if bytes([byte]) not in id_of), None)
    if missing is not None:
        raise ValueError(f"{name}: the byte 0x{missing:02X} has no token, so it is no tiktoken vocabulary")
    if len(set(ids)) < len(ids) or min(ids) < 0 or max(ids) >= max(len(ids) + MOST_GAPS, FEWEST_IDS):
        raise ValueError(f"{name}: of some token, its rank is taken or far above all others; get the file again")
    id_of = {token: i for token, i in id_of.items() if token}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
    bytes_alone = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, bytes_alone]}
    return Model(
        kind="tiktoken",
        vocabulary=_vocabulary(id_of, specials, max(ids) + 1),
        normalizer=hf_normalizer(None, pre_tokenizer, [], name, to_bytes=True, by_tiktoken=True),
        decoder=Decoder(metaspace=False, strip=None, unknown="", errors="maximal"),
        merges=Merges(
            pairs=rank_pairs(id_of, range(max(ids) + 1), data),
            symbols=np.arange(256, dtype=np.int32),
            symbol_ids=np.array([id_of[bytes([byte])] for byte in range(256)], np.int32),
            byte_ids=np.full(256, -1, np.int32),
            unk_id=-1,
            fuse_unk=False,
            whole_pieces=True,
        ),
        pre_tokenized=True,
    )


def _vocabulary(id_of: dict[bytes, int], specials: dict[str, int], size: int) -> Vocabulary:
    surfaces, names = [b""] * size, [""] * size
    kinds = np.full(size, Kind.CONTROL, np.uint8)
    for (token, i), text in zip(id_of.items(), decoded(list(id_of), "backslashreplace"), strict=True):
        surfaces[i], names[i], kinds[i] = token, text, Kind.NORMAL
    for text, i in specials.items():
        names[i] = text
    # If a token of broken UTF-8 and one of plain text print alike, the name means the plain text.
    by_name = {names[i]: i for i in range(size) if names[i]}
    by_name |= {names[i]: i for token, i in id_of.items() if names[i].encode() == token} | specials
    scores: NDArray[np.float64] = np.zeros(size)
    return Vocabulary(
        names=names,
        surfaces=surfaces,
        kinds=kinds,
        in_lattice=kinds == Kind.NORMAL,
        scores=scores,
        best_scores=scores,
        symbols="bytes",
        unk_id=None,
        unk_score=0.0,
        best_unk_score=0.0,
        byte_ids=None,
        unknown_runs="merge",
        id_of=by_name,
    )
