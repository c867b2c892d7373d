"""Hugging Face datasets: a column of ids by map, or fresh ids at each access by with_transform. Needs: datasets."""

import datasets

import gpu_lattice as gl

tok = gl.Tokenizer.default()
texts = datasets.Dataset.from_dict({"text": ["A new dawn.", "To be, or not to be."]})


def sampled(batch, indices):
    """The same ids however the rows are batched or shared among processes: a row's number is its document id."""
    return {"input_ids": tok.sample(batch["text"], alpha=0.2, seed=1, doc_ids=indices).tolist()}


kept = texts.map(sampled, batched=True, with_indices=True, remove_columns="text")
print(kept[0]["input_ids"])
fresh = texts.with_transform(lambda batch: {"input_ids": tok.sample(batch["text"], alpha=0.2).tolist()})
print(fresh[0]["input_ids"] != fresh[0]["input_ids"] or "the same draw twice, by chance")
