"""python -m tests.scenarios.find_pairs: short stories in which features meet that meet in no other.

Cold; used by tests only. A random flow of all features runs on the model; where a pair meets that
no scenario has, the commands before are thrown out one by one as long as it still meets. What is
left is written as a scenario, with the model's events: tests/scenarios/pairs_found.txt. Each is
played on the engine too, like any other (test_scenarios.py), and is short enough to be read and
judged against RULES.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.config import Instrument, ShardLimits
from engine.records import CommandFlag, CommandKind, EventKind, RejectCode, pack_name
from tests.engine.test_scenarios import DEFAULT_SIZES, TEMPLATE
from tests.model import desk_model
from tests.model.checks_model import BLANK_COMMAND
from tests.model.desk_model import SUPERVISOR
from tests.model.exchange_model import ExchangeModel
from tests.model.flow import World
from tests.model.full.built import BUILT
from tests.model.full_flow import FEATURES as DRAWN
from tests.model.full_flow import FullFlow
from tests.scenarios.meetings import Command, Event, Pair, Watcher
from tests.scenarios.pairs import met_in_scenarios
from tests.scenarios.writer import Writer

FOUND = Path(__file__).resolve().parent / "pairs_found.txt"
HEAD = """# Pairs of features that met in random flows and in no story: made by
# `python -m tests.scenarios.find_pairs`, as short as they could be made.
"""
ACCOUNTS, LENGTH = 3, 120
INSTRUMENT = Instrument("ABC", "1", "1", "100", rules="full", protection=2)
KEPT = {
    CommandKind.NEW,
    CommandKind.CANCEL,
    CommandKind.REPLACE,
    CommandKind.MASS_CANCEL,
    CommandKind.QUOTE,
    CommandKind.SET_RULE,
    CommandKind.SET_PHASE,
    CommandKind.SET_LIMITS,
    CommandKind.TIME,
}
PRIVATE = {
    "text": bytes(36),
    "client_order_id": 0,
    "target_client_order_id": 0,
    "tag": 0,
    "producer": SUPERVISOR,
    "logon": 1,
    "symbol_id": 0,
    "symbol": pack_name("ABC"),
}


@dataclass(frozen=True)
class Step:
    """A command; `target` is the step whose order it names, `leg` which of that step's."""

    command: Command
    target: int = -1
    leg: int = 0


@dataclass
class Play:
    """A sequence as the model played it."""

    commands: list[Command]
    events: list[list[Event]]
    met: list[set[Pair]]


def play(world: World, steps: dict[int, Step]) -> Play:
    """Play steps, by their number, on a fresh model."""
    model, watcher = _model(world), Watcher()
    for command in desk_model.startup((INSTRUMENT,), world.accounts):
        watcher.watch(command, model.apply(command))
    ids: dict[int, list[int]] = {}
    logons = [1] * (ACCOUNTS + 1)
    done = Play([], [], [])
    for number, step in steps.items():
        command = _logged(step.command, logons)
        if step.target >= 0:
            named = ids.get(step.target, [])[step.leg : step.leg + 1]
            if not named:
                return Play([], [], [set()])  # the order it names was not accepted: no story
            command["order_id"] = named[0]
        events = model.apply(command)
        ids[number] = [e["order_id"] for e in events if e["kind"] == EventKind.ACCEPTED]
        done.commands.append(command)
        done.events.append(events)
        done.met.append(watcher.watch(command, events))
    return done


def _logged(command: Command, logons: list[int]) -> Command:
    # The command with the logon number its session has by now.
    account = command["account"]
    opens = command["kind"] == CommandKind.SESSION_OPEN
    if command["session"] or opens:
        logons[account] += opens
        return command | {"logon": logons[account]}
    return dict(command)


def _model(world: World) -> ExchangeModel:
    return ExchangeModel(
        world.limits, unknown_symbol="reject", template=TEMPLATE, shard=0, built=BUILT
    )


def draw(seed: int, *, timed: bool) -> tuple[World, dict[int, Step], list[set[Pair]]]:
    """A world, the commands of a random flow in it, and what met in each."""
    rng = random.Random(seed)
    sizes = DEFAULT_SIZES | {"slice_events": rng.choice((1000, 1000, 1000, 4))}
    sizes["events_per_command_max"] = sizes["slice_events"] + 64
    limits = ShardLimits(accounts_max=8, batch_max=64, **sizes)
    world = World(limits, ACCOUNTS, "reject", rng.choice((1, 3)), 10, 0.5)
    model, watcher = _model(world), Watcher()
    for command in desk_model.startup((INSTRUMENT,), world.accounts):
        watcher.watch(command, model.apply(command))
    flow = FullFlow(seed, world, model, DRAWN)
    makers: dict[int, tuple[int, int]] = {}  # order -> step, leg
    steps: dict[int, Step] = {}
    met: list[set[Pair]] = []
    logons = [1] * (ACCOUNTS + 1)
    while len(steps) < LENGTH:
        step = (
            _session(rng)
            if rng.random() < 0.06
            else _plain(model, flow, flow.next(), makers, timed)
        )
        if step is None:
            continue
        step = Step(_logged(step.command, logons), step.target, step.leg)
        number = len(steps)
        events = model.apply(step.command)
        if any(event["code"] == RejectCode.BAD_FIELD for event in events):
            continue  # nonsense that has no words
        steps[number] = step
        taken = [e["order_id"] for e in events if e["kind"] == EventKind.ACCEPTED]
        makers |= {order_id: (number, leg) for leg, order_id in enumerate(taken)}
        met.append(watcher.watch(step.command, events))
    return world, steps, met


