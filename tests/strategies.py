"""Small random vocabularies and texts over few symbols, where segmentations meet each other often."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from gpu_lattice import Tokenizer

ALPHABETS = ("ab", "aé", "a漢é", "😀x", "▁ab", b"ab", b"\x00\xff", b"a\xe6\xbc")
SCORES = st.one_of(st.floats(-8, 3), st.sampled_from([0.0, -1.0, -2.0]), st.none())
# Growth beyond 2^1024, decay below 2^-1074, and both in turn, each within one segment.
EXTREME = [
    ({b"a": None, b"aa": None, b"aaa": None}, b"a" * 1300, 0.0),
    ({b"a": -30.0, b"aa": -30.0, b"b": -30.0, b"ab": -30.0, b"ba": -30.0}, b"abaab" * 30, 20.0),
    ({"é": -30.0, "éé": -34.0, "漢": 30.0, "é漢": 31.0, "漢é": -30.0, "漢漢": 33.0}, "é漢漢漢é漢éé" * 12, 20.0),
    ({"é": -24.0, "<unk>": None, "éé": -9.0}, "éé?é" * 25, 20.0),
    ({b"a": -34.0, b"aa": -34.5, b"a" * 9: 0.0}, b"a" * 200, 20.0),
]


@dataclass(frozen=True)
class Case:
    pieces: dict[Any, float | None]
    unk_piece: Any
    texts: list[Any]

    def tokenizer(self, threads: int = 1) -> Tokenizer:
        return Tokenizer.from_pieces(self.pieces, unk_piece=self.unk_piece, device="cpu", threads=threads)


@st.composite
def cases(draw: st.DrawFn, longest_text: int = 10, always_spelled: bool = False) -> Case:
    """Half of the vocabularies cover every symbol, most others have an unknown piece; the rest may have no path."""
    alphabet = draw(st.sampled_from(ALPHABETS))
    empty = type(alphabet)()
    symbols = list(alphabet) if isinstance(alphabet, str) else [bytes([byte]) for byte in alphabet]
    some = st.lists(st.sampled_from(symbols), min_size=1, max_size=4).map(empty.join)
    pieces = draw(st.dictionaries(some, SCORES, min_size=1, max_size=9))
    if alphabet == "▁ab" and draw(st.booleans()):
        # As in most models, where words are apart.
        pieces = {piece: score for piece, score in pieces.items() if "▁" not in piece[1:]} or {"▁": None}
    unk_piece = None
    kind = draw(st.sampled_from(["covered", "covered", "unknown", "unknown" if always_spelled else "any"]))
    if kind == "covered":
        pieces |= {symbol: draw(SCORES) for symbol in symbols if symbol not in pieces}
    if kind == "unknown":
        unk_piece = "<unk>" if isinstance(alphabet, str) else b"<unk>"
        at = draw(st.integers(0, len(pieces)))
        items = list(pieces.items())
        pieces = dict([*items[:at], (unk_piece, None), *items[at:]])
        symbols = [*symbols, "?" if isinstance(alphabet, str) else b"?"]
    texts = st.lists(st.sampled_from(symbols), max_size=longest_text).map(empty.join)
    return Case(pieces, unk_piece, draw(st.lists(texts, min_size=1, max_size=4)))
