"""Calls of the public functions with arguments that nobody should give, in processes that may die.

`run(seconds, seed)` makes them; call i of a seed is always the same. Each must return, or raise one of ALLOWED with a
message, within SECONDS of the processor's time and MOST_BYTES of memory, and what it returns must be sound.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gpu_lattice import Lattice, PathBatch, RaggedLattice, TextBatch, TokenBatch, Tokenizer, literature
from gpu_lattice.cli import _parser, main
from gpu_lattice.corpus.draws import document_ids
from gpu_lattice.corpus.retokenize import retokenize
from gpu_lattice.runtime.arguments import read_only
from gpu_lattice.show.portrait import portrait
from gpu_lattice.show.preview import preview
from gpu_lattice.show.table import table
from gpu_lattice.torch import FreshSegmentations, FreshSequences
from tests.fuzz.models import DATA, PATTERNS, sound_files

ROOT = Path(__file__).parents[2]
ALLOWED = (ValueError, TypeError, IndexError, OSError, MemoryError)
SECONDS = 10.0
MOST_BYTES = 2 << 30
# The share of arguments that are as they should be, so that others are reached.
GOOD = 0.7
WARM_UP = 250

INTEGERS = [0, -1, 1, 2, 3, 7, 255, 2**31 - 1, 2**31, -(2**31), 2**32, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400,
            10**5000, True, np.int8(-1), np.uint64(2**64 - 1), np.int64(2)]  # fmt: skip
NUMBERS = [0.0, -0.0, 0.1, 1.0, -1.0, 1e-320, 1e9, 1e308, float("nan"), float("inf"), float("-inf"), np.float32(0.5)]
DTYPES = [np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64, np.float32, np.float64, np.bool_, ">i8", object]
FILES = ["en_symbols.model", "en_split.tokenizer.json", "bytepiece.json", "en_bpe.model"]
KINDS = [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()]
TEXTS: list[Any] = ["", "a", "ab", "abba" * 5, "漢a", "é b", b"\xff", b"a\xe6\xbc", "\ud800", "\0", None, "x" * 300]


class Call(NamedTuple):
    """A function and what to call it with; `wanted` is the number of texts it is about."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]


