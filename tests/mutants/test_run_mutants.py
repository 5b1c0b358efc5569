"""The mutant runner calls a mutant red only when the expected test itself ran and failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants import run_mutants
from tests.mutants.run_mutants import (
    BadMutant,
    Mutant,
    read_mutant,
    sound_tree_is_green,
    try_mutant,
)

TESTS = """
import pytest
from adder import add

@pytest.fixture
def broken():
    assert add(1, 1) == 2

@pytest.fixture
def leaky():
    yield
    assert add(1, 1) == 2, "left something behind"

def test_sum():
    assert add(2, 2) == 4

def test_weak():
    assert add(0, 0) == 0

def test_skipped():
    pytest.skip("not here")

def test_fixture(broken):
    assert True

def test_teardown(leaky):
    assert True
"""
DIFF = """--- a/adder.py
+++ b/adder.py
@@ -1,2 +1,2 @@
 def add(a, b):
-    return a + b
+    return a - b
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "adder.py").write_text("def add(a, b):\n    return a + b\n")
    (root / "test_adder.py").write_text(TESTS)
    return root


def plant(tmp_path: Path, test: str, diff: str = DIFF) -> Mutant:
    path = tmp_path / "minus.patch"
    path.write_text(f"# mutant: minus\n# expects: test_adder.py::{test}\n# why: x\n{diff}")
    return read_mutant(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("test", "red", "word"),
    [
        ("test_sum", True, "red"),
        ("test_teardown", True, "red"),
        ("test_weak", False, "SURVIVES"),
        ("test_skipped", False, "SKIPPED"),
        ("test_fixture", False, "BROKEN"),
        ("test_absent", False, "BROKEN"),
    ],
)
def test_verdict_comes_from_the_expected_test(
    tmp_path: Path, tree: Path, test: str, red: bool, word: str
) -> None:
    verdict = try_mutant(plant(tmp_path, test), tree)
    assert (verdict.red, verdict.sentence.split(":")[0]) == (red, word)
    assert "a + b" in (tree / "adder.py").read_text()


@pytest.mark.slow
def test_hanging_mutant_is_not_red(tmp_path: Path, tree: Path) -> None:
    diff = DIFF.replace("+    return a - b", "+    while True: a += 1")
    verdict = try_mutant(plant(tmp_path, "test_sum", diff), tree, limit_s=3)
    assert not verdict.red
    assert verdict.sentence.startswith("HANGS")


@pytest.mark.slow
def test_red_sound_tree_is_noticed(tmp_path: Path, tree: Path) -> None:
    assert sound_tree_is_green([plant(tmp_path, "test_sum")], tree)
    (tree / "adder.py").write_text("def add(a, b):\n    return 5\n")
    assert not sound_tree_is_green([plant(tmp_path, "test_sum")], tree)


@pytest.mark.parametrize(
    "diff",
    [
        DIFF.replace("a + b", "a * b"),
        DIFF.replace("adder.py", "gone.py"),
    ],
    ids=["other text", "other file"],
)
def test_patch_that_does_not_apply_is_not_red(tmp_path: Path, tree: Path, diff: str) -> None:
    verdict = try_mutant(plant(tmp_path, "test_sum", diff), tree)
    assert not verdict.red
    assert verdict.sentence.startswith("DOES NOT APPLY")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("# mutant: minus", "# mutant: plus", "calls itself"),
        ("# expects: test_adder.py::test_sum", "", "expects"),
        ("::test_sum", "", "name one test"),
        ("@@ ", "@ ", "no diff"),
        ("# why: x", "# environ: A", "without '='"),
    ],
)
def test_bad_header_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = plant(tmp_path, "test_sum").path
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BadMutant, match=complaint):
        read_mutant(path)


def test_committed_mutants_are_readable_and_name_existing_tests() -> None:
    for mutant in run_mutants.find_mutants():
        file = run_mutants.ROOT / mutant.expects.split("::")[0]
        name = mutant.expects.split("::")[-1].split("[")[0]
        assert f"def {name}(" in file.read_text(), mutant
