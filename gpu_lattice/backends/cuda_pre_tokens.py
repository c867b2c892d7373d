"""Pre-tokens on a CUDA device (pre_tokens.cu), of text that is there already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.normalizers.pre_token_states import actions_of, character_classes, restarts_of
from gpu_lattice.runtime.on_host import on_host

if TYPE_CHECKING:
    from gpu_lattice.backends.cuda_launcher import CudaLauncher
    from gpu_lattice.normalizers.hf_tokenizers import Rules
    from gpu_lattice.text_batch import TextBatch


class PreTokens:
    """Divides documents as rules do that only divide. stretch: bytes of text per thread."""

    def __init__(self, launcher: CudaLauncher, rules: Rules, stretch: int) -> None:
        assert rules.pattern is not None
        self._launcher, self._stretch = launcher, stretch
        self._automaton = {
            "actions": launcher.upload(actions_of(rules.pattern)),
            "restarts": launcher.upload(restarts_of(rules.pattern)),
            "classes": launcher.upload(character_classes()[0]),
        }
        self._tries = [
            {name: launcher.upload(getattr(trie, name)) for name in ("root", "first", "labels", "tokens")}
            for trie in (rules.raw, rules.cooked)
            if trie is not None
        ]

    def take(self, texts: TextBatch) -> bool:
        """Whether texts on the device are UTF-8 without an added token, which `mark` takes for granted."""
        start, stop, n_docs = int(texts.offsets[0]), int(texts.offsets[-1]), len(texts)
        if not texts.values.flags.c_contiguous:
            return False
        launcher = self._launcher
        with launcher:
            text = {"values": texts.values[start:stop], "n": stop - start}
            docs = {"doc_offsets": launcher.upload(texts.offsets - start), "n_docs": n_docs}
            found = launcher.xp.zeros(1, np.int32)
            launcher.threads("find_invalid", max(stop - start, n_docs), **text, **docs, found=found)
            for trie in self._tries:
                launcher.threads("find_added_token", stop - start, **text, **trie, found=found)
            return not on_host(found).any()

    def mark(self, values: Any, doc_offsets: Any, marks: Any) -> None:
        """Queue what marks the pre-tokens of documents that are marked already."""
        self._launcher.threads(
            "mark_pre_tokens", -(-len(values) // self._stretch), **self._automaton,
            values=values, n=len(values), doc_offsets=doc_offsets, n_docs=len(doc_offsets) - 1, marks=marks,
        )  # fmt: skip
