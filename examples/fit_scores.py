"""Scores fitted to one's own text: the same pieces, but a likelihood of text that was not seen which is greater."""

import pyarrow.compute as pc
import pyarrow.parquet as pq

from gpu_lattice import Tokenizer

tok = Tokenizer.default()  # made for three languages
corpus = pq.read_table("gpu_lattice/data/corpus.parquet")
texts = corpus.filter(pc.field("language") == "ja")["text"]
half = len(texts) // 2
seen, unseen = texts[:half], texts[half:]
found = tok.fit(seen, iterations=4)
print("log-likelihood by step:", *(f"{value:.0f}" for value in found.log_likelihood))
for name, one in ("as it came", tok), ("fitted", found.tokenizer):
    measured = one.token_statistics(unseen)
    print(f"{name}: {measured.log_partition.sum():.0f}, and {measured.bytes_per_token:.3f} bytes per token")
# found.tokenizer.save("fitted.model")  # in the format that the model came in
