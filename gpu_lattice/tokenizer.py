"""The Tokenizer: texts in, ids out, by the best segmentation or by perfect samples."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from hashlib import sha256
from html import escape
from importlib import resources
from pathlib import Path
from secrets import randbits
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from gpu_lattice.backends import Draw, NoPathError
from gpu_lattice.backends.cpu import CpuBackend
from gpu_lattice.decoding import Detokenizer
from gpu_lattice.kernels.cpu.bulk.verify import Spelling, first_misspelled
from gpu_lattice.models import DROPPED, Model
from gpu_lattice.models.added import new_tokens, with_tokens
from gpu_lattice.models.detect import model_bytes, model_file, read_model, regular_file
from gpu_lattice.models.parts import Parts, parts_of
from gpu_lattice.models.pieces import from_pieces
from gpu_lattice.models.rescored import (
    Unspellable,
    checked_scores,
    checked_unspellable,
    rescored,
    undone,
    without_unknown,
)
from gpu_lattice.models.whole_characters import with_whole_characters
from gpu_lattice.normalizers import PendingBatch
from gpu_lattice.normalizers.identity import IdentityNormalizer
from gpu_lattice.runtime.arguments import (
    are_pieces,
    as_integer,
    as_list,
    check_lengths,
    checked_alpha,
    checked_doc_ids,
    checked_flag,
    checked_integer,
    checked_penalty,
    checked_rate,
    checked_weights,
    id_rows,
    read_only,
    shown,
    told_the_right_name,
)
from gpu_lattice.runtime.files import write_whole
from gpu_lattice.runtime.on_host import is_on_device
from gpu_lattice.runtime.seeds import epoch_seed
from gpu_lattice.runtime.threads import default_threads, map_ranges
from gpu_lattice.spans import SpanFinder, Unit, checked_unit, unknown_surfaces
from gpu_lattice.text_batch import TextBatch, Texts, to_ragged
from gpu_lattice.token_batch import Frame, Naming, Source, TokenBatch, checked_side, checked_tokens, joined
from gpu_lattice.vocabulary import Kind

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from gpu_lattice.backends import Backend, Device, Rows
    from gpu_lattice.fitting import Fit
    from gpu_lattice.hf import HFTokenizer
    from gpu_lattice.kernels.cpu.bulk.spans import Alignment
    from gpu_lattice.lattice import Continuations, Lattice, PathBatch
    from gpu_lattice.models.rescored import Undone
    from gpu_lattice.normalizers import NormalizedBatch
    from gpu_lattice.statistics import TokenStatistics

LARGEST_TEXT = 2**32 - 1


class Tokenizer:
    """A subword model and a device that segments texts with it.

    Make one with `from_file`, `from_pieces` or `default`. Pickling carries only what it was made from; the other
    process builds its own tables.

    Example:
        >>> tok = Tokenizer.from_pieces({"ab": -1.0, "a": -2.0, "b": -2.5})
        >>> tok.encode(["ab", "ba"]).tolist()
        [[0], [2, 1]]
        >>> tok.sample("ab", alpha=0, num_samples=4, seed=1).tolist()
        [[1, 2], [0], [0], [0]]
    """

    def __init__(
        self, model: Model, *, device: str = "auto", threads: int | None = None, memory_limit: int | None = None
    ) -> None:
        """model: what a reader returned. threads: the number of CPU threads to use; by default one within a worker of
        torch's DataLoader, else one for each CPU that the process may use (runtime/threads.py).

        device: "cpu", "cuda" or "cuda:N" (which need CuPy and a GPU), or "auto": the first GPU if CuPy is installed
        and one responds, else the CPU. memory_limit: bytes of device memory that a call may use for its batches, not
        counting the ids that it returns; by default half of what is free at the first call. It has no effect on the
        CPU: "auto" may ignore it, "cpu" rejects it.
        """
        if not isinstance(model, Model):
            how = "from_file(path)" if isinstance(model, str | Path) else "from_file, from_pieces or default"
            raise TypeError(f"model is {shown(model)}; use Tokenizer.{how} to make one")
        self._given_threads = None if threads is None else checked_integer("threads", threads, 1, 4096)
        self._backend = _backend(model, device, self._given_threads, memory_limit)
        self._model = model
        self._base = self  # that this one is rescored from
        self._unspellable: Unspellable = "raise"
        self._source: tuple[Any, ...] = (_rebuild, (model, device, threads, memory_limit))

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        characters: bool = False,
        device: str = "auto",
        threads: int | None = None,
        memory_limit: int | None = None,
    ) -> Tokenizer:
        """Load a SentencePiece .model, Hugging Face tokenizer.json (unigram or BPE), tekken.json or BytePiece .model.

        path: the file, or a folder with one: tokenizer.json, spiece.model, sentencepiece.bpe.model, tokenizer.model,
        the first of these that it holds. The format is detected from the content. Raises OSError if the file cannot be
        read, and ValueError, which says what is wrong and what to do, if it is damaged or in another format.

        characters: leaves out the segmentations of a byte-level BPE model that split a character which has a piece;
        others are spelled in pieces of their bytes, one arc of the lattice. `encode` stays. ValueError for a model
        whose lattice splits characters and that is not BPE, or has no piece for some byte.
        """
        file = model_file(Path(path))
        return cls.from_bytes(file.read_bytes(), name=str(file), characters=characters, device=device, threads=threads,
                              memory_limit=memory_limit)  # fmt: skip

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        *,
        name: str = "the model",
        characters: bool = False,
        device: str = "auto",
        threads: int | None = None,
        memory_limit: int | None = None,
    ) -> Tokenizer:
        """A tokenizer from the bytes of a file that `from_file` reads; name: what errors call it."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data is {shown(data)}; give the bytes of a model, or its path to Tokenizer.from_file")
        return cls._from_bytes(bytes(data), name, device, threads, memory_limit, characters)

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: Any,
        *,
        characters: bool = False,
        device: str = "auto",
        threads: int | None = None,
        memory_limit: int | None = None,
    ) -> Tokenizer:
        """A tokenizer with the model of another one.

        tokenizer: a tokenizers.Tokenizer, a transformers.PreTrainedTokenizerFast, or a
        sentencepiece.SentencePieceProcessor. characters: as for `from_file`. Raises TypeError for anything else, and
        what `from_file` raises.

        Example:
            >>> Tokenizer.from_tokenizer(tokenizers.Tokenizer.from_file("tokenizer.json"))  # doctest: +SKIP
        """
        data = model_bytes(tokenizer)
        name = f"the model of the {type(tokenizer).__name__}"
        return cls._from_bytes(data, name, device, threads, memory_limit, characters)

    @classmethod
    def from_pieces(
        cls,
        pieces: Mapping[str, float | None] | Mapping[bytes, float | None] | Iterable[str] | Iterable[bytes],
        *,
        unk_piece: str | bytes | None = None,
        device: str = "auto",
        threads: int | None = None,
        memory_limit: int | None = None,
    ) -> Tokenizer:
        """A tokenizer for any pieces, with ids in their order; text is not normalized.

        pieces: natural-log scores by piece (None is 0), or pieces alone (all scores 0). str keys: positions are
        characters; bytes keys: positions are bytes. unk_piece: the key that stands for symbols without a piece; its
        score is the lowest score - 10. Without it, text that the pieces cannot spell raises ValueError.
        """
        kept: Any = dict(pieces) if isinstance(pieces, Mapping) else list(pieces)
        tokenizer = cls(from_pieces(kept, unk_piece), device=device, threads=threads, memory_limit=memory_limit)
        tokenizer._source = (_rebuild_from_pieces, (kept, unk_piece, device, threads, memory_limit))
        return tokenizer

    @classmethod
    def from_tiktoken(
        cls,
        source: Any,
        *,
        encoding: str | None = None,
        pattern: str | None = None,
        characters: bool = False,
        device: str = "auto",
        threads: int | None = None,
        memory_limit: int | None = None,
    ) -> Tokenizer:
        """A tiktoken.Encoding, or a .tiktoken file, which holds pieces and their ranks, but not how text is divided.

        source: a path, or a tiktoken.Encoding alone. encoding: the name of one of tiktoken's ("cl100k_base",
        "o200k_base" ..); pattern: a regular expression instead. `encode` gives the ids of encode_ordinary: special
        tokens in a text are text. A pattern that none of these encodings has needs the package tokenizers.
        characters: as for `from_file`.
        Raises OSError if the file cannot be read, ValueError if it is damaged or the encoding is unknown.
        """
        from gpu_lattice.models.tiktoken import parts_of

        specials = None
        if hasattr(source, "encode_ordinary"):
            if encoding is not None or pattern is not None:
                raise ValueError("source is a tiktoken.Encoding, which has a pattern; leave encoding and pattern out")
            data, pattern, specials = parts_of(source)
        else:
            data = regular_file(Path(source)).read_bytes()
        what = data, str(source), encoding, pattern, specials
        return cls._from_ranks(*what, device, threads, memory_limit, characters)

    @classmethod
    def _from_ranks(cls, *source: Any) -> Tokenizer:
        """source: the five arguments of read_ranks, then as for `_from_bytes`."""
        from gpu_lattice.models.tiktoken import read_ranks

        what, how = source[:5], source[5:]
        tokenizer = cls._of(read_ranks(*what), what[1], *how)
        tokenizer._source = (_rebuild_from_ranks, source)
        return tokenizer

    @classmethod
    def default(cls, *, device: str = "auto", threads: int | None = None, memory_limit: int | None = None) -> Tokenizer:
        """The small multilingual model that ships with the package: 8,000 pieces, byte fallback, lossless."""
        resource = resources.files("gpu_lattice.data") / "default.model"
        return cls._from_bytes(resource.read_bytes(), "the default model", device, threads, memory_limit)

    @classmethod
    def _from_bytes(cls, data: bytes, name: str, *how: Any) -> Tokenizer:
        """how: device, threads, memory_limit, characters; the last was added later, and old pickles lack it."""
        tokenizer = cls._of(read_model(data, name), name, *how)
        tokenizer._source = (_rebuild_from_bytes, (data, name, *how))
        scores = tokenizer._model.scores
        return tokenizer if scores is None else tokenizer.rescored(scores)

    @classmethod
    def _of(
        cls,
        model: Model,
        name: str,
        device: str,
        threads: int | None,
        memory_limit: int | None,
        characters: bool = False,
    ) -> Tokenizer:
        if checked_flag("characters", characters):
            model = with_whole_characters(model, name)
        return cls(model, device=device, threads=threads, memory_limit=memory_limit)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._source

    def __repr__(self) -> str:
        cut = "" if self._model.max_length is None else f", rows of at most {self._model.max_length} ids"
        threads = f", {self._threads} threads" if self.device == "cpu" else ""
        return f"<Tokenizer: {self._model.kind}, {self.vocab_size:,} ids{cut}, on {self.device}{threads}>"

    def _repr_html_(self) -> str:
        """A card for notebooks: what the model is, and its special ids."""
        model, vocabulary = self._model, self._model.vocabulary
        ids = {"bos": model.bos_id, "eos": model.eos_id, "pad": model.pad_id, "unk": self.unk_id}
        named = [f"{which} {i} {vocabulary.names[i]}" for which, i in ids.items() if i is not None]
        rows = {
            "model": f"{model.kind}{', BPE' if model.merges is not None else ''}, {self.vocab_size:,} ids",
            "special": ", ".join(named) or "none",
            "device": self.device,
        }
        cells = "".join(f"<tr><th>{name}</th><td>{escape(text)}</td></tr>" for name, text in rows.items())
        return f"<table><caption>Tokenizer</caption>{cells}</table>"

    def __len__(self) -> int:
        return self.vocab_size

    def save(self, path: str | os.PathLike[str], *, as_unigram: bool = False) -> None:
        """Write the model's file: as it was read, but with the scores and pieces that `rescored` or `fit` gave it.

        as_unigram: a BPE model is written as a unigram one of the same pieces, which samples the same and encodes by
        the scores. Else the scores of a BPE model go into a field beside its merges, which other tools ignore. A
        tiktoken vocabulary is written as a tekken.json. Scores are rounded to what a format holds (float32 for
        SentencePiece); those of `fit` are so already, and the file gives the same ids. It is written whole or not at
        all.
        Raises ValueError for a tokenizer that was not made from a file, and for what its format cannot hold: of unigram
        models, other scores of user-defined pieces (SentencePiece), scores that are not logs of shares that sum to 1
        (BytePiece), and a tokenizer.json or a BytePiece model without one of its pieces; of BPE models, as_unigram=True
        where user-defined pieces cut a text, where byte pieces or special tokens would be found in it, or where unknown
        symbols are a token each.
        """
        write_whole(Path(path), self.to_bytes(as_unigram=as_unigram))

    def to_bytes(self, *, as_unigram: bool = False) -> bytes:
        """The content of the file that `save` writes."""
        from gpu_lattice.models.saving import file_of
        from gpu_lattice.models.tiktoken import as_tekken

        build, arguments = self._base._source
        if build not in (_rebuild_from_bytes, _rebuild_from_ranks):
            raise ValueError("this tokenizer was not made from a file; pickle it, or write what it was made from")
        data, name = arguments[0], arguments[1]
        if build is _rebuild_from_ranks:
            data = as_tekken(*arguments[:5])
        as_unigram, model = checked_flag("as_unigram", as_unigram), self._model.in_full
        if model is not self._model and (as_unigram or self._base is not self):
            raise ValueError("no file says that scores are those of characters=True; pickle the tokenizer")
        return file_of(data, name, model, as_unigram)

    def add_tokens(
        self,
        tokens: Any,
        *,
        special: bool = False,
        single_word: bool = False,
        lstrip: bool = False,
        rstrip: bool = False,
        normalized: bool | None = None,
    ) -> Tokenizer:
        """This tokenizer with tokens added: strings that are one token wherever they occur, with the next free ids.

        tokens: a str or tokenizers.AddedToken (which has flags of its own), or several. The flags are those of
        tokenizers: special tokens are skipped in decoding, and in a SentencePiece model are control pieces, which no
        text spells; normalized, by default unless special: they are looked for in normalized text.
        Raises ValueError for a tokenizer that was not made from a tokenizer.json or a SentencePiece .model.

        Example:
            >>> tok = Tokenizer.default(device="cpu").add_tokens(["<sep>"])
            >>> tok.encode("a<sep>").pieces()
            [['▁a', '<sep>']]
        """
        build, arguments = self._source
        if build is not _rebuild_from_bytes:
            raise ValueError("this tokenizer was not made from a file; add the tokens to what it was made from")
        data, *others = arguments
        flags = {"special": special, "single_word": single_word, "lstrip": lstrip, "rstrip": rstrip}
        new = new_tokens(tokens, normalized=not special if normalized is None else normalized, **flags)
        return self._from_bytes(with_tokens(data, self._model.kind, new, self._model.vocabulary), *others)

    def as_hf(self, *, alpha: float | None = None) -> HFTokenizer:
        """A transformers.PreTrainedTokenizerBase with this model: calls with padding, truncation, tensors and offsets.

        alpha: if given, every call draws fresh samples; else the ids are those of transformers' fast tokenizer.
        Raises ImportError without the package transformers (5 or later).

        Example:
            >>> tok.as_hf()(["a b", "c"], padding=True, return_tensors="pt")  # doctest: +SKIP
        """
        from gpu_lattice.hf import HFTokenizer

        return HFTokenizer(self, None if alpha is None else checked_alpha(alpha))

    @property
    def _threads(self) -> int:
        return self._given_threads or default_threads()

    @property
    def vocab_size(self) -> int:
        """The number of ids; they are 0 to vocab_size - 1."""
        return len(self._model.vocabulary)

    @property
    def vocab(self) -> dict[str, int]:
        """The id of every name."""
        return dict(self._model.vocabulary.id_of)

    @property
    def bos_id(self) -> int | None:
        """The id that begins a text; None if the model has none.

        A tokenizer.json does not say: models/hf_tokenizers.py has the names by which it is told.
        """
        return self._model.bos_id

    @property
    def eos_id(self) -> int | None:
        """The id that ends a text; None if the model has none."""
        return self._model.eos_id

    @property
    def pad_id(self) -> int | None:
        """The id for padding; None if the model has none."""
        return self._model.pad_id

    @property
    def unk_id(self) -> int | None:
        """The id for text that has no piece; None if the model has none."""
        return self._model.vocabulary.unk_id

    @property
    def device(self) -> str:
        """Where the lattices are: "cpu", or "cuda:0" and so on."""
        return self._backend.device

    @property
    def model(self) -> Model:
        """The contents of the model's file: vocabulary, normalizer, decoder."""
        return self._model

    @property
    def backend(self) -> Backend:
        """What segments normalized text: tables and kernels of one device."""
        return self._backend

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the model's file and what was said of it; or of what else it was made from."""
        if self._base is not self:
            made_from = self._base.digest, self._unspellable, self._model.vocabulary.scores.tobytes().hex()
            return sha256("".join(made_from).encode()).hexdigest()
        made_from = self._source[1]
        if isinstance(made_from[0], Model):
            return sha256(pickle.dumps(made_from[0])).hexdigest()
        if not isinstance(made_from[0], bytes):
            return sha256(repr(made_from[:-3]).encode()).hexdigest()
        what = made_from[0] + b"characters" * (self._model.in_full is not self._model)
        if self._source[0] is _rebuild_from_ranks:
            from gpu_lattice.models.tiktoken import division_of

            pattern, specials = division_of(*made_from[2:5])
            what += repr((pattern, sorted(specials.items()))).encode()
        return sha256(what).hexdigest()

    def on(self, backend: Backend) -> Tokenizer:
        """The same model on a backend made for it; pickling it gives back the tokenizer that it came from."""
        other = object.__new__(type(self))
        other.__dict__ |= self.__dict__ | {"_backend": backend}
        if self._base is self:
            other._base = other
        return other

    def rescored(
        self, scores: Mapping[Any, float] | NDArray[np.floating[Any]], *, unspellable: Unspellable = "raise"
    ) -> Tokenizer:
        """The same tokenizer with other scores, on the same device.

        scores: natural logs, float64 [V]; or by piece (its name, its bytes, or its id), and the others keep theirs.
        -inf takes a piece out of the lattice: no segmentation has it. A later call may bring it back. Scores of ids
        that text is not made of (control ids, the unknown piece, the byte pieces that spell what has no piece) mean
        nothing in an array. As in the models' tools, unknown text has the lowest score of a piece - 10, for which
        pieces that were taken out count as before, like those that SentencePiece's set_vocabulary takes out.

        unspellable: what becomes of text that the pieces left cannot spell. "raise": a symbol that is left without a
        piece is unknown text, as in the models' tools, and a ValueError in a model that has no unknown piece. "best":
        there is no unknown text, and a word (see `sample`) that cannot be spelled keeps, in `encode` and `sample`, the
        best segmentation by all pieces and their scores of before; so this is for a least length of tokens.

        `encode` gives what the model's tool gives with these scores. Of a BPE model it stays canonical whatever the
        scores, but a piece taken out becomes the two that were merged into it, and so on, as in SentencePiece and
        subword-nmt. Samples of a BPE model have the scores, and its unknown text the lowest of them.

        Raises ValueError for NaN, +inf, another number of scores, and a piece that the model does not have or that text
        is not made of.

        Example:
            >>> tok = Tokenizer.from_pieces({"ab": -1.0, "a": -2.0, "b": -2.5})
            >>> tok.rescored({"ab": -5.0}).encode("ab").tolist()
            [[1, 2]]
            >>> tok.rescored({"ab": -np.inf}).lattice("ab").num_paths()
            [1]
        """
        base = self._base
        checked = checked_scores(scores, self._model.vocabulary, base._model.vocabulary, self._id_of_piece)
        model = rescored(base._model, checked)
        unspellable = checked_unspellable(unspellable)
        other = object.__new__(type(self))
        other._given_threads, other._model, other._base = base._given_threads, model, base
        other._backend = base._backend.rescored(without_unknown(model) if unspellable == "best" else model)
        other._unspellable = unspellable
        other._source = (_rebuild_rescored, (base, model.vocabulary.scores, unspellable))
        return other

    def without(self, pieces: Iterable[Any], *, unspellable: Unspellable = "raise") -> Tokenizer:
        """`rescored` with pieces (names, bytes or ids) taken out of the lattice; the tokenizer itself for none, unless
        unspellable is "best".

        Example:
            >>> Tokenizer.from_pieces(["ab", "a", "b"]).without(["ab"]).excluded_ids
            [0]
        """
        gone = dict.fromkeys(as_list("pieces", list(pieces)), -np.inf)
        return self.rescored(gone, unspellable=unspellable) if gone or unspellable != "raise" else self

    @property
    def excluded_ids(self) -> list[int]:
        """The ids that `rescored` has taken out of the lattice."""
        is_gone = self._base._model.vocabulary.in_lattice & ~self._model.vocabulary.in_lattice
        excluded: list[int] = np.flatnonzero(is_gone).tolist()
        return excluded

    def _id_of_piece(self, piece: Any) -> int:
        """By name, bytes, or the id itself. Raises ValueError if there is none."""
        if not isinstance(piece, str | bytes):
            return checked_integer("the id of a piece", piece, 0, self.vocab_size - 1)
        i = self.piece_to_id(piece)
        if i is None:
            raise ValueError(f"{shown(piece)} is no piece of this model; give names as id_to_piece does, bytes or ids")
        return i

    @overload
    def id_to_piece(self, i: int) -> str: ...
    @overload
    def id_to_piece(self, i: Sequence[int] | NDArray[np.integer[Any]]) -> list[str]: ...
    def id_to_piece(self, i: Any) -> Any:
        """The piece as the model's own tool prints it, or a list for ids. Raises IndexError for one that does not
        exist.
        """
        return self._by_id(i, self._model.vocabulary.names.__getitem__)

    @overload
    def piece_to_id(self, piece: str | bytes) -> int | None: ...
    @overload
    def piece_to_id(self, piece: list[str | bytes] | tuple[str | bytes, ...]) -> list[int | None]: ...
    def piece_to_id(self, piece: Any) -> Any:
        """The id of a piece, or a list for pieces; None for what is not one.

        piece: a str, the name that `id_to_piece` gives; or bytes, what the piece matches in normalized text, which
        tells pieces of bytes apart that are not text (b"\\xc3" and b"\\\\xc3" have one name).

        Example:
            >>> Tokenizer.from_pieces(["a", "b"]).piece_to_id(["b", "c"])
            [1, None]
        """
        if isinstance(piece, bytes):
            return self._id_of_bytes.get(piece)
        if isinstance(piece, str):
            return self._model.vocabulary.id_of.get(piece)
        if isinstance(piece, Sequence | np.ndarray):
            return [self.piece_to_id(one) for one in piece]
        raise TypeError(f"piece is {shown(piece)}; give a str, as id_to_piece does, or bytes")

    def score(self, i: Any) -> Any:
        """The score of an id, or a list for ids: the natural log of what `sample` weighs it with at alpha=1."""
        return self._by_id(i, lambda k: float(self._model.vocabulary.scores[k]))

    def is_control(self, i: Any) -> Any:
        """Whether an id stands for no text (bos, eos, padding ...), or a list for ids."""
        return self._by_id(i, lambda k: bool(self._model.vocabulary.kinds[k] == Kind.CONTROL))

    def is_unknown(self, i: Any) -> Any:
        """Whether an id is the unknown id, or a list for ids."""
        return self._by_id(i, lambda k: k == self._model.vocabulary.unk_id)

    def is_byte(self, i: Any) -> Any:
        """Whether an id spells one byte of text that has no piece, or a list for ids."""
        return self._by_id(i, lambda k: bool(self._model.vocabulary.kinds[k] == Kind.BYTE))

    def is_unused(self, i: Any) -> Any:
        """Whether an id is marked as unused in the model's file, or a list for ids."""
        return self._by_id(i, lambda k: bool(self._model.vocabulary.kinds[k] == Kind.UNUSED))

    def _by_id(self, i: Any, value: Callable[[int], Any]) -> Any:
        if isinstance(i, Sequence | np.ndarray) and not isinstance(i, str | bytes) and np.ndim(i):
            return [self._by_id(one, value) for one in i]
        number = as_integer("the id", i)
        if not 0 <= number < self.vocab_size:
            raise IndexError(f"id {shown(number)} of a model with ids 0 to {self.vocab_size - 1}")
        return value(number)

    @cached_property
    def _id_of_bytes(self) -> dict[bytes, int]:
        vocabulary = self._base._model.in_full.vocabulary
        return {vocabulary.surfaces[i]: i for i in np.flatnonzero(vocabulary.in_lattice).tolist()}

    @told_the_right_name
    def encode(
        self,
        texts: Texts,
        *,
        add_special_tokens: bool = True,
        add_bos: bool = False,
        add_eos: bool = False,
        prefix_ids: Sequence[int] | None = None,
        suffix_ids: Sequence[int] | None = None,
        max_length: int | None = None,
        truncation: Literal["right", "left", False] | None = None,
        return_offsets: Unit | None = None,
    ) -> TokenBatch:
        """Best segmentation (of a BPE model the canonical one), with exactly the ids that the model's own tool gives.

        texts               a str, a sequence of str or bytes (list, tuple, generator, NumPy, pandas, Polars), an Arrow
                            string or binary array (sliced or chunked too), a TextBatch
        add_special_tokens  put the ids around each row that the model's file asks for (the post-processor of a
                            tokenizer.json)
        prefix_ids, suffix_ids  ids to put before and after each row in place of these
        add_bos, add_eos    put bos_id before and eos_id after all that
        max_length          of each row, with the ids around it; by default as the file says (the truncation of a
                            tokenizer.json)
        truncation          where the text's ids are cut for that, "right" or "left"; by default as the file says, else
                            "right". False: rows are never cut
        return_offsets      "bytes" or "characters": fill TokenBatch.spans with the start and stop of each id in its
                            text, as the model's own tool has them (sentencepiece's offset_mapping, tokenizers'
                            Encoding.offsets); 0, 0 for ids around a row

        Null texts have no ids, nor ids around them. Pinned to sentencepiece 0.2.3, tokenizers 0.23.3 and bytepiece
        0.6.3. Raises ValueError if the model has no unknown id and its pieces cannot spell a text.

        Example:
            >>> Tokenizer.from_pieces({"a": -1.0, "aa": -1.5}).encode(["aaa"], suffix_ids=[0]).tolist()
            [[0, 1, 0]]
        """
        frame = self._frame(add_special_tokens, add_bos, add_eos, prefix_ids, suffix_ids, max_length, truncation)
        unit = checked_unit(return_offsets)
        batch = self._texts(texts)
        return self._framed(self._best(batch, unit), frame, batch, unit)

    @told_the_right_name
    def sample(
        self,
        texts: Texts,
        *,
        alpha: float = 0.1,
        nbest_size: int = -1,
        num_samples: int = 1,
        seed: int | None = None,
        epoch: int = 0,
        doc_ids: Any = None,
        token_penalty: float = 0.0,
        rate: float = 1.0,
        return_log_prob: bool = False,
        add_special_tokens: bool = True,
        add_bos: bool = False,
        add_eos: bool = False,
        prefix_ids: Sequence[int] | None = None,
        suffix_ids: Sequence[int] | None = None,
        max_length: int | None = None,
        truncation: Literal["right", "left", False] | None = None,
        return_offsets: Unit | None = None,
    ) -> TokenBatch:
        """Perfect samples: each path of n tokens has probability proportional to
        exp(alpha * the sum of its scores - token_penalty * n).

        alpha        0 is uniform over all segmentations, 1 the unigram posterior; large values approach `encode`. The
                     pieces of a BPE model have no scores, so that every alpha is uniform; the first one above 0 warns
        nbest_size   below 0: the full lattice; above 1: only the nbest_size best paths (Kudo's l-best sampling, far
                     slower, see Lattice.sample_nbest); 0 and 1: no sampling, the result of `encode`
        num_samples  K samples of each text; row i_doc * K + k
        seed         0 to 2^64 - 1; None draws a new one, which TokenBatch.seed tells
        epoch        draws anew for each epoch of one seed (kernels/reference.py, splitmix); 0 is the seed itself
        doc_ids      int64 or uint64 [number of texts], 0, 1, 2, ... by default. A draw depends on model, text, alpha,
                     seed, doc id and sample index alone: not on batch, order, threads or device.
        token_penalty  above 0 prefers fewer tokens, below 0 more; an unknown symbol counts as one
        rate         the probability with which each word is sampled, independently of others, while the rest are as
                     `encode` gives them. Words are pre-tokens, or begin with "▁", or are what lies between static cuts:
                     kernels/reference.py (words). The choice, too, depends on what doc_ids says alone
        return_log_prob   fill TokenBatch.log_prob with the natural log of the probability of each path, before any cut;
                     with a rate below 1, or words that cannot be spelled, of each row's ids, which takes much longer

        All else as for `encode`.
        Raises ValueError for options out of range and, like `encode`, for text that cannot be spelled.
        Source: Su Jianlin, https://kexue.fm/archives/9811; Kudo 2018 (arXiv 1804.10959) for the distribution.

        Example:
            >>> tok = Tokenizer.from_pieces(["a", "b", "ab"])
            >>> out = tok.sample("ab", alpha=0, num_samples=2, return_log_prob=True)
            >>> [round(float(p), 4) for p in np.exp(out.log_prob)]
            [0.5, 0.5]
        """
        alpha = checked_alpha(alpha)
        nbest_size = checked_integer("nbest_size", nbest_size, -(2**31), 2**31 - 1)
        num_samples = checked_integer("num_samples", num_samples, 1, 2**32 - 1)
        if seed is None and epoch != 0:
            raise ValueError(f"epoch is {shown(epoch)} without a seed, and draws are new in any case; give a seed too")
        seed = randbits(64) if seed is None else checked_integer("seed", seed, 0, 2**64 - 1)
        key = epoch_seed(seed, checked_integer("epoch", epoch, 0, 2**64 - 1))
        penalty, rate = checked_penalty(token_penalty), checked_rate(rate, nbest_size)
        return_log_prob = checked_flag("return_log_prob", return_log_prob)
        frame = self._frame(add_special_tokens, add_bos, add_eos, prefix_ids, suffix_ids, max_length, truncation)
        unit = checked_unit(return_offsets)
        if self._model.merges is not None and alpha != 0 and not self._model.vocabulary.scores.any():
            _warn_of_alpha()
        batch = self._texts(texts)
        ids = checked_doc_ids(doc_ids, len(batch))

        def work(part: PendingBatch | NormalizedBatch, is_null: NDArray[np.bool_], docs: slice) -> Rows:
            draw = Draw(alpha, num_samples, key, ids[docs], return_log_prob, penalty)
            return self._segmented(part, is_null, draw, rate)

        if nbest_size > 1:
            options = {
                "alpha": alpha, "num_samples": num_samples, "seed": key, "token_penalty": penalty,
                "return_log_prob": return_log_prob,
            }  # fmt: skip
            out = self._told(self._sample_nbest(batch.on_host(), nbest_size, ids, options), batch, seed)
        elif nbest_size >= 0:
            from gpu_lattice.lattice.nbest import repeated

            best = repeated(self._backend.launcher, self._best(batch), num_samples, return_log_prob)
            out = self._told(best, batch, seed)
        else:
            out = self._run(batch, num_samples, work, unit, seed)
        return self._framed(out, frame, batch, unit)

    def _frame(
        self, add_special_tokens: Any, add_bos: Any, add_eos: Any, prefix_ids: Any, suffix_ids: Any, max_length: Any,
        truncation: Any,
    ) -> Frame | None:  # fmt: skip
        """What is asked to be around rows; None for what the backend puts there anyway."""
        model = self._model
        # As most calls have it, which need not be gone through.
        are_own = add_special_tokens is True and add_bos is add_eos is False and prefix_ids is suffix_ids is None
        if are_own and max_length is truncation is model.max_length is None:
            return None
        is_own = checked_flag("add_special_tokens", add_special_tokens)
        before = self._ids_of("prefix_ids", prefix_ids, model.prefix_ids if is_own else ())
        after = self._ids_of("suffix_ids", suffix_ids, model.suffix_ids if is_own else ())
        if checked_flag("add_bos", add_bos):
            before = (self._special("bos_id"), *before)
        if checked_flag("add_eos", add_eos):
            after = (*after, self._special("eos_id"))
        if truncation is not None and truncation is not False:
            truncation = checked_side("truncation", truncation)
        if max_length is None:
            max_length = model.max_length
        if truncation is False:
            max_length = None
        elif max_length is not None:
            max_length = checked_integer("max_length", max_length, 0, 2**63 - 1)
        if max_length is None and before == model.prefix_ids and after == model.suffix_ids:
            return None
        return Frame(before, after, max_length, truncation or model.truncation_side)

    def _ids_of(self, name: str, ids: Any, default: tuple[int, ...]) -> tuple[int, ...]:
        if ids is None:
            return default
        return tuple(checked_integer(name, i, 0, self.vocab_size - 1) for i in as_list(name, ids))

    def _special(self, name: str) -> int:
        i: int | None = getattr(self, name)
        if i is None:
            raise ValueError(f"this model has no {name}; give the id in prefix_ids or suffix_ids")
        return i

    def _told(self, out: TokenBatch, texts: TextBatch, seed: int | None) -> TokenBatch:
        """The batch with what it needs to name and pad its ids."""
        return replace(out, seed=seed, source=self._source_of(texts))

    def _framed(self, out: TokenBatch, frame: Frame | None, texts: TextBatch, unit: Unit | None) -> TokenBatch:
        """The batch in its frame, with where its ids are in their texts."""
        if unit is not None and out.spans is None:
            spans = self._span_finder(texts, out, unit, self._threads)
            with self._backend.launcher:
                out = replace(out, spans=self._backend.launcher.upload(spans))
        if frame is None:
            return out
        with self._backend.launcher:
            return frame(out, len(self._model.prefix_ids), len(self._model.suffix_ids))

    def _source_of(self, texts: TextBatch) -> Source:
        naming = self._naming
        return Source(naming, None if naming.unk_id is None else texts, [])

    @cached_property
    def _naming(self) -> Naming:
        model = self._model
        names_unknown = model.merges is None or model.kind == "sentencepiece"
        return Naming(
            model.vocabulary.names,
            self.pad_id,
            model.padding_side,
            self.unk_id if names_unknown else None,
            lambda *rows: unknown_surfaces(model.in_full, self._spelling, *rows),
            Frame(model.prefix_ids, model.suffix_ids, None, "right"),
        )

    def nbest(self, texts: Texts, n: int, *, token_penalty: float = 0.0) -> PathBatch:
        """The n best segmentations of each text with their scores, best first; all of them if there are fewer.

        token_penalty: taken from a score for each token.

        Only memory limits n and the length of a text. Scores are float64 sums, so the first path may differ from
        `encode` where two are closer than the rounding of the model's own tool. A text that no path spells has no
        rows. For the order of ties and all else see Lattice.nbest, which this runs batch by batch.

        Example:
            >>> tok = Tokenizer.from_pieces({"a": -1.0, "b": -2.0, "ab": -2.5})
            >>> tok.nbest(["ab", "b"], 2).tolist()
            [[[2], [0, 1]], [[1]]]
        """
        from gpu_lattice.lattice.nbest import MOST_RANKS, joined_paths

        n = checked_integer("n", n, 0, MOST_RANKS)
        batch = TextBatch.from_texts(texts)
        lattices = self._lattices(batch, self._normalize(batch), n, 1)
        return joined_paths(
            self._backend.launcher, [lattice.nbest(n, token_penalty=token_penalty) for _, lattice in lattices]
        )

    def lattice(self, texts: Texts, *, memory_limit: int | None = None) -> Lattice:
        """The lattices of the texts: tensors on the device, and every operation on them.

        memory_limit: bytes that its arrays, and each result, may use; by default what is free on the device. Raises
        MemoryError, before anything large is allocated, if the arcs do not fit.

        Example:
            >>> tok = Tokenizer.from_pieces(["a", "b", "ab"])
            >>> tok.lattice(["ab", "b"]).marginals(alpha=0)[0, 2].tolist()
            [0.5, 0.5]
        """
        from gpu_lattice.lattice import Lattice

        batch = TextBatch.from_texts(texts)
        lattice = Lattice.of(self._model, self._backend, self._normalize(batch), batch.valid, memory_limit)
        return lattice.pictured(self, batch.tolist() if len(batch) == 1 else [])

    def sample_near(
        self,
        texts: Texts,
        max_changes: int,
        *,
        alpha: float = 0.1,
        token_penalty: float = 0.0,
        num_samples: int = 1,
        seed: int | None = None,
        doc_ids: Any = None,
        return_log_prob: bool = False,
    ) -> TokenBatch:
        """Samples from the segmentations that differ from that of `encode` in at most max_changes words.

        Each with probability proportional to exp(alpha * the sum of its scores - token_penalty * n), exactly, and
        log_prob is that among these. Words are those of which `sample` with rate= resamples some. For a BPE model it is
        sampling near the canonical segmentation. The other arguments, and the rows, are as in `sample`; they are other
        draws, by lattices, and take some hundred times as long. Raises ValueError for options out of range and for text
        that cannot be spelled.

        Example:
            >>> tok = Tokenizer.from_pieces({"▁a": -1.0, "▁": -2.0, "a": -2.0})
            >>> rows = tok.sample_near("▁a▁a▁a", 1, num_samples=50, seed=1).tolist()
            >>> {row.count(0) for row in rows} <= {2, 3}
            True
        """
        from gpu_lattice.nearby import NearOptions, sample_near

        max_changes = checked_integer("max_changes", max_changes, 0, 2**31 - 1)
        num_samples = checked_integer("num_samples", num_samples, 1, 2**32 - 1)
        seed = randbits(64) if seed is None else checked_integer("seed", seed, 0, 2**64 - 1)
        batch, chosen = TextBatch.from_texts(texts), (checked_alpha(alpha), checked_penalty(token_penalty))
        ids, is_wanted = checked_doc_ids(doc_ids, len(batch)), checked_flag("return_log_prob", return_log_prob)

        def work(part: PendingBatch | NormalizedBatch, is_null: NDArray[np.bool_], docs: slice) -> Rows:
            options = NearOptions(max_changes, *chosen, num_samples, seed, ids[docs])
            return sample_near(self._model, self._backend, part.whole(), is_null, options)

        out = self._run(batch, num_samples, work, seed=seed)
        return out if is_wanted else replace(out, log_prob=None)

    def expected_counts(
        self, texts: Texts, *, alpha: float = 1.0, token_penalty: float = 0.0, document_weights: Any = None
    ) -> NDArray[np.float64]:
        """The expected number of times that one sample of every text contains each id, float64 [V].

        document_weights: numbers [number of texts] by which each text counts; 1 by default. It is what
        `Lattice.expected_counts` gives up to rounding, but each distinct segment is worked out once, at the speed of
        `sample`, in memory that does not grow with the texts. Sums have a fixed order, the same for any number of
        threads and any device. Raises ValueError for text that cannot be spelled.

        Example:
            >>> Tokenizer.from_pieces(["a", "b", "ab"]).expected_counts(["ab", "a"], alpha=0).tolist()
            [1.5, 0.5, 0.5]
        """
        from gpu_lattice import statistics

        batch, tables = TextBatch.from_texts(texts), self._backend.tables
        weights = checked_weights("document_weights", document_weights, len(batch))
        model = tables.sample_model(checked_alpha(alpha), checked_penalty(token_penalty))
        return statistics.expected_counts(tables, model, self._normalize, batch, weights, self._threads)

    def token_statistics(self, texts: Texts, *, alpha: float = 1.0, token_penalty: float = 0.0) -> TokenStatistics:
        """The expected number of tokens of a sample of each text, its entropy and its log partition, in one pass.

        As `Lattice.entropy` and `Lattice.log_partition` up to rounding, at the speed of `sample`, in memory that does
        not grow with the texts; the same for any number of threads and any device. A text that no path spells has the
        log partition -inf, and 0 for all else.

        Example:
            >>> Tokenizer.from_pieces(["a", "b", "ab"]).token_statistics(["ab", "b"], alpha=0).num_tokens.tolist()
            [1.5, 1.0]
        """
        from gpu_lattice import statistics

        tables, penalty, batch = self._backend.tables, checked_penalty(token_penalty), TextBatch.from_texts(texts)
        model = tables.sample_model(checked_alpha(alpha), penalty)
        return statistics.token_statistics(tables, model, penalty, self._normalize, batch, self._threads)

    def entropy(self, texts: Texts, *, alpha: float = 1.0, token_penalty: float = 0.0) -> NDArray[np.float64]:
        """The entropy of each text's distribution over segmentations in nats, float64 [number of texts].

        See `token_statistics`.

        Example:
            >>> Tokenizer.from_pieces(["a", "aa"]).entropy(["aaa", "a"], alpha=0).round(6).tolist()
            [1.098612, 0.0]
        """
        return self.token_statistics(texts, alpha=alpha, token_penalty=token_penalty).entropy

    def log_partition(self, texts: Texts, *, alpha: float = 1.0, token_penalty: float = 0.0) -> NDArray[np.float64]:
        """The natural log of the summed weights of all segmentations of each text, float64 [number of texts].

        At alpha 1 it is the log of the text's probability under the unigram model. See `token_statistics`.

        Example:
            >>> Tokenizer.from_pieces(["a", "aa"]).log_partition(["aaa"], alpha=0).round(6).tolist()
            [1.098612]
        """
        return self.token_statistics(texts, alpha=alpha, token_penalty=token_penalty).log_partition

    def fit(
        self,
        texts: Texts | Iterator[Texts],
        *,
        iterations: int = 10,
        alpha: float = 1.0,
        m_step: Literal["maximum", "sentencepiece"] = "maximum",
        tolerance: float = 1e-6,
    ) -> Fit:
        """Scores of greatest likelihood for a corpus, by expectation maximization from those that the model has.

        texts       as for `encode`; or an iterator over texts, or over batches of them, of which one is held at a time
        iterations  steps at most; it ends before if one gains less than `tolerance` of the log-likelihood
        alpha       the temperature of the expected counts (deterministic annealing); 1 is maximum likelihood
        m_step      "maximum": each ordinary piece gets the log of its share of all of them; one that is hardly met gets
                    that of a hundredth of an occurrence. "sentencepiece": the step of SentencePiece's trainer, with
                    digamma in place of log, which drops pieces expected less than 0.5 times (but no single symbols)

        A BPE vocabulary, whose pieces have no scores, begins with equal ones; so alpha means the same for it as for a
        unigram model. Scores of unknown and of user-defined pieces stay. The corpus is gone through once, to count its
        distinct segments; where there are more than 4 million, the rarest half is given up (Fit.num_pruned). Scores are
        rounded to what the model's file can hold. With alpha 1 and "maximum" no step makes the
        likelihood less. Raises ValueError for text that cannot be spelled, and if there is none.

        Source: Kudo 2018 (arXiv 1804.10959), section 3.2; gpu_lattice/fitting.py.

        Example:
            >>> out = Tokenizer.from_pieces({"a": -1.0, "b": -1.0, "ab": -1.0}).fit(["ab ab a".replace(" ", "")])
            >>> out.log_likelihood[0] < out.log_likelihood[-1]
            True
        """
        from gpu_lattice import fitting

        options = fitting.Options.checked(iterations, alpha, m_step, tolerance)
        found = fitting.fit(self._backend.tables, self._model, self._normalize, texts, options, self._threads)
        fields = {key: value for key, value in vars(found).items() if key != "scores"}
        return fitting.Fit(self.rescored(found.scores), **fields)

    def continuations(self, texts: Texts, *, max_rollback: int | None = None) -> Continuations:
        """Where each prompt can be resumed, even one that ends inside a token: "token healing" with any rollback.

        A boundary is a position that some path reaches from the text's start, and from which the rest of the text is a
        proper prefix of some piece. At the text's end the rest is empty and every piece is allowed: plain continuation.
        Each boundary comes with the ids of the text before it (the path of greatest score, as in `Lattice.viterbi`),
        their score, and the pieces allowed next: those that begin with the rest and are longer, one range of the pieces
        sorted by bytes. Weight each boundary by the probability that a language model gives to its ids followed by any
        of the allowed pieces; draw a boundary, then a piece.

        texts         as for `encode`; null texts have no rows. The rest of a text needs no path, so with pieces of
                      bytes (`from_pieces`) a text may end inside a character. Models from files read an incomplete
                      character as U+FFFD, as always.
        max_rollback  most bytes of normalized text to take back; None: as far as the longest piece reaches

        Since a prompt continues, the ids that the model's tool puts before a row are there and those after it are not,
        and the prompt is normalized as if followed by a character that combines with nothing. So a trailing space
        stays, even if the model strips it from a complete text, and an empty prompt has the dummy space that begins a
        text. (For texts normalized as complete ones: `tokenizer.lattice(texts).continuations()`.) The pieces are those
        of the lattice, without control ids and the byte pieces that spell unknown characters; none crosses the start of
        a chunk (a line, a pre-token, an added token).

        The one-token rollback of Su Jianlin's post, https://kexue.fm/archives/9762, is the row whose rollback is the
        length of the last token, with that token added to the ids allowed. It misses pieces that begin earlier.

        Raises ValueError for a text without a boundary, and for a normalizer that cannot handle incomplete text.

        Example:
            >>> tok = Tokenizer.from_pieces({"import": -3.0, " ": -1.0, " numpy": -4.0, "n": -2.0, "u": -2.0})
            >>> out = tok.continuations("import nu")
            >>> [(int(n), ids, [tok.id_to_piece(i) for i in out.ids(row)])
            ...  for row, (n, ids) in enumerate(zip(out.rollback, out.tokens.tolist()))]
            [(0, [0, 1, 3, 4], [' ', ' numpy', 'import', 'n', 'u']), (3, [0], [' numpy'])]
        """
        from gpu_lattice.lattice import Lattice
        from gpu_lattice.normalizers.prompts import normalize_prompts

        batch = TextBatch.from_texts(texts)
        normalized = normalize_prompts(self._normalize, batch)
        lattice = Lattice.of(self._model, self._backend, normalized, batch.valid, None)
        return lattice.continuations(max_rollback=max_rollback)

    def normalize(self, texts: Texts) -> TextBatch:
        """The text that is segmented: normalized as by the model's tool, with "▁" for spaces if the model uses it."""
        batch = TextBatch.from_texts(texts)
        normalized = self._normalize(batch)
        return TextBatch(normalized.values, normalized.offsets, batch.valid)

    @overload
    def decode(
        self, rows: Sequence[int] | list[str] | NDArray[np.integer[Any]], *, skip_special_tokens: bool = ...
    ) -> str: ...
    @overload
    def decode(
        self, rows: TokenBatch | Sequence[Sequence[int] | list[str] | None], *, skip_special_tokens: bool = ...
    ) -> list[str | None]: ...
    def decode(self, rows: Any, *, skip_special_tokens: bool = True) -> Any:
        """Text from ids or pieces as the model's own tool writes it: a list for rows, one str for those of one row
        (an empty list is a row without ids).

        rows: a TokenBatch; or a sequence, array (with `tolist`) or Arrow array of integers, or of rows of integers; or
        pieces, as TokenBatch.pieces gives them: lists of str, in which what is no piece is text that stands for itself.
        Control ids become nothing, or their names with skip_special_tokens=False; null rows None. Raises ValueError for
        an id that the model does not have, TypeError unless they are ids or pieces.

        Example:
            >>> tok = Tokenizer.default(device="cpu")
            >>> tok.decode(tok.encode("a new dawn").pieces())
            ['a new dawn']
        """
        skip = checked_flag("skip_special_tokens", skip_special_tokens)
        if are_pieces(rows):
            return self._detokenizer([rows], skip)[0]
        if isinstance(rows, list | tuple) and any(map(are_pieces, rows)):
            ids = id_rows("rows", [None if are_pieces(row) else row for row in rows])
            return self._detokenizer([i or row for row, i in zip(rows, ids, strict=True)], skip)
        given, is_one = _rows_of(rows)
        texts = self._detokenizer(given, skip)
        return texts[0] if is_one else texts

    def canonical(self, rows: Any) -> TokenBatch:
        """What `encode` gives for the texts of these ids; rows: as for `decode`, and a single row is a batch of one.

        Example:
            >>> tok = Tokenizer.from_pieces({"ab": -1.0, "a": -2.0, "b": -2.5})
            >>> tok.canonical([[1, 2], [0]]).tolist()
            [[0], [0]]
        """
        return self.encode(self._detokenizer(_rows_of(rows)[0]), truncation=False)

    def is_canonical(self, rows: Any) -> NDArray[np.bool_]:
        """Whether each row is what `encode` gives for its text: bool [number of rows]; null rows are.

        rows: as for `decode`, and a single row is a batch of one. Control ids are no text, so a row with others than
        those that the model's tool puts around it is not canonical, and neither is one that splits a character.

        Example:
            >>> tok = Tokenizer.from_pieces({"ab": -1.0, "a": -2.0, "b": -2.5})
            >>> tok.is_canonical([[1, 2], [0]]).tolist()
            [False, True]
        """
        given, _ = _rows_of(rows)
        wanted = self.encode(self._detokenizer(given), truncation=False).tolist()
        return np.array([row is None or list(row) == best for row, best in zip(given, wanted, strict=True)], np.bool_)

    def verify(self, texts: Texts, out: TokenBatch) -> int | None:
        """The first row of `out` that does not spell the normalized text it should come from; None if all do.

        Ids that the tool puts around a row are ignored; an unknown id stands for any text, within what merges made of
        it too, and an id that the model does not have for none. Raises TypeError unless `out` is a TokenBatch,
        ValueError if its offsets decrease or leave its ids, or if it does not have K rows for each text.
        """
        batch, out = TextBatch.from_texts(texts), checked_tokens(out)
        rows = len(out)
        num_samples, rest = divmod(rows, max(1, len(batch)))
        if rest or (rows > 0) != (len(batch) > 0):
            raise ValueError(f"out has {rows} rows, not a multiple of the {len(batch)} texts; give theirs")
        normalized = self._normalize(batch)
        # The compiled loop looks ids up, so it stops at the row with the first id that does not exist.
        begin, end = out.offsets[0], out.offsets[-1]
        absent = np.flatnonzero(out.ids[begin:end].view(np.uint32) >= self.vocab_size)
        stop = int(np.searchsorted(out.offsets, begin + absent[0], side="right")) - 1 if len(absent) else rows
        around = len(self._model.prefix_ids), len(self._model.suffix_ids)
        ids, offsets = out.ids, out.offsets[: stop + 1]
        if self._parts is not None:
            ids, offsets, _ = self._parts.of_rows(ids[begin : offsets[-1]], offsets - begin, *around)
        row = first_misspelled(
            read_only(normalized.values, np.uint8),
            read_only(normalized.offsets, np.int64),
            read_only(ids, np.int32),
            read_only(offsets, np.int64),
            max(1, num_samples),
            *around,
            batch.is_null,
            self._spelling,
        )
        return int(row) if row >= 0 else stop if len(absent) else None

    @cached_property
    def _detokenizer(self) -> Detokenizer:
        return Detokenizer(self._model.in_full)

    @cached_property
    def _span_finder(self) -> SpanFinder:
        return SpanFinder(self._model.in_full, self._spelling, self._parts)

    @cached_property
    def _parts(self) -> Parts | None:
        return parts_of(self._model.merges, self.vocab_size)

    @cached_property
    def _spelling(self) -> Spelling:
        vocabulary = self._model.in_full.vocabulary
        byte_of = np.full(len(vocabulary), -1, np.int16)
        if vocabulary.byte_ids is not None:
            has_piece = vocabulary.byte_ids >= 0
            byte_of[vocabulary.byte_ids[has_piece]] = np.flatnonzero(has_piece)
        contents = [b""] * len(vocabulary)
        for i, content in vocabulary.contents:
            contents[i] = content
        unk_id = -1 if vocabulary.unk_id is None else vocabulary.unk_id
        return Spelling(*to_ragged(vocabulary.surfaces), *to_ragged(contents), byte_of, unk_id)

    def _sample_nbest(
        self, batch: TextBatch, n: int, doc_ids: NDArray[np.uint64], options: dict[str, Any]
    ) -> TokenBatch:
        from gpu_lattice.lattice.paths import BrokenLatticeError

        normalized = self._normalize(batch)
        parts = []
        for start, lattice in self._lattices(batch, normalized, n, options["num_samples"]):
            try:
                parts.append(lattice.sample_nbest(n, doc_ids=doc_ids[start : start + len(lattice)], **options))
            except BrokenLatticeError as error:
                position = int(normalized.offsets[start + error.i_doc]) + error.position
                raise self._no_path(normalized, position, 0) from None
        with self._backend.launcher:
            return joined(parts)

    def _lattices(
        self, batch: TextBatch, normalized: NormalizedBatch, n: int, num_samples: int
    ) -> Iterator[tuple[int, Lattice]]:
        """(first document, lattice) for parts of a batch, so that n best paths and samples take bounded memory."""
        from gpu_lattice.lattice import Lattice
        from gpu_lattice.lattice.nbest import in_parts

        limit = self._backend.memory_limit
        free = self._backend.launcher.free_bytes() if limit is None else limit
        for start, stop, part in in_parts(normalized, n, num_samples, free):
            valid = None if batch.valid is None else batch.valid[start:stop]
            yield start, Lattice.of(self._model, self._backend, part, valid, limit)

    def _texts(self, texts: Texts) -> TextBatch:
        """Texts to segment; they stay on the tokenizer's device where they are taken as they are there."""
        if isinstance(texts, TextBatch) and texts.device == self.device != "cpu":
            batch = TextBatch.from_dlpack(texts.values, texts.offsets, texts.valid)
            if self._backend.takes(batch):
                return batch
        return TextBatch.from_texts(texts)

    def _normalize(self, batch: TextBatch, first: int = 0, threads: int | None = None) -> NormalizedBatch:
        """first: the number by which errors name the batch's first document."""
        # What is on a device is what its backend takes as it is.
        normalizer = IdentityNormalizer() if is_on_device(batch.values) else self._model.normalizer
        return self._checked_length(normalizer(batch, threads or self._threads), first)

    def _aligned(self, batch: TextBatch, first: int) -> tuple[NormalizedBatch, Alignment]:
        """As `_normalize` on one thread, and where the bytes come from."""
        normalized, alignment = self._model.normalizer.aligned(batch)
        return self._checked_length(normalized, first), alignment

    def _checked_length(self, normalized: NormalizedBatch, first: int) -> NormalizedBatch:
        if len(normalized.values) > LARGEST_TEXT:
            check_lengths(normalized.offsets, LARGEST_TEXT, "normalized bytes;", first)
        return normalized

    def _best(self, batch: TextBatch, unit: Unit | None = None) -> TokenBatch:
        return self._run(batch, 1, lambda part, is_null, _: self._segmented(part, is_null, None), unit)

    def _mixture_entropy(self, texts: Texts, tilt: dict[str, float], rate: float) -> float | None:
        """The entropy of all texts together where words have one of their own; None where it is the lattice's."""
        if rate == 1 and self._unspellable == "raise":
            return None
        from gpu_lattice.resampling import mixture_entropy

        batch = TextBatch.from_texts(texts)
        return mixture_entropy(self._model, self._backend, self._normalize(batch), tilt, rate, self._undone)

    @cached_property
    def _undone(self) -> Undone | None:
        is_gone = np.zeros(self.vocab_size, np.bool_)
        is_gone[self.excluded_ids] = True
        return undone(self._base._model, is_gone)

    def _segmented(
        self, part: PendingBatch | NormalizedBatch, is_null: NDArray[np.bool_], draw: Draw | None, rate: float = 1.0
    ) -> Rows:
        """Samples, or best segmentations if draw is None."""
        spelled_by = self._base._backend if self._unspellable == "best" else None
        if spelled_by is None and rate == 1 and (draw or self._undone is None):
            return self._backend.sample(part, is_null, *draw) if draw else self._backend.encode(part, is_null)
        from gpu_lattice.resampling import segmented

        return segmented(self._model, self._backend, part.whole(), is_null, draw, rate, spelled_by, self._undone)

    def _run(
        self,
        batch: TextBatch,
        num_samples: int,
        work: Callable[[PendingBatch | NormalizedBatch, NDArray[np.bool_], slice], Rows],
        unit: Unit | None = None,
        seed: int | None = None,
    ) -> TokenBatch:
        """work(texts, is_null, where in the batch they are) for the documents that the backend wants together.

        unit: of spans, for which texts are aligned as they are normalized; on a GPU, that comes afterwards (`_framed`).
        """
        threads, on_cpu = self._threads, self._backend.device == "cpu"
        has_spans, source = unit is not None and on_cpu, self._source_of(batch)

        def take(start: int, stop: int) -> TokenBatch:
            part = batch.slice(start, stop)
            aligned = self._aligned(part, start) if has_spans else None
            given: PendingBatch | NormalizedBatch
            if aligned:
                given = aligned[0]
            elif on_cpu:
                given = self._normalize(part, start, threads)
            else:  # a range is normalized while the one before is on the GPU
                given = PendingBatch(part, self._normalize, start, threads)
            try:
                rows = work(given, part.is_null, slice(start, stop))
            except NoPathError as error:
                raise self._no_path(given.whole(), error.position, start) from None
            valid = None if part.valid is None else np.repeat(part.valid, num_samples)
            spans = self._span_finder.of_aligned(part, *aligned, rows, unit) if aligned and unit else None
            return TokenBatch(rows.ids, rows.offsets, rows.log_prob, valid, seed, spans, source)

        ranges = self._span_finder.ranges(batch, threads) if has_spans else self._backend.ranges(batch.offsets)
        return joined(map_ranges(take, ranges, threads))

    def _no_path(self, normalized: NormalizedBatch, position: int, first: int) -> ValueError:
        i_doc = int(np.searchsorted(normalized.offsets, position, side="left")) - 1
        start = int(normalized.offsets[i_doc])
        at = position - start
        before = normalized.values[max(start, position - 20) : position].tobytes()
        what_to_do = "add the missing symbols, or an unknown piece"
        if self._model.merges is not None and self._model.merges.unk_id == DROPPED and self._unspellable == "raise":
            what_to_do = "take tokenizer.without([], unspellable='best'): it leaves such words as `encode` has them"
        return ValueError(
            f"document {first + i_doc} cannot be spelled with this model's pieces: no segmentation reaches byte {at} "
            f"of it, after {before!r}; {what_to_do}"
        )


