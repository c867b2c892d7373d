"""The numerics: arrays in, arrays out; reference.py is the definition. Imports numpy, numba and itself.

What compiled code may assume, for it checks none of this. Whoever lets data in has seen to it, with a ValueError or
TypeError for what is otherwise:

- Offsets are int64, begin within their values, never fall, and end within them (text_batch, token_batch).
- Normalized text is UTF-8 where a vocabulary is of characters. A normalizer writes U+FFFD for each byte of a text that
  is of no character, and what else it writes is whole characters: the replacements of a character map
  (normalizers/charsmap), the contents of Replace, Prepend, Metaspace and added tokens (models/hf_tokenizers, which
  refuses halves of surrogate pairs). Where a vocabulary is of bytes, text is any bytes; so one that is to keep
  characters whole has nothing after the step that makes them bytes (models/whole_characters).
- Chunk offsets ascend, from where the text begins to where it ends; every document's bounds are among them, and no
  chunk is empty (normalizers).
- Each step in the trie of a character map stays within its array, no walk has more than LONGEST_KEY of them, and every
  replacement ends (normalizers/charsmap).
- Surfaces in the lattice are distinct, not empty, and UTF-8 where a vocabulary is of characters (models).
- Ids of the unknown, of bytes (-1 for none), of chunks (-1 for text) and those put around a row are ids of the
  vocabulary (models, normalizers).
- Scores are finite; sums of them may not be. A weight lies between 2^-1000 and 2^1000 (weights).
"""
