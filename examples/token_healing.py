"""A prompt that ends inside a token. A model that was trained on best segmentations never met its last token before the
rest of the word: take some of the prompt back (Tokenizer.continuations), or train on samples."""

from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq

from gpu_lattice import Tokenizer

tok, prompt = Tokenizer.default(), "KING RICHARD II"
texts = pq.read_table("gpu_lattice/data/corpus.parquet")["text"][:4000]


def bigrams(batch):
    """P(next token | token), a function of the token; pairs that were never met are improbable."""
    inner = np.delete(np.arange(len(batch.ids)), batch.offsets[1:] - 1)
    first, second = batch.ids[inner], batch.ids[inner + 1]

    def after(token):
        counts = np.bincount(second[first == token], minlength=len(tok)) + 1e-6
        return counts / counts.sum()

    return after


def continuation(after, max_rollback):
    """The most probable next piece, over all places to take the prompt back to."""
    out, found = tok.continuations(prompt, max_rollback=max_rollback), []
    for row, kept in enumerate(out.tokens.tolist()):
        weight, following = np.prod([after(a)[b] for a, b in pairwise(kept)]), after(kept[-1])
        best = max(out.ids(row), key=following.__getitem__)
        found.append((weight * following[best], tok.id_to_piece([*kept, best])))
    return max(found)[1]


best, sampled = bigrams(tok.encode(texts)), bigrams(tok.sample(texts, alpha=0.1, seed=0))
print("plain:             ", continuation(best, max_rollback=0))
print("healed:            ", continuation(best, max_rollback=None))
print("trained on samples:", continuation(sampled, max_rollback=0))
