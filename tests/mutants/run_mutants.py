"""Plants one error at a time in a copy of the project and shows which test turns red. Cold.

usage: python tests/mutants/run_mutants.py list
       python tests/mutants/run_mutants.py run NAME ...
       python tests/mutants/run_mutants.py all

A mutant is a file `NAME.patch` in this folder: header lines, then a unified diff with paths from
the root (a/engine/x.py b/engine/x.py; `git diff > NAME.patch` writes one).

    # mutant: ring-publish-without-release
    # expects: tests/engine/test_shm_ring.py::test_publish_is_a_release_store
    # environ: RINGBOOK_FLAVOUR=check          (optional, several allowed)
    # why: one line for the reader             (optional)

First the expected tests run once on an unpatched copy: a test that is red anyway shows nothing.
Then, for each mutant, the tree is copied to a temporary folder, the diff is applied, and only the
expected test runs there, with a kernel cache of its own, so that no compiled code of the sound tree
is used. The verdict comes from the test's report, not from the exit status: a mutant is "red" when
the expected test ran and failed. Anything else fails this command: the test passed (the mutant
survives), was skipped or not found, did not end, the run broke before it, or the patch no longer
applies.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
LEFT_OUT = (".venv", ".git", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info", "results")
LIMIT_S = 600
ENDED = 124
HEADER = re.compile(r"^# (mutant|expects|environ|why): (.+?)\s*$")


class BadMutant(Exception):
    """A mutant file that cannot be used as it stands."""


@dataclass(frozen=True)
class Mutant:
    """One planted error and the test that must see it."""

    name: str
    path: Path
    expects: str
    environ: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant; `red` is the wanted end."""

    red: bool
    sentence: str


def read_mutant(path: Path) -> Mutant:
    """Parse the header of a patch file; BadMutant says what is wrong with it."""
    values: dict[str, str] = {}
    environ: dict[str, str] = {}
    text = path.read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith(("---", "diff ")):
            break
        match = HEADER.match(line)
        if match and match[1] == "environ":
            name, sign, value = match[2].partition("=")
            if not sign:
                raise BadMutant(f"{path.name}: environ line without '='")
            environ[name] = value
        elif match:
            values[match[1]] = match[2]
    for word in ("mutant", "expects"):
        if word not in values:
            raise BadMutant(f"{path.name}: no line '# {word}: ...'")
    if values["mutant"] != path.stem:
        raise BadMutant(f"{path.name}: calls itself {values['mutant']!r}")
    if "::" not in values["expects"]:
        raise BadMutant(f"{path.name}: expects a whole file, name one test (file::test)")
    if not re.search(r"^@@ ", text, flags=re.M):
        raise BadMutant(f"{path.name}: holds no diff")
    return Mutant(path.stem, path, values["expects"], environ)


def find_mutants(folder: Path = FOLDER) -> list[Mutant]:
    """Read every patch of the folder, by name."""
    return [read_mutant(path) for path in sorted(folder.glob("*.patch"))]