def _rows_of(rows: Any) -> tuple[Sequence[Sequence[int] | None], bool]:
    """Rows of ids, and whether one was given by itself."""
    if isinstance(rows, TokenBatch):
        return checked_tokens(rows).tolist(), False
    given = as_list("rows", rows)
    if all(isinstance(i, int | np.integer) for i in given):
        return [given], True
    return id_rows("rows", given), False


@cache
def _warn_of_alpha() -> None:
    """Warn once in a process."""
    warnings.warn(
        "the pieces of a BPE model have no scores, so alpha changes nothing: all segmentations are equally probable; "
        "give alpha=0 to say that this is wanted",
        UserWarning,
        stacklevel=3,
    )


def _rebuild(model: Model, device: str, threads: int | None, memory_limit: int | None) -> Tokenizer:
    return Tokenizer(model, device=device, threads=threads, memory_limit=memory_limit)


def _rebuild_from_bytes(*source: Any) -> Tokenizer:
    return Tokenizer._from_bytes(*source)


def _rebuild_from_pieces(
    pieces: Any, unk_piece: Any, device: str, threads: int | None, memory_limit: int | None
) -> Tokenizer:
    return Tokenizer.from_pieces(pieces, unk_piece=unk_piece, device=device, threads=threads, memory_limit=memory_limit)


