"""JSON with many small values, such as vocabularies."""

from __future__ import annotations

import gc
import json
from typing import Any


def load_json(text: str, **options: Any) -> Any:
    """`json.loads` without the garbage collector, which would traverse a growing vocabulary again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return json.loads(text, **options)
    finally:
        if was_enabled:
            gc.enable()
