"""What the simulation's observer holds against an exchange."""

from __future__ import annotations

import random

import numpy as np
import pytest

from engine.records import COMMAND, CommandKind, RejectCode
from tests.sim.knobs import config_of, draw
from tests.sim.observer import Observer, Story, Violation
from tests.sim.sim_time import SimTime

GATEWAY, SUPERVISOR = 2, 1
TEXT_BYTES = COMMAND["text"].itemsize


def told(*rows: dict[str, object]) -> Story:
    """The story of one shard on which account 1 is open, and these commands have run."""
    opening = {"kind": CommandKind.OPEN_ACCOUNT, "producer": SUPERVISOR}
    records = np.zeros(1 + len(rows), COMMAND)
    sent: dict[object, int] = {}
    for number, row in enumerate((opening, *rows)):
        values = {"producer": GATEWAY, "account": 1} | row
        sent[values["producer"]] = sent.get(values["producer"], 0) + 1
        values |= {"in_seq": number + 1, "producer_seq": sent[values["producer"]]}
        for name, value in values.items():
            records[name][number] = value
    story = Story(config_of(draw(random.Random(1), crash_points=False)), 0)
    story.extend(records)
    return story


def logon(number: int) -> dict[str, object]:
    return {
        "kind": CommandKind.SESSION_OPEN,
        "logon": number,
        "text": list(b"s".ljust(TEXT_BYTES, b"\0")),
    }


def cancel(number: int, session: int) -> dict[str, object]:
    return {"kind": CommandKind.CANCEL, "logon": number, "session": session, "order_id": 1}


def test_a_command_of_the_owner_that_is_refused_as_a_strangers_is_a_violation() -> None:
    with pytest.raises(Violation, match="nobody is told"):
        told(logon(10), cancel(10, 0))


def test_a_command_of_somebody_who_was_the_owner_is_none() -> None:
    story = told(logon(10), logon(11), cancel(10, 1), cancel(11, 1))
    codes = [int(code) for code in story.events.all["code"] if code]
    assert codes == [RejectCode.NOT_LOGGED_ON, RejectCode.UNKNOWN_ORDER]


@pytest.mark.parametrize("seen", [True, False])
def test_sync_what_a_power_cut_takes_is_lost_if_somebody_has_seen_it(seen: bool) -> None:
    knobs = draw(random.Random(1), crash_points=False)
    knobs.mode = "sync"
    observer, story = Observer(config_of(knobs), SimTime()), told(logon(10), cancel(10, 1))
    observer.stories[0] = story
    story.committed = story.events.count
    story.shown_ns.append(np.zeros(story.committed, np.int64))
    story.told = story.committed - (not seen)  # else it was but replayed, at a start
    if seen:
        with pytest.raises(Violation, match="1 shown events are lost"):
            observer.after_power_cut(0, 2)
    else:
        observer.after_power_cut(0, 2)
        assert story.committed == story.told == story.events.count
