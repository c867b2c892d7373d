"""The definition of every stage, in plain Python: slow and short; the fast implementations are tested against it.

A text is bytes (one chunk of normalized text). A `Rules` says which arcs it has. Worked example: pieces a, b, ab with
scores log .4, log .2, log .3 on the text "ab" give two paths, a|b of weight .08 and ab of weight .3, so Z = .38:

    >>> import math
    >>> rules = Rules({b"a": 0, b"b": 1, b"ab": 2}, "bytes", unk_weight=None)
    >>> z = forward_scores(b"ab", rules, [.4, .2, .3])
    >>> round(to_float(z[2]), 12)
    0.38
    >>> round(math.exp(log(z[2])), 12)
    0.38

Not here: normalization, finding chunks, decoding, speed.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

UNKNOWN = -1

# How many bytes of a segment share a random number: at most 2**15 segmentations, for which 53 bits are plenty.
DRAW_BYTES = 16
# The stream of the coins of words: "WORDCOIN" in ASCII.
COINS = 0x574F5244434F494E
MARK = "▁".encode()

# A number is a pair (mantissa, exponent) for mantissa * 2**exponent with mantissa in [0.5, 1), or (0.0, 0).
# Every operation rounds once, to 53 bits, as float64 would if its exponent had no bounds. Kernels may use plain
# float64, scaled by powers of two or not, wherever no exponent leaves the normal range: the mantissas are the same.
Number = tuple[float, int]
ZERO: Number = (0.0, 0)
ONE: Number = (0.5, 1)


def number(mantissa: float, exponent: int = 0) -> Number:
    if mantissa == 0.0:
        return ZERO
    m, e = math.frexp(mantissa)
    return m, e + exponent


def multiply(a: Number, b: Number) -> Number:
    return number(a[0] * b[0], a[1] + b[1])


def add(a: Number, b: Number) -> Number:
    if a[0] == 0.0 or b[0] == 0.0:
        return b if a[0] == 0.0 else a
    if a[1] < b[1]:
        a, b = b, a
    shift = a[1] - b[1]
    return a if shift > 64 else number(a[0] + math.ldexp(b[0], -shift), a[1])


def subtract(a: Number, b: Number) -> Number:
    """a - b for b <= a."""
    if b[0] == 0.0:
        return a
    shift = a[1] - b[1]
    return a if shift > 64 else number(a[0] - math.ldexp(b[0], -shift), a[1])


def greater(a: Number, b: Number) -> bool:
    if a[0] == 0.0 or b[0] == 0.0:
        return a[0] > b[0]
    return (a[1], a[0]) > (b[1], b[0])


def to_float(a: Number) -> float:
    return math.ldexp(*a)


def log(a: Number) -> float:
    return math.log(a[0]) + a[1] * math.log(2.0)


@dataclass(frozen=True)
class Rules:
    """Which arcs a text has.

    pieces      surface -> id
    symbols     "bytes" or "characters": what a position is a boundary of
    unk_weight  not None if a symbol without a piece of its own is an unknown arc
    """

    pieces: dict[bytes, int]
    symbols: str
    unk_weight: float | None

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest piece."""
        return max(map(len, self.pieces), default=0)

    def symbol_length(self, text: bytes, e: int) -> int:
        """Bytes of the symbol that ends at e."""
        if self.symbols == "bytes":
            return 1
        length = 1
        while text[e - length] & 0xC0 == 0x80:
            length += 1
        return length

    def is_boundary(self, text: bytes, p: int) -> bool:
        return self.symbols == "bytes" or p == len(text) or text[p] & 0xC0 != 0x80

    def arcs_into(self, text: bytes, e: int, start: int = 0) -> list[tuple[int, int]]:
        """(length, piece id) of every arc into e that begins at or after start, shortest first."""
        if e == start or not self.is_boundary(text, e):
            return []
        arcs = [
            (length, self.pieces[text[e - length : e]])
            for length in range(1, min(e - start, self.longest) + 1)
            if text[e - length : e] in self.pieces
        ]
        symbol = self.symbol_length(text, e)
        if self.unk_weight is not None and text[e - symbol : e] not in self.pieces:
            arcs.insert(0, (symbol, UNKNOWN))
        return arcs

    def is_cut(self, text: bytes, p: int) -> bool:
        """Whether the few symbols around p show that no piece spans it; true at both ends of the text."""
        if p in (0, len(text)):
            return True
        if not self.is_boundary(text, p):
            return False
        if self.symbols == "characters":
            x = text[p - self.symbol_length(text, p) : p]
            y = text[p:].decode()[:1].encode()
            return not any(x.decode() + y.decode() in piece.decode() for piece in self.pieces)
        return not any(_agrees(piece, i, text, p) for piece in self.pieces for i in range(1, len(piece)))


def _agrees(piece: bytes, i: int, text: bytes, p: int) -> bool:
    """Whether a piece, with its byte i at p, agrees with up to two bytes of the text on either side."""
    left, right = min(i, 2), min(len(piece) - i, 2)
    return p >= left and text[p - left : p] == piece[i - left : i] and text[p : p + right] == piece[i : i + right]