def _session(rng: random.Random) -> Step:
    # Somebody comes whose orders shall go with him, or goes.
    account = rng.randint(1, ACCOUNTS)
    kind = rng.choice((CommandKind.SESSION_OPEN, CommandKind.SESSION_CLOSE))
    fields = {"kind": int(kind), "account": account, "session": account, "producer": SUPERVISOR}
    if kind == CommandKind.SESSION_OPEN:
        fields |= {"flags": int(CommandFlag.CANCEL_ALL_ON_CLOSE), "text": b"local"}
        fields["session"] = 0
    return Step(BLANK_COMMAND | fields)


def _plain(
    model: ExchangeModel,
    flow: FullFlow,
    command: Command,
    makers: dict[int, tuple[int, int]],
    timed: bool,
) -> Step | None:
    # The command without what a story need not have: client ids, tags, sessions of its own.
    kind = command["kind"]
    if kind not in KEPT or command["symbol_id"] not in (0, 1) or command["account"] > ACCOUNTS:
        return None
    target = flow._named(command) if kind in (CommandKind.CANCEL, CommandKind.REPLACE) else 0
    changed = command | PRIVATE
    if not timed:
        changed["in_ts"] = 0
    changed["flags"] &= ~int(CommandFlag.TEXT_ID | CommandFlag.BY_TAG | CommandFlag.BY_SESSION)
    account = command["account"]
    if kind == CommandKind.SET_LIMITS and not 1 <= account <= ACCOUNTS:
        return None
    if kind in (CommandKind.SET_RULE, CommandKind.SET_PHASE, CommandKind.SET_LIMITS):
        changed |= {"session": 0, "logon": 0}
    elif kind == CommandKind.TIME:
        changed = BLANK_COMMAND | {"kind": kind, "producer": SUPERVISOR, "in_ts": command["in_ts"]}
    else:
        if not 1 <= account <= ACCOUNTS:
            return None
        changed |= {"session": account}
    if kind in (CommandKind.CANCEL, CommandKind.REPLACE):
        if target not in makers or target not in model.orders:
            return None
        number, leg = makers[target]
        changed |= {"order_id": target, "account": model.orders[target].account}
        changed |= {"session": changed["account"]}
        return Step(changed, number, leg)
    return Step(changed)


def shrink(world: World, steps: dict[int, Step], pair: Pair) -> dict[int, Step]:
    """Leave out what is not needed for the pair to meet in the last step."""

    def meets(tried: dict[int, Step]) -> bool:
        return pair in play(world, tried).met[-1]

    last = max(steps)
    size = len(steps) // 2
    while size:
        numbers = [n for n in steps if n != last]
        for at in range(0, len(numbers), size):
            dropped = set(numbers[at : at + size])
            tried = {n: s for n, s in steps.items() if n not in dropped}
            if meets(tried):
                steps = tried
        size //= 2
    return steps


def shortest(
    seeds: range, known: set[Pair], *, timed: bool
) -> dict[Pair, tuple[World, dict[int, Step]]]:
    """For each pair not known the flow in which it meets first."""
    found: dict[Pair, tuple[World, dict[int, Step]]] = {}
    for seed in seeds:
        world, steps, met = draw(seed, timed=timed)
        for number, pairs in enumerate(met):
            for pair in pairs - known:
                if pair not in found or len(found[pair][1]) > number + 1:
                    found[pair] = world, {n: steps[n] for n in range(number + 1)}
        sys.stderr.write(f"\rseed {seed}: {len(found)} pairs")
    return found


def stories(found: dict[Pair, tuple[World, dict[int, Step]]], known: set[Pair]) -> Iterator[str]:
    """A story for each pair that no story before has."""
    for pair, (world, steps) in sorted(found.items()):
        if pair in known:
            continue
        short = shrink(world, steps, pair)
        done = play(world, short)
        if pair not in done.met[-1]:
            continue  # it met by what a story leaves out
        known |= set().union(*done.met)
        sys.stderr.write(f"\r{pair[0]} x {pair[1]}: {len(short)} commands        ")
        terms = "instrument ABC max=100 rules=full protection=2"
        if world.limits.slice_events < 1000:
            terms = f"exchange slice={world.limits.slice_events}\n{terms}"
        yield Writer(terms).story(f"{pair[0]} and {pair[1]}", done.commands, done.events)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--timed", action="store_true", help="commands have times of their own")
    given = parser.parse_args()
    old = FOUND.read_text(encoding="utf-8") if FOUND.exists() else HEAD
    known = set(met_in_scenarios())
    found = shortest(range(given.seeds), known, timed=given.timed)
    texts = list(stories(found, known))
    FOUND.write_text(old + "".join(texts), encoding="utf-8")
    sys.stderr.write(f"\n{len(texts)} stories for {len(found)} pairs\n")


if __name__ == "__main__":
    main()
