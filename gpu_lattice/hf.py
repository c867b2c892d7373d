"""A tokenizer with the interface of transformers: calls, padding, truncation, tensors, offsets, chat templates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from gpu_lattice.models import FIRST_TEXT, SECOND_TEXT, Layout
from gpu_lattice.runtime.arguments import checked_integer
from gpu_lattice.runtime.files import write_whole

try:
    from transformers import AddedToken, BatchEncoding, PreTrainedTokenizerBase
    from transformers.tokenization_utils_base import PaddingStrategy, TruncationStrategy
except ImportError:
    raise ImportError("as_hf needs the package transformers; install it with: pip install 'gpu-lattice[hf]'") from None

# What a model's file may call its other special tokens, by transformers' name.
OTHER_SPECIALS = {"cls_token": "[CLS] <cls>", "sep_token": "[SEP] <sep>", "mask_token": "[MASK] <mask>"}
# The file that holds a model, by its kind.
FILES = {"huggingface": "tokenizer.json", "sentencepiece": "tokenizer.model", "bytepiece": "bytepiece.model"}

Row = tuple[list[int], list[tuple[int, int]]]


class HFTokenizer(PreTrainedTokenizerBase):  # type: ignore[misc]
    """What `Tokenizer.as_hf` returns; ids are those of transformers' fast tokenizer of the same file.

    tokenizer: a gpu_lattice.Tokenizer. alpha: if given, texts are segmented by fresh samples, in each call anew.
    """

    def __init__(self, tokenizer: Any, alpha: float | None = None) -> None:
        self._ours, self._alpha, model = tokenizer, alpha, tokenizer.model
        names, vocab = model.vocabulary.names, tokenizer.vocab
        ids = {"bos": model.bos_id, "eos": model.eos_id, "pad": model.pad_id, "unk": tokenizer.unk_id}
        special = {f"{which}_token": names[i] for which, i in ids.items() if i is not None}
        for which, known in OTHER_SPECIALS.items():
            found = [name for name in known.split() if name in vocab and tokenizer.is_control(vocab[name])]
            special |= {which: found[0]} if found else {}
        length = {} if model.max_length is None else {"model_max_length": model.max_length}
        super().__init__(
            padding_side=model.padding_side, truncation_side=model.truncation_side, **special, **length
        )  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        return HFTokenizer, (self._ours, self._alpha)

    def __len__(self) -> int:
        return len(self._ours)

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        return len(self._ours)

    def get_vocab(self) -> dict[str, int]:
        """The id of every piece."""
        return dict(self._ours.vocab)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The ids that stand for no text."""
        names = self._ours.model.vocabulary.names
        return {i: AddedToken(names[i], special=True) for i in range(len(self)) if self._ours.is_control(i)}

    def _convert_token_to_id_with_added_voc(self, token: str) -> int | None:
        i: int | None = self._ours.piece_to_id(token)
        unk_id: int | None = self._ours.unk_id
        return unk_id if i is None else i

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The pieces of ids."""
        if isinstance(ids, int):
            return self._ours.id_to_piece(ids)
        ids = [int(i) for i in ids]
        return self._ours.id_to_piece([i for i in ids if not (skip_special_tokens and self._ours.is_control(i))])

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of pieces."""
        return str(self._ours.decode(self.convert_tokens_to_ids(tokens), skip_special_tokens=False))

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False, **options: Any) -> Any:
        """The pieces of a text; for unknown text as it is there."""
        if pair is None:
            return self._segmented([text], add_special_tokens=add_special_tokens, truncation=False).pieces()[0]
        return self.convert_ids_to_tokens(self.encode(text, pair, add_special_tokens=add_special_tokens, **options))

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many ids the model's file puts around a text, or a pair."""
        return len(self._layout(pair, True)) - 1 - pair

    def _segmented(self, texts: Sequence[str], **options: Any) -> Any:
        if self._alpha is None:
            return self._ours.encode(texts, **options)
        return self._ours.sample(texts, alpha=self._alpha, **options)

    def _layout(self, is_pair: bool, add_special_tokens: bool) -> Layout:
        """(id, FIRST_TEXT or SECOND_TEXT; its type id) of what a row is made of."""
        layouts: tuple[Layout, Layout] | None = self._ours.model.layouts
        if not add_special_tokens:
            return ((FIRST_TEXT, 0), (SECOND_TEXT, 1))[: 1 + is_pair]
        if layouts is None and is_pair:
            raise ValueError("this model's file does not say how a pair of texts becomes one row; join the texts")
        if layouts is None:
            model = self._ours.model
            return (*((i, 0) for i in model.prefix_ids), (FIRST_TEXT, 0), *((i, 0) for i in model.suffix_ids))
        return layouts[is_pair]

    def _encode_plus(
        self,
        text: Any,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        padding_strategy: Any = PaddingStrategy.DO_NOT_PAD,
        truncation_strategy: Any = TruncationStrategy.DO_NOT_TRUNCATE,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: Any = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        return_overflowing_tokens: bool = False,
        stride: int = 0,
        verbose: bool = True,
        **others: Any,
    ) -> BatchEncoding:
        """What `__call__` does, once it has read its options. Raises ValueError for options that are not supported."""
        if others.get("is_split_into_words"):
            raise ValueError("is_split_into_words is not supported; give whole texts")
        if return_overflowing_tokens and text_pair is not None:
            raise ValueError("return_overflowing_tokens is not supported for pairs; give texts alone")
        is_batch = isinstance(text, list | tuple)
        firsts = self._rows(text if is_batch else [text], "text")
        pairs: list[Row | None] = [None] * len(firsts)
        if text_pair is not None:
            if isinstance(text_pair, list | tuple) != is_batch or (is_batch and len(text_pair) != len(text)):
                raise ValueError("text_pair must be a list of as many texts as text, or one text for one")
            pairs[:] = self._rows(text_pair if is_batch else [text_pair], "text_pair")
        layout = self._layout(text_pair is not None, add_special_tokens)
        room = None
        if truncation_strategy != TruncationStrategy.DO_NOT_TRUNCATE and max_length is not None:
            room = max(0, max_length - (len(layout) - 1 - (text_pair is not None)))
        if return_overflowing_tokens:
            stride = checked_integer("stride", stride, 0, 2**31 - 1)
            windows = [self._windows(first, room, stride) for first in firsts]
            rows = [_row(layout, window, None) for those in windows for window in those]
        else:
            rows = [_row(layout, *self._cut(first, second, room, truncation_strategy)) for first, second in
                    zip(firsts, pairs, strict=True)]  # fmt: skip
        has_types = (
            "token_type_ids" in self.model_input_names if return_token_type_ids is None else return_token_type_ids
        )
        columns: dict[str, Any] = {"input_ids": [row["input_ids"] for row in rows]}
        shown = {
            "token_type_ids": has_types,
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
        }
        columns |= {name: [row[name] for row in rows] for name, is_wanted in shown.items() if is_wanted}
        if return_overflowing_tokens:
            columns["overflow_to_sample_mapping"] = [i for i, those in enumerate(windows) for _ in those]
        for ids in columns["input_ids"]:
            self._eventual_warn_about_too_long_sequence(ids, max_length, verbose)
        is_one = not (is_batch or return_overflowing_tokens)
        is_flat = is_one and return_tensors is None and padding_strategy in (False, PaddingStrategy.DO_NOT_PAD)
        if is_flat:
            columns = _of_one(columns)
        padded = self.pad(
            columns, padding=padding_strategy, max_length=max_length, pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side, return_attention_mask=return_attention_mask, verbose=False,
        )  # fmt: skip
        if return_length:
            padded["length"] = [len(ids) for ids in ([padded["input_ids"]] if is_flat else padded["input_ids"])]
        offsets = padded.get("offset_mapping")
        if offsets and isinstance(padded["input_ids"][0], list):
            side = padding_side or self.padding_side
            fills = [[(0, 0)] * (len(ids) - len(row)) for ids, row in zip(padded["input_ids"], offsets, strict=True)]
            padded["offset_mapping"] = [
                row + fill if side == "right" else fill + row for fill, row in zip(fills, offsets, strict=True)
            ]
        done = BatchEncoding(dict(padded), tensor_type=return_tensors)
        if is_one and return_tensors is None and isinstance(done["input_ids"][0], list):
            done = BatchEncoding(_of_one(done))
        return done

    def _rows(self, texts: Any, name: str) -> list[Row]:
        for text in texts:
            if not isinstance(text, str):
                raise ValueError(f"{name} holds a {type(text).__name__}: {text!r:.60}; give str")
        out = self._segmented(list(texts), add_special_tokens=False, truncation=False, return_offsets="characters")
        ids, offsets = out.ids.tolist(), out.offsets.tolist()
        spans = list(map(tuple, out.spans.tolist()))
        return [(ids[a:b], spans[a:b]) for a, b in pairwise(offsets)]

    def _cut(self, first: Row, second: Row | None, room: int | None, strategy: Any) -> tuple[Row, Row | None]:
        """Both texts cut to `room` ids, as tokenizers does it (utils/truncation.rs)."""
        n, m = len(first[0]), 0 if second is None else len(second[0])
        if room is None or n + m <= room:
            return first, second
        if strategy == TruncationStrategy.ONLY_FIRST:
            n = _at_least_one(room - m)
        elif strategy == TruncationStrategy.ONLY_SECOND:
            m = _at_least_one(room - n)
        elif second is None:
            n = room
        else:
            less, more = min(n, m), max(n, m)
            more = less if less > room else max(less, room - less)
            if less + more > room:
                less = room // 2
                more = less + room % 2
            n, m = (less, more) if n <= m else (more, less)
        return self._kept(first, n), None if second is None else self._kept(second, m)

    def _windows(self, row: Row, room: int | None, stride: int) -> list[Row]:
        """A row in windows of `room` ids, of which each has `stride` of the one before, as tokenizers cuts it."""
        ids, spans = row
        n = len(ids)
        if room is None or n <= room:
            return [row]
        if stride >= room:
            raise ValueError(f"stride is {stride}, and a row has room for {room} ids of its text; give a smaller one")
        windows = []
        for i in range(0, n, room - stride):
            start, stop = (i, min(i + room, n)) if self.truncation_side == "right" else (max(0, n - i - room), n - i)
            windows.append((ids[start:stop], spans[start:stop]))
            if i + room >= n:
                break
        return windows

    def _kept(self, row: Row, n: int) -> Row:
        ids, spans = row
        n = min(n, len(ids))
        return (ids[:n], spans[:n]) if self.truncation_side == "right" else (ids[len(ids) - n :], spans[len(ids) - n :])

    def _decode(
        self,
        token_ids: int | list[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **_: Any,
    ) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else [int(i) for i in token_ids]
        text = self._ours.decode(ids, skip_special_tokens=skip_special_tokens) if ids else ""
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    def _add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        raise NotImplementedError("use Tokenizer.add_tokens, which gives another tokenizer, and its as_hf()")

    def save_pretrained(self, save_directory: Any, **_: Any) -> tuple[str, ...]:
        """Write the model's file, and a tokenizer_config.json with which transformers reads a tokenizer.json."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / FILES.get(self._ours.model.kind, "tokenizer.model")
        self._ours.save(file)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self.model_max_length,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            **{name: str(token) for name, token in self.special_tokens_map.items() if isinstance(token, str)},
        }
        config_file = folder / "tokenizer_config.json"
        write_whole(config_file, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
        return str(file), str(config_file)


def _at_least_one(n: int) -> int:
    if n < 1:
        raise ValueError(
            "one text cannot be cut so far that the row has max_length ids; use truncation='longest_first'"
        )
    return n


def _of_one(columns: Any) -> dict[str, Any]:
    """The columns of a batch of one, without the batch."""
    return {name: column[0] if isinstance(column[0], list) else column for name, column in columns.items()}


def _row(layout: Sequence[tuple[int, int]], first: Row, second: Row | None) -> dict[str, list[Any]]:
    row: dict[str, list[Any]] = {
        name: [] for name in ("input_ids", "token_type_ids", "special_tokens_mask", "offset_mapping")
    }
    for i, kind in layout:
        text = first if i == FIRST_TEXT else second if i == SECOND_TEXT else None
        ids, spans = ([i], [(0, 0)]) if text is None else text
        row["input_ids"] += ids
        row["token_type_ids"] += [kind] * len(ids)
        row["special_tokens_mask"] += [int(text is None)] * len(ids)
        row["offset_mapping"] += spans
    return row
