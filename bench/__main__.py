"""Command line of the benchmarks."""

import argparse
import sys

from bench import (
    calls,
    cpu,
    exactness,
    gpu,
    lattice,
    memory,
    report,
    retokenize,
    samplers,
    simt,
    statistics,
    stream,
    turns,
)

COMMANDS = (
    calls,
    cpu,
    exactness,
    gpu,
    lattice,
    memory,
    report,
    retokenize,
    samplers,
    simt,
    statistics,
    stream,
    turns,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for module in COMMANDS:
        command = commands.add_parser(module.__name__.rpartition(".")[2], help=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args()
    return arguments.run(arguments) or 0


if __name__ == "__main__":
    sys.exit(main())
