"""Command line of the benchmarks."""

import argparse
import sys
from importlib import import_module

COMMANDS = [
    "calls",
    "cpu",
    "exactness",
    "gpu",
    "lattice",
    "memory",
    "offsets",
    "report",
    "retokenize",
    "samplers",
    "simt",
    "statistics",
    "stream",
    "turns",
]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        module = import_module(f"bench.{name}")
        command = commands.add_parser(name, help=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args()
    return arguments.run(arguments) or 0


if __name__ == "__main__":
    sys.exit(main())
