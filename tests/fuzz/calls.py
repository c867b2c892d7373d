"""Calls of the public functions with arguments that nobody should give, in processes that may die.

`run(seconds, seed)` makes them; call i of a seed is always the same. Each must return, or raise one of ALLOWED with a
message, within SECONDS of the processor's time and MOST_BYTES of memory, and what it returns must be sound.
"""

from __future__ import annotations

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

from gpu_lattice import Lattice, PathBatch, RaggedLattice, TextBatch, TokenBatch, Tokenizer
from gpu_lattice.corpus.draws import document_ids
from gpu_lattice.corpus.retokenize import retokenize
from gpu_lattice.show.portrait import portrait
from gpu_lattice.show.preview import preview
from gpu_lattice.show.table import table

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
            "doc_ids": self.doc_ids(), "return_log_prob": self.pick(True, False, None, "x"),
        }  # fmt: skip

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
            self.of_tokenizer, self.of_tokenizer, self.of_lattice, self.of_lattice, self.of_batch, self.of_files
        )()

    def of_tokenizer(self) -> Call:
        tok = self.pick(*self.tokenizers)
        integer, texts = self.integer, self.texts
        made: dict[str, Callable[[], dict[str, Any]]] = {
            "encode": lambda: {"texts": texts()},
            "sample": lambda: {"texts": texts(), "nbest_size": integer(-1, 0, 2)} | self.draw(),
            "nbest": lambda: {"texts": texts(), "n": integer(0, 3)},
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
        weighed = {"weights": weights} if self.random.random() < 0.5 else {"alpha": self.pick(None, self.alpha())}
        if self.random.random() < 0.05:
            weighed = {"weights": weights, "alpha": self.alpha()}
        only = {"weights": self.pick(None, weights)}
        draw = {name: value for name, value in self.draw().items() if name != "alpha"} | weighed
        bare = {name: value for name, value in draw.items() if name != "return_log_prob"}
        made: dict[str, dict[str, Any]] = {
            **dict.fromkeys(
                ["forward_scores", "backward_scores", "log_partition", "marginals", "expected_counts", "entropy"],
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
        made: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
            "TextBatch.from_texts": (TextBatch.from_texts, {"texts": self.texts()}),
            "TokenBatch.to_arrow": (batch.to_arrow, {}),
            "TokenBatch.to_padded": (
                batch.to_padded, {"pad_id": self.integer(0, -1), "max_length": self.pick(None, self.integer(0, 3))}
            ),
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

    def of_files(self) -> Call:
        tok = self.pick(*self.tokenizers)
        files = [self.folder / "a.txt", self.folder / "b.jsonl"]
        inputs = self.either(
            lambda: files, lambda: self.pick([], [""], ["\0"], [self.folder / "absent"], "*", [5], 5, self.folder, b"x")
        )
        column = self.either(lambda: "text", lambda: self.pick("", "id", "\0", "absent"))
        separator = self.pick(None, None, self.either(lambda: b"\n", lambda: self.pick("", "é", b"", "x" * 99)))
        made: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
            "retokenize": (retokenize, {
                "inputs": inputs, "output": self.either(lambda: self.folder / "out", lambda: files[0]),
                "tokenizer": tok, "nbest_size": self.integer(-1, -1, 2), "text_column": column, "separator": separator,
                "id_column": self.pick(None, None, self.either(lambda: "id", lambda: "absent")),
                "batch_bytes": self.integer(10, 10**6), "verify": self.pick(True, False), "progress": False,
                "overwrite": True, "alpha": self.pick(None, self.alpha()), "num_samples": self.integer(1, 1, 2),
                "seed": self.integer(0, 1),
            }),
            "portrait": (shown, {
                "tokenizer": tok, "text": self.either(lambda: "abab", lambda: self.pick(*TEXTS), self.texts),
                "alpha": self.alpha(), "top": self.integer(1, 3),
            }),
            "preview": (preview, {
                "inputs": inputs, "tokenizer": tok, "max_bytes": self.integer(100, 10**6), "seed": self.integer(0, 1),
                "alphas": self.either(lambda: [0.1], lambda: self.array(2), lambda: [self.alpha()], lambda: []),
                "text_column": column, "separator": separator,
            }),
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


def make_tokenizers() -> list[Tokenizer]:
    return [
        Tokenizer.from_pieces({"a": -1.0, "b": -2.0, "ab": -2.5, " ": -3.0}, device="cpu", threads=2),
        Tokenizer.from_pieces({"?": None, "a": -1.0, "aa": -1.5, "漢": -2.0}, unk_piece="?", device="cpu", threads=1),
    ]


def make_files(folder: Path) -> None:
    (folder / "a.txt").write_text("ab\nba\n\nabab\n")
    (folder / "b.jsonl").write_text('{"text": "ab", "id": 1}\n{"text": null, "id": 2}\n')


def work(seed: int, start: int) -> None:
    """Make calls without end, and print what became of each."""
    with tempfile.TemporaryDirectory() as name:
        folder, tokenizers = Path(name), make_tokenizers()
        make_files(folder)
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
                command, cwd=ROOT, text=True, env=os.environ | {"TMPDIR": folder}, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
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