def _rebuild_from_ranks(*source: Any) -> Tokenizer:
    return Tokenizer._from_ranks(*source)


def _rebuild_rescored(base: Tokenizer, scores: NDArray[np.float64], unspellable: Unspellable) -> Tokenizer:
    return base.rescored(scores, unspellable=unspellable)


def _backend(model: Model, device: str, threads: int | None, memory_limit: int | None) -> Backend:
    if not isinstance(device, str):
        raise TypeError(f"device is {device!r}; give 'auto', 'cpu', 'cuda' or 'cuda:N'")
    cuda = re.fullmatch(r"cuda(?::(\d+))?", device)
    if cuda is None and device not in ("auto", "cpu"):
        raise ValueError(f"device is {device!r}; give 'auto', 'cpu', 'cuda' or 'cuda:N'")
    if memory_limit is not None:
        memory_limit = checked_integer("memory_limit", memory_limit, 1, 2**63 - 1)
    if device == "cpu":
        if memory_limit is not None:
            raise ValueError(f"memory_limit is {memory_limit}, but device='cpu' takes no device memory; leave it out")
        return CpuBackend(model, threads)
    from gpu_lattice.backends import cuda_device as devices

    found = devices.CudaDevice(int(cuda[1] or 0)) if cuda else devices.find_device()
    if found is None:
        return CpuBackend(model, threads)
    fault = check_device(found)
    if fault and cuda:
        raise ValueError(f"device={device!r}: {fault}; give device='cpu', and report what `gpu-lattice doctor` prints")
    if fault:
        warnings.warn(
            f"device='auto' takes the CPU: {fault}; report what `gpu-lattice doctor` prints, or give device='cpu'",
            RuntimeWarning,
            stacklevel=3,
        )
        return CpuBackend(model, threads)
    from gpu_lattice.backends.cuda import CudaBackend

    return CudaBackend(model, found, memory_limit)


