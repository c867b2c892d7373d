"""Which lines of the CUDA sources the tests reached on the host build: a table, and an error if one was not.

    CUDA_ON_CPU_COVERAGE=FOLDER python -m pytest && python tests/cuda_on_cpu/lines_reached.py FOLDER

What only a GPU's compiler sees (#ifdef __CUDA_ARCH__) is not among them.
"""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    sources = [*ROOT.glob("kernels/cuda/*/*.cu"), ROOT / "bench" / "gpu.cu"]
    # Counts by file and line; a file is named by its folder and name, wherever it is installed.
    counts: defaultdict[str, Counter[int]] = defaultdict(Counter, {_name(path): Counter() for path in sources})
    for notes in Path(sys.argv[1]).glob("*.gcda"):
        out = subprocess.check_output(["gcov", "--json-format", "--stdout", notes.name], cwd=notes.parent)
        for file in json.loads(out)["files"]:
            if Path(file["file"]).suffix in (".cu", ".cuh"):
                for line in file["lines"]:
                    counts[_name(Path(file["file"]))][line["line_number"]] += line["count"]
    print(f"{'lines of the host build':36}{'all':>6}{'reached':>9}")
    is_whole = True
    for name, lines in sorted(counts.items()):
        missed = sorted(number for number, count in lines.items() if count == 0)
        print(f"{name:36}{len(lines):6}{len(lines) - len(missed):9}  {', '.join(map(str, missed))}")
        is_whole &= bool(lines) and not missed
    return 0 if is_whole else 1


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


if __name__ == "__main__":
    sys.exit(main())
