"""Each document once an epoch, with the tokens of a single process, whatever workers and ranks there are."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gpu_lattice import Tokenizer

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader, DistributedSampler  # noqa: E402

from gpu_lattice.torch import FreshSegmentations, FreshSequences, Padded  # noqa: E402

TEXTS = [f"{'ab' * (n % 7)}{'ba' * (n % 5)}{'a' * (n % 3)}b" for n in range(1000)]
SEED, END, PADDING = 5, 3, 4


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_pieces({"a": -1.0, "b": -1.5, "ab": -2.0, "</s>": -9.0, "<pad>": -9.0}, device="cpu")


def expected(tokenizer: Tokenizer, epoch: int) -> list[list[int]]:
    return tokenizer.sample(TEXTS, alpha=0.1, seed=SEED, epoch=epoch).tolist()


def loaders(data: Any, **options: Any) -> Iterator[tuple[Any, Any]]:
    """(sampler, loader) of two ranks with two workers each."""
    for rank in range(2):
        sampler = DistributedSampler(data, num_replicas=2, rank=rank, shuffle=True, seed=1)
        yield sampler, DataLoader(data, sampler=sampler, num_workers=2, collate_fn=list, **options)


@pytest.mark.parametrize("persistent", [False, True])
def test_every_document_comes_once_an_epoch_with_the_tokens_of_one_process(
    tokenizer: Tokenizer, persistent: bool
) -> None:
    data = FreshSegmentations(TEXTS, tokenizer, seed=SEED)
    ranks = list(loaders(data, batch_size=32, persistent_workers=persistent))
    seen = []
    for epoch in range(3):
        data.set_epoch(epoch)
        rows: dict[int, list[int]] = {}
        for sampler, loader in ranks:
            sampler.set_epoch(epoch)
            order = list(sampler)
            drawn = [row.tolist() for batch in loader for row in batch]
            assert len(drawn) == len(order) == 500
            rows |= dict(zip(order, drawn, strict=True))
        assert sorted(rows) == list(range(1000))
        assert [rows[i] for i in range(1000)] == expected(tokenizer, epoch)
        seen.append(rows)
    assert seen[0] != seen[1] != seen[2] != seen[0]


def test_damaged_arrow_arrays_are_refused_before_a_document_is_looked_up(tokenizer: Tokenizer) -> None:
    view = np.array([40, 0, 0, 10**6], np.int32)
    damaged = pa.Array.from_buffers(pa.string_view(), 1, [None, pa.py_buffer(view), pa.py_buffer(b"ab" * 20)])
    for make in (FreshSegmentations, lambda *of: FreshSequences(*of, sequence_length=3, end_id=END)):
        with pytest.raises(ValueError, match="damaged"):
            make(damaged, tokenizer)
    column = pa.chunked_array([["ab"], [None, "ba"]])
    drawn = tokenizer.sample(["ab", None, "ba"], seed=SEED).tolist()
    data = FreshSegmentations(column, tokenizer, seed=SEED)
    assert [row.tolist() for row in data] == [row or [] for row in drawn]
    [item] = FreshSequences(column, tokenizer, sequence_length=9, end_id=END, seed=SEED)
    assert item["input_ids"].tolist()[:3] == [*(drawn[0] or []), END, END][:3]


@pytest.mark.parametrize(
    "form",
    [list, pa.array, lambda texts: pa.chunked_array([texts[:3], texts[3:]]),
     lambda texts: pa.array(texts, pa.string_view())],
)  # fmt: skip
def test_documents_are_got_by_index_from_lists_and_arrow(tokenizer: Tokenizer, form: Any) -> None:
    data = FreshSegmentations(form(TEXTS), tokenizer, seed=SEED, epoch=2)
    rows = expected(tokenizer, 2)
    assert len(data) == 1000
    assert [data[i].tolist() for i in (0, 7, -1)] == [rows[0], rows[7], rows[-1]]
    assert data[0].dtype == torch.int64
    with pytest.raises(ValueError, match="the index is 1000"):
        data[1000]


def test_a_stream_deals_its_documents_to_ranks_and_workers(tokenizer: Tokenizer) -> None:
    """Each of the four deals only its own: together they have every document once."""
    for epoch in range(2):
        ids: list[int] = []
        for rank in range(2):
            data = FreshSequences(lambda: iter(TEXTS), tokenizer, sequence_length=64, seed=SEED, epoch=epoch,
                                  end_id=END, rank=rank, world_size=2)  # fmt: skip
            items = list(DataLoader(data, num_workers=2, batch_size=None))
            assert all(len(item["input_ids"]) == 64 for item in items)
            assert all(torch.equal(item["labels"] == -100, item["attention_mask"] == 0) for item in items)
            own = [i for item in items for i in item["input_ids"][item["attention_mask"] == 1].tolist()]
            assert own.count(END) == 500
            ids += own
        rows = expected(tokenizer, epoch)
        assert sorted(ids) == sorted([i for row in rows for i in row] + [END] * 1000)


def test_one_process_packs_the_documents_in_their_order(tokenizer: Tokenizer) -> None:
    data = FreshSequences(TEXTS, tokenizer, sequence_length=50, seed=SEED, end_id=END)
    items = list(data)
    ids = [i for item in items for i in item["input_ids"][item["attention_mask"] == 1].tolist()]
    assert ids == [i for row in expected(tokenizer, 0) for i in [*row, END]]
    assert all(int(item["attention_mask"].sum()) == 50 for item in items[:-1])
    assert items[-1]["labels"][-1] == -100 or len(ids) % 50 == 0


def test_rows_are_padded_with_mask_and_labels(tokenizer: Tokenizer) -> None:
    rows = [torch.tensor([1, 2, 3]), torch.tensor([2])]
    batch = Padded(pad_id=PADDING)(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [2, 4, 4]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[1, 2, 3], [2, -100, -100]]
    assert Padded(pad_id=PADDING, side="left")(rows)["input_ids"].tolist() == [[1, 2, 3], [4, 4, 2]]
    with pytest.raises(ValueError, match="no id for padding"):
        Padded(tokenizer)


def test_what_cannot_be_a_data_set_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TypeError, match="texts is a generator"):
        FreshSegmentations((text for text in TEXTS), tokenizer)
    with pytest.raises(TypeError, match="documents is a generator, which is not to be iterated anew"):
        FreshSequences((text for text in TEXTS), tokenizer, sequence_length=8)
    with pytest.raises(ValueError, match="no eos_id; give end_id"):
        FreshSequences(TEXTS, tokenizer, sequence_length=8)
    with pytest.raises(ValueError, match="rank is 2 of world_size 2"):
        list(FreshSequences(TEXTS, tokenizer, sequence_length=8, end_id=END, rank=2, world_size=2))


def test_importing_gpu_lattice_does_not_import_torch() -> None:
    check = "import sys, gpu_lattice; gpu_lattice.Tokenizer; assert 'torch' not in sys.modules; gpu_lattice.torch"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_options_of_sampling_are_passed_on(tokenizer: Tokenizer) -> None:
    options = {"alpha": 0.0, "token_penalty": 0.5, "rate": 0.4}
    data = FreshSegmentations(TEXTS[:50], tokenizer, seed=SEED, **options)
    wanted = tokenizer.sample(TEXTS[:50], seed=SEED, **options).tolist()
    assert [data[i].tolist() for i in range(50)] == wanted
    assert wanted != tokenizer.sample(TEXTS[:50], seed=SEED, alpha=0.0).tolist()


@pytest.mark.parametrize(("rank", "world_size"), [(10**400, 1), (0, np.float32(0.5)), (0, 0), (-1, 2), (2.0, 3)])
def test_ranks_that_are_none_are_refused(rank: Any, world_size: Any) -> None:
    tokenizer = Tokenizer.default(device="cpu")
    with pytest.raises((ValueError, TypeError), match=r"(rank|world_size) is .*; give"):
        FreshSequences(TEXTS, tokenizer, sequence_length=8, end_id=END, rank=rank, world_size=world_size)
