"""Shards dealt to the workers of a Ray cluster, and batches of a Ray Dataset segmented in place (extra: ray)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gpu_lattice.corpus.draws import document_ids
from gpu_lattice.corpus.job import Job, Shard
from gpu_lattice.corpus.pipeline import run_shards
from gpu_lattice.corpus.progress import Progress

if TYPE_CHECKING:
    from gpu_lattice.corpus.manifest import Record
    from gpu_lattice.tokenizer import Tokenizer


class SampleBatches:
    """A callable class for ray.data.Dataset.map_batches: Arrow batches in, the same with a column of ids out.

    tokenizer, or a function that makes one   the model is loaded once in each actor; give a function to choose a device
                                              there
    text_column, id_column   as in retokenize; ids may be integers or strings, and must be given to sample
    alpha, seed, nbest_size, token_penalty, rate   as in Tokenizer.sample; alpha None: the best segmentation
    column                   what the column of ids, list<int32>, is called

    Example:
        >>> dataset.map_batches(  # doctest: +SKIP
        ...     SampleBatches, fn_constructor_args=(Tokenizer.default,), fn_constructor_kwargs={"id_column": "id",
        ...     "alpha": 0.2}, batch_format="pyarrow", batch_size=4096, compute=ray.data.ActorPoolStrategy(size=2))
    """

    def __init__(
        self,
        tokenizer: Tokenizer | Callable[[], Tokenizer],
        *,
        text_column: str = "text",
        id_column: str | None = None,
        alpha: float | None = None,
        nbest_size: int = -1,
        seed: int = 0,
        token_penalty: float = 0.0,
        rate: float = 1.0,
        column: str = "input_ids",
    ) -> None:
        if alpha is not None and id_column is None:
            raise ValueError("batches have no order of their own, so a draw needs ids; give id_column")
        self._tokenizer = tokenizer() if callable(tokenizer) else tokenizer
        self._text_column, self._id_column, self._column = text_column, id_column, column
        self._draw: dict[str, Any] = {
            "nbest_size": nbest_size, "seed": seed, "token_penalty": token_penalty, "rate": rate,
        }  # fmt: skip
        self._alpha = alpha

    def __call__(self, batch: pa.Table) -> pa.Table:
        texts = batch.column(self._text_column)
        if self._alpha is None or self._id_column is None:
            out = self._tokenizer.encode(texts, truncation=False)
        else:
            doc_ids = [document_ids(chunk) for chunk in batch.column(self._id_column).chunks]
            joined = np.concatenate([np.empty(0, np.int64), *doc_ids])
            out = self._tokenizer.sample(texts, alpha=self._alpha, doc_ids=joined, truncation=False, **self._draw)
        return batch.append_column(self._column, out.to_arrow())


def run_on_ray(
    job: Job, shards: list[Shard], workers: int | None, progress: Progress, let_interrupts_in: Callable[[], None]
) -> Iterator[Record]:
    """Do the shards by actors, each with its own model; yields the record of each in the order in which they end.

    workers: None: one for each GPU of the cluster if the tokenizer is on one, else one for each of its CPUs' worth of
    threads. A shard whose worker dies is done again by another.
    """
    ray = _ray()
    if not shards:
        return
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, logging_level="warning")
        except Exception as error:  # Ray raises bare ones
            raise OSError(f"Ray cannot start here: {error}; start a cluster, or give engine='local'") from None
    num_gpus = 1 if job.tokenizer.device.startswith("cuda") else 0
    if workers is None:
        workers = max(1, int(ray.cluster_resources().get("GPU" if num_gpus else "CPU", 1)))
    workers = min(workers, len(shards))
    size_of = {shard.number: shard.size for shard in shards}
    items = [{"shard": i} for i in range(len(shards))]
    results = (
        ray.data.from_items(items, override_num_blocks=len(items))
        .map_batches(
            _Worker,
            fn_constructor_args=(ray.put(job), ray.put(shards)),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=num_gpus,
        )
        .iter_rows()
    )
    with _quiet(ray):
        for row in results:
            record: Record = json.loads(row["record"])
            progress.advance(size_of[record["shard"]], record["documents"], record["tokens"])
            yield record
            let_interrupts_in()


class _Worker:
    """An actor that does whole shards, as the local engine does."""

    def __init__(self, job: Any, shards: Any) -> None:
        import ray

        self._job: Job = ray.get(job)
        self._shards: list[Shard] = ray.get(shards)

    def __call__(self, batch: pa.Table) -> Any:
        chosen = [self._shards[i] for i in batch.column("shard").to_pylist()]
        with Progress(0, False) as nothing:
            records = list(run_shards(self._job, chosen, nothing, lambda: None))
        return pa.table({"record": [json.dumps(record) for record in records]})


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Without Ray's own bars."""
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars
    context.enable_progress_bars = False
    try:
        yield
    finally:
        context.enable_progress_bars = before


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise ImportError("the engine ray needs the package ray: pip install 'gpu_lattice[ray]'") from None
    return ray
