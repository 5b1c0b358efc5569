"""`run.py check` and `run.py test`: the same words as the Makefile's. Cold."""

import shutil
import subprocess
from pathlib import Path

from cli.common import CommandError

ROOT = Path(__file__).resolve().parent.parent


def command(target: str) -> int:
    """Run one make target in the project's folder; give its exit code."""
    make = shutil.which("make")
    if make is None:
        raise CommandError(f"make is not installed; see the target '{target}' in the Makefile")
    if not (ROOT / "Makefile").exists():
        raise CommandError("the tests are in the source tree, and this is an installed copy")
    return subprocess.run([make, "-C", str(ROOT), target], check=False).returncode
