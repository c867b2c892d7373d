"""A Ray Dataset segmented in place by two actors, the same ids as on one machine. Needs: ray."""

import ray

from gpu_lattice import Tokenizer
from gpu_lattice.corpus.ray_engine import SampleBatches

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
rows = ray.data.from_items([{"id": i, "text": f"Document number {i}."} for i in range(100)])
ids = rows.map_batches(
    SampleBatches,
    fn_constructor_args=(Tokenizer.default,),
    fn_constructor_kwargs={"id_column": "id", "alpha": 0.2, "seed": 0},
    batch_format="pyarrow",
    batch_size=25,
    compute=ray.data.ActorPoolStrategy(size=2),
)
print(sorted(ids.take_all(), key=lambda row: row["id"])[0])
