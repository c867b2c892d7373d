"""Rows that cannot be used: which, why, and what becomes of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal, get_args

OnError = Literal["raise", "skip", "replace"]
ON_ERROR: tuple[OnError, ...] = get_args(OnError)
LONGEST_REASON = 300


@dataclass
class BadRows:
    """The bad rows of a file.

    replace  keep a row's place: what cannot be read as text becomes U+FFFD where that helps (half of a surrogate
             pair), else the row is null; False: the row is left out
    """

    replace: bool
    reasons: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, row: int, reason: str) -> None:
        self.reasons.setdefault(row, " ".join(reason.split())[:LONGEST_REASON])

    def lines(self, file: str) -> bytes:
        """JSONL of file, row and reason, in the order of the rows.

        Example:
            >>> BadRows(False, {3: "an id is null"}).lines("a.jsonl")
            b'{"file": "a.jsonl", "row": 3, "reason": "an id is null"}\\n'
        """
        rows = ({"file": file, "row": row, "reason": reason} for row, reason in sorted(self.reasons.items()))
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
