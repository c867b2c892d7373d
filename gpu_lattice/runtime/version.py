"""The version of the package, and of the draws: what a seed gives changes only with the latter."""

__version__ = "0.2.0"
DRAWS = 1
