"""`python -m sterna` and the `sterna` command: the CLI, the lab, and the processes."""

import sys
from pathlib import Path


def main() -> None:
    from sterna.bootstrap import run_agent

    run_agent(Path(sys.argv[3]))


main()
