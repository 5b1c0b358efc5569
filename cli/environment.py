"""Finds the project's own environment when run.py was started by another Python. Cold, standard
library only: it runs before anything else can be imported.

`python run.py up` in a fresh clone is what the README shows. Where the packages are missing, run.py
goes on in .venv; where that is not made yet, `make` makes it first, as for `make run`.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
READY = ".venv/.ready-run"
NEEDED = ("typer", "numpy", "numba", "uvloop", "orjson", "posix_ipc")
_MARK = "RINGBOOK_OWN_PYTHON"  # set in the second try: it must not begin a third


def ensure(arguments: list[str]) -> None:
    """Return if the packages are here; else run `arguments` again with the project's Python."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return
    if os.environ.get(_MARK):
        sys.exit(f"ringbook: {PYTHON} lacks {', '.join(missing)}: run `make clean run`")
    if not (ROOT / READY).exists():
        sys.stderr.write("ringbook: first use, setting up .venv (make does it once)\n")
        try:
            made = subprocess.call(["make", "--no-print-directory", READY], cwd=ROOT)
        except FileNotFoundError:
            sys.exit("ringbook: setting up needs make (Debian: apt install make)")
        if made:
            sys.exit("ringbook: the set-up failed; its messages stand above")
    os.execve(PYTHON, [str(PYTHON), *arguments], {**os.environ, _MARK: "1"})
