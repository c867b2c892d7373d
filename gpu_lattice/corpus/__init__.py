"""Whole corpora: readers, writers, and retokenize, which streams files of text into files of token ids."""
