"""JSON with many small values, such as vocabularies, and numbers as Rust's serde_json reads them."""

from __future__ import annotations

import gc
import json
from typing import Any

LARGEST_SIGNIFICAND = 2**64 - 1
DIGITS_THAT_FIT = 19
POWERS = [float(f"1e{i}") for i in range(309)]
LAST_POWER = len(POWERS) - 1


def load_json(text: str, **options: Any) -> Any:
    """`json.loads` without the garbage collector, which would traverse a growing vocabulary again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return json.loads(text, **options)
    finally:
        if was_enabled:
            gc.enable()


def serde_int(text: str) -> int | float:
    """A JSON integer as serde_json reads it: a float if it does not fit into 64 bits."""
    value = int(text) if len(text) <= DIGITS_THAT_FIT + 2 else None
    return value if value is not None and abs(value) <= LARGEST_SIGNIFICAND else serde_float(text)


def serde_float(text: str) -> float:
    """A JSON number as serde_json reads it without its feature float_roundtrip: not always the nearest float.

    The first digits, as many as fit into 64 bits, are multiplied or divided by a power of ten; inf if it is too large.

    Example:
        >>> serde_float("-13.600000000000001"), -13.600000000000001
        (-13.6, -13.600000000000001)
    """
    whole, _, fraction = text.partition(".")
    if len(text) <= DIGITS_THAT_FIT + 1 and fraction.isdigit():  # nearly all, and four times as fast
        return int(whole + fraction) / POWERS[len(fraction)]
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.removeprefix("-").partition(".")
    significand, taken = _with_digits(0, whole)
    significand, taken_later = _with_digits(significand, fraction)
    value = _scaled(float(significand), len(whole) - taken - taken_later + int(exponent or 0))
    return -value if text[0] == "-" else value


def _with_digits(significand: int, digits: str) -> tuple[int, int]:
    """The significand with further digits behind it, and how many fit."""
    for taken, digit in enumerate(digits):
        longer = 10 * significand + int(digit)
        if longer > LARGEST_SIGNIFICAND:
            return significand, taken
        significand = longer
    return significand, len(digits)


def _scaled(value: float, power: int) -> float:
    while power < -LAST_POWER and value:
        value /= POWERS[LAST_POWER]
        power += LAST_POWER
    if not value:
        return 0.0
    if power < 0:
        return value / POWERS[-power]
    return value * POWERS[power] if power <= LAST_POWER else float("inf")
