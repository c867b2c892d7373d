"""How probable a text is, over all its segmentations: the mean of p(tokens) / q(tokens) over samples of q. The language
model p is a unigram one here, for which the exact value is known; any other is asked for the same rows."""

import numpy as np

from gpu_lattice import Tokenizer

tok, num_samples = Tokenizer.default(), 256
texts = ["A new dawn.", "unbelievable", "To be, or not to be, that is the question."]
scores = np.array([tok.score(i) for i in range(len(tok))])


def log_p(batch):
    """The language model's log-probability of each row of tokens."""
    return np.add.reduceat(scores[batch.ids], batch.offsets[:-1])


def log_mean_exp(x):
    top = x.max(axis=1)
    return top + np.log(np.exp(x - top[:, None]).mean(axis=1))


drawn = tok.sample(texts, alpha=0.7, num_samples=num_samples, seed=0, return_log_prob=True)
estimated = log_mean_exp((log_p(drawn) - drawn.log_prob).reshape(len(texts), num_samples))
columns = log_p(tok.encode(texts)), estimated, tok.log_partition(texts), texts
print("best segmentation  estimate    exact  text")
for best, estimate, exact, text in zip(*columns, strict=True):
    print(f"{best:17.3f} {estimate:9.3f} {exact:8.3f}  {text}")
