"""Three epochs of a corpus, each in other tokens: what a training loop reads instead of one tokenized copy."""

import pyarrow.parquet as pq

import gpu_lattice as gl

tok = gl.Tokenizer.default()  # or gl.Tokenizer.from_file("tokenizer.json")
texts = pq.read_table("gpu_lattice/data/corpus.parquet")["text"]
for epoch in range(3):
    out = tok.sample(texts, alpha=0.2, seed=1, epoch=epoch)
    print(f"epoch {epoch}: {len(out.ids):,} tokens; the first document begins {out[:1].pieces()[0][:8]}")
