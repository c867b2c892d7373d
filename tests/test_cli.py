"""The command line: what it prints, its exit codes, and that failures are one line and leave nothing."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from gpu_lattice import cli
from gpu_lattice.cli import main, parse_size
from gpu_lattice.corpus.draws import document_ids, row_ids
from gpu_lattice.corpus.retokenize import retokenize
from gpu_lattice.tokenizer import Tokenizer

TEXTS = ["The quick brown fox", "日本語のテキスト", "", "a  b"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.default(device="cpu")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": f"d{i}", "text": text * (i + 1)}) + "\n" for i, text in enumerate(TEXTS)))
    return path


def give_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def command(*arguments: str, before: str = "pass") -> list[str]:
    """The command line of a process of its own, which does `before` first."""
    code = f"import sys; from gpu_lattice.cli import main; {before}; sys.exit(main())"
    return [sys.executable, "-c", code, *arguments]


def test_encode_prints_pieces_of_arguments(capsys: pytest.CaptureFixture[str], tokenizer: Tokenizer) -> None:
    assert main(["encode", *TEXTS]) == 0
    rows = [[tokenizer.id_to_piece(i) for i in row or []] for row in tokenizer.encode(TEXTS).tolist()]
    assert capsys.readouterr().out.split("\n") == [" ".join(row) for row in rows] + [""]


def test_encode_prints_ids_of_stdin_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer
) -> None:
    give_stdin(monkeypatch, b"one line\r\n\nand \xff another")
    assert main(["encode", "--output-format", "ids", "--device", "cpu", "--threads", "1"]) == 0
    rows = tokenizer.encode([b"one line", b"", b"and \xff another"]).tolist()
    assert capsys.readouterr().out.split("\n") == [" ".join(map(str, row or [])) for row in rows] + [""]


@pytest.mark.parametrize("at_a_time", [1, 1 << 20])
def test_encode_samples_by_line_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer, at_a_time: int
) -> None:
    monkeypatch.setattr(cli, "STDIN_BYTES", at_a_time)
    give_stdin(monkeypatch, "".join(text + "\n" for text in TEXTS).encode())
    assert main(["encode", "--alpha", "0.2", "--samples", "2", "--seed", "7", "--output-format", "ids"]) == 0
    rows = tokenizer.sample(TEXTS, alpha=0.2, num_samples=2, seed=7).tolist()
    assert capsys.readouterr().out.split("\n") == [" ".join(map(str, row or [])) for row in rows] + [""]


def test_a_piece_is_one_word_of_its_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = Tokenizer.from_pieces(["a b", "\n", "\t", "\r"], device="cpu")
    monkeypatch.setattr(Tokenizer, "default", lambda **_: pieces)
    assert main(["encode", "a b\n\ta b\r"]) == 0
    assert capsys.readouterr().out == "a▁b \\n \\t a▁b \\r\n"


def test_retokenize_writes_what_the_library_gives(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    corpus: Path,
    tmp_path: Path,
    tokenizer: Tokenizer,
) -> None:
    arguments = ["--alpha", "0.2", "--samples", "3", "--seed", "5", "--batch-bytes", "1KB", "--verify"]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["retokenize", str(corpus), "--output", str(tmp_path / "out"), *arguments]) == 0
    table = pq.read_table(tmp_path / "out" / "corpus.parquet")
    texts = [text * (i + 1) for i, text in enumerate(TEXTS)]
    assert (
        table["input_ids"].to_pylist()
        == tokenizer.sample(
            texts, alpha=0.2, num_samples=3, seed=5, doc_ids=row_ids("corpus.jsonl", np.arange(4))
        ).tolist()
    )
    printed = capsys.readouterr()
    tokens = sum(table["num_tokens"].to_pylist())
    num_bytes = sum(len(text.encode()) for text in texts)
    assert printed.out.startswith(
        f"4 documents, {num_bytes} bytes, {tokens} tokens, {3 * num_bytes / tokens:.3f} bytes/token, "
    )
    assert printed.out.endswith(f" MB/s; alpha 0.2, seed 5, model {tokenizer.digest[:16]}\n")
    assert "tokens/s" in printed.err
    assert "100%" in printed.err


def test_retokenize_takes_columns_separators_and_the_best_segmentation(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree")
    (tmp_path / "b.jsonl").write_text('{"key": "k", "body": "four"}\n')
    out = str(tmp_path / "a")
    assert main(["retokenize", str(tmp_path / "a.txt"), "--output", out, "--separator", r"\n\n", "--no-progress"]) == 0
    columns = ["--text-column", "body", "--id-column", "key"]
    assert main(["retokenize", str(tmp_path / "b.jsonl"), "-o", str(tmp_path / "b"), *columns, "--no-progress"]) == 0
    rows = [pq.read_table(tmp_path / name / f"{name}.parquet")["input_ids"].to_pylist() for name in "ab"]
    assert rows == [tokenizer.encode(["one\ntwo", "three"]).tolist(), tokenizer.encode(["four"]).tolist()]
    assert pq.read_table(tmp_path / "b" / "b.parquet")["id"].to_pylist() == ["k"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND (see gpu-lattice --help)"),
        (["tokenise"], "invalid choice: 'tokenise'"),
        (["encode", "x", "--samples", "2"], "--samples 2 needs --alpha"),
        (["encode", "x", "--seed", "0"], "--seed 0 needs --alpha"),
        (["retokenize", "CORPUS", "-o", "out", "--seed", "1"], "--seed 1 needs --alpha"),
        (["retokenize", "CORPUS", "-o", "nowhere://x/out"], "nowhere"),
        (["retokenize", "nowhere://x/a.txt", "-o", "out"], "nowhere"),
        (["encode", "x", "--alpha", "-1"], "alpha is -1"),
        (["encode", "x", "--alpha", "nan"], "alpha is nan"),
        (["encode", "x", "--alpha", "1e9"], "the largest alpha for this model"),
        (["encode", "x", "--alpha", "much"], "argument --alpha: invalid float value: 'much'"),
        (["encode", "x", "--device", "tpu"], "device is 'tpu'"),
        (["encode", "x", "--threads", "0"], "threads is 0"),
        (["encode", "x", "--model", "absent.model"], "absent.model: No such file or directory"),
        (["encode", "x", "--model", str(ROOT)], f"the folder {ROOT} holds no tokenizer.json"),
        (["encode", "x", "--model", __file__], "test_cli.py"),
        (["encode", "x", "--mod", "y"], "unrecognized arguments: --mod"),
        (["retokenize", "absent.txt"], "arguments are required: -o/--output"),
        (["retokenize", "absent.txt", "--output", "out"], "absent.txt: No such file or directory"),
        (["retokenize", "*.absent", "--output", "out"], "no file matches *.absent"),
        (["retokenize", "CORPUS", "--output", "out", "--text-column", "body"], "there is no column 'body'; choose"),
        (["retokenize", "CORPUS", "--output", "out", "--batch-bytes", "64 furlongs"], "'64 furlongs' is not a size"),
        (["retokenize", "CORPUS", "--output", "CORPUS"], "is a file; name a folder"),
        (["retokenize", "CORPUS", "CORPUS", "--output", "out"], "would both be written to"),
        (["fit", "CORPUS", "-o", "CORPUS"], "is an input, which would be replaced; name another file"),
        (["bench", "default", "CORPUS", "--json", "CORPUS"], "is an input, which would be replaced; name another file"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    corpus: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(corpus) if argument == "CORPUS" else argument for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    line = printed.err.rsplit("\r", 1)[-1].strip().split("\n")[-1]  # after the bar, where there is one
    assert line.startswith("gpu-lattice: ")
    assert message in line
    if "%" not in printed.err:
        assert printed.err.count("\n") == 1
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000", 1000),
        ("64MB", 64_000_000),
        ("64mb", 64_000_000),
        ("1GiB", 1 << 30),
        ("1.5 KiB", 1536),
        ("2K", 2000),
        ("3Mi", 3 << 20),
        (" 7B ", 7),
    ],
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "0", "0.1", "-5", "1TB", "1e6", "64 M B", "١", "1,000", "I", "5IB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(Exception, match="is not a size; give bytes"):
        parse_size(text)


def test_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (["--help"], "retokenize"), (["retokenize", "--help"], "--separator"):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert expected in capsys.readouterr().out


def test_a_missing_extra_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_package(*_: Any, **__: Any) -> None:
        raise ImportError("this model needs the package tokenizers:\npip install 'gpu_lattice[hf]'")

    monkeypatch.setattr(Tokenizer, "default", no_package)
    assert main(["encode", "x"]) == 2
    expected = "gpu-lattice: this model needs the package tokenizers: pip install 'gpu_lattice[hf]'\n"
    assert capsys.readouterr().err == expected


def test_a_disk_that_fills_up_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"{i * i} and some words\n" for i in range(50_000)))
    arguments = ["retokenize", str(tmp_path / "a.txt"), "--output", str(tmp_path / "out"), "--no-progress"]
    # The first run is there for Numba, whose cache of compiled functions the limit would hit too.
    warm_up = f"main([*sys.argv[1:4], {str(tmp_path / 'warm')!r}, '--no-progress'])"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    done = subprocess.run(
        command(*arguments, before=f"{warm_up}; {limit}"), cwd=ROOT, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("gpu-lattice: ")
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "warm").iterdir()) == ["_gpu_lattice.json", "a.parquet"]
    assert not list((tmp_path / "out").iterdir())


def test_an_interrupt_exits_with_130_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a line of some words\n" * 400_000)
    out = tmp_path / "out"
    arguments = ["retokenize", str(tmp_path / "a.txt"), "--output", str(out), "--batch-bytes", "2KB", "--no-progress"]
    # A process started in the background of a shell would ignore the signal.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    interpreter = command(*arguments, before=heed)
    process = subprocess.Popen(interpreter, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 120
    while not list(out.glob("*.tmp")) and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (130, "", "gpu-lattice: interrupted\n")
    assert not list(out.iterdir())


def test_an_interrupt_that_compiled_code_reports_as_a_fault_is_still_an_interrupt(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as cause:
            raise SystemError("a compiled function returned a result with an exception set") from cause

    monkeypatch.setattr(Tokenizer, "encode", interrupted)
    assert main(["encode", "some words"]) == 130
    assert capsys.readouterr().err == "gpu-lattice: interrupted\n"


def test_a_defect_is_not_passed_off_as_a_mistake_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(Tokenizer, "encode", broken)
    with pytest.raises(KeyError, match="a defect"):
        main(["encode", "some words"])


def test_a_reader_that_goes_away_ends_encode_quietly() -> None:
    process = subprocess.Popen(
        command("encode"), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write(b"some words\n" * 1000)
    process.stdin.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=120), errors) == (141, b"")


def test_encode_takes_a_penalty_a_rate_and_pieces_to_leave_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    (tmp_path / "out.txt").write_text("▁be\r\n\n#301\n", "utf-8")
    restricted = tokenizer.without(["▁The", "▁be", 301])
    drawn = ["--alpha", "0.2", "--token-penalty", "1.5", "--rate", "0.5", "--seed", "3"]
    exclude = ["--exclude", "▁The", "--exclude", f"@{tmp_path / 'out.txt'}"]
    assert main(["encode", *TEXTS, *drawn, *exclude, "--output-format", "ids"]) == 0
    rows = restricted.sample(TEXTS, alpha=0.2, token_penalty=1.5, rate=0.5, seed=3).tolist()
    assert capsys.readouterr().out.split("\n") == [" ".join(map(str, row)) for row in rows] + [""]
    assert main(["show", "The queue", "--token-penalty", "1.5", *exclude]) == 0
    assert "alpha 0.1, token penalty 1.5: log Z" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "0.5"], "--token-penalty and --rate need --alpha"),
        (["--token-penalty", "1"], "--token-penalty and --rate need --alpha"),
        (["--alpha", "0", "--rate", "2"], "rate is 2.0; give the share"),
        (["--alpha", "0", "--token-penalty", "nan"], "token_penalty is nan"),
        (["--exclude", "no such piece"], "'no such piece' is no piece of this model"),
        (["--exclude", "#8000"], "the id of a piece is 8000"),
        (["--exclude", "<unk>"], "'<unk>' is no piece that text is made of"),
        (["--exclude", "@absent"], "absent: No such file or directory"),
    ],
)
def test_what_cannot_be_drawn_or_left_out_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["encode", "text", *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)


def test_retokenize_records_how_its_tokens_were_drawn(
    corpus: Path, tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = [
        "--alpha",
        "0.3",
        "--token-penalty",
        "1",
        "--rate",
        "0.5",
        "--seed",
        "2",
        "--exclude",
        "▁The",
        "--no-progress",
    ]
    assert main(["retokenize", str(corpus), "-o", str(tmp_path / "out"), "--id-column", "id", *drawn]) == 0
    assert "; alpha 0.3, seed 2, token penalty 1, rate 0.5, model " in capsys.readouterr().out
    manifest = json.loads((tmp_path / "out" / "_gpu_lattice.json").read_text())
    options, model = manifest["options"], manifest["model"]
    assert (options["token_penalty"], options["rate"]) == (1.0, 0.5)
    restricted = tokenizer.without(["▁The"])
    assert (model["excluded_ids"], model["sha256"]) == ([tokenizer.piece_to_id("▁The")], restricted.digest)
    other = tmp_path / "other"
    retokenize(corpus, other, tokenizer=tokenizer, alpha=0.3, token_penalty=1, rate=0.5, seed=2, exclude=["▁The"],
               id_column="id", progress=False)  # fmt: skip
    tables = [pq.read_table(folder / "corpus.parquet") for folder in (tmp_path / "out", other)]
    assert tables[0].equals(tables[1])
    texts = [text * (i + 1) for i, text in enumerate(TEXTS)]
    ids = document_ids(tables[0]["id"].combine_chunks())
    wanted = restricted.sample(texts, alpha=0.3, token_penalty=1, rate=0.5, seed=2, doc_ids=ids).tolist()
    assert tables[0]["input_ids"].to_pylist() == wanted
    with pytest.raises(ValueError, match=r"rate is 0\.5 there and 1\.0 here"):
        retokenize(corpus, other, tokenizer=restricted, alpha=0.3, token_penalty=1, seed=2, id_column="id",
                   progress=False, resume=True)  # fmt: skip
    with pytest.raises(ValueError, match=r"rate is 0\.5, but without alpha"):
        retokenize(corpus, other, tokenizer=tokenizer, rate=0.5)
