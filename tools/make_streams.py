"""Make streams for `python -m bench stream`: texts in which little comes twice, a document a line, as <name>.txt.xz.

Three are generated: digits, logs, newwords. Others are made of files and folders, of which every text file is read:

    python tools/make_streams.py streams english=/usr/share/doc "python=/usr/lib/python3/**/*.py"

Lines of 20 characters or more are taken once. Prose (any name but those of code: python, html) is shuffled, so that a
stream does not wander from subject to subject. The same files give the same streams.
"""

import argparse
import glob
import gzip
import lzma
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

CODE = ("python", "html")
SYLLABLES = re.findall("..", "ingedconprterioexunrealmestqukalominepelthdufagrovensoax17q")


def documents(pattern: str) -> Iterator[str]:
    """The lines of the files that match, or lie in the folders that match, without those that came before."""
    seen = set()
    for path in sorted(file for name in glob.glob(pattern, recursive=True) for file in _files(Path(name))):
        try:
            text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode("utf-8")
        except (OSError, EOFError, UnicodeDecodeError):
            continue
        for line in filter(str.strip, text.split("\n")):
            if len(line) < 20 or line not in seen:
                seen.add(line)
                yield line


def digits(rng: random.Random) -> Iterator[str]:
    """Twelve numbers of one to twelve digits."""
    while True:
        yield " ".join(str(rng.randrange(10 ** rng.randint(1, 12))) for _ in range(12))


def logs(rng: random.Random) -> Iterator[str]:
    """Requests to a server: words that repeat, numbers that do not."""
    while True:
        date = f"2026-11-{rng.randint(1, 30):02}T{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"
        where = f"{rng.choice(['http', 'db', 'auth', 'cache'])}-{rng.randrange(100)}"
        path = f"/api/v{rng.randint(1, 3)}/users/{rng.randrange(10**6)}/items?id={rng.randrange(1 << 64):016x}"
        address = ".".join(["10", *(str(rng.randrange(256)) for _ in range(3))])
        yield (
            f"{date}.{rng.randrange(1000):03}Z {rng.choice(['INFO', 'WARN', 'DEBUG'])} [{where}] "
            f"{rng.choice(['GET', 'PUT', 'POST'])} {path} {rng.choice([200, 404, 500])} "
            f"{rng.randrange(10**5)}us ip={address}"
        )


def newwords(rng: random.Random) -> Iterator[str]:
    """Twelve words of one to six syllables, so many that few come twice."""
    while True:
        yield " ".join("".join(rng.choices(SYLLABLES, k=rng.randint(1, 6))) for _ in range(12))


def write(path: Path, lines: Iterable[str], max_bytes: int) -> None:
    """As many lines as max_bytes hold."""
    size = 0
    with lzma.open(path, "wt", encoding="utf-8", newline="\n") as file:
        for line in lines:
            size += len(line.encode()) + 1
            if size > max_bytes:
                break
            file.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a folder")
    parser.add_argument("sources", nargs="*", metavar="NAME=PATTERN", help="a name, and files or folders")
    parser.add_argument("--max-bytes", type=int, default=8_000_000, help="of each stream")
    arguments = parser.parse_args()
    arguments.out.mkdir(exist_ok=True)
    streams: dict[str, Iterable[str]] = {make.__name__: make(random.Random(0)) for make in (digits, logs, newwords)}
    for source in arguments.sources:
        name, _, pattern = source.partition("=")
        streams[name] = documents(pattern)
        if name not in CODE:
            streams[name] = list(streams[name])
            random.Random(0).shuffle(streams[name])
    for name, lines in streams.items():
        write(arguments.out / f"{name}.txt.xz", lines, arguments.max_bytes)


def _files(path: Path) -> Iterable[Path]:
    return filter(Path.is_file, path.rglob("*")) if path.is_dir() else [path]


if __name__ == "__main__":
    main()
