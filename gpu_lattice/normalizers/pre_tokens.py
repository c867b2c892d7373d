"""Pre-tokens by the patterns of GPT-2 and its successors, compiled: one loop over characters, by a table of actions, or
over blocks of ASCII (ascii_pre_tokens.py).

A pattern is known by its exact text. Each of these matches every character of any text, so that the matches are the
pre-tokens, whatever becomes of the text between matches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import filled, grown
from gpu_lattice.kernels.cpu.machine import ONE, TWO, trailing_zeros
from gpu_lattice.normalizers.ascii_pre_tokens import BLOCK, NONE, ascii_rules, masks_at, told_boundaries
from gpu_lattice.normalizers.hf_text import are_plain
from gpu_lattice.normalizers.pre_token_states import (
    AFTER_FOLDED,
    ANY_NUMBER,
    AT_MARK,
    BEFORE_LAST,
    FIRST,
    FIRST_FOLDED,
    HERE,
    NEVER,
    SET_MARK,
    STATE_SHIFT,
    Pattern,
    actions_of,
    character_classes,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_FOLDED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CL100K = _FOLDED + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _REST
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s|"
_CASED_REST = _REST.replace(r"[\r\n]*", r"[\r\n/]*")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TIKTOKEN_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
TIKTOKEN_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"
    r"\s+(?!\S)|\s"
)
# What tiktoken's were once, as minbpe and nanochat have them.
ONCE_GPT2 = GPT2.replace("'s|'t|'re|'ve|'m|'ll|'d", "'(?:[sdmt]|ll|ve|re)")
ONCE_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
QWEN35 = CL100K.replace("{1,3}", "").replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}", r"[^\s\p{L}\p{M}")
O200K = _CASED % (_FOLDED + "?", _FOLDED + "?") + r"\p{N}{1,3}|" + _CASED_REST

PATTERNS = {
    GPT2: Pattern(FIRST, False, True, ANY_NUMBER, False, False),
    CL100K: Pattern(FIRST_FOLDED, False, False, 3, True, False),
    CL100K.replace("{1,3}", ""): Pattern(FIRST_FOLDED, False, False, 1, True, False),
    CL100K.replace("{1,3}", "+"): Pattern(FIRST_FOLDED, False, False, ANY_NUMBER, True, False),
    QWEN35: Pattern(FIRST_FOLDED, False, False, 1, True, False, marks=True),
    O200K: Pattern(AFTER_FOLDED, True, False, 3, True, True),
    _CASED % ("", "") + r"\p{N}|" + _CASED_REST: Pattern(NEVER, True, False, 1, True, True),
    _CASED % ("", "") + r"\p{N}{1,3}|" + _CASED_REST: Pattern(NEVER, True, False, 3, True, True),
    ONCE_GPT2: Pattern(FIRST, False, True, ANY_NUMBER, False, False),
    ONCE_CL100K: Pattern(FIRST_FOLDED, False, False, 3, True, False),
    ONCE_CL100K.replace("{1,3}", "{1,2}"): Pattern(FIRST_FOLDED, False, False, 2, True, False),
    CL100K.replace("{1,3}", "{1,2}"): Pattern(FIRST_FOLDED, False, False, 2, True, False),
    CL100K.removeprefix(_FOLDED + "|"): Pattern(NEVER, False, False, 3, True, False),
    CL100K.removeprefix(_FOLDED + "|").replace("{1,3}", "{1,2}"): Pattern(NEVER, False, False, 2, True, False),
}
# These tokenizers would read otherwise: there, {1,3}+ repeats what {1,3} matches.
TIKTOKEN = {
    TIKTOKEN_GPT2: PATTERNS[GPT2],
    TIKTOKEN_CL100K: Pattern(FIRST_FOLDED, False, False, 3, True, False, whole_end=True),
}
# DeepSeek-V3's, the last of which alone leaves characters unmatched.
DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
)
SEQUENCES: dict[tuple[str, ...], Pattern] = {DEEPSEEK: Pattern(NEVER, False, False, 3, True, False, deepseek=True)}
# How many digits a number has that one of these divides from other text.
NUMBERS = {r"\p{N}": 1, r"\p{N}{1,3}": 3}

# For how many bytes the automaton goes on, and how many pay for masks.
LEAST_WAIT, MOST_WAIT, ENOUGH = np.uint64(8), np.uint64(1024), np.uint64(16)
SHIFT, LOW_BITS = np.uint64(STATE_SHIFT), np.uint64(0x3F)
MARK_BIT, LAST_BIT, HERE_BIT, SET_BIT = np.uint64(AT_MARK), np.uint64(BEFORE_LAST), np.uint64(HERE), np.uint64(SET_MARK)


def automaton_of(pattern: Pattern) -> tuple[np.uint64, NDArray[np.uint16], NDArray[np.uint8]]:
    """(rules, actions, classes) as `divide` takes them."""
    return ascii_rules(pattern), actions_of(pattern), character_classes()[0]


@compiled
def divide(rules, actions, classes, values, ends, hits):  # type: ignore[no-untyped-def]
    """Divide chunks into pre-tokens: (their ends, hits), as `cut` (hf_text.py) returns them, except the chunks hit.

    rules: of ascii_pre_tokens.py; actions, classes: of pre_token_states.py.
    """
    out = np.empty(17 + len(values) // 4, np.int64)
    out[0] = 0
    out_hits = hits.copy()
    n, first = ONE, np.int64(0)
    for i_hit in range(len(hits)):
        hit = hits[i_hit, 0]
        out, n = _divide_texts(rules, actions, classes, values, ends[first:hit], out, n)
        out = grown(out, n, np.int64(n + ONE))
        out[n] = ends[hit]
        out_hits[i_hit, 0] = n - ONE
        first = hit + 1
        n += ONE
    out, n = _divide_texts(rules, actions, classes, values, ends[first:], out, n)
    return filled(out, np.int64(n))[1:], out_hits


@compiled
def divide_plain(rules, actions, classes, trie, most, values, docs):  # type: ignore[no-untyped-def]
    """The bounds of the pre-tokens of documents that are plain (hf_text.py), from 0 on; empty if they are not.

    A short text takes one call so, where `divide` comes after five others.
    """
    if not are_plain(trie, most, values, docs):
        return np.empty(0, np.int64)
    start = docs[0]
    out = np.empty(16 + (docs[-1] - start) // 4, np.int64)
    out[0] = start
    out, n = _divide_texts(rules, actions, classes, values, docs[1:], out, ONE)
    for k in range(n):
        out[k] -= start
    return filled(out, np.int64(n))


@compiled
def _divide_texts(rules, actions, classes, values, ends, out, n):  # type: ignore[no-untyped-def]
    """Append the ends of the pre-tokens of texts to out[n:]: (out, n). Each begins where another ends, the first at
    out[n - 1].

    Whether a boundary is known cannot be foreseen, so nothing branches on it: each is written, and counted if it is.
    From `again` on, it is tried whether masks tell the boundaries; the fewer they do, the longer is waited until then.
    All is in one loop, or put into it, for each call of a function that takes arrays would count references to them.
    """
    p = again = np.uint64(out[n - ONE])
    wait = LEAST_WAIT
    for i in range(len(ends)):
        stop = np.uint64(ends[i])
        if n + stop - p + TWO > np.uint64(len(out)):
            out = grown(out, n, np.int64(n + stop - p + TWO))
        state, mark, last = NONE, p, p
        while p < stop:
            begin = np.uint64(out[n - ONE])
            if begin + BLOCK > np.uint64(len(values)):
                again = stop
            elif p >= again:
                found, length = told_boundaries(rules, *masks_at(values, begin), stop - begin)
                while found != NONE:
                    p = begin + np.uint64(trailing_zeros(found))
                    state = NONE
                    out[n] = p
                    n += ONE
                    found &= found - ONE
                are_enough = np.uint64(out[n - ONE]) - begin >= ENOUGH
                wait = LEAST_WAIT if are_enough else min(TWO * wait, MOST_WAIT)
                again = p if are_enough and length == BLOCK else max(p, begin + length) + wait
            limit = min(again, stop)
            while p < limit:
                lead = np.uint64(values[p])
                here, code = p, lead
                p += ONE
                if lead >= np.uint64(0x80):
                    code = (lead & np.uint64(0x1F)) << np.uint64(6) | np.uint64(values[p]) & LOW_BITS
                    p += ONE
                    if lead >= np.uint64(0xE0):
                        code = (code & np.uint64(0x3FF)) << np.uint64(6) | np.uint64(values[p]) & LOW_BITS
                        p += ONE
                        if lead >= np.uint64(0xF0):
                            code = (code & np.uint64(0x7FFF)) << np.uint64(6) | np.uint64(values[p]) & LOW_BITS
                            p += ONE
                action = np.uint64(actions[state + np.uint64(classes[code])])
                state = action >> SHIFT
                n = _write_known(action, mark, last, here, out, n)
                mark = here if action & SET_BIT else mark
                last = here
        action = np.uint64(actions[state])
        n = _write_known(action, mark, last, stop, out, n)
    return out, n


@compiled(inline="always")
def _write_known(action, mark, last, here, out, n):  # type: ignore[no-untyped-def]
    """Append to out[n:] the boundaries that an action says are known by now; returns where they end."""
    out[n] = mark
    n += action & MARK_BIT
    out[n] = last
    n += (action & LAST_BIT) >> ONE
    out[n] = here
    return n + ((action & HERE_BIT) >> TWO)
