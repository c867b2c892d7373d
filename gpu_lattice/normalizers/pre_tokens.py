"""Pre-tokens by the patterns of GPT-2 and its successors, compiled: loops over classes of characters.

A pattern is known by its exact text. Each of these matches every character of any text, so that the matches are the
pre-tokens, whatever becomes of the text between matches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import grown
from gpu_lattice.kernels.cpu.utf8 import code_point
from gpu_lattice.normalizers.code_points import class_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Bits of a character's class. Marks are UPPER and LOWER, but no LETTER; so are letters without case.
UPPER, LOWER, LETTER, NUMBER, SPACE, NEWLINE = 1, 2, 4, 8, 16, 32
NOT_OTHER = LETTER | NUMBER | SPACE
NOT_BEFORE_LETTERS = LETTER | NUMBER | NEWLINE

# Where 's, 't, 're, 've, 'm, 'll, 'd are matched; folded: whatever their case.
NEVER, FIRST, FIRST_FOLDED, AFTER_FOLDED = range(4)
ANY_NUMBER = 1 << 62
BLANK, SLASH, APOSTROPHE = 0x20, 0x2F, 0x27


class Pattern(NamedTuple):
    """How one pattern differs from the others.

    contractions  FIRST of all, or AFTER a word
    cased         words are upper case and then lower case
    by_space      before letters and numbers only a space may stand; else any character but "\\r", "\\n" before letters
    most_digits   in a pre-token
    newlines      line ends after punctuation, and after white space, are in the same pre-token
    slashes       after punctuation, slashes are too
    whole_end     white space that ends a text is one pre-token, whatever line ends it holds
    """

    contractions: int
    cased: bool
    by_space: bool
    most_digits: int
    newlines: bool
    slashes: bool
    whole_end: bool = False


_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_FOLDED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CL100K = _FOLDED + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _REST
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s|"
_CASED_REST = _REST.replace(r"[\r\n]*", r"[\r\n/]*")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TIKTOKEN_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
TIKTOKEN_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"
    r"\s+(?!\S)|\s"
)
O200K = _CASED % (_FOLDED + "?", _FOLDED + "?") + r"\p{N}{1,3}|" + _CASED_REST

PATTERNS = {
    GPT2: Pattern(FIRST, False, True, ANY_NUMBER, False, False),
    TIKTOKEN_GPT2: Pattern(FIRST, False, True, ANY_NUMBER, False, False),
    _CL100K: Pattern(FIRST_FOLDED, False, False, 3, True, False),
    TIKTOKEN_CL100K: Pattern(FIRST_FOLDED, False, False, 3, True, False, whole_end=True),
    _CL100K.replace("{1,3}", ""): Pattern(FIRST_FOLDED, False, False, 1, True, False),
    O200K: Pattern(AFTER_FOLDED, True, False, 3, True, True),
    _CASED % ("", "") + r"\p{N}|" + _CASED_REST: Pattern(NEVER, True, False, 1, True, True),
}


def character_classes() -> NDArray[np.uint8]:
    """uint8 [0x110000], the bits of every code point, from the table that tools/make_category_table.py wrote."""
    return class_table("categories.npz")


@compiled
def divide(pattern, classes, values, ends, hits):  # type: ignore[no-untyped-def]
    """Divide chunks into pre-tokens: (their ends, hits), as `cut` (hf_text.py) returns them, except the chunks hit."""
    contractions, cased, by_space = pattern.contractions, pattern.cased, pattern.by_space
    most_digits, newlines, slashes = pattern.most_digits, pattern.newlines, pattern.slashes
    whole_end = pattern.whole_end
    out = np.empty(16 + len(values) // 4, np.int64)
    out_hits = hits.copy()
    n = i_hit = p = np.int64(0)
    for i in range(len(ends)):
        stop = ends[i]
        out = grown(out, n, n + stop - p)
        if i_hit < len(hits) and hits[i_hit, 0] == i:
            out_hits[i_hit, 0] = n
            i_hit += 1
            p = stop
            out[n] = p
            n += 1
        while p < stop:
            p = _end(classes, values, p, stop, contractions, cased, by_space, most_digits, newlines, slashes, whole_end)
            out[n] = p
            n += 1
    return out[:n].copy(), out_hits


@compiled(forceinline=True)
def _end(classes, values, p, stop, contractions, cased, by_space, most_digits, newlines, slashes, whole_end):  # type: ignore[no-untyped-def]
    """The end of the match that begins at p."""
    first, q = _class_at(classes, values, p)
    if values[p] == APOSTROPHE and (contractions == FIRST or contractions == FIRST_FOLDED):
        end = _contraction_end(values, p, stop, contractions == FIRST_FOLDED)
        if end > p:
            return end
    may_precede = values[p] == BLANK if by_space else first & NOT_BEFORE_LETTERS == 0
    if cased:
        end = _cased_end(classes, values, p, q, stop, may_precede)
        if end > p:
            return _contraction_end(values, end, stop, True) if contractions == AFTER_FOLDED else end
    else:
        start = q if may_precede else p
        if start < stop and _class_at(classes, values, start)[0] & LETTER:
            return _run_end(classes, values, start, stop, LETTER)
    start = q if by_space and may_precede else p
    if start < stop and _class_at(classes, values, start)[0] & NUMBER:
        end, n_digits = start, 0
        while end < stop and n_digits < most_digits:
            kind, following = _class_at(classes, values, end)
            if not kind & NUMBER:
                break
            end = following
            n_digits += 1
        return end
    start = q if values[p] == BLANK else p
    if start < stop and _class_at(classes, values, start)[0] & NOT_OTHER == 0:
        end = start
        while end < stop:
            kind, following = _class_at(classes, values, end)
            if kind & NOT_OTHER:
                break
            end = following
        while newlines and end < stop and (values[end] in (0x0A, 0x0D) or (slashes and values[end] == SLASH)):
            end += 1
        return end
    return _space_end(classes, values, p, stop, newlines, whole_end)


@compiled(forceinline=True)
def _class_at(classes, values, p):  # type: ignore[no-untyped-def]
    """The class of the character at p, and where the next one begins."""
    if values[p] < 0x80:
        return classes[values[p]], p + 1
    character, length = code_point(values, p)
    return classes[character], p + length


@compiled(forceinline=True)
def _run_end(classes, values, p, stop, bits):  # type: ignore[no-untyped-def]
    """The end of the characters from p on that have one of these bits."""
    while p < stop:
        kind, following = _class_at(classes, values, p)
        if not kind & bits:
            break
        p = following
    return p


@compiled(forceinline=True)
def _contraction_end(values, p, stop, folded):  # type: ignore[no-untyped-def]
    """The end of 's, 't, 're, 've, 'm, 'll or 'd at p, or p."""
    if p + 1 >= stop or values[p] != APOSTROPHE:
        return p
    case = np.uint8(0x20 if folded else 0)
    one = values[p + 1] | case
    if one in (0x73, 0x74, 0x6D, 0x64):
        return p + 2
    if p + 2 >= stop:
        return p
    # The long s folds to s.
    if folded and values[p + 1] == 0xC5 and values[p + 2] == 0xBF:
        return p + 3
    other = values[p + 2] | case
    if ((one == 0x72 or one == 0x76) and other == 0x65) or (one == 0x6C and other == 0x6C):
        return p + 3
    return p


