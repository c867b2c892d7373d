"""JSON of many small values, as vocabularies are."""

from __future__ import annotations

import gc
import json
from typing import Any


def load_json(text: str, **options: Any) -> Any:
    """`json.loads` without the garbage collector, which would walk a vocabulary again and again while it is made."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return json.loads(text, **options)
    finally:
        if was_enabled:
            gc.enable()