def apply_patch(patch: Path, tree: Path) -> str:
    """Apply a patch inside `tree`; return the complaint, empty when it applied whole."""
    command = ("git", "apply", "--whitespace=nowarn", str(patch))
    # Inside a repository git apply skips, silently, every file that is not below the current
    # folder.
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environ["GIT_CEILING_DIRECTORIES"] = str(tree.parent)
    before = {path: path.read_bytes() for path in patched_files(patch, tree)}
    done = subprocess.run(command, cwd=tree, env=environ, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip()
    if all(path.exists() and path.read_bytes() == text for path, text in before.items()):
        return "the patch changed nothing"
    return ""


def patched_files(patch: Path, tree: Path) -> list[Path]:
    """Existing files a diff names as its old side."""
    names = re.findall(r"^--- a/(\S+)", patch.read_text(encoding="utf-8"), flags=re.M)
    return [tree / name for name in names if (tree / name).is_file()]


def run_tests(
    tree: Path, tests: Sequence[str], extra_environ: dict[str, str], limit_s: float
) -> tuple[int, Path]:
    """Run tests in the copy; return pytest's exit status and the path of its report."""
    report = tree.parent / "report.xml"
    environ = os.environ | {
        "RINGBOOK_CACHE": str(tree.parent / "cache"),
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    # What a surrounding run of the suite set for its own children does not hold for this one.
    for name in ("RINGBOOK_REPORT", "RINGBOOK_NO_SKIPS", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST"):
        environ.pop(name, None)
    if "RINGBOOK_DATA" not in environ:
        environ["RINGBOOK_DATA"] = str(ROOT.parent / "shared" / "data")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
    ]
    command += [f"--junitxml={report}", *tests]
    with subprocess.Popen(
        command,
        cwd=tree,
        env=environ | extra_environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return ENDED, report
    (tree.parent / "output.txt").write_bytes(output)
    return process.returncode, report


def _message(element: ElementTree.Element) -> str:
    return next(iter((element.get("message") or "").splitlines()), "")[:90]


def judge(status: int, report: Path) -> Verdict:
    """Decide from the report whether the expected test itself turned red."""
    if status == ENDED:
        return Verdict(False, "HANGS: neither red nor green in time; bound the test's own waiting")
    if not report.is_file():
        return Verdict(False, f"BROKEN: no report, pytest ended with {status}")
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failures = [_message(f) for case in cases for f in case.iter("failure")]
    errors = [_message(e) for case in cases for e in case.iter("error")]
    # The leak fixtures speak at teardown, and that is a finding; at set-up nothing was tested yet.
    failures += [text for text in errors if text.startswith("failed on teardown")]
    if failures:
        return Verdict(True, f"red: {failures[0]}")
    if errors:
        return Verdict(False, f"BROKEN: an error before the test, not a failure: {errors[0]}")
    if not cases:
        return Verdict(
            False, f"BROKEN: the expected test was not found (pytest ended with {status})"
        )
    if all(case.find("skipped") is not None for case in cases):
        return Verdict(False, "SKIPPED: the expected test did not run")
    return Verdict(False, "SURVIVES: the expected test passed")


def copy_tree(root: Path, tree: Path) -> None:
    """Copy the sources, without environment, repository and caches."""
    shutil.copytree(root, tree, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)


def sound_tree_is_green(
    mutants: Sequence[Mutant], root: Path = ROOT, limit_s: float = LIMIT_S
) -> bool:
    """Run all expected tests unpatched, once per environment; show the output if one is red."""
    groups: dict[tuple[tuple[str, str], ...], set[str]] = {}
    for mutant in mutants:
        groups.setdefault(tuple(sorted(mutant.environ.items())), set()).add(mutant.expects)
    with tempfile.TemporaryDirectory(prefix="ringbook-mutant-") as folder:
        tree = Path(folder) / "tree"
        copy_tree(root, tree)
        for environ, tests in groups.items():
            status, _ = run_tests(tree, sorted(tests), dict(environ), limit_s)
            if status:
                output = Path(folder) / "output.txt"
                sys.stdout.write(output.read_text(errors="replace") if output.is_file() else "")
                return False
    return True


def try_mutant(mutant: Mutant, root: Path = ROOT, limit_s: float = LIMIT_S) -> Verdict:
    """Copy, plant, run, judge."""
    with tempfile.TemporaryDirectory(prefix="ringbook-mutant-") as folder:
        tree = Path(folder) / "tree"
        copy_tree(root, tree)
        complaint = apply_patch(mutant.path, tree)
        if complaint:
            return Verdict(False, f"DOES NOT APPLY: {complaint.splitlines()[0]}")
        status, report = run_tests(tree, [mutant.expects], mutant.environ, limit_s)
        verdict = judge(status, report)
        if not verdict.red and (Path(folder) / "output.txt").is_file():
            sys.stdout.write((Path(folder) / "output.txt").read_text(errors="replace")[-3000:])
        return verdict


def run(mutants: Sequence[Mutant]) -> int:
    """Try each, print the table, return 1 unless every one turned its test red."""
    if not sound_tree_is_green(mutants):
        print("an expected test is red without any planted error: mend that first")
        return 1
    bad = 0
    for mutant in mutants:
        start = time.monotonic()
        verdict = try_mutant(mutant)
        bad += not verdict.red
        seconds = time.monotonic() - start
        print(
            f"{mutant.name:40} {seconds:6.1f} s  {verdict.sentence}  [{mutant.expects}]", flush=True
        )
    print(f"{len(mutants) - bad} of {len(mutants)} planted errors turned their test red")
    return 1 if bad or not mutants else 0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="planted errors and the tests that see them")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name every mutant and its test")
    chosen = commands.add_parser("run", help="try some")
    chosen.add_argument("names", nargs="+")
    commands.add_parser("all", help="try every one")
    options = parser.parse_args(arguments)
    try:
        mutants = find_mutants()
    except BadMutant as wrong:
        print(wrong, file=sys.stderr)
        return 1
    if options.command == "list":
        for mutant in mutants:
            print(f"{mutant.name:40} {mutant.expects}")
        return 0
    if options.command == "all":
        return run(mutants)
    known = {mutant.name: mutant for mutant in mutants}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        print(f"no such mutant: {', '.join(unknown)}", file=sys.stderr)
        return 1
    return run([known[name] for name in options.names])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
