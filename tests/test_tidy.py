"""The house rules hold for every file of the tree, and each rule sees a planted violation.

The second half is what makes the first half worth something: a lint that stopped seeing would be
green for ever. Every rule has at least one bad and one good example; a test demands that.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy_rules import RULES, Project, Source, compare_codes, compare_kinds

ROOT = Path(__file__).resolve().parent.parent
TEXT_FILES = {
    ".py",
    ".md",
    ".toml",
    ".lock",
    ".txt",
    ".js",
    ".css",
    ".html",
    ".sql",
    ".yml",
    ".patch",
}
TEXT_NAMES = {"Makefile", "run", ".gitignore"}
PASSED_OVER = {".venv", ".git", "__pycache__", "results", "node_modules", ".pytest_cache"}
# A planted error (tests/mutants) breaks rules on purpose; what it names must still be clean.
MUTANTS = "tests/mutants/"
RULES_FOR_PATCHES = {"no_places"}


def listed_paths() -> list[str]:
    """Files git knows or would add; without git (a tarball, a mutant's copy) every file below."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        return sorted({p for p in listed.decode().split("\0") if p and (ROOT / p).is_file()})
    found = (p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file())
    return sorted(str(p) for p in found if not PASSED_OVER & set(p.parts))


def read_tree() -> Iterator[Source]:
    for path in listed_paths():
        if Path(path).suffix in TEXT_FILES or Path(path).name in TEXT_NAMES:
            yield Source(path, (ROOT / path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project() -> Project:
    return Project(tuple(read_tree()))


@pytest.mark.parametrize("name", sorted(RULES))
def test_tree_obeys(name: str, project: Project) -> None:
    complaints = [
        complaint
        for source in project.sources
        if not source.path.startswith(MUTANTS) or source.is_python or name in RULES_FOR_PATCHES
        for complaint in RULES[name](source, project)
    ]
    reason = (RULES[name].__doc__ or "").split("\n")[0]
    assert not complaints, f"{name}: {reason}\n  " + "\n  ".join(complaints)


def test_tree_is_seen(project: Project) -> None:
    paths = {source.path for source in project.sources}
    assert {"engine/records.py", "tests/test_tidy.py", "Makefile", "docs/features.md"} <= paths
    assert not any(".venv" in path for path in paths)


# -------------------------------------------------------------------- each rule sees its violation
KERNEL = "from engine.jit import kernel\n"
STATE = "class Book(NamedTuple):\n    qty: object\n    levels: object\n"
LONG = "@kernel\ndef f(a):\n" + "    a += 1\n" * 40
BAD: list[tuple[str, str, str]] = [
    ("dependency_rule", "gateway/a.py", "import feed.itch"),
    ("dependency_rule", "gateway/a.py", "from engine.book_numba import x"),
    ("dependency_rule", "gateway/a.py", "from engine import book_numba"),
    ("dependency_rule", "gateway/a.py", "from ..engine import book_numba"),
    ("dependency_rule", "gateway/a.py", "from engine import local"),
    ("dependency_rule", "gateway/a.py", "import importlib\nimportlib.import_module('feed.itch')"),
    ("dependency_rule", "gateway/a.py", "def f():\n    import engine.matching"),
    ("dependency_rule", "feed/a.py", "import ringbook"),
    ("dependency_rule", "feed/a.py", "import run"),
    ("dependency_rule", "feed/a.py", "from bench import workload"),
    ("dependency_rule", "bench/a.py", "import ringbook"),
    ("dependency_rule", "engine/a.py", "from tests.model import book_model"),
    ("dependency_rule", "engine/a.py", "from feed import itch"),
    ("dependency_rule", "engine/topology.py", "from feed import itch"),
    ("dependency_rule", "engine/a.py", "def f():\n    from feed import itch"),
    ("dependency_rule", "engine/a.py", "from numba import njit"),
    ("dependency_rule", "bench/a.py", "import numba.core"),
    ("dependency_rule", "tests/a.py", "from llvmlite import binding"),
    ("no_dead_module", "engine/lonely.py", "x = 1"),
    ("sizes", "engine/a.py", "x = 1\n" * 601),
    ("sizes", "engine/a.py", LONG),
    ("sizes", "engine/a.py", "@helper\ndef f(a, b, c, d, e, f, g):\n    return a"),
    ("sizes", "engine/a.py", "@jit.subroutine()\ndef f(a, b, c, d, e, f, *, g):\n    return a"),
    ("kernels_only_compute", "engine/a.py", "@kernel\ndef f(a):\n    raise ValueError"),
    ("kernels_only_compute", "engine/a.py", "@kernel\ndef f(a):\n    assert a"),
    ("kernels_only_compute", "engine/a.py", "@helper\ndef f(a):\n    print(a)"),
    ("kernels_only_compute", "engine/a.py", "@helper\ndef f(a):\n    return [a]"),
    ("kernels_only_compute", "engine/a.py", "@helper\ndef f(a):\n    return f'{a}'"),
    (
        "kernels_only_compute",
        "engine/a.py",
        "@kernel\ndef f(a):\n    try:\n        a += 1\n    except ValueError:\n        a = 0",
    ),
    ("records_by_key_in_kernels", "engine/a.py", STATE + "@kernel\ndef f(rec):\n    return rec.px"),
    (
        "records_by_key_in_kernels",
        "engine/a.py",
        STATE + "@kernel\ndef f(book, i):\n    rec = book.levels[i]\n    return rec.qty",
    ),
    (
        "records_by_key_in_kernels",
        "engine/a.py",
        STATE + "@kernel\ndef f(book, i):\n    book.levels[i].qty = 1",
    ),
    ("annotations_outside_kernels", "engine/a.py", "def f(a: int):\n    return a"),
    ("annotations_outside_kernels", "run.py", "def f(a) -> int:\n    return a"),
    ("annotations_outside_kernels", "gateway/a.py", "async def f(*a) -> int:\n    return 1"),
    ("no_print", "engine/a.py", "print('x')"),
    ("no_print", "feed/a.py", "def f():\n    print('x')"),
    ("no_leftovers", "engine/a.py", "x = 1  # TO" + "DO later"),
    ("no_leftovers", "docs/a.md", "FIX" + "ME"),
    ("no_leftovers", "engine/a.py", "def f():\n    raise NotImplemented" + "Error"),
    ("no_leftovers", "engine/a.py", "def f():\n    pass"),
    ("no_leftovers", "engine/a.py", "def f():\n    ..."),
    ("no_leftovers", "tests/a.py", "@pytest.mark.skip\ndef test_a():\n    assert 1"),
    ("no_leftovers", "tests/a.py", "@pytest.mark.xfail(reason='x')\ndef test_a():\n    assert 1"),
    ("no_swallowed_errors", "engine/a.py", "try:\n    x = 1\nexcept:\n    x = 2"),
    ("no_swallowed_errors", "engine/a.py", "try:\n    x = 1\nexcept Exception:\n    pass"),
    (
        "no_swallowed_errors",
        "tests/a.py",
        "try:\n    x = 1\nexcept (OSError, BaseException) as e:\n    ...",
    ),
    ("no_swallowed_errors", "run.py", "with contextlib.suppress(Exception):\n    x = 1"),
    ("no_dangerous_calls", "engine/a.py", "import pickle"),
    ("no_dangerous_calls", "engine/a.py", "from multiprocessing import shared_memory"),
    ("no_dangerous_calls", "engine/a.py", "from multiprocessing.shared_memory import SharedMemory"),
    ("no_dangerous_calls", "engine/a.py", "x = eval('1')"),
    ("no_dangerous_calls", "engine/a.py", "x = yaml.load(f)"),
    ("no_dangerous_calls", "run.py", "subprocess.run('ls', shell=True)"),
    ("no_places", "docs/a.md", "see /wo" + "rk/somewhere"),
    ("no_places", "requirements.lock", "# from https://py" + "pi.org/sim" + "ple/"),
    ("no_places", "engine/a.py", "PATH = '/ro" + "ot/x'"),
    ("one_title_per_document", "docs/a.md", "# One\n\n# Two\n"),
    ("one_title_per_document", "docs/a.md", "## None\n"),
    ("locks_are_hashed", "a.lock", "numpy==2.4.6\n"),
    ("locks_are_hashed", "a.lock", "numpy>=2 \\\n    --hash=sha256:" + "0" * 64),
    ("locks_are_hashed", "a.lock", "--index x\nnumpy==2 \\\n    --hash=sha256:" + "0" * 64),
    ("locks_are_hashed", "a.lock", "numpy==2 @ https://x \\\n    --hash=sha256:" + "0" * 64),
    ("locks_are_hashed", "a.lock", ""),
]
GOOD: list[tuple[str, str, str]] = [
    ("dependency_rule", "gateway/a.py", "import os\nimport gateway.codec\nfrom engine import jit"),
    ("dependency_rule", "gateway/a.py", "from engine.views.bars import x\nfrom . import codec"),
    ("dependency_rule", "strategy/a.py", "from engine.local import LocalExchange"),
    ("dependency_rule", "engine/topology.py", "def f():\n    from feed import publisher"),
    ("dependency_rule", "engine/atomics.py", "from llvmlite import ir\nimport numba"),
    ("dependency_rule", "run.py", "import ringbook\nfrom engine import topology"),
    ("dependency_rule", "tests/a.py", "import ringbook\nfrom engine import matching"),
    ("dependency_rule", "ringbook/__init__.py", "from gateway.client import Client"),
    ("no_dead_module", "engine/records.py", "x = 1"),
    ("sizes", "engine/a.py", "x = 1\n" * 600),
    ("sizes", "engine/a.py", LONG.replace("    a += 1\n", '    """Why."""\n', 1)),
    ("kernels_only_compute", "engine/a.py", "@kernel\ndef f(a):\n    'Why.'\n    return (a, 1)"),
    ("kernels_only_compute", "engine/a.py", "def f(a):\n    raise ValueError"),
    (
        "records_by_key_in_kernels",
        "engine/a.py",
        STATE
        + "@kernel\ndef f(book, i):\n    rec = book.levels[i]\n    part = book.qty[1:2]\n"
        + "    return rec['qty'] + np.int64(part.size) + Side.BUY + Side.BUY.value + book.qty[i]",
    ),
    ("records_by_key_in_kernels", "engine/a.py", "def f(rec):\n    return rec.px"),
    (
        "annotations_outside_kernels",
        "engine/a.py",
        "class A:\n    def f(self, a: int, *b: int) -> None:\n        self.x = a",
    ),
    ("annotations_outside_kernels", "engine/a.py", "@kernel\ndef f(a):\n    return a"),
    ("annotations_outside_kernels", "tests/a.py", "def f(a):\n    return a"),
    ("no_print", "run.py", "print('x')"),
    ("no_print", "engine/a.py", "sys.stdout.write('x')"),
    ("no_leftovers", "engine/a.py", "def f():\n    'Nothing to do: why.'"),
    ("no_leftovers", "engine/a.py", "class A(Protocol):\n    def f(self): ..."),
    (
        "no_leftovers",
        "tests/a.py",
        "@pytest.mark.skipif(x, reason='y')\ndef test_a():\n    assert 1",
    ),
    ("no_swallowed_errors", "engine/a.py", "try:\n    x = 1\nexcept OSError:\n    pass"),
    (
        "no_swallowed_errors",
        "engine/a.py",
        "try:\n    x = 1\nexcept Exception:\n    close()\n    raise",
    ),
    (
        "no_dangerous_calls",
        "engine/a.py",
        "import multiprocessing\nyaml.safe_load(f)\nos.execv(a, b)",
    ),
    ("no_places", "docs/a.md", "../shared/data, /dev/shm, frame/work/x, ${HOME}/ro" + "ot/"),
    ("one_title_per_document", "docs/a.md", "# One\n\n```\n# a comment\n```\n\n## Two\n"),
    ("locks_are_hashed", "a.lock", "numpy==2 ; a < 'b' \\\n    --hash=sha256:" + "0" * 64 + "\n"),
]


def complaints_about(name: str, path: str, text: str) -> list[str]:
    source = Source(path, text)
    user = Source("gateway/user.py", "from engine.records import EVENT")
    return list(RULES[name](source, Project((source, user))))


@pytest.mark.parametrize(("name", "path", "text"), BAD)
def test_rule_sees_planted_violation(name: str, path: str, text: str) -> None:
    assert complaints_about(name, path, text)


@pytest.mark.parametrize(("name", "path", "text"), GOOD)
def test_rule_passes_clean_source(name: str, path: str, text: str) -> None:
    assert complaints_about(name, path, text) == []


def test_every_rule_has_a_bad_and_a_good_example() -> None:
    assert {name for name, _, _ in BAD} == set(RULES)
    assert {name for name, _, _ in GOOD} == set(RULES)


# ----------------------------------------------------------------------- documents against records
TABLE = (
    "| code | name | meaning |\n|---|---|---|\n| 101 | `BAD_LINE` | x |\n| 102 | BAD_FIELD | y |\n"
)
CODES = {"NONE": 0, "BAD_LINE": 101, "BAD_FIELD": 102}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (TABLE, 0),
        (TABLE.replace("102", "103"), 1),
        (TABLE.replace("BAD_FIELD", "BAD_FELD"), 2),
        (TABLE + "| 200 | UNKNOWN | z |\n", 1),
        ("no table", 2),
    ],
)
def test_code_table_is_compared(text: str, count: int) -> None:
    assert len(list(compare_codes(text, CODES))) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("| kind | number |\n|---|---|\n| `fill` | 7 |\n| booked | 6 |\n", 0),
        ("| kind | number |\n|---|---|\n| `fill` | 8 |\n| booked | 6 |\n", 1),
        ("| kind |\n|---|\n| fill |\n| booked |\n| made_up |\n", 1),
        ("| type |\n|---|\n| fill |\n", 1),
    ],
)
def test_kind_table_is_compared(text: str, count: int) -> None:
    assert len(list(compare_kinds(text, {"FILL": 7, "BOOKED": 6}))) == count


def test_protocol_document_equals_records() -> None:
    from engine.records import EventKind, RejectCode

    protocol = ROOT / "docs" / "protocol.md"
    assert protocol.is_file(), "docs/protocol.md is part of the product"
    text = protocol.read_text(encoding="utf-8")
    complaints = list(compare_codes(text, {c.name: int(c) for c in RejectCode}))
    complaints += compare_kinds(text, {k.name: int(k) for k in EventKind})
    assert not complaints, "docs/protocol.md:\n  " + "\n  ".join(complaints)
