"""Write gpu_lattice/data/graphemes.npz, the character classes that grapheme clusters are cut by.

The classes join three properties of the Unicode Character Database, version 17.0: Grapheme_Cluster_Break
(auxiliary/GraphemeBreakProperty.txt), Extended_Pictographic (emoji/emoji-data.txt) and Indic_Conjunct_Break
(DerivedCoreProperties.txt). They are read through the package regex, release 2025.11.3, whose tables are of that
version; it is the version of unicode-segmentation 1.13.3, which tokenizers 0.23.3 was built with. The data is under
the Unicode License v3, https://www.unicode.org/license.txt.

    pip install regex==2025.11.3
    python tools/make_grapheme_table.py
"""

from pathlib import Path

import numpy as np
import regex

from gpu_lattice.normalizers import graphemes
from gpu_lattice.normalizers.code_points import BLOCK_SIZE

SOURCE = "Unicode 17.0"
RELEASE = "2025.11.3"
TARGET = Path(__file__).resolve().parents[1] / "gpu_lattice" / "data" / "graphemes.npz"
SURROGATES = range(0xD800, 0xE000)

PROPERTIES = [
    (graphemes.CR, "GCB=CR"),
    (graphemes.LF, "GCB=LF"),
    (graphemes.CONTROL, "GCB=Control"),
    (graphemes.EXTEND, "GCB=Extend"),
    (graphemes.ZWJ, "GCB=ZWJ"),
    (graphemes.REGIONAL, "GCB=Regional_Indicator"),
    (graphemes.PREPEND, "GCB=Prepend"),
    (graphemes.SPACING_MARK, "GCB=SpacingMark"),
    (graphemes.L, "GCB=L"),
    (graphemes.V, "GCB=V"),
    (graphemes.T, "GCB=T"),
    (graphemes.LV, "GCB=LV"),
    (graphemes.LVT, "GCB=LVT"),
    (graphemes.PICTOGRAPHIC, "Extended_Pictographic"),
    (graphemes.CONSONANT, "InCB=Consonant"),
]


def main() -> None:
    if regex.__version__ != RELEASE:
        raise SystemExit(f"regex {regex.__version__} is installed; its Unicode may differ, install regex=={RELEASE}")
    classes = np.full(0x110000, graphemes.OTHER, np.uint8)
    for number, name in PROPERTIES:
        members = having(name)
        if np.any(classes[members] != graphemes.OTHER):
            raise SystemExit(f"a character of {name} has another class already")
        classes[members] = number
    joins_consonants = having("InCB=Extend")
    linkers = having("InCB=Linker")
    if np.any(classes[linkers] != graphemes.EXTEND):
        raise SystemExit("a linker is not of the class Extend")
    extends = np.flatnonzero(classes == graphemes.EXTEND)
    classes[np.setdiff1d(extends, joins_consonants)] = graphemes.EXTEND_OUTSIDE_CONJUNCTS
    classes[linkers] = graphemes.LINKER
    if not np.all(np.isin(classes[joins_consonants], [graphemes.EXTEND, graphemes.ZWJ])):
        raise SystemExit("a character of InCB=Extend is neither Extend nor ZWJ")

    blocks, index = np.unique(classes.reshape(-1, BLOCK_SIZE), axis=0, return_inverse=True)
    np.savez_compressed(TARGET, index=index.astype(np.uint8), blocks=blocks, source=np.array(SOURCE))
    print(f"{TARGET}: {len(blocks)} blocks, {TARGET.stat().st_size} bytes")


def having(name: str) -> np.ndarray:
    """The code points with a property."""
    matches = regex.compile(rf"\p{{{name}}}").match
    return np.array([c for c in range(0x110000) if c not in SURROGATES and matches(chr(c))], np.int64)


if __name__ == "__main__":
    main()
