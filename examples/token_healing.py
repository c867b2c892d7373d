"""A prompt that ends inside a token, continued by a toy language model in three ways: python examples/token_healing.py

A model trained on best segmentations never met the prompt's last token before the rest of the word ("▁II", "I"), so it
does not find the word again. Either the prompt is healed: some of it is taken back, and only pieces that begin with
that are allowed next (Tokenizer.continuations). Or the model is trained on sampled segmentations, and has met it.
"""

from importlib import resources
from itertools import pairwise

import numpy as np

from gpu_lattice import Tokenizer
from gpu_lattice.corpus.documents import ReaderOptions
from gpu_lattice.corpus.readers import read_documents

PROMPT, ENDING = "KING RICHARD II", "I"
# How many pairs the counts of single tokens weigh as much as.
BACK_OFF = 1.0


class Bigrams:
    """P(token | the token before), counted in batches of rows."""

    def __init__(self, batches, vocab_size):
        inner = [np.delete(np.arange(len(rows.ids)), rows.offsets[1:] - 1) for rows in batches]
        self.first = np.concatenate([rows.ids[i] for rows, i in zip(batches, inner, strict=True)])
        self.second = np.concatenate([rows.ids[i + 1] for rows, i in zip(batches, inner, strict=True)])
        singles = np.bincount(self.second, minlength=vocab_size) + 1.0
        self.single = singles / singles.sum()

    def after(self, token):
        """float64 [vocab_size], the probability of every next token."""
        pairs = np.bincount(self.second[self.first == token], minlength=len(self.single))
        return (pairs + BACK_OFF * self.single) / (pairs.sum() + BACK_OFF)

    def probability(self, ids):
        return np.prod([self.after(a)[b] for a, b in pairwise(ids)])


def probability_of_text(model, pieces, last, text, allowed):
    """That what follows the token `last` begins with `text`; its first piece is an allowed one, later ones are any."""
    after, total = model.after(last), 0.0
    for i in allowed:
        if pieces[i].startswith(text):
            total += after[i]
        elif text.startswith(pieces[i]):
            total += after[i] * probability_of_text(model, pieces, i, text[len(pieces[i]) :], range(len(pieces)))
    return total


def of_ending(tok, model, max_rollback=None):
    """The probability that the prompt goes on with the ending, over all boundaries up to max_rollback."""
    pieces = [tok.id_to_piece(i) for i in range(tok.vocab_size)]
    text = tok.normalize(PROMPT).values.tobytes()
    out = tok.continuations(PROMPT, max_rollback=max_rollback)
    prompt = ended = 0.0
    for row, kept in enumerate(out.tokens.tolist()):
        allowed = out.ids(row).tolist()
        rest = text[len(text) - out.rollback[row] :].decode()
        weight = model.probability(kept)
        prompt += weight * model.after(kept[-1])[allowed].sum()
        ended += weight * probability_of_text(model, pieces, kept[-1], rest + ENDING, allowed)
    return ended / prompt


def main():
    tok = Tokenizer.default()
    with resources.as_file(resources.files("gpu_lattice.data") / "corpus.parquet") as path:
        texts = next(read_documents(path, ReaderOptions())).texts
    best = Bigrams([tok.encode(texts)], tok.vocab_size)
    # The other remedy: a fresh segmentation of every text for each epoch of training.
    sampled = Bigrams([tok.sample(texts, alpha=0.1, seed=epoch) for epoch in range(3)], tok.vocab_size)

    print(f"{PROMPT!r} is {[tok.id_to_piece(i) for i in tok.encode(PROMPT)[0]]}; that {ENDING!r} follows:")
    print(f"{of_ending(tok, best, max_rollback=0):12.6%}  plain continuation")
    print(f"{of_ending(tok, best):12.6%}  healed: over all boundaries")
    print(f"{of_ending(tok, sampled, max_rollback=0):12.6%}  plain continuation, trained on sampled segmentations")


if __name__ == "__main__":
    main()
