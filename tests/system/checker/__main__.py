"""`python -m tests.system.checker RUN`: judge the folder of a run; exit status 1 on a violation."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.system.checker.run import EXPECT, check_run


def main(arguments: list[str]) -> int:
    """Print what was found."""
    if len(arguments) != 1 or not (Path(arguments[0]) / EXPECT).is_file():
        sys.stderr.write(f"usage: python -m tests.system.checker RUN (a folder with {EXPECT})\n")
        return 2
    findings = check_run(Path(arguments[0]))
    sys.stdout.write(findings.text() + "\n")
    return 0 if findings.good else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
