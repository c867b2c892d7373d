"""Cut the public-domain texts named in gpu_lattice/data/README.md into the corpus that ships with the package.

Each text is given as name=path, all of them; the same files give the same Parquet file with the same pyarrow:

    python tools/make_corpus.py shakespeare=shakespeare.txt wagahai=wagahai.txt ... [--out corpus.parquet]
"""

import argparse
import gzip
import itertools
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

CORPUS = Path(__file__).resolve().parents[1] / "gpu_lattice" / "data" / "corpus.parquet"
SPANISH_BOOKS = ("Gen", "Ruth", "Prov", "Matt")
ROWS_PER_GROUP = 2048
UNCLEAN = re.compile(r"[□［〔\\]")  # a character that a transcriber could not write, or a TeX command


class Source(NamedTuple):
    """One text: its language, the function that cuts it into documents, and how many characters of it are taken."""

    language: str
    documents: Callable[[Path], Iterable[str]]
    max_chars: int


def paragraphs(text: str) -> Iterator[str]:
    """The pieces of a text between blank lines."""
    return (part for part in re.split(r"\n[ \t]*\n+", text) if part.strip())


def unwrapped(paragraph: str) -> str:
    """Prose as one line; verse, known by an indented line after the first, keeps its lines."""
    lines = paragraph.strip("\n").split("\n")
    if any(line.startswith(" ") for line in lines[1:]):
        return "\n".join(re.sub(" +", " ", line).strip() for line in lines)
    return re.sub(" +", " ", " ".join(lines)).strip()


def speeches(path: Path) -> Iterator[str]:
    """Shakespeare: one speech, with its speaker's name as the first line."""
    return (part.strip() for part in paragraphs(path.read_text("utf-8")))


def dictionary_entries(path: Path) -> Iterator[str]:
    """The Devil's Dictionary as a dictd file: its preface and entries, without the dictd header and the title page."""
    text = gzip.decompress(path.read_bytes()).decode("ascii")
    body = text[text.index("_The Devil's Dictionary_ was begun") :]
    return (unwrapped(part) for part in paragraphs(body) if "abcdefghijklmnopqrstuvwxyz" not in part)


def gaiji(match: re.Match[str]) -> str:
    """The character that an Aozora Bunko note names by its JIS X 0213 plane, row and cell; a geta mark for others."""
    code = re.search(r"(\d)-(\d+)-(\d+)］", match[0])
    if not code:
        return "〓"
    plane, row, cell = (int(number) for number in code.groups())
    return (b"\x8f" * (plane - 1) + bytes([row + 0xA0, cell + 0xA0])).decode("euc_jis_2004")


def aozora_paragraphs(path: Path) -> Iterator[str]:
    """An Aozora Bunko text without its header, colophon, readings, notes, and lines in accent notation."""
    text = path.read_text("utf-8")
    body = text[text.rindex("-----\n") + len("-----\n") : text.index("底本：")]
    for line in body.split("\n"):
        if "〔" in line:
            continue
        line = re.sub(r"※［＃[^］]*］", gaiji, line)
        line = re.sub(r"［＃[^］]*］|《[^》]*》|｜", "", line).strip("\u3000 ")
        if line:
            yield line


def fortunes(path: Path) -> Iterator[str]:
    """The entries of a fortune file, without terminal colours."""
    text = re.sub(r"\x1b\[[\d;]*m", "", path.read_text("utf-8"))
    return (entry.strip("\n") for entry in text.split("\n%\n"))


def proverbs(path: Path) -> Iterator[str]:
    """One proverb per document."""
    return (entry.strip("%\n ") for entry in fortunes(path))


def tang_poems(path: Path) -> Iterator[str]:
    """Title, author and lines of each poem."""
    for entry in fortunes(path):
        yield "\n".join(line.strip() for line in entry.split("\n") if line.strip())


def sayings(title: str) -> Callable[[Path], Iterator[str]]:
    """The fortunes signed with a book's title, without the signature; those that hold notes are left out."""
    signature = re.compile(rf"\s*--\s*(《{title}》|{title}[，\n]|{title}$)")

    def read(path: Path) -> Iterator[str]:
        for entry in fortunes(path):
            body, _, last = entry.rstrip().rpartition("\n")
            if signature.match(last) and not re.search("--|[(A-Za-z]", body):
                yield "\n".join(line.strip() for line in body.split("\n") if line.strip())

    return read


def classic_of_poetry(path: Path) -> Iterator[str]:
    """The songs of the Shijing, in traditional characters, without their titles."""
    for entry in fortunes(path):
        title, _, body = entry.partition("\n")
        if title.startswith("《詩經"):
            yield "\n".join(line.strip() for line in body.split("\n") if line.strip())


