"""The probability of a text whatever its tokens: a mean over K segmentations, each weighed by how it was drawn."""

import sys

import numpy as np

import gpu_lattice as gl

tok = gl.Tokenizer.from_file(sys.argv[1] if len(sys.argv) > 1 else "Meta-Llama-3-8B/tokenizer.json")
texts, K = ["To be, or not to be.", "the unhappiest whale"], 256

# Your language model goes here. Of this one, by the rank of each token alone, the sum over all tokens is known, too.
log_p = -np.log(np.arange(tok.vocab_size) + 10.0)
log_p -= np.logaddexp.reduce(log_p)
exact = tok.rescored(log_p).lattice(texts).log_partition(alpha=1)


def language_model(ids):
    """log P(ids)."""
    return log_p[ids].sum()


# Proposals of few tokens, in which half of the words are canonical; log_prob is that of such a mixture.
out = tok.sample(texts, alpha=0, token_penalty=4.0, rate=0.5, num_samples=K, seed=1, return_log_prob=True,
                 add_special_tokens=False)  # fmt: skip
log_weights = np.array([language_model(ids) for ids in out.tolist()]) - out.log_prob
canonical = tok.encode(texts, add_special_tokens=False).tolist()
for text, ids, row, total in zip(texts, canonical, log_weights.reshape(-1, K), exact, strict=True):
    mean = np.logaddexp.reduce(row) - np.log(K)
    print(
        f"{text}: log P = {mean:.3f} by {K} proposals, {total:.3f} exactly, {language_model(ids):.3f} in one spelling"
    )