def weight_of(arc: int, rules: Rules, weights: list[float]) -> float:
    return rules.unk_weight if arc == UNKNOWN and rules.unk_weight is not None else weights[arc]


def segments(text: bytes, rules: Rules) -> list[tuple[int, int]]:
    """The parts of a text between static cuts, as (start, stop)."""
    cuts = [p for p in range(len(text) + 1) if rules.is_cut(text, p)]
    return list(pairwise(cuts))


def forward_scores(
    text: bytes, rules: Rules, weights: list[float], start: int = 0, stop: int | None = None
) -> list[Number]:
    """Z[start..stop]: Z[start] = 1, Z[e] = the sum of Z[s] * weight over the arcs into e, shortest arc first."""
    stop = len(text) if stop is None else stop
    z = [ONE]
    for e in range(start + 1, stop + 1):
        total = ZERO
        for length, arc in rules.arcs_into(text, e, start):
            total = add(total, multiply(z[e - length - start], number(weight_of(arc, rules, weights))))
        z.append(total)
    return z


def sample(
    text: bytes, rules: Rules, weights: list[float], seed: int = 0, doc_id: int = 0, i_sample: int = 0, offset: int = 0
) -> tuple[list[tuple[int, int]], Number]:
    """One perfect sample of a chunk that begins at byte `offset` of its document, and the product of the segments' Z.

    The path is a list of (length, arc). At a segment's end the target is u * Z[end], u drawn from the counter
    (end, sample, document). The first arc whose running sum exceeds the target is taken. The target minus the sum
    of the arcs before it, divided by the arc's weight, is uniform below Z of the arc's start: the target there.
    A target carries 53 bits, so a new one is drawn for each DRAW_BYTES bytes, counted from the segment's end.
    Source: Su Jianlin, https://kexue.fm/archives/9811 (perfect sampling of segmentations), one number for each token;
    reusing what is left of a number is the decoding step of arithmetic codes (Rissanen and Langdon 1979).
    """
    path: list[tuple[int, int]] = []
    total = ONE
    for start, stop in segments(text, rules):
        z = forward_scores(text, rules, weights, start, stop)
        total = multiply(total, z[-1])
        back = []
        e, i_draw, target = stop, -1, ZERO
        while e > start:
            if (stop - e) // DRAW_BYTES > i_draw:
                i_draw = (stop - e) // DRAW_BYTES
                target = multiply(number(uniform(seed, offset + e, i_sample, doc_id)), z[e - start])
            length, arc, target = _choose(text, e, start, rules, weights, z, target)
            back.append((length, arc))
            e -= length
        path += back[::-1]
    return path, total


def _choose(
    text: bytes, e: int, start: int, rules: Rules, weights: list[float], z: list[Number], target: Number
) -> tuple[int, int, Number]:
    """The first incoming arc, shortest first, whose running sum exceeds the target; and the target where it starts.

    If none does (rounding can raise a target to Z), it is the last arc that adds to the sum.
    """
    if z[e - start] == ZERO:
        raise ValueError(f"no segmentation reaches byte {e}")
    running = ZERO
    for length, arc in rules.arcs_into(text, e, start):
        weight = weight_of(arc, rules, weights)
        term = multiply(z[e - length - start], number(weight))
        if term == ZERO:
            continue
        chosen, before = (length, arc), running
        inverse = number(1.0 / weight)
        running = add(running, term)
        if greater(running, target):
            break
    return *chosen, multiply(subtract(target, before), inverse)


def words(
    text: bytes, rules: Rules, division: str, unk_id: int = UNKNOWN, spells: bool = False
) -> list[tuple[int, int]]:
    """The words of a chunk, as (start, stop): what `resampled` decides on.

    A chunk (a pre-token, a line, an added token) is one word by "chunk", is divided at every cut by "cut", at every cut
    before a "▁" by "mark", at every cut after one by "mark behind"; but only where no run of unknown text goes on: the
    symbol before is a piece, and no piece that is the unknown token itself ends there, or else byte pieces spell all
    (spells). So words are unions of segments, and ids belong to one word each.
    """
    borders = [0, len(text)]
    for p in range(1, len(text)):
        before, after = text[:p].endswith(MARK), text[p:].startswith(MARK)
        divides = {"chunk": False, "cut": True, "mark": after, "mark behind": before}[division]
        if divides and rules.is_cut(text, p):
            known = text[p - rules.symbol_length(text, p) : p] in rules.pieces
            if spells or (known and unk_id not in [arc for _, arc in rules.arcs_into(text, p)]):
                borders.append(p)
    return list(pairwise(sorted(borders)))