@compiled(forceinline=True)
def _cased_end(classes, values, p, q, stop, may_precede):  # type: ignore[no-untyped-def]
    """The end of a word at p, upper case and then lower case, with a character before it or without; or p."""
    if may_precede:
        end = _lower_end(classes, values, q, stop)
        if end > q:
            return end
    end = _lower_end(classes, values, p, stop)
    if end > p:
        return end
    if may_precede:
        end = _run_end(classes, values, q, stop, UPPER)
        if end > q:
            return end
    return _run_end(classes, values, p, stop, UPPER)


@compiled(forceinline=True)
def _lower_end(classes, values, p, stop):  # type: ignore[no-untyped-def]
    """The end of any upper case and at least one of lower case at p, or p. Some characters are both."""
    start = last = p
    while p < stop:
        kind, following = _class_at(classes, values, p)
        if not kind & UPPER:
            break
        last = following if kind & LOWER else last
        p = following
    end = _run_end(classes, values, p, stop, LOWER)
    return end if end > p else max(last, start)


@compiled(forceinline=True)
def _space_end(classes, values, p, stop, newlines, whole_end):  # type: ignore[no-untyped-def]
    """The end of white space at p: after its last line end; else before its last character, if others follow."""
    start = before = p
    after_newline = np.int64(-1)
    while p < stop:
        kind, following = _class_at(classes, values, p)
        if not kind & SPACE:
            break
        if newlines and kind & NEWLINE:
            after_newline = following
        before, p = p, following
    if after_newline >= 0 and not (whole_end and p == stop):
        return after_newline
    return p if p == stop or before == start else before
