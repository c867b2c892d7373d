"""Checks of arguments that several operations share; compiled code gets only what has passed one of them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

LONGEST_SHOWN = 60
LARGEST_PENALTY = 500.0
# Tuples: to put a union of types together takes longer than to ask for it.
FLAGS, NUMBERS = (bool, np.bool_), (int, float, np.integer, np.floating)

F = TypeVar("F", bound=Callable[..., Any])


def shown(value: Any) -> str:
    """A value in an error message, shortened if it is long.

    Example:
        >>> shown("ab"), shown(10**5000)
        ("'ab'", 'an int of 16610 bits')
    """
    try:
        text = repr(value)
    except ValueError:  # Python writes no int of more than 4,300 digits
        return f"an int of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


# What other tools call an option, and what it is here.
OTHER_NAMES = {
    "temperature": "alpha, which is 1 / temperature",
    "theta": "alpha, which is 1 / theta",
    "n": "num_samples",
    "k": "num_samples",
    "n_samples": "num_samples",
    "nbest": "nbest_size, or the method nbest",
    "random_state": "seed",
    "enable_sampling": "the method sample",
    "alpha": "the method sample, which has it",
    "num_samples": "the method sample, which has it",
    "seed": "the method sample, which has it",
    "out_type": "TokenBatch.pieces() or .tolist()",
    "padding": "TokenBatch.to_padded()",
    "return_tensors": "TokenBatch.to_padded()",
}


def told_the_right_name(function: F) -> F:
    """Have a TypeError for an option that other tools have say what it is called here, and a MemoryError what to do."""
    known = frozenset(signature(function).parameters)

    @wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except TypeError:
            for name in options:
                if name not in known and name in OTHER_NAMES:
                    use = OTHER_NAMES[name]
                    of_sample = use.partition(",")[0] in OTHER_NAMES and "alpha" not in known
                    raise TypeError(
                        f"{function.__name__} has no option {name}; use {'the method sample, with ' * of_sample}{use}"
                    ) from None
            raise
        except MemoryError as error:
            raise MemoryError(f"{error or 'no memory is left'}; give fewer texts or samples at a time") from None

    return cast("F", wrapper)


def check_tokenizer(tokenizer: Any) -> None:
    """TypeError unless it is a Tokenizer, or what stands for one: a path is none yet."""
    if not (hasattr(tokenizer, "model") and hasattr(tokenizer, "vocab_size")):
        raise TypeError(f"tokenizer is {shown(tokenizer)}; give a Tokenizer, such as Tokenizer.from_file(path)")


def as_integer(name: str, value: Any) -> int:
    """value as an int; TypeError unless it is an integer."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {shown(value)}; give an integer") from None


def checked_integer(name: str, value: Any, low: int, high: int) -> int:
    """value as an int; TypeError unless it is an integer, ValueError if it is out of range."""
    number = value if type(value) is int else as_integer(name, value)
    if not low <= number <= high:
        raise ValueError(f"{name} is {shown(number)}; give an integer from {low} to {high}")
    return number


def in_order(kernel: str, parameters: tuple[str, ...], args: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments of a kernel in the order of its parameters; TypeError if one is missing or unknown.

    Example:
        >>> in_order("row_sums", ("offsets", "values", "totals"), {"offsets": 1, "totals": 3, "values": 2})
        (1, 2, 3)
    """
    try:
        values = tuple(map(args.__getitem__, parameters))
        if len(values) == len(args):
            return values
    except KeyError:
        pass
    missing = [name for name in parameters if name not in args]
    unknown = [name for name in args if name not in parameters]
    faults = (("lacks", missing), ("does not take", unknown))
    found = " and ".join(f"{fault} {', '.join(names)}" for fault, names in faults if names)
    raise TypeError(f"kernel {kernel} {found}; its parameters are {', '.join(parameters)}")


def to_float(number: Any) -> float:
    """A number as a float; infinite where it is an int too large for one."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def checked_flag(name: str, value: Any) -> bool:
    """value as a bool; TypeError for what is none: Numba would compile the same anew for it."""
    if not isinstance(value, FLAGS):
        raise TypeError(f"{name} is {shown(value)}; give True or False")
    return bool(value)


def checked_alpha(alpha: Any) -> float:
    """alpha as a float; TypeError unless it is a number, ValueError unless it is finite and not negative."""
    value = _number("alpha", alpha)
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"alpha is {shown(alpha)}; give a finite number >= 0 (0 samples uniformly over segmentations)")
    return value


def checked_penalty(token_penalty: Any) -> float:
    """token_penalty as a float; TypeError unless it is a number, ValueError if its exp may be out of range."""
    value = _number("token_penalty", token_penalty)
    if not abs(value) <= LARGEST_PENALTY:
        raise ValueError(
            f"token_penalty is {shown(token_penalty)}; give a number from -{LARGEST_PENALTY:g} to {LARGEST_PENALTY:g} "
            "(above 0 for fewer tokens)"
        )
    return value


def checked_rate(rate: Any, nbest_size: int = -1) -> float:
    """rate as a float; TypeError unless it is a number, ValueError unless it is a probability, of a full lattice."""
    value = _number("rate", rate)
    if not 0 <= value <= 1:
        raise ValueError(f"rate is {shown(rate)}; give the share of words to resample, from 0 to 1")
    if value < 1 and nbest_size > 1:
        raise ValueError(
            f"rate is {value:g} with nbest_size {nbest_size}, and only full lattices are divided into words; leave "
            "nbest_size out"
        )
    return value


