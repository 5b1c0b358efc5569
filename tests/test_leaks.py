"""The leak finder sees orphaned and own segments and all descendants, and forgives strangers."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leaks

HOLD = "import sys; sys.stdin.read()"


@pytest.fixture
def token() -> str:
    return os.environ[leaks.SESSION_VARIABLE]


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "GRACE_S", 0.05)


@pytest.fixture
def segment() -> Iterator[Path]:
    path = leaks.SHM / f"{leaks.SEGMENT_PREFIX}_leak_{uuid.uuid4().hex[:12]}"
    yield path
    path.unlink(missing_ok=True)


def start(code: str, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_segment_mapped_by_nobody_is_a_leak(segment: Path, token: str) -> None:
    before = leaks.take_snapshot(token)
    segment.write_bytes(b"\0" * 4096)
    found = leaks.find_leaks(before, token, started_too=False)
    assert found == [f"segment {segment} (mapped by nobody)"]


def test_segment_removed_again_is_no_leak(segment: Path, token: str) -> None:
    before = leaks.take_snapshot(token)
    segment.write_bytes(b"\0" * 4096)
    segment.unlink()
    assert leaks.find_leaks(before, token, started_too=True) == []


def test_segment_mapped_by_this_process_is_a_leak(segment: Path, token: str) -> None:
    before = leaks.take_snapshot(token)
    segment.write_bytes(b"\0" * 4096)
    with segment.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        found = leaks.find_leaks(before, token, started_too=False)
    assert found == [f"segment {segment} (mapped by [{os.getpid()}])"]


@pytest.mark.parametrize(
    ("ours", "started_too", "expected"),
    [(False, True, False), (True, False, False), (True, True, True)],
    ids=["a stranger's", "of a running module fixture", "left by a module"],
)
def test_segment_mapped_by_another_process(
    segment: Path, token: str, ours: bool, started_too: bool, expected: bool
) -> None:
    environ = dict(os.environ)
    if not ours:
        environ[leaks.SESSION_VARIABLE] = "somebody else"
    before = leaks.take_snapshot(token)
    segment.write_bytes(b"\0" * 4096)
    code = (
        "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 4096);"
        "print('up', flush=True); " + HOLD
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(segment)],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        found = leaks.find_leaks(before, token, started_too=started_too)
        holder.communicate(b"")
    assert any(line.startswith("segment") for line in found) is expected


def test_child_process_is_a_leak_until_waited_for(token: str) -> None:
    before = leaks.take_snapshot(token)
    child = start(HOLD, dict(os.environ))
    found = leaks.find_leaks(before, token, started_too=False)
    child.communicate(b"")
    assert len(found) == 1
    assert str(child.pid) in found[0]
    assert leaks.find_leaks(before, token, started_too=False) == []


def test_grandchild_whose_parent_died_is_a_leak(token: str) -> None:
    before = leaks.take_snapshot(token)
    reader, writer = os.pipe()
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c',"
        f" 'import os; os.read({reader}, 1)'], pass_fds=[{reader}]); p.returncode = 0"
    )
    with subprocess.Popen([sys.executable, "-c", code], pass_fds=[reader]) as child:
        child.wait(10)
    found = leaks.find_leaks(before, token, started_too=False)
    os.close(writer)  # the grandchild reads end of file and ends
    os.close(reader)
    assert len(found) == 1
    leaks.GRACE_S = 2.0
    assert leaks.find_leaks(before, token, started_too=False) == []
