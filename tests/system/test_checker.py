"""The checker passes a good run and sees one planted violation of every kind it knows."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.checker import feed
from tests.system.checker import journal as j
from tests.system.checker.findings import KINDS, SHOWN_PER_KIND, Findings
from tests.system.checker.run import check_run
from tests.system.checker_story import (
    SESSION_NAME,
    START_TS,
    SYMBOL,
    Story,
    change,
    datagrams_of,
    good_story,
    journal_bytes,
)

Plant = Callable[[Story], object]
ALICE, BOB, WATCH, ALICE_AGAIN = range(4)  # wires of the story
PLANTS: list[tuple[str, Plant]] = []


def plant(*kinds: str) -> Callable[[Plant], Plant]:
    """This function spoils a story so that the checker must say `kinds`."""

    def note(function: Plant) -> Plant:
        PLANTS.extend((kind, function) for kind in kinds)
        return function

    return note


def judged(story: Story, folder: Path) -> Findings:
    return check_run(story.write(folder / "run"))


def without(story: Story, wire: int, **wanted: object) -> None:
    """Remove an incoming line of one connection."""
    log = story.wires[wire]
    log.entries.remove(log.find("in", **wanted))


def everywhere(story: Story, account: str, wanted: dict[str, object], **values: object) -> None:
    """Change a report in every connection of the account."""
    for wire in story.wires:
        if wire.account == account:
            for entry in wire.all("in", **wanted):
                change(entry, **values)


# --------------------------------------------------------------------------------- client logs
@plant("log_unreadable")
def entry_that_is_none(story: Story) -> None:
    story.wires[BOB].entries.append({"t": 1, "dir": "sideways", "data": "{}"})


@plant("answer_unreadable")
def half_a_line(story: Story) -> None:
    entry = story.wires[BOB].find("in", type="accepted")
    entry["data"] = entry["data"][:-5]


@plant("answer_unreadable")
def report_without_quantity(story: Story) -> None:
    change(story.wires[BOB].find("in", type="accepted"), qty=None)


# --------------------------------------------------------------------------------- streams
@plant("client_resume")
def resume_from_elsewhere(story: Story) -> None:
    change(story.wires[ALICE_AGAIN].find("out", type="logon"), resume="0:2")


@plant("resume_refused")
def refused(story: Story) -> None:
    story.log(story.wires[ALICE_AGAIN], "in", {"type": "rejected", "seq": 0, "code": 207})


@plant("wrong_incarnation")
def other_incarnation(story: Story) -> None:
    change(story.wires[ALICE_AGAIN].find("in", type="logon"), incarnation=2)


@plant("report_gap")
def missed_report_not_sent(story: Story) -> None:
    without(story, ALICE_AGAIN, type="fill")


@plant("report_doubled")
def missed_report_sent_twice(story: Story) -> None:
    entries = story.wires[ALICE_AGAIN].entries
    entries.append(story.wires[ALICE_AGAIN].find("in", type="fill"))


@plant("report_reordered")
def missed_report_sent_last(story: Story) -> None:
    entries = story.wires[ALICE_AGAIN].entries
    fill = story.wires[ALICE_AGAIN].find("in", type="fill")
    entries.remove(fill)
    entries.append(fill)


@plant("report_two_contents")
def resumed_report_differs(story: Story) -> None:
    change(story.wires[ALICE_AGAIN].find("in", type="fill"), leaves="2")


@plant("report_hole")
def report_for_nobody(story: Story) -> None:
    for wire in (WATCH, ALICE):
        without(story, wire, type="replaced")


@plant("report_time")
def report_is_older(story: Story) -> None:
    everywhere(story, "bob", {"type": "accepted", "id": 2}, ts=START_TS)


@plant("report_tail")
def nothing_after_the_logon(story: Story) -> None:
    wire = story.wires[ALICE_AGAIN]
    for entry in [e for e in wire.entries if e["dir"] == "in" and "logon" not in e["data"]]:
        wire.entries.remove(entry)


# --------------------------------------------------------------------------------- orders
@plant("order_without_accept")
def accept_is_something_else(story: Story) -> None:
    everywhere(story, "alice", {"type": "accepted", "id": 3}, type="booked", ref=9)


@plant("order_two_accepts", "id_executed_twice")
def booked_is_an_accept(story: Story) -> None:
    everywhere(story, "alice", {"type": "booked", "id": 3}, type="accepted")


@plant("order_after_end")
def status_of_a_cancelled_order(story: Story) -> None:
    everywhere(story, "alice", {"type": "canceled", "id": 1}, order_id=102, id=3)


@plant("order_quantity")
def leaves_wrong(story: Story) -> None:
    everywhere(story, "bob", {"type": "fill", "id": 1}, leaves="1")


@plant("order_quantity")
def cancelled_less_than_was_open(story: Story) -> None:
    everywhere(story, "alice", {"type": "canceled", "id": 1}, qty="2")


@plant("order_price")
def booked_at_another_price(story: Story) -> None:
    everywhere(story, "alice", {"type": "booked", "id": 1}, price="100.01")


@plant("order_price")
def taker_pays_more_than_its_limit(story: Story) -> None:
    for account in ("alice", "bob"):
        everywhere(story, account, {"type": "fill", "trade_id": 1}, price="100.01")


@plant("order_not_as_asked")
def accepted_on_the_other_side(story: Story) -> None:
    everywhere(story, "bob", {"type": "accepted", "id": 1}, side="sell")


@plant("order_not_as_asked")
def accepted_with_another_limit(story: Story) -> None:
    everywhere(story, "bob", {"type": "accepted", "id": 1}, price="100.50")


@plant("order_fields")
def side_changes(story: Story) -> None:
    everywhere(story, "alice", {"type": "replaced"}, side="buy")


@plant("order_left")
def cancel_that_never_came(story: Story) -> None:
    # The last report but one: its number goes on to another account's story.
    everywhere(story, "alice", {"type": "canceled", "id": 3}, type="summary")


@plant("id_executed_twice")
def two_orders_of_one_id(story: Story) -> None:
    everywhere(story, "bob", {"id": 2}, id=1)


@plant("id_two_answers")
def accepted_and_refused(story: Story) -> None:
    story.log(story.wires[BOB], "out", {"symbol": SYMBOL, "side": "buy", "qty": 4, "id": 1})
    everywhere(story, "bob", {"type": "rejected"}, id=1)


# --------------------------------------------------------------------------------- trades
@plant("trade_sides")
def two_takers(story: Story) -> None:
    everywhere(story, "alice", {"type": "fill", "trade_id": 1}, role="taker")


@plant("trade_differs")
def two_prices(story: Story) -> None:
    everywhere(story, "bob", {"type": "fill", "trade_id": 1}, price="100.01")


@plant("trade_number_gap")
def trade_number_jumps(story: Story) -> None:
    for account in ("alice", "bob"):
        everywhere(story, account, {"type": "fill", "trade_id": 2}, trade_id=3)


# --------------------------------------------------------------------------------- journal
@plant("journal_file")
def header_of_another_shard(story: Story) -> None:
    story.patch_journal = lambda data: data.__setitem__(slice(None), journal_bytes([], shard=1))


@plant("journal_file")
def header_with_a_flipped_bit(story: Story) -> None:
    story.patch_journal = lambda data: data.__setitem__(50, data[50] ^ 1)


@plant("journal_damage")
def record_with_a_flipped_bit(story: Story) -> None:
    at = j.HEADER_BYTES + 3 * j.RECORD_BYTES + 50
    story.patch_journal = lambda data: data.__setitem__(at, data[at] ^ 1)


@plant("journal_damage")
def two_records_swapped(story: Story) -> None:
    records = story.records
    records[4], records[5] = records[5], records[4]


@plant("journal_epoch")
def epoch_falls(story: Story) -> None:
    story.records[5]["epoch"] -= 1


@plant("journal_epoch")
def time_falls(story: Story) -> None:
    story.records[5]["in_ts"] = story.records[4]["in_ts"] - 1


@plant("journal_producer")
def producer_jumps(story: Story) -> None:
    for record in story.records[5:]:
        record["producer_seq"] += 1


@plant("ack_not_in_journal")
def accepted_request_is_not_there(story: Story) -> None:
    record = next(r for r in story.records if r["client_order_id"] == 1 and r["account"] == 3)
    record |= {"kind": j.SESSION_KEEP, "client_order_id": 0}


@plant("ack_time")
def report_of_another_time(story: Story) -> None:
    everywhere(story, "bob", {"type": "accepted", "id": 1}, ts=1_800_000_000 * 10**9 + 1)


@plant("journal_too_often")
def taken_twice_and_sent_once(story: Story) -> None:
    taken = next(r for r in story.records if r["client_order_id"] == 2 and r["account"] == 3)
    last = story.records[-1]
    later = {"in_seq": last["in_seq"] + 1, "producer_seq": last["producer_seq"] + 1}
    story.records.append(taken | later | {"in_ts": last["in_ts"]})


@plant("journal_unsent")
def input_of_nobody(story: Story) -> None:
    wire = story.wires[BOB]
    wire.entries.remove(wire.find("out", id=2))


@plant("journal_unsent")
def query_of_nobody(story: Story) -> None:
    story.records[-1] |= {"kind": j.QUERY_OPEN, "client_order_id": 0}


@plant("journal_differs")
def quantity_differs(story: Story) -> None:
    next(r for r in story.records if r["client_order_id"] == 2)["qty"] += 1


@plant("journal_unanswered")
def second_answer_missing(story: Story) -> None:
    everywhere(story, "alice", {"type": "status"}, id=1, order_id=100)


# --------------------------------------------------------------------------------- feed
@plant("feed_malformed")
def message_of_unknown_type(story: Story) -> None:
    story.messages[3] = b"Z" + story.messages[3][1:]


@plant("feed_malformed")
def datagram_too_short(story: Story) -> None:
    story.patch_datagrams = lambda datagrams: datagrams.append(datagrams[0][:-1])


@plant("feed_two_contents")
def number_used_again(story: Story) -> None:
    other = [story.messages[0], story.messages[2], story.messages[2]]
    story.patch_datagrams = lambda datagrams: datagrams.append(datagrams_of(SESSION_NAME, other)[0])


@plant("feed_gap")
def datagram_lost(story: Story) -> None:
    story.patch_datagrams = lambda datagrams: datagrams.pop(1)


@plant("feed_order")
def feed_time_falls(story: Story) -> None:
    story.messages[3] = story.messages[3][:5] + bytes(6) + story.messages[3][11:]
    for index in range(3):
        raw = story.messages[index]
        story.messages[index] = raw[:5] + (feed.DAY_NS // 3).to_bytes(6, "big") + raw[11:]


@plant("feed_order")
def journal_has_another_order(story: Story) -> None:
    # bob's two buys change places in the journal: same times, but the inputs came the other way.
    first, second = (r for r in story.records if r["account"] == 3 and r["kind"] == j.NEW)
    keys = ("client_order_id", "qty", "in_ts")
    kept = {key: first[key] for key in keys}
    first |= {key: second[key] for key in keys}
    second |= kept


@plant("feed_trade_unknown")
def trade_of_nobody(story: Story) -> None:
    story.public("E", struct.pack(">QIQ", 2, 1, 3))


@plant("feed_trade_missing")
def trade_not_published(story: Story) -> None:
    del story.messages[4]


@plant("feed_trade_differs")
def tape_quantity(story: Story) -> None:
    raw = story.messages[2]
    story.messages[2] = raw[:19] + struct.pack(">I", 3) + raw[23:]


@plant("feed_trade_doubled")
def trade_printed_twice(story: Story) -> None:
    story.messages.insert(3, story.messages[2])


@plant("feed_reference")
def more_than_was_shown(story: Story) -> None:
    raw = story.messages[3]
    story.messages[3] = raw[:19] + struct.pack(">I", 7) + raw[23:]


@plant("feed_reference")
def unknown_reference(story: Story) -> None:
    story.messages.append(story.messages[-1])


@plant("feed_order_differs")
def shown_at_another_price(story: Story) -> None:
    raw = story.messages[1]
    story.messages[1] = raw[:32] + struct.pack(">I", 1_000_100)


@plant("feed_book_left")
def delete_not_published(story: Story) -> None:
    del story.messages[-1]


# --------------------------------------------------------------------------------- the tests
def test_good_run_has_no_violation_and_nothing_unchecked(tmp_path: Path) -> None:
    findings = judged(good_story(), tmp_path)
    assert findings.good, findings.text()
    assert findings.notes == []
    counts = findings.counts
    assert (counts["orders"], counts["trades"], counts["connections"]) == (4, 2, 4)
    assert counts["acknowledgements"] == 6
    assert counts["journal records"] == 13
    assert counts["feed messages"] == 8


@pytest.mark.parametrize(("kind", "spoil"), PLANTS)
def test_planted_violation_is_seen(kind: str, spoil: Plant, tmp_path: Path) -> None:
    story = good_story()
    spoil(story)
    findings = judged(story, tmp_path)
    assert findings.totals[kind], findings.text()
    shown = next(v for v in findings.violations if v.kind == kind)
    assert shown.text
    assert f"{kind}: {shown.text}" in findings.text()


def test_every_kind_of_violation_has_a_plant() -> None:
    in_two_files = {"journal_gap"}  # has a test of its own below
    assert {kind for kind, _ in PLANTS} | in_two_files == set(KINDS)


def test_every_kind_of_violation_is_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "testing.md").read_text()
    for kind, sentence in KINDS.items():
        assert f"| `{kind}` | {sentence} |" in page, kind


def reports_of(story: Story) -> list[tuple[int, int]]:
    """Where every numbered report stands: (wire, entry)."""
    return [
        (w, e)
        for w, wire in enumerate(story.wires)
        for e, entry in enumerate(wire.entries)
        if entry["dir"] == "in" and json.loads(entry["data"])["type"] != "logon"
    ]


@pytest.mark.parametrize("repeat", [False, True])
def test_no_report_can_be_dropped_or_doubled_unseen(repeat: bool, tmp_path: Path) -> None:
    last = {len(wire.entries) - 2 for wire in good_story().wires}
    for w, e in reports_of(good_story()):
        story = good_story()
        entries = story.wires[w].entries
        if repeat:
            entries.insert(e, entries[e])
        elif e in last:
            continue  # the very last report of a connection: nothing says that it was due
        else:
            del entries[e]
        findings = judged(story, tmp_path / f"{w}-{e}")
        assert not findings.good, (story.wires[w].name, e)


def test_no_byte_of_a_record_can_change_unseen(tmp_path: Path) -> None:
    count = len(good_story().records)
    for at in range(j.HEADER_BYTES, j.HEADER_BYTES + count * j.RECORD_BYTES, 37):
        story = good_story()

        def flip(data: bytearray, at: int = at) -> None:
            data[at] ^= 4

        story.patch_journal = flip
        assert not judged(story, tmp_path / str(at)).good, at


def test_refusal_of_a_request_without_id_carries_the_id_of_its_target(tmp_path: Path) -> None:
    story = good_story()
    bob = story.wires[BOB]
    end = bob.entries.pop()  # "closed"
    story.live.append(bob)
    query = {"type": "order", "symbol": SYMBOL, "target_id": 1}
    story.ask(bob, j.QUERY_ORDER, **query)
    story.tell("bob", "rejected", symbol=SYMBOL, id=1, code=501, reason="unknown_order")
    bob.entries.append(end)
    findings = judged(story, tmp_path)
    assert findings.good, findings.text()


def two_files(folder: Path, gap: int = 0) -> Path:
    """Write a good story whose journal is in two files, the second one `gap` records late."""
    story = good_story()
    rows = story.records
    run = story.write(folder / "run")
    path = run / "data" / "shard0" / f"journal-{1:020d}"
    path.write_bytes(journal_bytes(rows[:5], spare=0))
    chain = int.from_bytes(path.read_bytes()[-j.RECORD_BYTES + j.CRC_AT :][:4], "little")
    after = 5 + gap
    later = path.with_name(f"journal-{after + 1:020d}")
    later.write_bytes(journal_bytes(rows[after:], first=after + 1, chain=chain))
    return run


def test_chain_goes_on_in_the_next_file(tmp_path: Path) -> None:
    findings = check_run(two_files(tmp_path))
    assert findings.good, findings.text()
    assert findings.counts["journal records"] == 13


def test_file_made_ahead_by_an_earlier_owner_may_hold_later_epochs(tmp_path: Path) -> None:
    story = good_story()
    for row in story.records[5:]:
        row["epoch"] += 1  # the header still says the epoch before
    findings = judged(story, tmp_path)
    assert findings.good, findings.text()


def test_missing_records_between_files_are_seen(tmp_path: Path) -> None:
    assert check_run(two_files(tmp_path, gap=1)).totals["journal_file"]


def test_file_that_ends_early_before_another_is_a_gap(tmp_path: Path) -> None:
    run = two_files(tmp_path)
    path = run / "data" / "shard0" / f"journal-{1:020d}"
    path.write_bytes(journal_bytes(good_story().records[:4], spare=1))
    assert check_run(run).totals["journal_gap"]


def test_file_made_ahead_is_no_gap(tmp_path: Path) -> None:
    run = good_story().write(tmp_path / "run")
    later = run / "data" / "shard0" / f"journal-{18:020d}"
    later.write_bytes(journal_bytes([], first=18))
    assert check_run(run).good


def test_torn_tail_that_was_never_durable_is_no_violation(tmp_path: Path) -> None:
    story = good_story()
    end = j.HEADER_BYTES + len(story.records) * j.RECORD_BYTES
    story.patch_journal = lambda data: data.__setitem__(slice(end, end + 50), b"\x55" * 50)
    findings = judged(story, tmp_path)
    assert findings.good, findings.text()
    assert findings.counts["torn bytes"] == 50


def test_later_feed_session_begins_with_an_image_of_the_book(tmp_path: Path) -> None:
    story = good_story()
    run = story.write(tmp_path / "run")
    listed, shown = (m[:5] + story.messages[2][5:11] + m[11:] for m in story.messages[:2])
    left = shown[:20] + struct.pack(">I", 6) + shown[24:]
    second = [listed, left, *story.messages[3:]]
    first = datagrams_of(SESSION_NAME, story.messages[:3])
    datagrams = [*first, *datagrams_of(SESSION_NAME[:-1] + b"2", second)]
    head = struct.Struct("<QH")
    (run / "capture.bin").write_bytes(b"".join(head.pack(1, len(d)) + d for d in datagrams))
    findings = check_run(run)
    assert findings.good, findings.text()


def cut_off(story: Story, folder: Path, silent_ns: int) -> Findings:
    """The last trade of the feed's first session was never published: the session is cut off, the
    trade happened `silent_ns` after the last thing it said.
    """
    run = story.write(folder / "run")
    published, time = story.messages[:4], story.messages[4][5:11]
    for index, raw in enumerate(published):
        early = int.from_bytes(time, "big") - silent_ns + index
        published[index] = raw[:5] + early.to_bytes(6, "big") + raw[11:]
    late = [m[:5] + time + m[11:] for m in story.messages[:2]]
    second = [late[0], late[1][:20] + struct.pack(">I", 3) + late[1][24:], *story.messages[5:]]
    datagrams = datagrams_of(SESSION_NAME, published)[:-1]
    datagrams += datagrams_of(SESSION_NAME[:-1] + b"2", second)
    head = struct.Struct("<QH")
    (run / "capture.bin").write_bytes(b"".join(head.pack(1, len(d)) + d for d in datagrams))
    return check_run(run)


def test_trade_of_the_moment_the_feed_died_is_excused_and_an_older_one_is_not(
    tmp_path: Path,
) -> None:
    soon = cut_off(good_story(), tmp_path / "soon", 1_000)
    assert not soon.totals["feed_trade_missing"]
    assert not soon.totals["feed_order"]
    assert soon.counts["trades cut off before the tape"] == 1
    assert cut_off(good_story(), tmp_path / "late", 4 * 10**9).totals["feed_trade_missing"]


def test_missing_witness_is_said(tmp_path: Path) -> None:
    run = good_story().write(tmp_path / "run")
    (run / "capture.bin").unlink()
    (run / "data" / "shard0" / f"journal-{1:020d}").unlink()
    (run / "data" / "shard0").rmdir()
    findings = check_run(run)
    assert findings.good
    assert len(findings.notes) == 2


def test_lost_datagram_excuses_no_more_than_it_held(tmp_path: Path) -> None:
    story = good_story()
    story.drops = 1
    story.patch_datagrams = lambda datagrams: datagrams.pop(1)  # X, E, A
    findings = judged(story, tmp_path)
    assert findings.good, findings.text()
    assert any("3 feed numbers" in note for note in findings.notes)


def test_only_the_first_violations_of_a_kind_are_shown() -> None:
    findings = Findings()
    for number in range(SHOWN_PER_KIND + 5):
        findings.violate("report_gap", f"number {number}")
    assert len(findings.violations) == SHOWN_PER_KIND
    assert "report_gap: 5 more" in findings.text()
    assert json.dumps(dict(findings.totals)) == '{"report_gap": 15}'
