"""Reads scenario files; README.md describes the language for its writers.

Cold; used by tests only. `read_scenarios` turns a file into Scenarios: a `===` line starts one,
with an exchange of its own. player.py plays them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.config import Instrument

SIZES = {
    "orders": "orders_max",
    "levels": "levels_max",
    "symbols": "symbols_max",
    "sessions": "sessions_max",
    "texts": "text_ids_max",
    "quoters": "quoters_max",
    "walk": "max_walk",
    "slice": "slice_events",
    "limits": "account_limits_max",
}


WHOLE = {
    *("iceberg_parts", "protection", "fifo_percent", "max_level_orders"),
    *("batch_ms", "min_orders", "balance_pct", "max_wait_ms", "static_band", "dynamic_band"),
}


class ScenarioError(AssertionError):
    """A scenario that cannot be read, or whose expectation is not met."""


@dataclass(frozen=True)
class Line:
    """One instruction: its line number, its text, and what it expects (None: anything but a
    refusal)."""

    number: int
    text: str
    expected: tuple[str, ...] | None = None
    rows: tuple[str, ...] = ()


@dataclass
class Scenario:
    """One story with an exchange of its own."""

    path: Path
    title: str
    settings: dict[str, str] = field(default_factory=dict)
    instruments: list[Instrument] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)


# ----------------------------------------------------------------------------------------- reading
def read_scenarios(path: Path) -> list[Scenario]:
    """Read all scenarios of a file."""
    found: list[Scenario] = []
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = "" if raw.lstrip().startswith("#") else raw
        if text.startswith("==="):
            found.append(Scenario(path, text.strip("= ")))
        elif text.strip():
            if not found:
                raise ScenarioError(f"{path.name}:{number}: a scenario starts with '=== title'")
            _read_line(found[-1], number, text.strip())
    return found


def _read_line(scenario: Scenario, number: int, text: str) -> None:
    head, *words = text.split()
    if head == "exchange":
        scenario.settings |= dict(word.split("=") for word in words)
    elif head == "instrument":
        options = dict(word.split("=") for word in words[1:])
        names = {"tick": "1", "lot": "1"} | options
        terms: dict[str, Any] = {
            "max_price" if name == "max" else name: int(value) if name in WHOLE else value
            for name, value in names.items()
        }
        scenario.instruments.append(Instrument(words[0], **terms))
    elif head in ("->", "|"):
        if not scenario.lines:
            raise ScenarioError(f"{scenario.path.name}:{number}: {head} belongs to no command")
        last = scenario.lines.pop()
        rest = text[len(head) :].strip()
        if head == "|":
            last = Line(last.number, last.text, rows=(*last.rows, rest))
        else:
            last = Line(last.number, last.text, (*(last.expected or ()), *_split(rest)))
        scenario.lines.append(last)
    else:
        command, arrow, rest = text.partition("->")
        expected = tuple(_split(rest)) if arrow else None
        scenario.lines.append(Line(number, command.strip(), expected))


def _split(text: str) -> Iterator[str]:
    # "A; 2 x (B; C)" -> A, B, C, B, C
    for part in re.findall(r"\s*\d+ x \([^)]*\)|[^;]+", text):
        many = re.fullmatch(r"\s*(\d+) x \(([^)]*)\)", part)
        if many:
            for _ in range(int(many[1])):
                yield from (e.strip() for e in many[2].split(";"))
        elif part.strip() and part.strip() != "nothing":
            yield part.strip()
