"""The scenario files, each played on the model and on the engine (tests/scenarios/README.md).

A scenario that both fulfil is a rule written down twice in code and once in words; one that only
one side fulfils shows who is wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import Instrument, ShardLimits
from engine.local import LocalExchange
from engine.records import COMMAND, SLOT_BITS, EventKind
from tests.model import desk_model
from tests.model.compare import COMMAND_ROW, EVENT_ROW, FIELDS
from tests.model.exchange_model import ExchangeModel
from tests.model.full.built import BUILT
from tests.scenarios.language import SIZES, Scenario, ScenarioError, read_scenarios
from tests.scenarios.player import DEFAULT_SYMBOL, Command, Event, Player

# The first test of a run that has no cached kernels compiles them.
pytestmark = [pytest.mark.flavour, pytest.mark.nojit, pytest.mark.timeout(300)]

FOLDER = Path(__file__).resolve().parent.parent / "scenarios"
SCENARIOS = [s for path in sorted(FOLDER.glob("*.txt")) for s in read_scenarios(path)]
DEFAULT_SIZES = {
    "orders_max": 64,
    "levels_max": 32,
    "symbols_max": 4,
    "sessions_max": 16,
    "text_ids_max": 16,
    "quoters_max": 16,
    "max_walk": 100,
    "slice_events": 1000,
    "account_limits_max": 16,
}
TEMPLATE = Instrument("TEMPLATE", "1", "1", "1000")


def _setting(scenario: Scenario) -> dict[str, Any]:
    sizes = DEFAULT_SIZES.copy()
    for name, value in scenario.settings.items():
        if name in SIZES:
            sizes[SIZES[name]] = int(value)
    sizes["events_per_command_max"] = sizes["slice_events"] + 64
    return {
        "instruments": scenario.instruments or [Instrument(DEFAULT_SYMBOL, "1", "1", "100000")],
        "accounts": int(scenario.settings.get("accounts", 3)),
        "limits": ShardLimits(accounts_max=8, batch_max=64, **sizes),
        "unknown_symbol": scenario.settings.get("unknown", "create"),
        "template": TEMPLATE,
    }


class ModelVenue:
    """The model behind the Venue protocol."""

    def __init__(self, scenario: Scenario) -> None:
        setting = _setting(scenario)
        instruments, accounts = setting.pop("instruments"), setting.pop("accounts")
        self.model = ExchangeModel(setting.pop("limits"), built=BUILT, **setting)
        for command in desk_model.startup(instruments, accounts):
            self.apply(command)

    def apply(self, command: Command) -> list[Event]:
        return self.model.apply(command)

    def advance(self, in_ts: int) -> list[Event]:
        return self.model.advance(in_ts)

    def check(self) -> None:
        self.model.check()

    def state_digest(self) -> str:
        return self.model.state_digest()

    def level_orders(self, symbol: str, side: int) -> list[tuple[int, int, int, int]]:
        orders = self.model.resting(symbol, side)
        return [(o.px, o.order_id >> SLOT_BITS, o.account, o.leaves) for o in orders]


class EngineVenue:
    """The compiled engine behind the Venue protocol."""

    def __init__(self, scenario: Scenario) -> None:
        self.exchange = LocalExchange(**_setting(scenario))
        self.real_ids: dict[int, int] = {}

    def apply(self, command: Command) -> list[Event]:
        real = self.real_ids.get(command["order_id"] >> SLOT_BITS, command["order_id"])
        row = tuple((command | {"order_id": real}).values())
        return self._told(self.exchange.step(np.array([row], COMMAND_ROW).view(COMMAND)))

    def advance(self, in_ts: int) -> list[Event]:
        return self._told(self.exchange.advance(in_ts))

    def _told(self, events: np.ndarray) -> list[Event]:
        told = [dict(zip(FIELDS, e, strict=True)) for e in events.view(EVENT_ROW).tolist()]
        for event in told:
            if event["kind"] == EventKind.ACCEPTED:
                self.real_ids[event["order_id"] >> SLOT_BITS] = event["order_id"]
        return told

    def check(self) -> None:
        self.exchange.check()

    def state_digest(self) -> str:
        return self.exchange.state_digest()

    def level_orders(self, symbol: str, side: int) -> list[tuple[int, int, int, int]]:
        rows = self.exchange.orders(symbol, side)
        names = ("px", "order_id", "account", "leaves")
        columns = (rows[name].tolist() for name in names)
        return [(px, n >> SLOT_BITS, a, q) for px, n, a, q in zip(*columns, strict=True)]


@pytest.mark.parametrize("venue", [ModelVenue, EngineVenue], ids=["model", "engine"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: f"{s.path.stem}: {s.title}")
def test_scenario(scenario: Scenario, venue: type[ModelVenue] | type[EngineVenue]) -> None:
    Player(scenario, venue(scenario)).play()


def test_titles_are_unique() -> None:
    names = [(s.path.stem, s.title) for s in SCENARIOS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("A buy 1@5 -> BOOKED", "1 events expected, 2 came"),
        ("A buy 1@5 -> ACCEPTED; EXPIRED", "it is BOOKED"),
        ("A buy 1@5 -> ACCEPTED 2@5; BOOKED", "qty is 1"),
        ("A buy 1@5 -> ACCEPTED leaves=0; BOOKED", "leaves is 1"),
        ("A buy 0@5", "was refused"),
        ("A buy 1@5 tomorrow", "what is 'tomorrow'"),
        ("A cancel nobody -> CANCELED", "what is 'nobody'"),
        ("book ABC\n| 5 bid A:1", "the book is"),
    ],
)
def test_unmet_line_is_named_with_what_came(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "broken.txt"
    path.write_text(f"=== broken\n{line}\n")
    (scenario,) = read_scenarios(path)
    with pytest.raises(ScenarioError, match=r"broken\.txt:2") as caught:
        Player(scenario, ModelVenue(scenario)).play()
    assert complaint in str(caught.value)
