"""run.py started by a Python that has none of the packages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli import environment

ROOT = environment.ROOT


def bare(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`run.py --help` in a copy, by a Python without site-packages."""
    for name in ("run.py", "Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "cli", folder / "cli")
    return subprocess.run(
        [sys.executable, "-S", "run.py", "--help"], cwd=folder, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], **environ}, timeout=60, check=False,
    )  # fmt: skip


def test_packages_that_are_here_change_nothing() -> None:
    assert environment.ensure(["run.py"]) is None  # type: ignore[func-returns-value]


def test_missing_packages_go_on_in_the_projects_environment(tmp_path: Path) -> None:
    own = tmp_path / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text('#!/bin/sh\necho "own python: $@"\n')
    own.chmod(0o700)
    (tmp_path / environment.READY).touch()
    result = bare(tmp_path)
    assert (result.returncode, result.stdout) == (0, "own python: run.py --help\n"), result.stderr


def test_environment_without_the_packages_is_a_sentence_not_a_loop(tmp_path: Path) -> None:
    result = bare(tmp_path, RINGBOOK_OWN_PYTHON="1")
    assert result.returncode == 1
    assert "lacks typer" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("make", ["false", ""])
def test_failed_set_up_is_a_sentence(tmp_path: Path, make: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    if make:
        (tools / "make").symlink_to(str(shutil.which(make)))
    result = bare(tmp_path, PATH=str(tools))
    assert result.returncode == 1
    assert "first use" in result.stderr
    assert ("set-up failed" if make else "needs make") in result.stderr
