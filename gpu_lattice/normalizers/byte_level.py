"""GPT-2's characters for bytes, as which byte-level vocabularies print them: printable ones are themselves."""

from __future__ import annotations

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHER = [byte for byte in range(256) if byte not in _PRINTABLE]

BYTE_OF_CHARACTER = {chr(byte): byte for byte in _PRINTABLE} | {chr(0x100 + i): byte for i, byte in enumerate(_OTHER)}
CHARACTERS = sorted(BYTE_OF_CHARACTER, key=BYTE_OF_CHARACTER.__getitem__)
# Characters that stand for no byte become one that Latin-1 cannot encode.
_TO_LATIN_1 = str.maketrans(BYTE_OF_CHARACTER | {chr(byte): "\uffff" for byte in _OTHER})


def bytes_of(text: str) -> bytes | None:
    """The bytes that characters stand for; None if one of them stands for none.

    Example:
        >>> bytes_of("Ġa"), bytes_of("a b")
        (b' a', None)
    """
    try:
        return text.translate(_TO_LATIN_1).encode("latin-1")
    except UnicodeEncodeError:
        return None
