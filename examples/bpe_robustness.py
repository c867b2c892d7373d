"""Uniform segmentations of a BPE vocabulary for a tenth of the words, so that a model learns all spellings of them."""

import sys

import pyarrow.parquet as pq

import gpu_lattice as gl

tok = gl.Tokenizer.from_file(sys.argv[1] if len(sys.argv) > 1 else "Meta-Llama-3-8B/tokenizer.json", characters=True)
texts = pq.read_table("gpu_lattice/data/corpus.parquet")["text"][:2000]
canonical = tok.encode(texts)
print(f"canonical: {len(canonical.ids):,} tokens")
for epoch in range(3):
    # rate=1 changes every word; at a tenth, rows stay near those that the model was trained on.
    out = tok.sample(texts, alpha=0, rate=0.1, seed=1, epoch=epoch)
    share = 1 - tok.is_canonical(out).mean()
    print(f"epoch {epoch}: {len(out.ids):,} tokens, {share:.0%} of the documents in new ones")
