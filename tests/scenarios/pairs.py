"""python -m tests.scenarios.pairs: writes docs/pairs.md, which features meet in which scenarios.

Cold; used by tests only. What can meet is no matter of opinion: it is what meets in random flows
of all features on the model. Each such pair has to meet in a scenario too, where expected events
are written down; `missing` is empty (test_pairs.py).
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, defaultdict
from pathlib import Path

from engine.records import CommandKind
from tests.engine.test_scenarios import SCENARIOS, ModelVenue
from tests.model import desk_model
from tests.model.checks_model import BLANK_COMMAND
from tests.model.exchange_model import ExchangeModel
from tests.model.flow import TEMPLATE
from tests.model.full.built import BUILT
from tests.model.full_flow import FEATURES as DRAWN
from tests.model.full_flow import FullFlow, draw_full_world, full_instruments
from tests.scenarios.language import Scenario
from tests.scenarios.meetings import FEATURES, Command, Event, Pair, Watcher
from tests.scenarios.player import Player

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "pairs.md"
WORLDS, COMMANDS = 300, 1000
HEAD = """# Which features meet

Generated: `python -m tests.scenarios.pairs`. Two features *meet* in a command when orders that have
them trade, trigger or prevent each other in it, or when one order, or what was asked about it, has
both; an order that may not have both, and is refused, counts too. The number says in how many
[scenarios](../tests/scenarios/README.md) a pair meets; each is played on the model and on the
engine, event by event. A pair without a number has no story; in random flows of all features it
meets seldom or never (`tests/scenarios/test_pairs.py`: less than 3 times in 5,000 commands;
`python -m tests.scenarios.pairs --missing` lists those that do). Stories for pairs that
none had are made from such flows: `python -m tests.scenarios.find_pairs`.

"""


class WatchedVenue(ModelVenue):
    """The model, and what meets in what it does."""

    def __init__(self, scenario: Scenario) -> None:
        self.watcher = Watcher()
        self.pairs: set[Pair] = set()
        super().__init__(scenario)

    def apply(self, command: Command) -> list[Event]:
        events = super().apply(command)
        self.pairs |= self.watcher.watch(command, events)
        return events

    def advance(self, in_ts: int) -> list[Event]:
        events = super().advance(in_ts)
        time = BLANK_COMMAND | {"kind": int(CommandKind.TIME)}
        self.pairs |= self.watcher.watch(time, events)
        return events


def met_in_scenarios() -> dict[Pair, list[str]]:
    """For each pair the scenarios in which it meets."""
    found: dict[Pair, list[str]] = defaultdict(list)
    for scenario in SCENARIOS:
        venue = WatchedVenue(scenario)
        Player(scenario, venue).play()
        for pair in venue.pairs:
            found[pair].append(f"{scenario.path.stem}: {scenario.title}")
    return found


def met_at_random(seeds: range, commands: int) -> Counter[Pair]:
    """How often each pair meets in random flows on the model."""
    found: Counter[Pair] = Counter()
    for seed in seeds:
        rng = random.Random(seed)
        world = draw_full_world(rng)
        instruments, watcher = full_instruments(rng), Watcher()
        model = ExchangeModel(
            world.limits,
            unknown_symbol=world.unknown_symbol,
            template=TEMPLATE,
            shard=world.shard,
            built=BUILT,
        )
        for command in desk_model.startup(instruments, world.accounts):
            watcher.watch(command, model.apply(command))
        flow = FullFlow(seed, world, model, DRAWN)
        for _ in range(commands):
            command = flow.next()
            found.update(watcher.watch(command, model.apply(command)))
    return found


def table(met: dict[Pair, list[str]]) -> str:
    """The page's table: a row per feature, the same features in the same order as columns."""
    lines = ["| | " + " | ".join(str(n) for n in range(1, len(FEATURES))) + " |"]
    lines.append("|---" * len(FEATURES) + "|")
    for row, one in enumerate(FEATURES):
        cells = [str(len(met.get((other, one), ())) or "") for other in FEATURES[:row]]
        lines.append(
            f"| {row + 1} {one} | " + " | ".join(cells + [""] * (len(FEATURES) - 1 - row)) + " |"
        )
    return "\n".join(lines)


def page(met: dict[Pair, list[str]]) -> str:
    """The whole of docs/pairs.md."""
    return HEAD + table(met) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--missing", action="store_true", help="also search random flows")
    parser.add_argument("--worlds", type=int, default=WORLDS)
    given = parser.parse_args()
    met = met_in_scenarios()
    PAGE.write_text(page(met), encoding="utf-8")
    print(f"{PAGE}: {len(met)} pairs")
    if given.missing:
        drawn = met_at_random(range(given.worlds), COMMANDS)
        missing = [(count, pair) for pair, count in drawn.items() if pair not in met]
        for count, pair in sorted(missing, reverse=True):
            print(f"{count:7}  {pair[0]} x {pair[1]}")
        print(f"{len(missing)} pairs of {len(drawn)} that meet at random are in no scenario")


if __name__ == "__main__":
    main()