class Maker:
    """Arguments by chance, good and bad ones."""

    def __init__(self, key: str, tokenizers: Sequence[Tokenizer], folder: Path, good: float = GOOD) -> None:
        self.random = random.Random(key)
        self.good = good
        self.tokenizers = tokenizers
        self.folder = folder
        self.n_texts = self.random.choice([0, 1, 2, 3, 3, 5])

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def either(self, good: Callable[[], Any], *bad: Callable[[], Any]) -> Any:
        """What is right, or something near, or anything at all."""
        if self.random.random() < self.good:
            return good()
        return self.pick(*bad, *bad, self.anything)()

    def anything(self) -> Any:
        return self.pick(
            None, "", "ab", b"ab", [], {}, (), object(), ..., [[]], {"a": 1}, {1}, range(3), bytearray(b"ab"), 1j,
            memoryview(b"ab"), (i for i in range(3)), iter([]), lambda: None, int, Path("x"), [None], [[None]],
            np.zeros((2, 2)), np.array(3), np.array("ab"), np.array([None, "a"], object), pa.array([1, None]),
            pa.array([[1]]), pa.scalar(1), pa.table({"a": [1]}), *INTEGERS, *NUMBERS,
        )  # fmt: skip

    def integer(self, *good: int) -> Any:
        return self.either(lambda: self.pick(*good), lambda: self.pick(*INTEGERS), lambda: self.pick(*NUMBERS))

    def alpha(self) -> Any:
        return self.either(lambda: self.pick(0, 0.1, 1.0), lambda: self.pick(*NUMBERS), lambda: self.pick(*INTEGERS))

    def array(self, length: int, low: int = -3, high: int = 9) -> Any:
        """Of any type, shape and order."""
        array = np.array([self.random.randint(low, high) for _ in range(length)])
        array = self.pick(array, np.repeat(array, 2)[::2], array[::-1], array.reshape(-1, 1), array[:0], array)
        with np.errstate(all="ignore"):
            return array.astype(self.pick(*DTYPES))

    def offsets(self, n_rows: int, n_values: int) -> Any:
        """Sound ones, or with a number that is not."""
        offsets = sorted(self.random.randint(0, n_values) for _ in range(n_rows + 1))
        wide = np.array(offsets, np.int64)
        if self.random.random() < self.good:
            return wide
        wide[self.random.randrange(n_rows + 1)] = self.pick(-1, 10**9, 2**31, 2**63 - 1, n_values + 1, 0)
        return self.pick(wide, wide, wide.astype(np.int32), wide.astype(np.uint64), wide.astype(float), wide[:0],
                         wide[:-1], wide.reshape(1, -1), [0, 1], self.array(n_rows + 1))  # fmt: skip

    def valid(self, n_rows: int) -> Any:
        return self.pick(None, None, np.array([self.random.random() < 0.7 for _ in range(n_rows)], bool),
                         self.array(n_rows), self.array(n_rows + 1), [True])  # fmt: skip

    def text_batch(self) -> TextBatch:
        values: Any = np.frombuffer("".join(self.random.choices("ab漢 ", k=12)).encode(), np.uint8)
        values = self.pick(values, values, values.copy(), values.view(np.int8), values.astype(np.int64), values[::2])
        return TextBatch(values, self.offsets(self.n_texts, len(values)), self.valid(self.n_texts))

    def arrow(self) -> pa.Array:
        """With offsets, views or indices of any kind; pyarrow itself refuses some."""
        texts = [self.pick(*TEXTS[:6], None) for _ in range(self.n_texts)]
        kind = self.pick(*KINDS)
        try:
            array = self.pick(self._from_buffers, lambda _: pa.array(texts, kind), self._views, self._words)(kind)
            if array.offset < 0 or self.random.random() < 0.5:  # pyarrow itself cannot slice what begins before 0
                return array
            return self.pick(array.slice(1), pa.chunked_array([array, array[:0], array]))
        except (pa.ArrowException, ValueError, IndexError):
            return pa.array(texts, pa.string())

    def _from_buffers(self, kind: pa.DataType) -> pa.Array:
        values = b"abba" * 3
        wide = np.asarray(self.offsets(self.n_texts, len(values)))
        offsets = wide.astype(np.int64 if pa.types.is_large_unicode(kind) or kind == pa.large_binary() else np.int32)
        bits = self.pick(None, pa.py_buffer(b"\5"))
        buffers = [bits, pa.py_buffer(offsets), pa.py_buffer(values)]
        return pa.Array.from_buffers(kind, self.n_texts, buffers, offset=self.pick(0, 0, 0, 1, -1))

    def _views(self, _: pa.DataType) -> pa.Array:
        views = np.array([[self.pick(2, 40, -1, 2**31 - 1), self.pick(0, 24930), self.pick(0, 0, 7, -1),
                           self.pick(0, 0, 10**6, -5)] for _ in range(self.n_texts)], np.int32)  # fmt: skip
        buffers = [None, pa.py_buffer(views.tobytes()), pa.py_buffer(b"ab" * 20)]
        return pa.Array.from_buffers(self.pick(pa.string_view(), pa.binary_view()), self.n_texts, buffers)

    def _words(self, kind: pa.DataType) -> pa.Array:
        words = self.pick(self._from_buffers(kind), pa.array(["a", None, "b"], pa.string()))
        indices = pa.array([self.pick(0, 0, 1, 2, 5, -1, None) for _ in range(self.n_texts)], pa.int32())
        return pa.DictionaryArray.from_arrays(indices, words, safe=False)

    def texts(self) -> Any:
        def listed() -> Any:
            return [self.pick("a", "ab", "ba b", "abab", "", b"ab", None) for _ in range(self.n_texts)]

        return self.either(
            listed, self.text_batch, self.arrow, lambda: self.random.choices(TEXTS, k=self.n_texts),
            lambda: np.array(listed(), object), lambda: [listed()], lambda: iter(listed()),
        )  # fmt: skip

    def token_batch(self) -> TokenBatch:
        ids: Any = np.array([self.random.randint(0, 3) for _ in range(9)], np.int32)
        bad = self.pick(-1, 10**6, -(2**31), 2**31 - 1, 4)
        if self.random.random() > self.good:
            ids[self.random.randrange(9)] = bad
            ids = self.pick(ids, ids.astype(np.int64), ids.astype(float), ids.reshape(3, 3), [1, 2], ids[::2])
        n_rows = self.pick(self.n_texts, self.n_texts, 2 * self.n_texts, self.n_texts + 1)
        return TokenBatch(ids, self.offsets(n_rows, 9), self.pick(None, np.zeros(n_rows)), self.valid(n_rows))

    def rows(self) -> Any:
        def listed() -> Any:
            return [self.pick([0], [1, 2], [], None, (0, 1), np.array([0])) for _ in range(self.n_texts)]

        def damaged() -> Any:
            offsets = np.asarray(self.offsets(self.n_texts, 3)).astype(np.int32)
            try:
                buffers = [None, pa.py_buffer(offsets)]
                return pa.Array.from_buffers(
                    pa.list_(pa.int32()), self.n_texts, buffers, children=[pa.array([0, 1, 2], pa.int32())]
                )
            except (pa.ArrowException, ValueError):
                return None

        return self.either(
            listed, self.token_batch, damaged, lambda: [[2**40]], lambda: [["1"]], lambda: ["1", "2"], lambda: [b"ab"],
            lambda: [[1.5]], lambda: (row for row in [[1]]), lambda: self.array(4), lambda: pa.array([[0, None], None]),
            lambda: [1, [2]], lambda: [-1], lambda: self.random.choices(INTEGERS, k=3),
        )  # fmt: skip

    def doc_ids(self) -> Any:
        n = self.n_texts
        return self.either(
            lambda: self.pick(None, range(n), np.arange(n)), lambda: self.array(n),
            lambda: self.random.choices(INTEGERS, k=n), lambda: list(map(str, range(n))), lambda: range(n + 1),
        )  # fmt: skip

    def weights(self, shape: tuple[int, ...], n_ids: int) -> Any:
        def of(size: Any) -> Any:
            return np.full(size, self.pick(1.0, 0.5, 0.0, 1e-320, -1.0, np.nan, np.inf, 2.0**1000))

        return self.either(
            lambda: self.pick(None, None, of(n_ids)), lambda: of(shape), lambda: of(3), lambda: self.array(n_ids),
            lambda: of((n_ids, 1)), lambda: [1.0] * n_ids,
        )  # fmt: skip

    def ragged(self) -> RaggedLattice:
        arrays: dict[str, Any] = {
            "piece_id": np.array([0, 1, 2, 0]), "length": np.array([1, 1, 2, 1]),
            "row_splits": (np.array([0, 3, 5]), np.array([0, 0, 1, 3, 3, 4])), "is_cut": None,
        }  # fmt: skip
        for name in arrays:
            if self.random.random() > self.good:
                arrays[name] = self.pick(
                    self.array(4), self.array(4, 0, 3), self.array(5, 0, 1), self.anything(),
                    np.array([0, 1, 2**32, 0]), (self.offsets(2, 5), self.offsets(5, 4)),
                    (np.array([0, 3, 5]), self.offsets(5, 4)), np.array([0, 1, 2, 2**31]),
                    np.array([1, 1, 2**63, 1], np.uint64),
                )  # fmt: skip
        return RaggedLattice(**arrays)

    def pieces(self) -> Any:
        def good() -> Any:
            return {"a": -1.0, "b": -2.0, "ab": None}

        return self.either(
            good, lambda: {self.pick("a", b"a", "", 3, None): self.pick(*NUMBERS, "x", None), "b": -1.0},
            lambda: ["a", "a"], lambda: ["a", b"b"], lambda: "abc", lambda: [b""], lambda: ["\ud800"],
            lambda: {"a": self.pick(*INTEGERS)}, lambda: iter("ab"),
        )  # fmt: skip

    def draw(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha(), "num_samples": self.integer(1, 2), "seed": self.integer(0, 5),
            "doc_ids": self.doc_ids(), "return_log_prob": self.flag(),
        }  # fmt: skip

    def flag(self) -> Any:
        return self.either(lambda: self.pick(True, False), lambda: self.pick(None, 0, 1, "x", np.True_))

    def number(self, *good: float) -> Any:
        return self.either(lambda: self.pick(*good), lambda: self.pick(*NUMBERS), lambda: self.pick(*INTEGERS))

    def some(self, **makers: Callable[[], Any]) -> dict[str, Any]:
        """A few of these options."""
        return {name: make() for name, make in makers.items() if self.random.random() < 0.3}

    def law(self) -> dict[str, Any]:
        return {"alpha": self.alpha()} | self.some(token_penalty=lambda: self.number(0.0, -2.0, 500))

    def frame(self) -> dict[str, Any]:
        def ids() -> Any:
            return self.either(lambda: [0, 1], lambda: self.array(2), lambda: [self.pick(*INTEGERS)], lambda: "ab")

        return self.some(
            add_special_tokens=self.flag, add_bos=self.flag, add_eos=self.flag, prefix_ids=ids, suffix_ids=ids,
            max_length=lambda: self.integer(0, 3),
            truncation=lambda: self.pick("left", "right", False, None, True, "x"),
            return_offsets=lambda: self.either(lambda: self.pick("bytes", "characters"), lambda: self.pick("x", 1)),
        )  # fmt: skip

    def scores(self, n: int) -> Any:
        """What `rescored` may be given, by piece or of n ids."""
        bad = [
            float("nan"),
            float("inf"),
            float("-inf"),
            1e308,
            -1e308,
            10**400,
            True,
            "x",
            1j,
            np.float32("nan"),
            None,
        ]
        array = np.array([self.random.choice([-1.0, -2.0, float("-inf")]) for _ in range(n)])

        def damaged() -> Any:
            array[self.random.randrange(n)] = self.pick(*bad[:5])
            wide = np.repeat(array, 2)
            return self.pick(
                array,
                wide[::2],
                array[::-1],
                wide,
                array.reshape(-1, 1),
                array.astype(">f4"),
                array.astype(object),
                array.astype(str),
                array.tolist(),
                array[:-1],
                read_only(array, np.float64),
            )

        return self.either(
            lambda: {self.pick("a", b"a", 0): -3.0}, lambda: array, damaged, lambda: self.array(n),
            lambda: {self.pick("a", 0, 2**31, 10**400, None, "\ud800", b"\xff", -1, "absent"): self.pick(-1.0, *bad)},
            lambda: {i: self.pick(-1.0, *bad) for i in range(3)},
        )  # fmt: skip

    def some_pieces(self, n: int) -> Any:
        return self.either(
            lambda: self.pick(["a"], [0], range(2), [b"a"], ()), lambda: range(n), lambda: self.array(3), lambda: "ab",
            lambda: [self.pick(*INTEGERS)], lambda: ["no such piece"], lambda: [[0]], lambda: [None], lambda: {"a": 1},
            lambda: iter(["a"]),
        )  # fmt: skip

    def lattice(self) -> Lattice:
        if self.random.random() < 0.3:
            return Lattice.from_ragged(RaggedLattice(
                np.array([0, 1, 2, 0]), np.array([1, 1, 2, 1]), (np.array([0, 3, 5]), np.array([0, 0, 1, 3, 3, 4]))
            ))  # fmt: skip
        texts = [self.pick("a", "abab", "ba", "", None) for _ in range(self.n_texts)]
        return self.pick(*self.tokenizers).lattice(texts)

    def call(self) -> Call:
        """A function of those below."""
        return self.pick(
            self.of_tokenizer, self.of_tokenizer, self.of_tokenizer, self.of_lattice, self.of_lattice, self.of_batch,
            self.of_files, self.of_models, self.of_literature, self.of_loaders, self.of_commands,
        )()  # fmt: skip

    def of_tokenizer(self) -> Call:
        tok = self.pick(*self.tokenizers)
        integer, texts = self.integer, self.texts
        made: dict[str, Callable[[], dict[str, Any]]] = {
            "encode": lambda: {"texts": texts()} | self.frame(),
            "sample": lambda: (
                {"texts": texts()}
                | self.draw()
                | self.law()
                | self.frame()
                | self.some(
                    nbest_size=lambda: integer(-1, 0, 2),
                    rate=lambda: self.number(0.0, 0.5, 1),
                    epoch=lambda: integer(0, 1),
                )
            ),
            "sample_near": lambda: {"texts": texts(), "max_changes": integer(0, 1, 2)} | self.draw() | self.law(),
            "nbest": lambda: {"texts": texts(), "n": integer(0, 3)} | self.some(token_penalty=lambda: self.number(1.0)),
            "expected_counts": lambda: (
                {"texts": texts()}
                | self.law()
                | self.some(
                    document_weights=lambda: self.either(lambda: [1.0] * self.n_texts, lambda: self.array(self.n_texts))
                )
            ),
            "token_statistics": lambda: {"texts": texts()} | self.law(),
            "entropy": lambda: {"texts": texts()} | self.law(),
            "log_partition": lambda: {"texts": texts()} | self.law(),
            "canonical": lambda: {"rows": self.rows()},
            "is_canonical": lambda: {"rows": self.rows()},
            "score": lambda: {"i": self.either(lambda: 0, lambda: self.array(3), lambda: integer(0))},
            "lattice": lambda: {"texts": texts(), "memory_limit": self.pick(None, integer(10**6))},
            "continuations": lambda: {"texts": texts(), "max_rollback": self.pick(None, integer(0, 3))},
            "normalize": lambda: {"texts": texts()},
            "decode": lambda: {"rows": self.rows()},
            "verify": lambda: {"texts": texts(), "out": self.either(self.token_batch, self.rows)},
            "id_to_piece": lambda: {"i": integer(0, 3)},
            "piece_to_id": lambda: {"piece": self.either(lambda: "a", self.anything)},
        }
        name = self.pick(*made)
        return Call(f"Tokenizer.{name}", getattr(tok, name), made[name]())

    def of_lattice(self) -> Call:
        integer = self.integer
        if self.random.random() < 0.3:
            size = self.pick(None, integer(3, 4))
            return Call("Lattice.from_ragged", from_ragged, {"ragged": self.ragged(), "vocab_size": size})
        lattice = self.lattice()
        weights = self.weights(lattice.shape, lattice._n_ids)
        weighed = {"weights": weights} if self.random.random() < 0.5 else self.law()
        if self.random.random() < 0.05:
            weighed = {"weights": weights, "alpha": self.alpha()}
        only = {"weights": self.pick(None, weights)}
        draw = {name: value for name, value in self.draw().items() if name != "alpha"} | weighed
        bare = {name: value for name, value in draw.items() if name != "return_log_prob"}
        made: dict[str, dict[str, Any]] = {
            **dict.fromkeys(
                ["forward_scores", "backward_scores", "log_partition", "marginals", "expected_counts", "entropy",
                 "token_counts"],
                weighed,
            ),
            "num_paths": {"log": self.pick(True, False)},
            "viterbi": only,
            "sample": draw,
            "nbest": {"n": integer(0, 3)} | only,
            "sample_nbest": {"n": integer(1, 3)} | draw,
            "sample_without_replacement": {"k": integer(0, 3)} | {k: v for k, v in bare.items() if k != "num_samples"},
            "viterbi_sample": bare,
            "log_prob": {"ids": self.rows()} | weighed,
            "is_path": {"ids": self.rows()},
            "continuations": {"max_rollback": self.pick(None, integer(0, 2))} | only,
            "take": {"i_docs": self.either(lambda: [0], lambda: self.array(3, -1, 3), lambda: [integer(0)])},
            "buckets": {},
            "to_ragged": {},
        }  # fmt: skip
        name = self.pick(*made)
        return Call(f"Lattice.{name}", getattr(lattice, name), made[name])

    def of_batch(self) -> Call:
        batch = self.token_batch()
        padded = self.some(
            pad_id=lambda: self.integer(0, -1), max_length=lambda: self.integer(0, 3), return_mask=self.flag,
            side=lambda: self.pick("left", "right", None, "x", 1),
        )  # fmt: skip
        own = self.pick(*self.tokenizers).encode(["a", "", None], return_offsets=self.pick(None, "bytes"))
        row = self.either(lambda: self.pick(0, -1), lambda: slice(*(self.pick(None, *INTEGERS[:6]) for _ in range(3))),
                          lambda: self.pick(*INTEGERS))  # fmt: skip
        made: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
            "TextBatch.from_texts": (TextBatch.from_texts, {"texts": self.texts()}),
            "TokenBatch.to_arrow": (batch.to_arrow, {}),
            "TokenBatch.to_padded": (self.pick(batch, own).to_padded, padded),
            "TokenBatch.pieces": (pieces_of, {"batch": self.pick(own, own, batch), "row": row}),
            "Tokenizer.from_pieces": (from_pieces, {
                "pieces": self.pieces(), "unk_piece": self.either(lambda: None, lambda: self.pick("a", "z", b"a")),
                "device": self.either(lambda: "cpu", lambda: self.pick("tpu", "CPU", "cuda:x", "")),
                "threads": self.integer(1, 2), "memory_limit": self.pick(None, None, self.integer(10**9)),
            }),
            "Tokenizer": (Tokenizer, {"model": self.anything()}),
            "Tokenizer.from_file": (
                Tokenizer.from_file,
                {"path": self.pick(self.anything(), self.folder, "\0", "x" * 5000, b"x", "/dev/null")},
            ),
        }  # fmt: skip
        name = self.pick(*made)
        return Call(name, *made[name])

    def of_models(self) -> Call:
        """What makes other models of models, or reads them."""
        tok = self.pick(*self.tokenizers)
        n, flag = len(tok), self.flag
        flags = self.some(special=flag, single_word=flag, lstrip=flag, rstrip=flag, normalized=flag)
        unspellable = self.some(unspellable=lambda: self.pick("raise", "best", None, "x", 1))
        patterns = [*PATTERNS, "a{1,1000000}", "(?<a>", "\\", "[", "(?i)(?=a)", "a" * 10**5, "\0", "\ud800", "()*", "|"]
        data, characters = self.folder / "ranks.tiktoken", self.some(characters=flag)
        path = self.either(lambda: self.folder / "saved", lambda: self.pick("\0", "", self.folder, "absent/x", b"x", 5))
        tokens = self.either(
            lambda: self.pick("<sep>", ["<a>", "é"]), lambda: {"a": 1}, lambda: iter(["a"]), lambda: ["a"] * 3,
            lambda: [self.pick("", "\ud800", None, 5, b"ab", "a", "x" * 10**5)],
        )  # fmt: skip
        made: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
            "rescored": (used(tok.rescored), {"scores": self.scores(n)} | unspellable),
            "without": (used(tok.without), {"pieces": self.some_pieces(n)} | unspellable),
            "fit": (tok.fit, {"texts": self.either(self.texts, lambda: iter([["ab"], self.texts()]))} | self.some(
                iterations=lambda: self.integer(1, 2), alpha=self.alpha, tolerance=lambda: self.number(1e-3, 0),
                m_step=lambda: self.pick("maximum", "sentencepiece", None, "x", 1),
            )),
            "save": (tok.save, {"path": path} | self.some(as_unigram=flag)),
            "rescored.save": (saved, {"tokenizer": tok, "scores": self.scores(n), "path": path, "as_unigram": flag()}),
            "add_tokens": (used(tok.add_tokens), {"tokens": tokens} | flags),
            "from_tiktoken": (used(Tokenizer.from_tiktoken), {
                "source": self.either(lambda: data, lambda: self.folder / "a.txt"), "device": "cpu"
            } | characters | self.pick(
                {"encoding": self.either(lambda: "gpt2", lambda: self.pick("x", "", 5))},
                {"pattern": self.either(lambda: self.pick(*patterns), lambda: self.pick(5, b"a", 10**400))},
            )),
            "from_bytes": (used(Tokenizer.from_bytes), {
                "data": self.either(lambda: self.pick(*sound_files()), self.anything), "device": "cpu"
            } | characters),
            "from_tokenizer": (used(Tokenizer.from_tokenizer), {"tokenizer": self.anything(), "device": "cpu"}),
        }  # fmt: skip
        name = self.pick(*made)
        return Call(f"Tokenizer.{name}", *made[name])

    def of_literature(self) -> Call:
        share, integer = self.number(0.0, 0.5, 1.0), self.integer
        draw = {name: value for name, value in self.draw().items() if name in ("num_samples", "seed", "doc_ids")}
        tok = self.pick(*self.tokenizers)
        made: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
            "bpe_dropout": (literature.bpe_dropout, {"tokenizer": tok, "texts": self.texts(), "dropout": share} | draw),
            "maxmatch_dropout": (literature.maxmatch_dropout, {"lattice": self.lattice(), "dropout": share} | draw),
            "grampa": (literature.grampa, {"lattice": self.lattice(), "temperature": share,
                                           "least_length": integer(1, 2)} | draw),
        }  # fmt: skip
        name = self.pick(*made)
        return Call(name, *made[name])

    def of_loaders(self) -> Call:
        tok = self.pick(*self.tokenizers)
        options = self.some(
            alpha=self.alpha, seed=lambda: self.integer(0), epoch=lambda: self.integer(0, 1), x=lambda: 1,
            token_penalty=lambda: self.number(0.5), rate=lambda: self.number(0.5), max_length=lambda: self.integer(2),
        )  # fmt: skip
        more = self.some(rank=lambda: self.integer(0), world_size=lambda: self.integer(1, 2))
        length = self.either(lambda: 3, lambda: self.pick(*[i for i in INTEGERS if not 10**6 < i < 2**31]))
        made: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
            "FreshSegmentations": (
                segmentations, {"texts": self.texts(), "tokenizer": tok, "i": self.integer(0, -1)} | options
            ),
            "FreshSequences": (sequences, {
                "documents": self.texts(), "tokenizer": tok, "sequence_length": length,
                "end_id": self.integer(0),
            } | options | more),
        }  # fmt: skip
        name = self.pick(*made)
        return Call(name, *made[name])

    def of_commands(self) -> Call:
        """A line for the command, made of what its parser knows."""
        [commands] = [action.choices for action in _parser()._actions if isinstance(action.choices, dict)]
        command = self.pick(*commands)
        line = [command]
        for action in commands[command]._actions:
            is_positional = not action.option_strings
            if not is_positional and self.random.random() > (0.9 if action.required else 0.12):
                continue
            line += [] if is_positional else [self.pick(*action.option_strings)]
            line += [] if action.nargs == 0 else [self.word(action.dest, action.choices)]
        return Call(" ".join(["gpu-lattice", command]), run_command, {"line": line})

    def word(self, name: str, choices: Any) -> str:
        path, file = self.folder.name, str(self.folder / "a.txt")
        good: dict[str, list[str]] = {
            "model": [str(self.folder / "model")] * 3 + ["default"], "inputs": [file, str(self.folder / "b.jsonl")],
            "output": [str(self.folder / "out")], "device": ["cpu", "auto"], "text_column": ["text"], "alpha": ["0.1"],
            "report": [str(self.folder / "report.json")], "json": [str(self.folder / "report.json")],
            "plot": [str(self.folder / "p.svg")], "format": ["parquet", "arrow", "megatron", "datatrove", "bin"],
            "dtype": ["int32", "uint16"], "shard": ["0/2", "1/2"], "max_bytes": ["1KB"], "input_format": ["text"],
            "exclude": ["#1", "a", f"@{file}"], "alphas": ["0,1"], "rate": ["0.5", "1"], "root": [str(self.folder)],
        }  # fmt: skip
        words = list(choices) if choices else good.get(name, ["1", "2", "a"])
        bad = [
            "",
            "-1",
            "0",
            "nan",
            "inf",
            "1e400",
            "9" * 5000,
            "\0",
            "\udcff",
            "-",
            "--",
            "0x10",
            "1_000",
            "a,b",
            "1/0",
            "é",
            "*",
            "[",
            "\n",
            "#",
            "@",
            "@absent",
            "4294967296",
            "99999999999999999999",
            "1KB",
            "1,,2",
        ]
        if name in ("output", "report", "json", "plot"):  # what is written to stays within the folder
            bad = ["", path, f"{path}/x", file]
        return self.pick(*words) if self.random.random() < self.good else self.pick(*bad)

    def of_files(self) -> Call:
        tok = self.pick(*self.tokenizers)
        files = [self.folder / "a.txt", self.folder / "b.jsonl"]
        inputs = self.either(
            lambda: files, lambda: self.pick([], [""], ["\0"], [self.folder / "absent"], "*", [5], 5, self.folder, b"x")
        )
        column = self.either(lambda: "text", lambda: self.pick("", "id", "\0", "absent"))
        separator = self.pick(None, None, self.either(lambda: b"\n", lambda: self.pick("", "é", b"", "x" * 99)))
        law = self.some(rate=lambda: self.number(0.5, 1), token_penalty=lambda: self.number(0.5))
        made: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
            "retokenize": (retokenize, {
                "inputs": inputs, "output": self.either(lambda: self.folder / "out", lambda: files[0]),
                "tokenizer": tok, "nbest_size": self.integer(-1, -1, 2), "text_column": column, "separator": separator,
                "id_column": self.pick(None, None, self.either(lambda: "id", lambda: "absent")),
                "batch_bytes": self.integer(10, 10**6), "verify": self.pick(True, False), "progress": False,
                "overwrite": True, "alpha": self.pick(None, self.alpha()), "num_samples": self.integer(1, 1, 2),
                "seed": self.integer(0, 1),
            } | law | self.some(
                exclude=lambda: self.some_pieces(len(tok)), unspellable=lambda: self.pick("raise", "best", "x"),
            )),
            "portrait": (shown, {
                "tokenizer": tok, "text": self.either(lambda: "abab", lambda: self.pick(*TEXTS), self.texts),
                "alpha": self.alpha(), "top": self.integer(1, 3),
            } | law | self.some(num_samples=lambda: self.integer(2))),
            "preview": (preview, {
                "inputs": inputs, "tokenizer": tok, "max_bytes": self.integer(100, 10**6), "seed": self.integer(0, 1),
                "alphas": self.either(lambda: [0.1], lambda: self.array(2), lambda: [self.alpha()], lambda: []),
                "text_column": column, "separator": separator,
            } | self.some(
                rates=lambda: self.either(lambda: [0.5], lambda: self.array(2), lambda: [self.number(1.0)]),
                token_penalties=lambda: self.either(lambda: [0.5], lambda: self.array(2), lambda: [self.number(1.0)]),
            )),
            "document_ids": (document_ids, {"ids": pa.array(self.pick([1, 2], ["a", None], ["a"], []))}),
        }  # fmt: skip
        name = self.pick(*made)
        return Call(name, *made[name])