def _number(name: str, value: Any) -> float:
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, NUMBERS):
        raise TypeError(f"{name} is {shown(value)}; give a number")
    return to_float(value)


def _is_64_bits(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**64


def checked_doc_ids(doc_ids: Any, n_docs: int) -> NDArray[np.uint64]:
    """uint64 [n_docs]; 0, 1, 2, ... for None."""
    if doc_ids is None:
        return np.arange(n_docs, dtype=np.uint64)
    ids = np.asarray(doc_ids)
    if ids.shape == (n_docs,) and not isinstance(doc_ids, np.ndarray) and all(map(_is_64_bits, doc_ids)):
        # NumPy has no integer type for both -1 and 2^63, and makes floats of them.
        ids = np.array([i % 2**64 for i in doc_ids], np.uint64)
    if ids.shape != (n_docs,) or (ids.dtype.kind not in "iu" and n_docs):
        raise ValueError(f"doc_ids is of dtype {ids.dtype} and shape {ids.shape}; give {n_docs} integers of 64 bits")
    return ids.astype(np.int64).view(np.uint64) if ids.dtype.kind == "i" else ids.astype(np.uint64)


def checked_weights(name: str, weights: Any, n: int) -> NDArray[np.float64]:
    """float64 [n], all 1 for None; ValueError unless they are n numbers >= 0."""
    if weights is None:
        return np.ones(n)
    given = np.asarray(weights)
    if given.shape != (n,) or (given.dtype.kind not in "fiu" and n):
        raise ValueError(f"{name} are of dtype {given.dtype} and shape {list(given.shape)}; give {n} numbers >= 0")
    bad = np.flatnonzero(~((given >= 0) & np.isfinite(given)))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}] is {given[bad[0]]}; give finite numbers >= 0")
    return given.astype(np.float64)


def check_offsets(name: str, offsets: Any, n_values: int) -> None:
    """Raise TypeError or ValueError unless these are offsets of rows of n_values values.

    offsets: integers [rows + 1], NumPy's or CuPy's, that begin at 0 or later, never decrease and end within the values.
    """
    if offsets.dtype.kind not in "iu":
        raise TypeError(f"{name} are of dtype {offsets.dtype}; give int64")
    if offsets.ndim != 1 or not len(offsets):
        raise ValueError(f"{name} have the shape {list(offsets.shape)}; give [rows + 1]")
    first, last, falls = int(offsets[0]), int(offsets[-1]), offsets[1:] < offsets[:-1]
    if bool(falls.any()):
        row = int(falls.argmax())
        raise ValueError(
            f"{name} go from {int(offsets[row])} to {int(offsets[row + 1])} in row {row}; they must never decrease"
        )
    if first < 0:
        raise ValueError(f"{name} begin at {first}; they must begin at 0 or later")
    if last > n_values:
        raise ValueError(f"{name} end at {last}, but there are {n_values} values")


def check_lengths(offsets: NDArray[np.int64], most: int, what: str, first: int = 0) -> None:
    """Raise ValueError if a document has more than `most` bytes.

    what: which bytes and limit these are, in words; first: the number by which errors name the first document.
    """
    lengths = np.diff(offsets)
    i_doc = int(lengths.argmax())
    if lengths[i_doc] > most:
        raise ValueError(f"document {first + i_doc} has {lengths[i_doc]} {what} the limit is {most}, split it")


def read_only(array: Any, dtype: Any) -> NDArray[Any]:
    """The array in the form for compiled code: of this type, contiguous, aligned and read-only; copied if necessary.

    For an array that differs in any of these, Numba would compile again.
    """
    given: NDArray[Any] = np.require(array, dtype, ["C", "A"])
    if type(given) is np.ndarray and not given.flags.writeable:
        return given
    view = given.view(np.ndarray)
    view.flags.writeable = False
    return view


def are_pieces(row: Any) -> bool:
    """Whether it is a list or tuple of str, and not empty."""
    return isinstance(row, list | tuple) and len(row) > 0 and all(isinstance(piece, str) for piece in row)


def id_rows(name: str, given: Any) -> list[list[int] | None]:
    """Rows of ids from a list of lists, an array or an Arrow list array; TypeError for anything else.

    Example:
        >>> id_rows("ids", [[1, 2], None, np.array([3])])
        [[1, 2], None, [3]]
    """
    return [_id_row(name, i, row) for i, row in enumerate(as_list(name, given))]


def as_list(name: str, given: Any) -> list[Any]:
    """The items of a sequence, an array or an Arrow array; TypeError for text, bytes and iterators."""
    if hasattr(given, "to_pylist") and hasattr(given, "validate"):
        try:
            given.validate(full=True)
        except (ValueError, IndexError) as error:
            raise ValueError(f"{name} is a damaged Arrow array: {error}; create it again") from None
        given = given.to_pylist()
    elif hasattr(given, "tolist") and not isinstance(given, memoryview):
        given = given.tolist()
    if not isinstance(given, Sequence) or isinstance(given, str | bytes | bytearray | memoryview):
        raise TypeError(f"{name} is a {type(given).__name__}; give a TokenBatch or a list of ids for each row")
    return list(given)


def _id_row(name: str, i_row: int, row: Any) -> list[int] | None:
    if row is None:
        return None
    try:
        return list(map(operator.index, as_list(name, row)))
    except TypeError:
        raise TypeError(f"row {i_row} of {name} is {shown(row)}; give a list of integers") from None
