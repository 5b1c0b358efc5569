"""The events of a shard's final journal, told once more by the plain-Python model (tests/model).

The model shares nothing with the engine but the layout of records. It runs a work in slices as a
whole, so a journal in which other commands ran between two slices is not for it: `False`.
"""

from __future__ import annotations

from engine.records import SLOT_BITS, CommandKind, EventKind
from tests.model.compare import EVENT_ROW, FIELDS
from tests.model.exchange_model import ExchangeModel, _plain
from tests.model.full.built import BUILT
from tests.sim.observer import Story, Violation

SLOT_MASK = (1 << SLOT_BITS) - 1


def model_agrees(story: Story) -> bool:
    """Whether the model could tell this story; Violation when it tells another one."""
    config, records = story.config, story.records.all
    if (records["kind"] == CommandKind.CONTINUE).any():
        return False
    model = ExchangeModel(
        config.shard, shard=story.shard, unknown_symbol=config.unknown_symbol,
        template=config.template, built=BUILT,
    )  # fmt: skip
    want = []
    for record in records:
        model.writer.events = []
        model._apply_one(_plain(record))
        for event in model.writer.events:
            if event["kind"] == EventKind.REJECTED:
                event["order_id"] &= ~SLOT_MASK
            want.append(tuple(event.values()))
    events = story.events.all.copy()
    events["order_id"] &= ~SLOT_MASK
    events["amount"][events["kind"] == EventKind.SUMMARY] &= ~SLOT_MASK
    got = events.view(EVENT_ROW).tolist()
    for place, (mine, other) in enumerate(zip(want, got, strict=False)):
        if mine != other:
            fields = zip(FIELDS, mine, other, strict=True)
            wrong = {name: (m, o) for name, m, o in fields if m != o}
            raise Violation(
                f"shard {story.shard}: event {place + 1} is another one in the model (model,"
                f" engine): {wrong}"
            )
    if len(want) != len(got):
        raise Violation(
            f"shard {story.shard}: the model has {len(want)} events, the engine {len(got)}"
        )
    return True