def check_device(device: Device, again: bool = False) -> str:
    """What a CUDA device does otherwise than the CPU for a small batch, in words; "" for nothing: then it is trusted.

    Results are remembered in the cache's folder for the device, driver and libraries, until the package changes; errors
    of the device are not. again: look anew.
    """
    from gpu_lattice.backends.cuda import CudaBackend
    from gpu_lattice.device_check import fault_of
    from gpu_lattice.models.tiktoken import rank_file, read_ranks

    def pairs() -> Iterator[tuple[Tokenizer, Tokenizer]]:
        symbols = [bytes([byte]) for byte in range(256)]
        pieces = dict.fromkeys(symbols, -3.0) | {b"\xe3\x81": -2.0, b"be": -1.0, b", or": -4.5}
        merged = [b"\xe3\x81", b" t", b" b", b" be", b"aa", b"aaaa", b"ot"]
        ranks = rank_file({token: rank for rank, token in enumerate([*symbols, *merged])})
        for model in (
            Tokenizer.default(device="cpu").model,
            Tokenizer.from_pieces(pieces, device="cpu").model,
            read_ranks(ranks, "a few ranks", "gpt2", None),
        ):
            cpu = Tokenizer(model, device="cpu", threads=1)
            yield cpu, cpu.on(CudaBackend(model, device, None))

    try:
        operation = fault_of(device.identity, pairs, again)
    except Exception as error:  # CuPy and the driver raise all kinds of them
        return f"it cannot run the kernels: {error}"
    return f"its results for a small batch are not the CPU's (first: {operation})" if operation else ""