def from_ragged(ragged: Any, vocab_size: Any) -> Any:
    """The lattice, used, too."""
    lattice = Lattice.from_ragged(ragged, vocab_size=vocab_size, memory_limit=10**8)
    weights = np.ones((len(lattice.to_ragged().piece_id), 1))
    lattice.nbest(2, weights=weights)
    lattice.marginals(weights=weights)
    return lattice.num_paths()


def from_pieces(pieces: Any, **options: Any) -> Any:
    return Tokenizer.from_pieces(pieces, **options).encode(["ab"])


def shown(tokenizer: Any, text: Any, **options: Any) -> str:
    return table(portrait(tokenizer, text, **options))


def used(make: Callable[..., Tokenizer]) -> Callable[..., Any]:
    """The tokenizer that it makes, used."""

    def use(**options: Any) -> Any:
        tokenizer, texts = make(**options), ["ab", "a", None, "ba ab"]
        if not isinstance(tokenizer, Tokenizer):
            return tokenizer
        try:
            out = tokenizer.encode(texts)
            sampled = tokenizer.sample(texts, alpha=0.1, seed=0, rate=0.5, return_log_prob=True, return_offsets="bytes")
        except ValueError as error:
            if "spelled" not in str(error) and "alpha" not in str(error):
                raise
            return tokenizer
        assert tokenizer.verify(texts, out) is None, "the best segmentation does not spell its texts"
        assert tokenizer.verify(texts, sampled) is None, "samples do not spell their texts"
        assert not np.isnan(sampled.log_prob).any(), "a log_prob is NaN"
        return sampled

    return use


