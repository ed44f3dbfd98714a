"""`codesign COMMAND ...`: the commands of the package under one name; each also runs as `python -m codesign.COMMAND`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import NoReturn

from codesign import __version__

COMMANDS = {
    "compile": "compile a PyTorch model: kernels, schedules, predicted time, and why",
    "opt": "run passes on a .tile file",
    "simulate": "run an accelerator program on a simulated machine",
    "map": "the best mapping of a product onto every level of an accelerator",
    "validate": "compare a cost model with a table of measured times",
    "calibrate": "fit a machine's parameters to a table of measured times",
    "ladder": "the same kernels through every fidelity of the cost model",
    "study": "policies against each other on kernels, machines and measured spaces",
    "whatif": "what a model's time hangs on in a machine",
    "experiment": "two pass pipelines over models and machines, compared",
    "reduce": "the smallest module on which a pass still breaks",
}


def main() -> NoReturn:
    """Dispatch to a command."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: codesign COMMAND [OPTIONS]   (codesign {__version__})\n")
        for name, text in COMMANDS.items():
            print(f"  {name:<10} {text}")
        print("\n`codesign COMMAND --help` tells more.")
        sys.exit(0)
    if arguments[0] == "--version":
        print(__version__)
        sys.exit(0)
    if arguments[0] not in COMMANDS:
        print(f"error: no command {arguments[0]!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"{Path(sys.argv[0]).name} {arguments[0]}", *arguments[1:]]
    importlib.import_module(f"codesign.{arguments[0]}").main()
    sys.exit(0)


if __name__ == "__main__":
    main()
