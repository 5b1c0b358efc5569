"""Checker and load clients are independent: they import the standard library and themselves, and
know no layout but by their own hand. Here, and only here, what the checker wrote down is compared
with the exchange's.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.crc32c import crc32c
from engine.records import COMMAND, CommandFlag, CommandKind
from feed.itch import MESSAGES
from tests.system.checker import feed, inputs, journal
from tests.system.checker_story import RECORD_FIELDS, record_bytes

ROOT = Path(__file__).resolve().parents[2]
CHECKER = sorted((ROOT / "tests/system/checker").glob("*.py"))
LOAD = [ROOT / f"tests/system/nemesis/{name}.py" for name in ("settings", "flow", "client", "load")]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield str(node.module)
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            assert name not in ("__import__", "import_module", "runpy"), path.name


@pytest.mark.parametrize(
    ("paths", "own"), [(CHECKER, "tests.system.checker"), (LOAD, "tests.system.nemesis")]
)
def test_only_the_standard_library_and_itself_are_imported(paths: list[Path], own: str) -> None:
    assert len(paths) > 3
    for path in paths:
        for name in imported(path):
            known = name == own or name.startswith(f"{own}.")
            assert known or name.split(".")[0] in sys.stdlib_module_names, f"{path.name}: {name}"


def test_nothing_of_the_exchange_is_loaded_when_it_runs() -> None:
    code = (
        "import sys, tests.system.checker.run, tests.system.checker.recorder\n"
        "import tests.system.nemesis.load\n"
        "own = {'engine', 'gateway', 'feed', 'numpy', 'numba', 'orjson', 'cli', 'bench'}\n"
        "sys.exit(str(own & set(sys.modules)) if own & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_record_offsets_are_those_of_the_journal() -> None:
    other = {"target": "target_client_order_id"}
    assert [other.get(name, name) for name in RECORD_FIELDS] == list(COMMAND.names or ())
    values = {name: 1 + index for index, name in enumerate(RECORD_FIELDS)}
    values |= {"symbol": "AAPL", "text": "main"}
    raw = record_bytes(values, 5)
    row = np.frombuffer(raw, COMMAND)[0]
    for name, value in values.items():
        if name == "symbol":
            assert int(row[name]).to_bytes(8, "little").rstrip(b"\0") == b"AAPL"
        elif name == "text":
            assert bytes(row[name]).rstrip(b"\0") == b"main"
        elif name != "crc":
            assert int(row[other.get(name, name)]) == value, name
    bare = np.frombuffer(raw, COMMAND).copy()
    bare["crc"] = 0
    assert int(row["crc"]) == crc32c(bare.tobytes(), 5)


def test_codes_of_requests_are_those_of_the_exchange() -> None:
    kinds = {"new": "NEW", "cancel": "CANCEL", "replace": "REPLACE", "mass_cancel": "MASS_CANCEL",
             "order": "QUERY_ORDER", "open_orders": "QUERY_OPEN_ORDERS"}  # fmt: skip
    for word, name in kinds.items():
        assert inputs.KINDS[word] == CommandKind[name]
    for name in ("POST_ONLY", "TEXT_ID", "BY_SESSION", "BY_SIDE", "BY_TAG", "BY_SYMBOL"):
        assert getattr(inputs, name) == CommandFlag[name]
    for name in ("SESSION_OPEN", "SESSION_CLOSE", "SESSION_KEEP", "LIST_INSTRUMENT", "CONTINUE"):
        assert getattr(journal, name) == CommandKind[name]


@pytest.mark.parametrize("kind", MESSAGES)
def test_feed_layouts_are_those_of_the_feed(kind: str) -> None:
    layout = MESSAGES[kind]
    assert feed.LENGTHS[kind] == layout.itemsize
    names = {"ref": "ref", "new_ref": "new_ref", "shares": "shares", "price": "price",
             "match": "match", "locate": "locate"}  # fmt: skip
    raw = np.zeros(1, layout)
    raw["message_type"] = kind
    raw["time_low"] = 77
    fields = [name for name in names if name in (layout.names or ())]
    for index, name in enumerate(fields):
        raw[name] = 1000 + index
    if "stock" in (layout.names or ()):
        raw["stock"] = b"AAPL    "
    if "side" in (layout.names or ()):
        raw["side"] = b"S"
    message = feed.decode("2701150001", 1, raw.tobytes())
    assert (message.kind, message.time) == (kind, 77)
    if kind in "SQBIL":
        return  # not looked into
    for index, name in enumerate(fields):
        assert getattr(message, name) == 1000 + index, name
    assert message.stock == ("AAPL" if "stock" in (layout.names or ()) else "")
    assert message.side == ("S" if "side" in (layout.names or ()) else "")
