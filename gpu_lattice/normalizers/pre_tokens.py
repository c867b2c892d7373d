"""Pre-tokens by the patterns of GPT-2 and its successors, compiled: one loop over characters, by a table of actions.

A pattern is known by its exact text. Each of these matches every character of any text, so that the matches are the
pre-tokens, whatever becomes of the text between matches.
"""

from __future__ import annotations

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import filled, grown
from gpu_lattice.kernels.cpu.machine import ONE
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
)

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

TWO = np.uint64(2)
SHIFT, LOW_BITS = np.uint64(STATE_SHIFT), np.uint64(0x3F)
MARK_BIT, LAST_BIT, HERE_BIT, SET_BIT = np.uint64(AT_MARK), np.uint64(BEFORE_LAST), np.uint64(HERE), np.uint64(SET_MARK)


@compiled
def divide(actions, classes, values, ends, hits):  # type: ignore[no-untyped-def]
    """Divide chunks into pre-tokens: (their ends, hits), as `cut` (hf_text.py) returns them, except the chunks hit.

    actions, classes: of pre_token_states.py.
    """
    out = np.empty(16 + len(values) // 4, np.int64)
    out_hits = hits.copy()
    i_hit = 0
    n = p = np.uint64(0)
    for i in range(len(ends)):
        stop = np.uint64(ends[i])
        out = grown(out, n, np.int64(n + stop - p + TWO))
        if i_hit < len(hits) and hits[i_hit, 0] == i:
            out_hits[i_hit, 0] = n
            i_hit += 1
            out[n] = stop
            n += ONE
        else:
            n = _divide_one(actions, classes, values, p, stop, out, n)
        p = stop
    return filled(out, np.int64(n)), out_hits


@compiled
def divide_plain(actions, classes, trie, most, values, docs):  # type: ignore[no-untyped-def]
    """The bounds of the pre-tokens of documents that are plain (hf_text.py), from 0 on; empty if they are not.

    A short text takes one call so, where `divide` comes after five others.
    """
    if not are_plain(trie, most, values, docs):
        return np.empty(0, np.int64)
    text = values[docs[0] : docs[-1]]
    out = np.empty(16 + len(text) // 4, np.int64)
    out[0] = 0
    n, p = ONE, np.uint64(0)
    for i_doc in range(len(docs) - 1):
        stop = np.uint64(docs[i_doc + 1] - docs[0])
        if p < stop:
            out = grown(out, n, np.int64(n + stop - p + TWO))
            n = _divide_one(actions, classes, text, p, stop, out, n)
        p = stop
    return filled(out, np.int64(n))


@compiled
def _divide_one(actions, classes, values, p, stop, out, n):  # type: ignore[no-untyped-def]
    """Append the ends of the pre-tokens of values[p:stop] to out[n:]; returns where they end.

    Whether a boundary is known cannot be foreseen, so nothing branches on it: each is written, and counted if it is.
    """
    state, mark, last = np.uint64(0), p, p
    while p < stop:
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
        out[n] = mark
        n += action & MARK_BIT
        out[n] = last
        n += (action & LAST_BIT) >> ONE
        out[n] = here
        n += (action & HERE_BIT) >> TWO
        mark = here if action & SET_BIT else mark
        last = here
    action = np.uint64(actions[state])
    out[n] = mark
    n += action & MARK_BIT
    out[n] = last
    n += (action & LAST_BIT) >> ONE
    out[n] = stop
    return n + ((action & HERE_BIT) >> TWO)
