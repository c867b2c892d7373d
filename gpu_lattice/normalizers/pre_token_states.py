"""A pre-tokenizer's pattern as a finite automaton over classes of characters: what a step does, and where it leads.

A step reads one character, or the end of the text, and says which boundaries are known by then: at the place that was
marked before, before the last character, before this one. So a pattern's look-ahead and its backtracking need no
second look at the text.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpu_lattice.normalizers.code_points import class_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    State = tuple[object, ...]

# Bits of a character in categories.npz. Marks are UPPER and LOWER, but no LETTER; so are letters without case.
UPPER, LOWER, LETTER, NUMBER, SPACE, NEWLINE, SYMBOL = 1, 2, 4, 8, 16, 32, 64

# Where 's, 't, 're, 've, 'm, 'll, 'd are matched; folded: whatever their case.
NEVER, FIRST, FIRST_FOLDED, AFTER_FOLDED = range(4)
ANY_NUMBER = 1 << 62

# Bits of an action: boundaries, in this order, then to mark the place before this character. The rest: the next state.
AT_MARK, BEFORE_LAST, HERE, SET_MARK = 1, 2, 4, 8
STATE_SHIFT, CLASS_BITS = 4, 5
START: State = ("start",)
LONG_S = 0x17F


class Pattern(NamedTuple):
    """How one pattern differs from the others.

    contractions  FIRST of all, or AFTER a word
    cased         words are upper case and then lower case
    by_space      before letters and numbers only a space may stand; else any character but "\\r", "\\n" before letters
    most_digits   in a pre-token
    newlines      line ends after punctuation, and after white space, are in the same pre-token
    slashes       after punctuation, slashes are too
    whole_end     white space that ends a text is one pre-token, whatever line ends it holds
    deepseek      numbers, and Chinese with kana, are divided from other text first; marks are letters, only an ASCII
                  symbol may stand before ASCII letters, and what is of no class is a pre-token
    marks         are letters
    apart         numbers are divided from other text first
    """

    contractions: int
    cased: bool
    by_space: bool
    most_digits: int
    newlines: bool
    slashes: bool
    whole_end: bool = False
    deepseek: bool = False
    marks: bool = False
    apart: bool = False


class Class(NamedTuple):
    """Characters that no pattern tells apart.

    tail     of a contraction: "s" ends one, "r" goes before "e" and "l" before "l"
    is_kana  in the ranges that DeepSeek's pre-tokenizer divides from other text, Chinese included
    """

    kind: str
    case: str = ""
    tail: str = ""
    is_ascii: bool = False
    is_kana: bool = False


END = Class("end")


@cache
def character_classes() -> tuple[NDArray[np.uint8], list[Class]]:
    """(uint8 [0x110000], the number of every code point's class; the classes, END first)."""
    bits = class_table("categories.npz")
    codes = np.arange(len(bits))
    is_kana = ((codes >= 0x3040) & (codes <= 0x30FF)) | ((codes >= 0x4E00) & (codes <= 0x9FA5))
    keys = bits | is_kana.astype(np.uint8) << 7
    classes, by_key = [END], np.zeros(256, np.uint8)

    def number_of(code: int) -> int:
        one = _class_of(chr(code), int(bits[code]), bool(is_kana[code]))
        if one not in classes:
            classes.append(one)
        return classes.index(one)

    # Below, characters with the same bits may be of several classes.
    first = LONG_S + 1
    for key in np.flatnonzero(np.bincount(keys[first:])):
        by_key[key] = number_of(first + int(np.argmax(keys[first:] == key)))
    numbers = by_key[keys]
    for code in (*range(0x80), LONG_S):
        numbers[code] = number_of(code)
    assert len(classes) <= 1 << CLASS_BITS
    return numbers, classes


def _class_of(character: str, bits: int, is_kana: bool) -> Class:
    case = ("", "upper", "lower", "both")[bits & (UPPER | LOWER)]
    if bits & (LETTER | NUMBER | SPACE) == 0:
        own = {"'": "apostrophe", "/": "slash"}.get(character)
        kind = own or ("mark" if case else "symbol" if bits & SYMBOL else "other")
        return Class(kind, case, "", kind == "symbol" and character.isascii(), is_kana)
    if bits & LETTER:
        # The long s folds to s.
        tail = {**dict.fromkeys("stmdſ", "s"), **dict.fromkeys("rv", "r"), "l": "l", "e": "e"}
        return Class("letter", case, tail.get(character.lower(), ""), character.isascii(), is_kana)
    if bits & NUMBER:
        return Class("number")
    return Class("newline" if bits & NEWLINE else "space" if character == " " else "white")


@cache
def actions_of(pattern: Pattern) -> NDArray[np.uint16]:
    """The action of each state and class: uint16 [states << CLASS_BITS], from START on."""
    automaton = (_DeepSeek if pattern.deepseek else _Apart if pattern.apart else _Automaton)(pattern)
    classes = character_classes()[1]
    states, rows = [START], []
    for state in states:
        row = [0] * (1 << CLASS_BITS)
        for i, character in enumerate(classes):
            bits, following = automaton.step(state, character)
            if following not in states:
                states.append(following)
            row[i] = bits | states.index(following) << CLASS_BITS + STATE_SHIFT
        rows.append(row)
    assert len(states) << CLASS_BITS + STATE_SHIFT < 1 << 16
    return np.array(rows, np.uint16).reshape(-1)


@cache
def restarts_of(pattern: Pattern) -> NDArray[np.uint8]:
    """Whether, between characters of two classes, a pre-token ends whatever came before: uint8 [1 << 2 * CLASS_BITS].

    From there on, all is as at the start of a text; such a place is also after END.
    """
    table = actions_of(pattern).reshape(-1, 1 << CLASS_BITS)
    following = table >> STATE_SHIFT
    is_new = (table & HERE > 0) & (following == following[0])
    restarts = [is_new[after].all(0) for after in (following >> CLASS_BITS).T]
    restarts[0] = np.ones(1 << CLASS_BITS, np.bool_)
    return np.concatenate(restarts).astype(np.uint8)


class _Automaton:
    """The steps of a pattern. Its states are tuples, by what the pre-token is so far:

    word, case      letters: "upper", "both" (the last one may be either), "marked" (upper case after a mark behind
                    such a one), "lower"
    number, count   digits
    single          one character that may stand before letters
    others          neither letters nor numbers nor space;  tail: line ends after them
    first           an apostrophe that may begin a contraction, or with its first letter and the word's case
    suffix          the same behind a word; the apostrophe is marked
    whole           nothing more
    white, after_newline, is_long, is_space   white space, its last character a space; behind a line end, it is marked
    newline         white space up to a line end
    """

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self._tails = ("slash", "newline") if pattern.slashes else ("newline",)

    def step(self, state: State, c: Class) -> tuple[int, State]:
        if c == END:
            return self._at_end(state), START
        if state == START:
            return 0, self._begin(c)
        bits, following = getattr(self, f"_{state[0]}")(c, *state[1:])
        return bits, following

    def _at_end(self, state: State) -> int:
        if state == START:
            return 0
        is_open = state[0] == "suffix" or state == ("word", "marked")
        is_open |= state[:2] == ("white", True) and not self.pattern.whole_end
        is_apart = state[0] == "first" and state[1] != "" and self.pattern.by_space
        return HERE | AT_MARK * is_open | BEFORE_LAST * is_apart

    def _new(self, c: Class) -> tuple[int, State]:
        """A pre-token ends before this character."""
        return HERE, self._begin(c)

    def _begin(self, c: Class) -> State:
        if c.kind in ("space", "white", "newline"):
            is_end = c.kind == "newline" and self.pattern.newlines
            return ("newline",) if is_end else ("white", False, False, c.kind == "space")
        if c.kind == "number":
            return ("number", 1)
        if self._in_word(c):
            return self._word_of(c)
        if c.kind == "apostrophe" and self.pattern.contractions in (FIRST, FIRST_FOLDED):
            return ("first", "", "")
        return ("others",) if self.pattern.by_space else ("single",)

    def _in_word(self, c: Class) -> bool:
        return c.kind == "letter" or (c.kind == "mark" and (self.pattern.cased or self.pattern.marks))

    def _is_other(self, c: Class) -> bool:
        return c.kind in ("apostrophe", "slash", "symbol", "other") or (c.kind == "mark" and not self.pattern.marks)

    def _word_of(self, c: Class) -> State:
        return ("word", c.case if self.pattern.cased else "")

    def _word(self, c: Class, case: str) -> tuple[int, State]:
        if not self._in_word(c):
            at_mark = AT_MARK if case == "marked" else 0
            if c.kind == "apostrophe" and self.pattern.contractions == AFTER_FOLDED:
                return at_mark | SET_MARK, ("suffix", "", "")
            return at_mark | HERE, self._begin(c)
        if not self.pattern.cased:
            return 0, self._word_of(c)
        if c.case == "lower" or (case == "lower" and c.case == "both"):
            return 0, ("word", "lower")
        if case == "lower":
            return self._new(c)
        if case == "both" and c.case == "upper":
            return SET_MARK, ("word", "marked")
        return 0, ("word", case if case == "marked" and c.case == "upper" else c.case)

    def _number(self, c: Class, count: int) -> tuple[int, State]:
        if c.kind == "number" and count < self.pattern.most_digits:
            return 0, ("number", count if self.pattern.most_digits == ANY_NUMBER else count + 1)
        return self._new(c)

    def _single(self, c: Class) -> tuple[int, State]:
        return (0, self._word_of(c)) if self._in_word(c) else self._others(c)

    def _others(self, c: Class) -> tuple[int, State]:
        if c.kind == "newline" and self.pattern.newlines:
            return 0, ("tail",)
        return (0, ("others",)) if self._is_other(c) else self._new(c)

    def _tail(self, c: Class) -> tuple[int, State]:
        return (0, ("tail",)) if c.kind in self._tails else self._new(c)

    def _tail_of(self, c: Class) -> str:
        """What this character is in a contraction."""
        is_small = c.case == "lower" and c.is_ascii
        return c.tail if is_small or self.pattern.contractions != FIRST else ""

    def _first(self, c: Class, letter: str, case: str) -> tuple[int, State]:
        tail = self._tail_of(c)
        if (letter, tail) in (("", "s"), ("r", "e"), ("l", "l")):
            return 0, ("whole",)
        if letter:
            bits, following = self._word(c, case)
            return bits | BEFORE_LAST * self.pattern.by_space, following
        if tail in ("r", "l"):
            return 0, ("first", tail, "")
        return self._others(c) if self.pattern.by_space else self._single(c)

    def _suffix(self, c: Class, letter: str, case: str) -> tuple[int, State]:
        tail = self._tail_of(c)
        if (letter, tail) in (("", "s"), ("r", "e"), ("l", "l")):
            return 0, ("whole",)
        if not letter and tail in ("r", "l"):
            return 0, ("suffix", tail, c.case)
        bits, following = self._word(c, case) if letter else self._single(c)
        return bits | AT_MARK, following

    def _whole(self, c: Class) -> tuple[int, State]:
        return self._new(c)

    def _newline(self, c: Class) -> tuple[int, State]:
        if c.kind in ("space", "white"):
            return SET_MARK, ("white", True, False, c.kind == "space")
        return (0, ("newline",)) if c.kind == "newline" else self._new(c)

    def _white(self, c: Class, after_newline: bool, is_long: bool, is_space: bool) -> tuple[int, State]:
        if c.kind == "newline" and self.pattern.newlines:
            return 0, ("newline",)
        if c.kind in ("space", "white", "newline"):
            return 0, ("white", after_newline, True, c.kind == "space")
        bits = AT_MARK * after_newline | BEFORE_LAST * is_long
        if self._in_word(c) and (is_space or not self.pattern.by_space):
            return bits, self._word_of(c)
        if is_space and c.kind == "number" and self.pattern.by_space:
            return bits, ("number", 1)
        if is_space and self._is_other(c):
            return bits, ("others",)
        return bits | HERE, self._begin(c)


class _Apart(_Automaton):
    """Parts of the text, in which the pattern's states follow whether they are of Chinese and kana."""

    def step(self, state: State, c: Class) -> tuple[int, State]:
        is_kana, inner = (bool(state[0]), state[1:]) if state != START else (self._is_kana(c), START)
        is_number = inner[0] == "number"
        if c == END or (inner != START and (self._is_kana(c) != is_kana or (c.kind == "number") != is_number)):
            bits = self._at_end(inner)
            return bits, START if c == END else (self._is_kana(c), *self._begin(c))
        bits, following = super().step(inner, c)
        return bits, (is_kana, *following)

    def _is_kana(self, c: Class) -> bool:
        return False


class _DeepSeek(_Apart):
    """Further states:

    single  an ASCII symbol;  ascii: with ASCII letters
    gap, is_long  characters that no pattern matches
    """

    def _is_kana(self, c: Class) -> bool:
        return c.is_kana

    def _in_word(self, c: Class) -> bool:
        return c.kind in ("letter", "mark")

    def _is_other(self, c: Class) -> bool:
        return c.kind in ("apostrophe", "slash", "symbol")

    def _begin(self, c: Class) -> State:
        if c.kind == "other":
            return ("gap", False)
        if self._is_other(c):
            return ("single",) if c.is_ascii or c.kind != "symbol" else ("others",)
        return super()._begin(c)

    def _single(self, c: Class) -> tuple[int, State]:
        return (0, ("ascii",)) if c.kind == "letter" and c.is_ascii else self._others(c)

    def _ascii(self, c: Class) -> tuple[int, State]:
        return (0, ("ascii",)) if c.kind == "letter" and c.is_ascii else self._new(c)

    def _gap(self, c: Class, is_long: bool) -> tuple[int, State]:
        if c.kind == "other":
            return 0, ("gap", True)
        return (BEFORE_LAST * is_long, self._word_of(c)) if self._in_word(c) else self._new(c)