def resampled(
    best: list[tuple[int, int]],
    drawn: list[tuple[int, int]],
    borders: list[tuple[int, int]],
    rate: float,
    seed: int = 0,
    doc_id: int = 0,
    i_sample: int = 0,
    offset: int = 0,
) -> list[tuple[int, int]]:
    """A path of a chunk at `offset` that takes each word, with probability rate, from `drawn`, else from `best`.

    A word's coin is its number at its first byte, in a stream of its own: that of the seed's exclusive or with COINS.
    With w(s) / Z the probability that sampling gives a word the ids s, they come out with probability
    rate * w(s) / Z + (1 - rate) * [s is the best], independently of other words. A rate of 1 is sampling.
    Source: Cognetta, Zouhar and Okazaki 2024 (arXiv 2408.11443), who resample words so.
    """
    path = []
    for start, stop in borders:
        is_drawn = uniform(seed ^ COINS, offset + start, i_sample, doc_id) < rate
        e = 0
        for length, arc in drawn if is_drawn else best:
            if start <= e < stop:
                path.append((length, arc))
            e += length
    return path


def uniform(seed: int, position: int, i_sample: int, doc_id: int) -> float:
    """A number in [0, 1) from Philox4x32-10: key = seed, counter = (position, sample, document low, document high)."""
    key = (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)
    x = philox((position, i_sample, doc_id & 0xFFFFFFFF, doc_id >> 32 & 0xFFFFFFFF), key)
    return ((x[0] << 32 | x[1]) >> 11) * 2.0**-53


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & 0xFFFFFFFF, p0 >> 32 ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def splitmix(start: int, i: int) -> int:
    """Number i of SplitMix64 (Steele, Lea and Flood 2014) from a start: 64 bits, different for every i below 2^64.

    A job over files derives its seeds and document ids so (gpu_lattice/corpus/draws.py): epoch k draws with the seed
    splitmix(seed, k), and row r of a file, if no column names it, has the document id splitmix(key, r), where the key
    is the 8-byte BLAKE2b digest of the file's path below the root, read little-endian.

    >>> f"{splitmix(0, 0):016x} {splitmix(0, 1):016x}"
    'e220a8397b1dcdaf 6e789e6aa1b965f4'
    """
    x = (start + (i + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    x = (x ^ x >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return x ^ x >> 31


def viterbi(text: bytes, rules: Rules, scores, unk_score, reset: float | None = None) -> list[tuple[int, int]]:  # type: ignore[no-untyped-def]
    """The best path of a chunk as (length, arc): sums from left to right in the scores' own type.

    In a tie, the arc that begins first (the longest) wins. `reset` is SentencePiece's: when the best score at a
    start leaves [-reset, reset], it is subtracted from every end reached so far.
    Source: sentencepiece 0.2.3, Model::EncodeOptimized; the same order of sums and ties holds in Hugging Face's
    tokenizers (float64, no reset) and in bytepiece (float64, longest first).
    """
    zero = type(unk_score)(0)
    best = {0: zero}
    back: dict[int, tuple[int, int]] = {}
    arcs_from: dict[int, list[tuple[int, int]]] = {}
    for e in range(1, len(text) + 1):
        for length, arc in rules.arcs_into(text, e):
            arcs_from.setdefault(e - length, []).append((length, arc))
    for s in range(len(text)):
        if s not in best:
            continue
        if reset is not None and abs(best[s]) > reset:
            base = best[s]
            for e in best:
                if e >= s:
                    best[e] = best[e] - base
        for length, arc in arcs_from.get(s, []):
            candidate = best[s] + (unk_score if arc == UNKNOWN else scores[arc])
            if s + length not in best or candidate > best[s + length]:
                best[s + length] = candidate
                back[s + length] = (length, arc)
    path = []
    e = len(text)
    while e > 0:
        if e not in back:
            raise ValueError(f"no segmentation reaches byte {e}")
        path.append(back[e])
        e -= back[e][0]
    return path[::-1]


def emit(
    path: list[tuple[int, int]], text: bytes, rules: Rules, unk_id: int, byte_ids: list[int] | None, unknown_runs: str
) -> list[int]:
    """The ids of a chunk's path: a run of unknown arcs becomes one piece ("lookup"), its bytes, or the unknown id; or
    each of them an unknown id of its own ("apart").

    A piece that is the unknown token itself (Hugging Face matches it in text) counts as an unknown arc.
    """
    ids: list[int] = []
    e = 0
    run = 0
    for length, arc in [*path, (0, -2)]:
        is_unknown = arc in (UNKNOWN, unk_id) and length > 0
        if is_unknown and unknown_runs != "apart":
            run += length
        else:
            if run:
                ids += _emit_unknown(text[e - run : e], rules, unk_id, byte_ids, unknown_runs == "lookup")
                run = 0
            if length:
                ids.append(unk_id if is_unknown else arc)
        e += length
    return ids


def _emit_unknown(run: bytes, rules: Rules, unk_id: int, byte_ids: list[int] | None, look_up: bool) -> list[int]:
    if look_up and run in rules.pieces:
        return [rules.pieces[run]]
    if byte_ids is not None and all(byte_ids[byte] >= 0 for byte in run):
        return [byte_ids[byte] for byte in run]
    return [unk_id]
