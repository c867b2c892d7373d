"""Every operation on every kind of BPE vocabulary, against all segmentations of the pre-tokens, listed one by one.

An arc is a piece within one pre-token, a pre-token that is one token, or a symbol without a piece. Where the pre-tokens
are, the tools say.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece
from bpe_files import BYTE_PIECES, CL100K, ranks, tekken_file, trained, trained_bpe
from brute_force import counted, p_value
from hf_files import ToolPreTokens
from lattices import both
from tokenizers import Regex, pre_tokenizers

from gpu_lattice import Tokenizer
from gpu_lattice.cli import main
from gpu_lattice.normalizers.byte_level import bytes_of
from gpu_lattice.show.portrait import portrait
from gpu_lattice.show.preview import preview

UNKNOWN = -1
LAWS = [(1.0, 0.0), (0.3, 0.7), (0.0, -0.4)]
TEXTS = ["whether the", " né there", "", "漢字 1", None, "a<|end|> th", "魑魅e", "👩", "a<unk>b", "e<x>魑here"]
PROMPTS = ["the wh", "", "né", "a 漢", "a<x>", "1 "]
DRAWS = 20_000
LEAST_P = 1e-5
SEED = 22

Arc = tuple[int, int, int]  # where it begins and ends in the normalized text, and its id
Row = tuple[int, ...]
Chunks = list[tuple[bytes, int | None]]


@dataclass(frozen=True)
class Bpe:
    """A tokenizer, and what is true of it.

    chunks    the pre-tokens of a text, as pieces match them, each with the id of one that is a token
    pieces    those that are arcs; symbols: those that are tokens wherever they are
    by_bytes  whether a position is between any two bytes
    byte_ids  of the bytes that spell a symbol without a piece; empty if it is the unknown id instead
    fuses     whether a run of such symbols is one unknown id
    scores    of ids; 0 for others
    """

    tokenizer: Tokenizer
    chunks: Callable[[str], Chunks]
    pieces: dict[bytes, int]
    by_bytes: bool = True
    byte_ids: tuple[int, ...] = ()
    unk_id: int | None = None
    fuses: bool = True
    symbols: dict[bytes, int] = field(default_factory=dict)
    around: tuple[Row, Row] = ((), ())
    scores: Mapping[int, float] = field(default_factory=dict)

    def score(self, arc: Arc, is_token: bool) -> float:
        if arc[2] == UNKNOWN:
            return min(self.scores.get(i, 0.0) for i in self.pieces.values())
        return 0.0 if is_token else self.scores.get(arc[2], 0.0)

    def listed(self, text: str | None) -> Listed:
        return self.of_chunks([] if text is None else self.chunks(text), text is not None)

    def of_chunks(self, chunks: Chunks, is_framed: bool = True) -> Listed:
        start, parts = 0, []
        for chunk, token in chunks:
            paths = [((start, start + len(chunk), token),)] if token is not None else self.paths(chunk, start)
            parts.append([(path, self.read(chunk, path, start)) for path in paths])
            start += len(chunk)
        every, scores = [], []
        before, after = self.around if is_framed else ((), ())
        for choice in product(*parts):
            arcs = [arc for path, _ in choice for arc in path]
            scores.append(
                math.fsum(
                    self.score(arc, token is not None)
                    for (path, _), (_, token) in zip(choice, chunks, strict=True)
                    for arc in path
                )
            )
            every.append((arcs, (*before, *(i for _, ids in choice for i in ids), *after)))
        return Listed([arcs for arcs, _ in every], [row for _, row in every], np.array(scores), len(before + after))

    def paths(self, chunk: bytes, start: int) -> list[tuple[Arc, ...]]:
        ends = {len(chunk), *(i for i in range(len(chunk)) if self.by_bytes or chunk[i] & 0xC0 != 0x80)}

        @cache
        def paths_from(i: int) -> list[tuple[Arc, ...]]:
            if i == len(chunk):
                return [()]
            symbol = min(end for end in ends if end > i)
            paths = []
            for j in sorted(end for end in ends if end > i):
                piece = self.pieces.get(chunk[i:j])
                if piece is None and j == symbol and (self.byte_ids or self.unk_id is not None):
                    piece = UNKNOWN
                if piece is not None:
                    paths += [((start + i, start + j, piece), *rest) for rest in paths_from(j)]
            return paths

        return paths_from(0)

    def read(self, chunk: bytes, path: tuple[Arc, ...], start: int) -> Row:
        ids: list[int] = []
        for is_unknown, run in groupby(path, lambda arc: arc[2] == UNKNOWN):
            arcs = list(run)
            if not is_unknown:
                ids += [i for _, _, i in arcs]
            elif self.byte_ids:
                ids += [self.byte_ids[byte] for byte in chunk[arcs[0][0] - start : arcs[-1][1] - start]]
            elif self.unk_id is not None:
                ids += [self.unk_id] * (1 if self.fuses else len(arcs))
        return tuple(ids)


@dataclass(frozen=True)
class Listed:
    """Every path of a text: its arcs, the ids as which it reads, its score; n_around: ids around a row."""

    arcs: list[list[Arc]]
    rows: list[Row]
    scores: np.ndarray
    n_around: int

    def logs(self, alpha: float, penalty: float) -> np.ndarray:
        return alpha * self.scores - penalty * np.array([len(path) for path in self.arcs])

    def log_z(self, alpha: float, penalty: float) -> float:
        return float(np.logaddexp.reduce(self.logs(alpha, penalty)))

    def probabilities(self, alpha: float, penalty: float) -> np.ndarray:
        return np.exp(self.logs(alpha, penalty) - self.log_z(alpha, penalty))

    def entropy(self, alpha: float, penalty: float) -> float:
        p = self.probabilities(alpha, penalty)
        return float(-(p * np.log(p)).sum())

    def of_rows(self, alpha: float, penalty: float) -> dict[Row, float]:
        return _summed(zip(self.rows, self.probabilities(alpha, penalty).tolist(), strict=True))

    def of_arcs(self, alpha: float, penalty: float) -> dict[Any, float]:
        p = self.probabilities(alpha, penalty).tolist()
        return _summed((arc, share) for path, share in zip(self.arcs, p, strict=True) for arc in path)

    def of_lengths(self, alpha: float, penalty: float) -> dict[int, float]:
        p = self.probabilities(alpha, penalty).tolist()
        return _summed((len(row) - self.n_around, share) for row, share in zip(self.rows, p, strict=True))


def _summed(terms: Any) -> dict[Any, float]:
    parts: dict[Any, list[float]] = {}
    for key, value in terms:
        parts.setdefault(key, []).append(value)
    return {key: math.fsum(part) for key, part in parts.items()}


def hugging_face(name: str, characters: bool = False, **parts: Any) -> Bpe:
    file = trained(name) | parts
    vocab, model = file["model"]["vocab"], file["model"]
    is_bytes = (file["decoder"] or {"type": ""})["type"] == "ByteLevel"
    surface = bytes_of if is_bytes else str.encode
    added = {token["content"]: token["id"] for token in file["added_tokens"]}
    no_arcs = {*added, *(BYTE_PIECES if model["byte_fallback"] else ())}
    divide = ToolPreTokens(file)

    def chunks(text: str) -> Chunks:
        return [
            (chunk.encode(), added[chunk]) if is_token else (surface(chunk) or b"", None)
            for chunk, is_token in divide(text)
        ]

    found = Bpe(
        Tokenizer.from_bytes(json.dumps(file).encode(), characters=characters, device="cpu", threads=1),
        chunks,
        {surface(piece) or b"": i for piece, i in vocab.items() if piece not in no_arcs},
        is_bytes,
        tuple(vocab[piece] for piece in BYTE_PIECES) if model["byte_fallback"] else (),
        vocab[model["unk_token"]] if model["unk_token"] else None,
        model["fuse_unk"] or model["byte_fallback"],
    )
    return whole(found) if characters else found


def whole(found: Bpe) -> Bpe:
    """With the pieces that are text alone, and bytes for what has none."""
    is_text = {piece: piece.decode(errors="ignore").encode() == piece for piece in found.pieces}
    pieces = {piece: i for piece, i in found.pieces.items() if is_text[piece]}
    byte_ids = tuple(found.pieces[bytes([byte])] for byte in range(256))
    return replace(found, pieces=pieces, by_bytes=False, byte_ids=byte_ids)


def of_ranks(characters: bool) -> Bpe:
    import tiktoken

    specials = {"<|end|>": 700}
    tool = tiktoken.Encoding("x", pat_str=CL100K, mergeable_ranks=ranks(), special_tokens=specials)
    found = Bpe(Tokenizer.from_tiktoken(tool, characters=characters, device="cpu", threads=1), by_cl100k, ranks())
    return whole(found) if characters else found


def by_cl100k(text: str) -> Chunks:
    parts = pre_tokenizers.Split(Regex(CL100K), "isolated").pre_tokenize_str(text)
    return [(part.encode(), None) for part, _ in parts]


def tekken() -> Bpe:
    pieces = {token: 20 + rank for token, rank in ranks().items() if rank < 400}
    return Bpe(Tokenizer.from_bytes(tekken_file(), device="cpu", threads=1), by_cl100k, pieces)


def sentence_piece(**options: Any) -> Bpe:
    data = trained_bpe(**options)
    tool = sentencepiece.SentencePieceProcessor(model_proto=data)
    symbols = {symbol: tool.piece_to_id(symbol) for symbol in options.get("user_defined_symbols", [])}

    def chunks(text: str) -> Chunks:
        normalized, found, start, i = tool.normalize(text), [], 0, 0
        while i < len(normalized):
            symbol = max((one for one in symbols if normalized.startswith(one, i)), key=len, default="")
            if symbol:
                found += [(normalized[start:i].encode(), None), (symbol.encode(), symbols[symbol])]
                start = i + len(symbol)
            i += len(symbol) or 1
        return [chunk for chunk in (*found, (normalized[start:].encode(), None)) if chunk[0]]

    is_plain = [not (tool.is_control(i) or tool.is_unknown(i) or tool.is_byte(i)) for i in range(len(tool))]
    names = [tool.id_to_piece(i) for i in range(len(tool))]
    return Bpe(
        Tokenizer.from_bytes(data, device="cpu", threads=1),
        chunks,
        {name.encode(): i for i, name in enumerate(names) if is_plain[i] and name not in symbols},
        False,
        tuple(map(tool.piece_to_id, BYTE_PIECES)) if options.get("byte_fallback") else (),
        tool.unk_id(),
        True,
        {symbol.encode(): i for symbol, i in symbols.items()},
    )


AROUND = {
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "X", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"X": {"id": "X", "ids": [0, 7], "tokens": ["p", "q"]}},
    }
}
KINDS: dict[str, Callable[[], Bpe]] = {
    "gpt2": lambda: replace(hugging_face("gpt2", **AROUND), around=((), (0, 7))),
    "llama3": lambda: hugging_face("llama3"),
    "llama3, characters whole": lambda: hugging_face("llama3", characters=True),
    "an unknown token, characters whole": lambda: hugging_face(
        "llama3", characters=True, model=trained("llama3")["model"] | {"unk_token": "<|im_start|>"}
    ),
    "qwen": lambda: hugging_face("qwen"),
    "llama2": lambda: hugging_face("llama2"),
    "gemma": lambda: hugging_face("gemma"),
    "fused": lambda: hugging_face("fused"),
    "unknown": lambda: hugging_face("unknown"),
    "no bytes": lambda: hugging_face("gemma", model=trained("gemma")["model"] | {"byte_fallback": False}),
    "tiktoken": lambda: of_ranks(characters=False),
    "tiktoken, characters whole": lambda: of_ranks(characters=True),
    "tekken": tekken,
    "sentencepiece": lambda: sentence_piece(character_coverage=0.98),
    "sentencepiece, bytes": lambda: sentence_piece(byte_fallback=True, user_defined_symbols=["<x>", "th"]),
}


@cache
def made(kind: str, is_scored: bool = False) -> Bpe:
    found = KINDS[kind]()
    if not is_scored:
        return found
    draw = np.random.default_rng(SEED)
    scores = {i: float(draw.uniform(-6.0, -1.0)) for i in found.pieces.values()}
    return replace(found, tokenizer=found.tokenizer.rescored(scores), scores=scores)


every_kind = pytest.mark.parametrize("kind", KINDS)
scored_or_not = pytest.mark.parametrize("is_scored", [False, True], ids=["", "scored"])


@every_kind
@scored_or_not
def test_sums_and_best_paths_are_those_of_all_segmentations(kind: str, is_scored: bool) -> None:
    bpe = made(kind, is_scored)
    listed = [bpe.listed(text) for text in TEXTS]
    assert sum(len(one.rows) for one in listed) > 20
    for lattice in both(bpe.tokenizer, TEXTS):
        assert lattice.num_paths() == [len(one.rows) for one in listed]
        assert lattice.num_paths(log=True) == pytest.approx([math.log(len(one.rows)) for one in listed])
        best = lattice.viterbi()
        assert best.scores == pytest.approx([one.scores.max() for one in listed], abs=1e-12)
        assert best.tolist() == [[list(one.rows[_best(one)])] for one in listed]
        for alpha, penalty in LAWS:
            law, tilt = (alpha, penalty), {"alpha": alpha, "token_penalty": penalty}
            assert lattice.log_partition(**tilt) == pytest.approx([one.log_z(*law) for one in listed], abs=1e-12)
            assert lattice.entropy(**tilt) == pytest.approx([one.entropy(*law) for one in listed], abs=1e-12)
            assert lattice.expected_counts(**tilt) == pytest.approx(expected_counts(bpe, listed, law), abs=1e-12)
            ends, counts = np.asarray(lattice.marginals(**tilt)), np.asarray(lattice.token_counts(**tilt))
            ids, lengths = np.asarray(lattice.piece_id), np.asarray(lattice.length)
            unknown = -2 if bpe.unk_id is None else bpe.unk_id
            for i_doc, one in enumerate(listed):
                found = {
                    (int(e - lengths[i_doc, e, k]), int(e), int(ids[i_doc, e, k])): ends[i_doc, e, k]
                    for e, k in zip(*np.nonzero(lengths[i_doc]), strict=True)
                }
                wanted = {(a, b, unknown if i == UNKNOWN else i): p for (a, b, i), p in one.of_arcs(*law).items()}
                assert found == pytest.approx(wanted, abs=1e-12)
                wanted_counts = one.of_lengths(*law)
                assert dict(enumerate(counts[i_doc].tolist())) == pytest.approx(
                    {n: wanted_counts.get(n, 0.0) for n in range(counts.shape[1])}, abs=1e-12
                )
            paths = lattice.nbest(max(len(one.rows) for one in listed) + 1, **tilt)
            scores = iter(paths.scores.tolist())
            for one, rows in zip(listed, paths.tolist(), strict=True):
                assert Counter(map(tuple, rows)) == Counter(one.rows)
                logs = [next(scores) for _ in rows]
                assert logs == pytest.approx(sorted(one.logs(*law), reverse=True), abs=1e-12)


def law_of(is_scored: bool) -> tuple[float, float]:
    return LAWS[1] if is_scored else (0.0, 0.7)


def _best(one: Listed) -> int:
    """The path of greatest score; in a tie, the one whose last differing arc is longest."""
    return max(range(len(one.rows)), key=lambda i: (one.scores[i], [b - a for a, b, _ in reversed(one.arcs[i])]))


def expected_counts(bpe: Bpe, listed: list[Listed], law: tuple[float, float], weights: Any = None) -> list[float]:
    counts = [0.0] * bpe.tokenizer.vocab_size
    for one, weight in zip(listed, weights or [1.0] * len(listed), strict=True):
        for (_, _, i), p in one.of_arcs(*law).items():
            if i != UNKNOWN or bpe.unk_id is not None:
                counts[bpe.unk_id if i == UNKNOWN and bpe.unk_id is not None else i] += weight * p
    return counts


@every_kind
@scored_or_not
def test_draws_have_the_probabilities_that_are_given_for_them(kind: str, is_scored: bool) -> None:
    bpe = made(kind, is_scored)
    listed, tokenizer, doc_ids = [bpe.listed(text) for text in TEXTS], bpe.tokenizer, range(5, 5 + len(TEXTS))
    alpha, penalty = law_of(is_scored)
    tilt: dict[str, Any] = {"alpha": alpha, "token_penalty": penalty}
    out = tokenizer.sample(TEXTS, **tilt, num_samples=DRAWS, seed=SEED, doc_ids=doc_ids, return_log_prob=True)
    rows, log_prob = out.tolist(), np.asarray(out.log_prob)
    assert all(rows[i] is None for i in range(4 * DRAWS, 5 * DRAWS))
    for i_doc, one in enumerate(listed):
        drawn = rows[i_doc * DRAWS : (i_doc + 1) * DRAWS]
        truth = one.of_rows(alpha, penalty)
        assert p_value(counted([row or [] for row in drawn]), truth) > LEAST_P
        logs = log_prob[i_doc * DRAWS : (i_doc + 1) * DRAWS]
        found = {tuple(row or ()): float(log) for row, log in zip(drawn, logs, strict=True)}
        assert found == pytest.approx({row: math.log(truth[row]) for row in found}, abs=1e-12)
    few = tokenizer.sample(TEXTS, **tilt, num_samples=3, seed=SEED, doc_ids=doc_ids, return_log_prob=True)
    assert few.tolist() == [row for i in range(len(TEXTS)) for row in rows[i * DRAWS : i * DRAWS + 3]]
    assert tokenizer.verify(TEXTS, few) is None
    for lattice in both(tokenizer, TEXTS):
        assert np.asarray(lattice.log_prob(few, **tilt)) == pytest.approx(np.asarray(few.log_prob), abs=1e-12)
        assert np.asarray(lattice.is_path(few)).all()
        # "漢" has no piece, and merges make others than those of its bytes.
        is_path = [text != "漢字 1" or "whole" not in kind for text in TEXTS]
        assert np.asarray(lattice.is_path(tokenizer.encode(TEXTS))).tolist() == is_path
        every = lattice.sample_without_replacement(2 + max(len(one.rows) for one in listed), **tilt, seed=SEED)
        for one, part in zip(listed, every.tolist(), strict=True):
            assert Counter(map(tuple, part)) == Counter(one.rows)


@every_kind
@scored_or_not
def test_statistics_of_a_corpus_are_sums_over_all_segmentations(kind: str, is_scored: bool) -> None:
    bpe = made(kind, is_scored)
    listed, law = [bpe.listed(text) for text in TEXTS], LAWS[1]
    tilt: dict[str, Any] = {"alpha": law[0], "token_penalty": law[1]}
    found = bpe.tokenizer.token_statistics(TEXTS, **tilt)
    assert found.entropy == pytest.approx([one.entropy(*law) for one in listed], abs=1e-12)
    assert found.log_partition == pytest.approx([one.log_z(*law) for one in listed], abs=1e-12)
    assert found.num_bytes.tolist() == [len((text or "").encode()) for text in TEXTS]
    # A symbol without a piece is one token, even in a run.
    lengths = [
        math.fsum(p * ((b - a) if i == UNKNOWN and bpe.byte_ids else 1) for (a, b, i), p in one.of_arcs(*law).items())
        for one in listed
    ]
    assert found.num_tokens == pytest.approx(lengths)
    weights = [0.5 * i for i in range(len(TEXTS))]
    counts = bpe.tokenizer.expected_counts(TEXTS, **tilt, document_weights=weights)
    assert counts == pytest.approx(expected_counts(bpe, listed, law, weights), abs=1e-12)
    best = bpe.tokenizer.nbest(TEXTS, 3, token_penalty=0.25)
    wanted = [sorted(one.logs(1.0, 0.25), reverse=True)[:3] for one in listed]
    assert best.scores == pytest.approx([score for part in wanted for score in part], abs=1e-12)


@every_kind
@scored_or_not
def test_prompts_continue_at_every_boundary(kind: str, is_scored: bool) -> None:
    bpe = made(kind, is_scored)
    out, k = bpe.tokenizer.continuations(PROMPTS), 0
    rows, mask = out.tokens.tolist(), np.asarray(out.mask())
    for i_doc, prompt in enumerate(PROMPTS):
        *before, (last, token) = bpe.chunks(prompt + "\ue000")
        assert token is None
        last = last.removesuffix("\ue000".encode())
        if not last and before and before[-1][1] is None:
            *before, (last, _) = before
        start = sum(len(chunk) for chunk, _ in before)
        stop = start + len(last)
        first = k
        for p in range(stop, start - 1, -1):
            rest = last[p - start :]
            pieces = bpe.pieces | bpe.symbols
            allowed = {i for piece, i in pieces.items() if piece.startswith(rest) and piece != rest}
            if not bpe.by_bytes and rest and rest[0] & 0xC0 == 0x80:
                continue
            one = bpe.of_chunks([*before, (last[: p - start], None)] if p > start else before)
            if not allowed or not one.rows:
                continue
            assert (int(out.rollback[k]), rows[k]) == (stop - p, list(_cut(bpe, one.rows[_best(one)])))
            assert out.scores[k] == pytest.approx(one.scores.max(), abs=1e-12)
            assert set(np.flatnonzero(mask[k]).tolist()) == allowed
            k += 1
        assert out.doc_offsets[i_doc : i_doc + 2].tolist() == [first, k]
    assert k == len(out.rollback)


def _cut(bpe: Bpe, row: Row) -> Row:
    return row[: len(row) - len(bpe.around[1])]


PRE_TOKENIZED = ["gpt2", "llama3", "llama3, characters whole", "qwen", "tiktoken", "tiktoken, characters whole"]
WORDS = "the whale né 漢字"


def by_words(bpe: Bpe, rate: float, law: tuple[float, float]) -> list[dict[Row, float]]:
    """For each pre-token, the probability of its rows where it is resampled at a rate, and the best one first."""
    parts = []
    for chunk, _ in bpe.chunks(WORDS):
        (best,) = bpe.tokenizer.encode(chunk.decode(), add_special_tokens=False).tolist()
        truth = {_cut(bpe, row): p for row, p in bpe.of_chunks([(chunk, None)]).of_rows(*law).items()}
        mixed = {row: rate * truth.get(row, 0.0) + (1 - rate) * (row == tuple(best)) for row in (tuple(best), *truth)}
        parts.append(mixed)
    return parts


def joined(bpe: Bpe, parts: list[dict[Row, float]], most_changes: int = 99) -> dict[Row, float]:
    """The law of rows of the words together, of which at most so many are changed."""
    out = {}
    for rows in product(*parts):
        p = math.prod(part[row] for row, part in zip(rows, parts, strict=True))
        changes = sum(row != next(iter(part)) for row, part in zip(rows, parts, strict=True))
        if p and changes <= most_changes:
            out[(*bpe.around[0], *(i for row in rows for i in row), *bpe.around[1])] = p
    total = math.fsum(out.values())
    return {row: p / total for row, p in out.items()}


@pytest.mark.parametrize("kind", PRE_TOKENIZED)
@scored_or_not
def test_words_are_resampled_at_a_rate_or_near_the_canonical_segmentation(
    kind: str, is_scored: bool, tmp_path: Path
) -> None:
    bpe, law = made(kind, is_scored), law_of(is_scored)
    tilt: dict[str, Any] = {"alpha": law[0], "token_penalty": law[1]}
    options: dict[str, Any] = {**tilt, "num_samples": DRAWS, "seed": SEED, "return_log_prob": True}
    rated, near = joined(bpe, by_words(bpe, 0.4, law)), joined(bpe, by_words(bpe, 1.0, law), 1)
    for out, truth in (
        (bpe.tokenizer.sample(WORDS, rate=0.4, **options), rated),
        (bpe.tokenizer.sample_near(WORDS, 1, **options), near),
    ):
        rows = out.tolist()
        assert p_value(counted(rows), truth) > LEAST_P
        found = dict(zip(map(tuple, rows), np.asarray(out.log_prob).tolist(), strict=True))
        assert found == pytest.approx({row: math.log(truth[row]) for row in found}, abs=1e-10)
    path = tmp_path / "words.txt"
    path.write_text(WORDS, "utf-8")
    laws: dict[str, Any] = {"alphas": [law[0]], "token_penalties": [law[1]], "rates": [0.4, 1.0]}
    seen = preview([path], tokenizer=bpe.tokenizer, **laws)
    entropy = {row.rate: row.entropy_per_byte * len(WORDS.encode()) for row in seen.rows[1:]}
    mixed, one = (np.array(list(part.values())) for part in (rated, joined(bpe, by_words(bpe, 1.0, law))))
    assert entropy == pytest.approx({0.4: -(mixed * np.log(mixed)).sum(), 1.0: -(one * np.log(one)).sum()})


@every_kind
@scored_or_not
def test_what_is_shown_is_the_exact_distribution(kind: str, is_scored: bool) -> None:
    bpe, law = made(kind, is_scored), law_of(is_scored)
    for text in TEXTS:
        if text is None:
            continue
        one = bpe.listed(text)
        seen = portrait(bpe.tokenizer, text, alpha=law[0], token_penalty=law[1], top=10_000)
        assert seen.num_paths == len(one.rows)
        assert (seen.log_partition, seen.entropy) == pytest.approx((one.log_z(*law), one.entropy(*law)), abs=1e-12)
        truth = one.of_rows(*law)
        assert {part.ids: math.exp(part.log_prob) for part in seen.segmentations} == pytest.approx(truth, abs=1e-12)
        arcs = {(arc.start, arc.end, UNKNOWN if arc.is_unknown else arc.id): arc.posterior for arc in seen.arcs}
        assert arcs == pytest.approx(one.of_arcs(*law), abs=1e-12)
        paths = {tuple(path): row for path, row in zip(map(tuple, one.arcs), one.rows, strict=True)}
        for part in seen.segmentations:
            path = [seen.arcs[i] for i in part.arcs]
            key = tuple((arc.start, arc.end, UNKNOWN if arc.is_unknown else arc.id) for arc in path)
            assert paths[key] == part.ids
        drawn = portrait(bpe.tokenizer, text, alpha=law[0], token_penalty=law[1], num_samples=200, seed=SEED)
        best = tuple(bpe.tokenizer.encode(text).tolist()[0])
        assert all(part.is_best == (part.ids == best) for part in drawn.segmentations)
        line = [seen.arcs[i] for i in sorted(drawn.best_arcs)]
        row = paths[tuple((arc.start, arc.end, UNKNOWN if arc.is_unknown else arc.id) for arc in line)]
        # A whole character without a piece is one arc, whatever merges make of its bytes.
        assert row == best or (bpe.byte_ids and bpe.tokenizer.decode([row, best])[0] == text.replace("<|end|>", ""))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "whole" not in kind])
def test_the_commands_say_what_the_tokenizer_gives(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bpe, model = made(kind, True), tmp_path / "model"
    bpe.tokenizer.save(model)
    one, where = bpe.listed("the whale"), ["--model", str(model), "--device", "cpu"]
    assert main(["show", "the whale", "--alpha", "1", "--top", "3", *where]) == 0
    printed = capsys.readouterr().out
    assert f"{len(one.rows):,} segmentations" in printed
    assert f"log Z {one.log_z(1.0, 0.0):.4f}, entropy {one.entropy(1.0, 0.0):.4f} nats" in printed
    texts, source = [text for text in TEXTS if text], tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": texts, "id": range(len(texts))}), source)
    assert main(["preview", str(source), "--alphas", "0.3,1", *where]) == 0
    total = math.fsum(bpe.listed(text).entropy(0.3, 0.0) for text in texts)
    line = next(line for line in capsys.readouterr().out.split("\n") if line.split()[:1] == ["0.3"])
    assert f"{total / sum(len(text.encode()) for text in texts):.4f}" in line.split()
    arguments = ["--alpha", "0.3", "--samples", "2", "--seed", "4", "--id-column", "id", "-o", str(tmp_path / "out")]
    assert main(["retokenize", str(source), *arguments, *where]) == 0
    again = Tokenizer.from_file(model, device="cpu")
    assert (
        pq.read_table(tmp_path / "out" / "in.parquet")["input_ids"].to_pylist()
        == again.sample(texts, alpha=0.3, num_samples=2, seed=4).tolist()
    )


def test_unknown_symbols_that_are_a_token_each_are_not_saved_as_those_of_a_unigram_model() -> None:
    with pytest.raises(ValueError, match="an unknown token of each symbol"):
        made("unknown", True).tokenizer.to_bytes(as_unigram=True)
    assert made("fused", True).tokenizer.to_bytes(as_unigram=True)