def sword_verses(testament: Path) -> Iterator[tuple[str, str]]:
    """(book, OSIS text) of every verse of a zText testament, given by its path without a suffix.

    Format: https://wiki.crosswire.org/Sword_module; .bzs holds (start, size, unpacked size) of each zlib block of .bzz,
    .bzv holds (block, start, size) of each verse.
    """
    packed = testament.with_suffix(".bzz").read_bytes()
    blocks = [
        zlib.decompress(packed[start : start + size])
        for start, size, _ in struct.iter_unpack("<III", testament.with_suffix(".bzs").read_bytes())
    ]
    books = [re.search(rb'osisID="(\w+)" sID="\w+" type="book"', block) for block in blocks]
    for block, start, size in struct.iter_unpack("<IIH", testament.with_suffix(".bzv").read_bytes()):
        book = books[block]
        if book and size:
            yield book[1].decode("ascii"), blocks[block][start : start + size].decode("utf-8")


def bible_chapters(folder: Path) -> Iterator[str]:
    """Chapters of SPANISH_BOOKS, one verse per line, without titles and marks."""
    verses = itertools.chain(sword_verses(folder / "ot"), sword_verses(folder / "nt"))
    chapter: list[str] = []
    for book, osis in verses:
        if book not in SPANISH_BOOKS:
            continue
        if "<chapter n=" in osis and chapter:
            yield "\n".join(chapter)
            chapter = []
        osis = re.sub(r"<title.*?</title>", "", osis)
        text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", osis)).strip()
        if text:
            chapter.append(text)
    yield "\n".join(chapter)


def lipsum_paragraphs(path: Path) -> Iterator[str]:
    """The paragraphs of a text packaged for LaTeX's lipsum."""
    text = path.read_text("utf-8")
    for body in re.findall(r"\\NewLipsumPar\{%[^\n]*\n(.*?)\}%", text, flags=re.DOTALL):
        yield unwrapped(body)


SOURCES = {
    "shakespeare": Source("en", speeches, 450_000),
    "devils-dictionary": Source("en", dictionary_entries, 400_000),
    "wagahai": Source("ja", aozora_paragraphs, 300_000),
    "tang-300": Source("zh", tang_poems, 100_000),
    "shijing": Source("zh", classic_of_poetry, 100_000),
    "analects": Source("zh", sayings("论语"), 100_000),
    "daodejing": Source("zh", sayings("道德经"), 100_000),
    "caigentan": Source("zh", sayings("菜根谭"), 100_000),
    "zengguang-xianwen": Source("zh", sayings("增广贤文"), 100_000),
    "reina-valera-1909": Source("es", bible_chapters, 450_000),
    "cicero-de-finibus": Source("la", lipsum_paragraphs, 200_000),
    "proverbaro": Source("eo", proverbs, 200_000),
}


def take(documents: Iterable[str], max_chars: int) -> Iterator[str]:
    """Distinct clean documents, in order, until their characters exceed the limit."""
    num_chars = 0
    for document in dict.fromkeys(documents):
        if not document or UNCLEAN.search(document):
            continue
        num_chars += len(document)
        if num_chars > max_chars:
            return
        yield document


def corpus_table(paths: dict[str, Path]) -> pa.Table:
    """The documents of all sources as columns id, text, language, source."""
    rows = [
        (text, source.language, name)
        for name, source in SOURCES.items()
        for text in take(source.documents(paths[name]), source.max_chars)
    ]
    texts, languages, names = zip(*rows, strict=True)
    return pa.table(
        {
            "id": pa.array(range(len(rows)), pa.int64()),
            "text": pa.array(texts, pa.string()),
            "language": pa.array(languages, pa.string()),
            "source": pa.array(names, pa.string()),
        }
    )


def parse_paths(arguments: list[str]) -> dict[str, Path]:
    """{name: path} from name=path, one for every source."""
    paths = {name: Path(path) for name, _, path in (argument.partition("=") for argument in arguments)}
    if paths.keys() != SOURCES.keys():
        raise ValueError(f"expected one name=path for each of {sorted(SOURCES)}, got {sorted(paths)}")
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="name=path", help=", ".join(SOURCES))
    parser.add_argument("--out", type=Path, default=CORPUS)
    args = parser.parse_args()
    table = corpus_table(parse_paths(args.sources))
    pq.write_table(table, args.out, compression="zstd", compression_level=19, row_group_size=ROWS_PER_GROUP)
    print(f"{args.out}: {table.num_rows} documents, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
