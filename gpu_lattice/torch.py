"""Fresh segmentations for PyTorch: in each epoch other ids for a document, the same in every worker, rank and batch.

A draw is a function of the text, the seed, the epoch and the document's number in the data set, never of its place in a
batch. So the data sets here need no state beside the epoch, and workers and ranks need not talk to each other.

Example:
    >>> from torch.utils.data import DataLoader
    >>> from gpu_lattice import Tokenizer
    >>> tokenizer = Tokenizer.from_pieces(["a", "b", "ab"])
    >>> data = FreshSegmentations(["ab", "b"], tokenizer, alpha=0, seed=1)
    >>> loader = DataLoader(data, batch_size=2, collate_fn=Padded(pad_id=0))
    >>> for epoch in range(3):
    ...     data.set_epoch(epoch)
    ...     print([batch["input_ids"].tolist() for batch in loader])
    [[[0, 1], [1, 0]]]
    [[[2], [1]]]
    [[[0, 1], [1, 0]]]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.runtime.arguments import check_tokenizer, checked_integer, shown
from gpu_lattice.text_batch import TextBatch

try:
    import torch
    from torch import Tensor
    from torch.nn.utils.rnn import pad_sequence
    from torch.utils.data import Dataset, IterableDataset, get_worker_info
except ImportError:
    raise ImportError("gpu_lattice.torch needs PyTorch; install it with: pip install 'gpu-lattice[torch]'") from None

if TYPE_CHECKING:
    from gpu_lattice.token_batch import Side, TokenBatch
    from gpu_lattice.tokenizer import Tokenizer

# What losses of PyTorch and Hugging Face leave out.
IGNORED = -100
# Documents that a stream samples at once.
DOCUMENTS_AT_ONCE = 256


class FreshSegmentations(Dataset[Tensor]):
    """The ids of document i in the current epoch, int64 [tokens]; any sampler, any number of workers and ranks.

    texts: what has a length and gives a str or bytes for an index (a list, a column of a data set), or an Arrow array.
    seed, alpha, options (token_penalty, rate ..): as for `Tokenizer.sample`. Set the epoch before a loader is iterated:
    workers that live on see it too.

    Example:
        >>> from gpu_lattice import Tokenizer
        >>> FreshSegmentations(["aab"], Tokenizer.from_pieces(["a", "b"]), seed=1)[0]
        tensor([0, 0, 1])
    """

    def __init__(
        self, texts: Any, tokenizer: Tokenizer, *, alpha: float = 0.1, seed: int = 0, epoch: int = 0, **options: Any
    ) -> None:
        if not hasattr(texts, "__len__") or not hasattr(texts, "__getitem__") or isinstance(texts, str | bytes):
            raise TypeError(f"texts is a {type(texts).__name__}; give a list of texts, a column or an Arrow array")
        self._texts, self._draw = _checked(texts), _Draw(tokenizer, alpha, seed, epoch, options)

    def set_epoch(self, epoch: int) -> None:
        """Have documents drawn anew, as those of this epoch, counted from 0."""
        self._draw.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, i: int) -> Tensor:
        return self.__getitems__([i])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        """The documents of a batch, drawn at once; a DataLoader calls this."""
        numbers = [checked_integer("the index", i, -len(self), len(self) - 1) % len(self) for i in indices]
        out = self._draw([self._texts[i] for i in numbers], numbers)
        return [_tensor(out[i]) for i in range(len(out))]


class FreshSequences(IterableDataset[dict[str, Tensor]]):
    """Documents of a stream one after another, each with an id behind it, in sequences of one length.

    Each item has input_ids, attention_mask and labels, int64 [sequence_length]; only a worker's last one may end in
    padding, whose mask is 0 and whose label is -100.

    documents      what can be iterated anew in each epoch, or a function that returns an iterator
    end_id         the id behind each document, by default the tokenizer's eos_id
    rank, world_size   which of so many ranks this is; by default as torch.distributed says. Document n goes to rank
                   n % world_size, and there to its workers in turn
    others         as for `FreshSegmentations`
    """

    def __init__(
        self,
        documents: Iterable[str | bytes] | Callable[[], Iterable[str | bytes]],
        tokenizer: Tokenizer,
        *,
        sequence_length: int,
        alpha: float = 0.1,
        seed: int = 0,
        epoch: int = 0,
        end_id: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        **options: Any,
    ) -> None:
        if isinstance(documents, Iterator | str | bytes):
            raise TypeError(f"documents is a {type(documents).__name__}, which is not to be iterated anew in each "
                            "epoch; give a list, or a function that returns an iterator")  # fmt: skip
        self._documents, self._draw = _checked(documents), _Draw(tokenizer, alpha, seed, epoch, options)
        self._length = checked_integer("sequence_length", sequence_length, 1, 2**31 - 1)
        end_id = tokenizer.eos_id if end_id is None else end_id
        if end_id is None:
            raise ValueError("this model has no eos_id; give end_id, the id behind each document")
        self._end_id = checked_integer("end_id", end_id, 0, tokenizer.vocab_size - 1)
        self._rank = None if rank is None else checked_integer("rank", rank, 0, 2**31 - 1)
        self._world_size = None if world_size is None else checked_integer("world_size", world_size, 1, 2**31 - 1)

    def set_epoch(self, epoch: int) -> None:
        """Have documents drawn anew, as those of this epoch, counted from 0."""
        self._draw.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rest = np.empty(0, np.int32)
        for ids in self._ids():
            rest = np.concatenate([rest, ids])
            n_whole = len(rest) // self._length
            for sequence in rest[: n_whole * self._length].reshape(n_whole, self._length):
                yield _labelled(_tensor(sequence), torch.ones(self._length, dtype=torch.int64))
            rest = rest[n_whole * self._length :]
        if len(rest):
            padded = np.pad(rest, (0, self._length - len(rest)), constant_values=self._end_id)
            yield _labelled(_tensor(padded), (torch.arange(self._length) < len(rest)).long())

    def _ids(self) -> Iterator[np.ndarray[Any, np.dtype[np.int32]]]:
        """The ids of some documents of this worker at a time, with an id behind each."""
        part, n_parts = self._part()
        documents = self._documents() if callable(self._documents) else self._documents
        mine = islice(enumerate(documents), part, None, n_parts)
        while some := list(islice(mine, DOCUMENTS_AT_ONCE)):
            out = self._draw([text for _, text in some], [number for number, _ in some])
            yield np.insert(out.ids, out.offsets[1:], self._end_id)

    def _part(self) -> tuple[int, int]:
        """Which of how many workers of all ranks this is."""
        rank, world_size = self._rank, self._world_size
        if rank is None or world_size is None:
            is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
            rank = torch.distributed.get_rank() if is_distributed else 0
            world_size = torch.distributed.get_world_size() if is_distributed else 1
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {shown(rank)} of world_size {shown(world_size)}; give one from 0 on below that")
        worker = get_worker_info()
        n_workers = worker.num_workers if worker else 1
        return rank + world_size * (worker.id if worker else 0), world_size * n_workers


class Padded:
    """A collate function: rows of ids to input_ids, attention_mask and labels, int64 [rows, longest row].

    pad_id: by default the tokenizer's, else its eos_id; masked out and -100 in the labels in any case.

    Example:
        >>> import torch
        >>> Padded(pad_id=0)([torch.tensor([5, 6]), torch.tensor([7])])["attention_mask"].tolist()
        [[1, 1], [1, 0]]
    """

    def __init__(self, tokenizer: Tokenizer | None = None, *, pad_id: int | None = None, side: Side = "right") -> None:
        if pad_id is None and tokenizer is not None:
            pad_id = tokenizer.eos_id if tokenizer.pad_id is None else tokenizer.pad_id
        if pad_id is None:
            raise ValueError("the model has no id for padding; give pad_id")
        self.pad_id, self.side = checked_integer("pad_id", pad_id, 0, 2**31 - 1), side

    def __call__(self, rows: Sequence[Tensor]) -> dict[str, Tensor]:
        options = {"batch_first": True, "padding_side": self.side}
        ids = pad_sequence(list(rows), padding_value=self.pad_id, **options)  # type: ignore[arg-type]
        mask = pad_sequence([torch.ones_like(row) for row in rows], **options)  # type: ignore[arg-type]
        return _labelled(ids, mask)


class _Column:
    """Texts of an Arrow array, checked once: pyarrow looks a text up wherever damaged offsets lead."""

    def __init__(self, array: Any) -> None:
        self._parts = [TextBatch.from_texts(chunk) for chunk in getattr(array, "chunks", [array])]
        self._starts = np.cumsum([0, *map(len, self._parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, i: int) -> bytes | None:
        if not 0 <= i < len(self):
            raise IndexError(i)  # which ends an iteration
        i_part = int(np.searchsorted(self._starts, i, side="right")) - 1
        part, k = self._parts[i_part], i - int(self._starts[i_part])
        is_null = part.valid is not None and not part.valid[k]
        return None if is_null else part.values[part.offsets[k] : part.offsets[k + 1]].tobytes()


def _checked(texts: Any) -> Any:
    return _Column(texts) if hasattr(texts, "to_pylist") else texts


class _Draw:
    """Samples of numbered documents in the current epoch, which all worker processes share."""

    def __init__(self, tokenizer: Tokenizer, alpha: float, seed: int, epoch: int, options: dict[str, Any]) -> None:
        check_tokenizer(tokenizer)
        self._tokenizer = tokenizer
        self._options = {"alpha": alpha, "seed": checked_integer("seed", seed, 0, 2**64 - 1)} | options
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch[0] = checked_integer("epoch", epoch, 0, 2**63 - 1)

    def __call__(self, texts: Any, numbers: list[int]) -> TokenBatch:
        return self._tokenizer.sample(texts, epoch=int(self._epoch[0]), doc_ids=numbers, **self._options)


def _tensor(ids: Any) -> Tensor:
    return torch.as_tensor(ids).long()


def _labelled(ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, IGNORED)}
