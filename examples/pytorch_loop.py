"""A PyTorch training loop in which every epoch reads every document in fresh tokens. Needs: torch."""

import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader

from gpu_lattice import Tokenizer
from gpu_lattice.torch import FreshSegmentations, Padded

torch.manual_seed(0)
tok = Tokenizer.default()
texts = pq.read_table("gpu_lattice/data/corpus.parquet")["text"][:128]
data = FreshSegmentations(texts, tok, alpha=0.2, seed=1)
loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=0, collate_fn=Padded(tok, pad_id=0))
model = torch.nn.Sequential(torch.nn.Embedding(len(tok), 32), torch.nn.Linear(32, len(tok)))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for epoch in range(3):
    data.set_epoch(epoch)
    total = 0.0
    for batch in loader:
        logits = model(batch["input_ids"][:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    print(f"epoch {epoch}: loss {total / len(loader):.3f}")
