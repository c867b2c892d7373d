"""Pre-tokens of ASCII text, 64 bytes at a time: each class of characters is a mask, with a bit for every byte.

No pattern asks what comes before a boundary. From one on, in letters, digits, symbols and spaces, the two characters
before a place and the one after it tell whether it is another. The automaton of pre_token_states.py divides the rest:
contractions, other white space, and what is not ASCII.
"""

from __future__ import annotations

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.machine import BOUNDS, ONE, TWO, in_range, trailing_zeros
from gpu_lattice.normalizers.pre_token_states import ANY_NUMBER, Pattern

# What is asked of a pattern.
CASED, BY_SPACE, APART, SINGLE_DIGITS, DOUBLE_DIGITS, TRIPLE_DIGITS = (np.uint64(1 << i) for i in range(6))

BLOCK, NONE, THREE = np.uint64(BOUNDS), np.uint64(0), np.uint64(3)
UPPER_A, UPPER_Z, LOWER_A, LOWER_Z, ZERO, NINE, SPACE, APOSTROPHE, FIRST_VISIBLE, LAST_VISIBLE = map(
    np.uint8, b"AZaz09 '!~"
)


def ascii_rules(pattern: Pattern) -> np.uint64:
    """What `told_boundaries` asks of a pattern."""
    assert pattern.most_digits in (1, 2, 3, ANY_NUMBER)
    asked = {
        CASED: pattern.cased,
        BY_SPACE: pattern.by_space,
        APART: pattern.apart or pattern.deepseek,
        SINGLE_DIGITS: pattern.most_digits == 1,
        DOUBLE_DIGITS: pattern.most_digits == 2,
        TRIPLE_DIGITS: pattern.most_digits == 3,
    }
    return np.uint64(sum(int(bit) for bit, is_so in asked.items() if is_so))


@compiled
def masks_at(values, p):  # type: ignore[no-untyped-def]
    """Of the BLOCK bytes from p on: upper case, lower case, digits, spaces, apostrophes, all that is visible.

    The caller makes sure that all of them exist.
    """
    return (
        in_range(values, p, UPPER_A, UPPER_Z),
        in_range(values, p, LOWER_A, LOWER_Z),
        in_range(values, p, ZERO, NINE),
        in_range(values, p, SPACE, SPACE),
        in_range(values, p, APOSTROPHE, APOSTROPHE),
        in_range(values, p, FIRST_VISIBLE, LAST_VISIBLE),
    )


@compiled
def told_boundaries(rules, upper, lower, digits, spaces, apostrophes, visible, room):  # type: ignore[no-untyped-def]
    """The boundaries that these masks tell after the one that the block begins with, and how many bytes they tell of.

    room: bytes up to the end of the text, itself a boundary.
    """
    letters = upper | lower
    end = ONE << room if room < BLOCK else NONE
    untold = ~(visible | spaces) | apostrophes & letters >> ONE | end
    before = (untold - ONE) & ~untold
    found = _boundaries(rules, upper, lower, digits, spaces, visible & ~(letters | digits), end) & ~ONE
    length = np.uint64(trailing_zeros(untold))
    if length == room < BLOCK:
        return found & before | end, length
    # The last of them may depend on the next character.
    return found & before >> ONE, length


@compiled
def _boundaries(rules, upper, lower, digits, spaces, symbols, end):  # type: ignore[no-untyped-def]
    letters = upper | lower
    # The last one of several spaces goes with what follows.
    no_last = spaces | end | (digits if rules & APART else NONE)
    found = spaces & ~(spaces << ONE & no_last >> ONE)
    # A symbol goes with the letters after it if it is the first character of a pre-token.
    apart_from_letters = symbols if rules & BY_SPACE else symbols & (symbols | spaces) << ONE
    found |= letters & (digits | apart_from_letters) << ONE
    if rules & CASED:
        found |= upper & lower << ONE
    return found | symbols & (letters | digits) << ONE | _numbers(rules, digits, spaces)


@compiled
def _numbers(rules, digits, spaces):  # type: ignore[no-untyped-def]
    if rules & SINGLE_DIGITS:
        return digits
    found = more = digits & ~(digits << ONE)
    if rules & (DOUBLE_DIGITS | TRIPLE_DIGITS):
        # Where a number may begin behind another one, so many bytes before.
        behind, length = digits & digits << ONE, TWO
        if rules & TRIPLE_DIGITS:
            behind, length = behind & digits << TWO, THREE
        while more != NONE:
            more = more << length & behind
            found |= more
    # A space before a number is its first character.
    return found & ~(spaces << ONE) if rules & BY_SPACE and not rules & APART else found