def saved(tokenizer: Tokenizer, scores: Any, path: Any, as_unigram: Any) -> Any:
    """With these scores, saved and read again."""
    tokenizer.rescored(scores).save(path, as_unigram=as_unigram)
    again = Tokenizer.from_file(path, device="cpu")
    Path(path).unlink()
    return used(lambda: again)()


def pieces_of(batch: TokenBatch, row: Any) -> Any:
    return batch[row].pieces() if isinstance(row, slice) else (batch[row], batch.pieces())


def segmentations(texts: Any, tokenizer: Any, i: Any, **options: Any) -> Any:
    return FreshSegmentations(texts, tokenizer, **options)[i]


def sequences(documents: Any, tokenizer: Any, **options: Any) -> Any:
    return next(iter(FreshSequences(documents, tokenizer, **options)), None)


def run_command(line: list[str]) -> int:
    """Its exit code, which is 0 or 2, and what it says of an error is one line."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            code = main(line)
        except SystemExit as end:  # --help and --version
            code = int(end.code or 0)
    lines = [one for one in said.getvalue().splitlines() if one.startswith("gpu-lattice: ")]
    assert (code, len(lines)) in ((0, 0), (2, 1)), f"{code}, {said.getvalue()[:200]}"
    return code


def outcome(call: Call) -> str:
    """ "returned" or "refused", else what was wrong."""
    try:
        result = call.function(**call.arguments)
    except ALLOWED as error:
        if type(error) is UnicodeDecodeError or not str(error):
            return described(call, error)
        return "refused"
    except BaseException as error:
        return described(call, error)
    tokens = result.tokens if isinstance(result, PathBatch) else result
    if isinstance(tokens, TokenBatch):
        offsets = tokens.offsets
        if offsets[0] != 0 or offsets[-1] != len(tokens.ids) or (np.diff(offsets) < 0).any():
            return f"{call.name}: offsets {offsets!r:.100}"
    return "returned"


def described(call: Call, error: BaseException) -> str:
    [*_, last] = traceback.extract_tb(error.__traceback__)
    where = f"{Path(last.filename).name}:{last.lineno}"
    arguments = ", ".join(f"{name}={safe(value)}" for name, value in call.arguments.items())
    return f"{call.name}: {type(error).__name__}: {str(error)[:200]} ({where}) {arguments}"


def safe(value: Any) -> str:
    if isinstance(value, pa.Array | pa.ChunkedArray):  # to print a damaged one would read where its offsets lead
        return f"<{value.type}>"
    try:
        return f"{value!r:.80}"
    except Exception:
        return f"<{type(value).__name__}>"


def make_tokenizers(ranks: Path) -> list[Tokenizer]:
    return [
        Tokenizer.from_pieces({"a": -1.0, "b": -2.0, "ab": -2.5, " ": -3.0}, device="cpu", threads=2),
        Tokenizer.from_pieces({"?": None, "a": -1.0, "aa": -1.5, "漢": -2.0}, unk_piece="?", device="cpu", threads=1),
        *(Tokenizer.from_bytes(data, device="cpu", threads=1) for data in sound_files()[-2:-1]),
        *(Tokenizer.from_file(DATA / name, device="cpu", threads=1) for name in FILES),
        Tokenizer.from_tiktoken(ranks, encoding="gpt2", characters=True, device="cpu", threads=1),
        Tokenizer.from_pieces({"a": -1.0, "b": -2.0, "ab": -0.5}, device="cpu").without(["ab"]),
        Tokenizer.from_file(DATA / FILES[0], device="cpu").rescored({"a": -0.5}, unspellable="best"),
    ]


def make_files(folder: Path) -> None:
    (folder / "a.txt").write_text("ab\nba\n\nabab\n")
    (folder / "b.jsonl").write_text('{"text": "ab", "id": 1}\n{"text": null, "id": 2}\n')
    (folder / "model").write_bytes((DATA / FILES[0]).read_bytes())
    (folder / "ranks.tiktoken").write_bytes(sound_files()[-1])


def work(seed: int, start: int) -> None:
    """Make calls without end, and print what became of each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder)
        tokenizers = make_tokenizers(folder / "ranks.tiktoken")
        os.chdir(folder)
        # What has to be compiled is compiled without limits.
        for i_call in range(WARM_UP):
            outcome(Maker(f"warm {i_call}", tokenizers, folder, good=1.0).call())
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + MOST_BYTES, in_use + MOST_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for i_call in itertools.count(start):
            call = Maker(f"{seed} {i_call}", tokenizers, folder).call()
            print(json.dumps(["begin", i_call, call.name]), flush=True)
            # Of the processor's time, so that a machine with other work does not look like an endless loop.
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            became = outcome(call)
            signal.setitimer(signal.ITIMER_PROF, 0)
            print(json.dumps(["end", i_call, became]), flush=True)


