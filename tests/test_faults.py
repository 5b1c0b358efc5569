"""Every row of the fault table has a test that exists, or a row in docs/known_gaps.md."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IDS = [
    *(f"P{n}" for n in range(1, 12)),
    *(f"S{n}" for n in range(1, 8)),
    *(f"D{n}" for n in range(1, 13)),
    *(f"N{n}" for n in range(2, 7)),
    "T1",
]
ROW = re.compile(r"^\| ([PSDNT]\d+) \|.*\|([^|]*)\|$", re.MULTILINE)


def rows() -> dict[str, list[str]]:
    text = (ROOT / "docs" / "faults.md").read_text()
    return {name: re.findall(r"`([^`]+)`", tests) for name, tests in ROW.findall(text)}


def test_every_fault_has_a_row_with_a_test_or_is_a_known_gap() -> None:
    gaps = (ROOT / "docs" / "known_gaps.md").read_text()
    missing = [name for name in IDS if not rows().get(name) and f"fault {name}" not in gaps]
    assert not missing


def test_every_test_named_there_exists() -> None:
    for name, tests in rows().items():
        for test in tests:
            path, _, function = test.partition("::")
            text = (ROOT / path).read_text()
            assert not function or f"def {function}(" in text, (name, test)
