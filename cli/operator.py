"""`run.py operator`: phases and rules of a running exchange, for whoever runs it. Cold.

Asks the supervisor over its socket (engine/operator_door.py); only the same user on the same
machine gets in. Exit code 0: done; 3: the exchange refuses, the sentence says why; 1: nobody could
be asked, or nobody answered.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from cli.common import CommandError, load
from engine.operator_door import ask

REFUSED = 3
UNAVAILABLE = 905
Row = dict[str, Any]


def command(config: Path | None, instance: str | None, as_json: bool, request: Row) -> int:
    """Ask once and print; give the exit code."""
    answer = asked(instance or load(config).instance, request)
    if as_json:
        print(orjson.dumps(answer).decode(), flush=True)
    elif answer["ok"]:
        print("\n".join(SAID[request["verb"]](answer)), flush=True)
    else:
        print(f"{answer['text']} ({answer['code']})", file=sys.stderr, flush=True)
    if answer["ok"]:
        return 0
    return 1 if answer["code"] == UNAVAILABLE else REFUSED


def asked(instance: str, request: Row) -> Row:
    """The answer to a request; of many pages, all rows."""
    try:
        answer = ask(instance, request)
        while answer["ok"] and answer.get("next") and "instruments" in answer:
            more = ask(instance, {**request, "after": answer["next"]})
            if not more["ok"]:
                return more
            more["instruments"] = answer["instruments"] + more["instruments"]
            answer = more
    except ConnectionError as error:
        raise CommandError(str(error)) from error
    return answer


def phase_said(answer: Row) -> Iterator[str]:
    """What became of `phase`."""
    yield f"{answer['symbol']}: {answer['was']} -> {answer['phase']}"
    if answer["next"]:
        yield f"its calendar goes on with {turn_text(answer['next'])}"


def rule_said(answer: Row) -> Iterator[str]:
    """What became of `rule`."""
    yield f"{answer['symbol']}: {answer['key']} = {answer['value']}"
    if answer["until_restart"]:
        yield "the configuration states this rule: the next start sets it back"


def arm_said(answer: Row) -> Iterator[str]:
    """What became of `arm`."""
    what = f"{answer['lots']} lots within {answer['window_ms']} ms"
    yield f"{answer['symbol']}: quotes of {answer['account']} are taken again, {what}"


def turn_text(turn: Row) -> str:
    """A turn of a calendar for a person."""
    return f"{turn['phase']} at {turn['at']}"


def instruments_said(answer: Row) -> Iterator[str]:
    """A table of what is listed; of a single full instrument all there is to know."""
    rows = answer["instruments"]
    yield f"{'symbol':10} {'shard':>5}  {'rules':6} {'algorithm':16} {'phase':16} next"
    for row in rows:
        rules, turn = row.get("rules", {}), row.get("next")
        algorithm = rules.get("algorithm", "fifo")
        head = f"{row['symbol']:10} {row['shard']:5}  {row['trades_by']:6} {algorithm:16}"
        yield f"{head} {row['phase']:16} {turn_text(turn) if turn else ''}".rstrip()
    if len(rows) == 1 and "rules" in rows[0]:
        yield from details_said(rows[0])


def details_said(row: Row) -> Iterator[str]:
    """Calendar, references and rules of one instrument."""
    for line in row["calendar"]:
        yield f"  calendar            {line}"
    for key in ("static_reference", "dynamic_reference", "extensions", "waiting_for_a_call"):
        if row[key]:
            yield f"  {key.replace('_', ' '):19} {row[key]}"
    for key, value in row["rules"].items():
        yield f"  {key:19} {' '.join(value) if isinstance(value, list) else value}".rstrip()


SAID = {"phase": phase_said, "rule": rule_said, "arm": arm_said, "instruments": instruments_said}
