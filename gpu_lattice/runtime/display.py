"""How notebooks show what has a picture. The package's __init__ says so, since what paints is above what is painted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# (tokenizer, text) to HTML, or None for what has no picture.
lattice_html: Callable[[Any, bytes], str | None] = lambda tokenizer, text: None  # noqa: E731