def run(seconds: float, seed: int, most: int = sys.maxsize) -> tuple[int, list[str]]:
    """(how many calls were made, what went wrong) in so many seconds, or with so many calls."""
    end, i_next, findings = time.monotonic() + seconds, 0, list[str]()
    while i_next < most and time.monotonic() < end:
        command = [sys.executable, "-m", "tests.fuzz.calls", str(seed), str(i_next)]
        begun, first = "making arguments", i_next
        # What a worker that is killed leaves behind goes with the folder.
        with (
            tempfile.TemporaryDirectory() as folder,
            subprocess.Popen(
                command, cwd=ROOT, text=True, env=os.environ | {"TMPDIR": folder}, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            ) as worker,
        ):  # fmt: skip
            assert worker.stdout is not None
            for line in worker.stdout:
                what, i_call, said = json.loads(line)
                begun, i_next = (said, i_next) if what == "begin" else ("making arguments", i_call + 1)
                if what == "end" and said not in ("returned", "refused"):
                    findings.append(f"call {i_call} of seed {seed}: {said}")
                if what == "end" and (i_next >= most or time.monotonic() >= end):
                    worker.kill()
                    return i_next, findings
        if i_next == first and begun == "making arguments":
            raise RuntimeError(f"the worker ended with {worker.returncode} and made no call: {command}")
        died = signal.Signals(-worker.returncode).name if worker.returncode < 0 else f"exit {worker.returncode}"
        hung = ", of more than 10 s of the processor's time" if died == "SIGPROF" else ""
        findings.append(f"call {i_next} of seed {seed}: {begun}: the process died of {died}{hung}")
        i_next += 1
    return i_next, findings


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]))
