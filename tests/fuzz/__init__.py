"""Damaged and hostile model files: whatever is in one, it is read or refused with a ValueError, and nothing crashes.

`python -m tests.fuzz --seconds N` from the root of the repository; models.py makes the files, of which input i of a
seed is always the same, worker.py reads them and uses what it read, in a process with limits, and __main__.py starts
such processes and says what became of them.
"""
