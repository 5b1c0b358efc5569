"""`run.py inspect`: what a kept file or a live ring holds, decoded. Cold; changes nothing.

Files are recognised by their header, not by their name: journal and event log segments, indexes,
snapshots, manifests. A name without a file is a ring of a running instance. What is damaged is
shown as such with the reason, and the next record after it: looking never ends with a traceback.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from cli.common import CommandError, load
from cli.record_text import record_json, record_line

RINGS = ("commands", "events", "staging")


class Options(NamedTuple):
    """The command line."""

    first: int | None  # in_seq or out_seq
    most: int
    json: bool
    instance: str | None
    shard: int | None
    config: Path | None


class Line(NamedTuple):
    """One thing to show: a heading with values, a record, or a remark."""

    text: str = ""
    values: dict[str, Any] | None = None
    record: Any = None  # np.void of COMMAND or EVENT
    reason: str = ""  # why the record is not good
    offset: int = -1  # its byte in the file


def shown(lines: Iterator[Line], known: Any, as_json: bool) -> Iterator[str]:
    """The lines as text, or as one JSON object each."""
    for line in lines:
        yield json_of(line) if as_json else text_of(line, known)


def text_of(line: Line, known: Any) -> str:
    """One line for people."""
    if line.values is not None:
        width = max((len(name) for name in line.values), default=0)
        rows = [f"  {name:{width}}  {value}" for name, value in line.values.items()]
        return "\n".join([line.text, *rows])
    if line.record is None:
        return line.text
    words = record_line(line.record, known)
    return f"{words}   DAMAGED: byte {line.offset}: {line.reason}" if line.reason else words


def json_of(line: Line) -> str:
    """One line for machines."""
    if line.record is not None:
        values = record_json(line.record)
        if line.offset >= 0:
            values["offset"] = line.offset
        if line.reason:
            values["damaged"] = line.reason
    else:
        values = {"what": line.text, **(line.values or {})}
    return orjson.dumps(values, default=str).decode()


def command(path: str, options: Options) -> int:
    """Show it; give the exit code: 1 when something in it is damaged."""
    if Path(path).is_dir():
        raise CommandError(
            f"{path} is a directory: name a file in it, or run.py verify {path} for all of it"
        )
    if Path(path).exists():
        from cli.inspect_files import file_lines, instruments_beside

        lines, known = file_lines(path, options), instruments_beside(path)
    elif path in RINGS:
        from cli.inspect_rings import instruments_live, ring_lines

        instance = options.instance or load(options.config).instance
        known = instruments_live(instance)
        lines = ring_lines(instance, path, options)
    else:
        raise CommandError(
            f"{path} is no file, and no ring of a running instance ({', '.join(RINGS)})"
        )
    damaged = False

    def watched() -> Iterator[Line]:
        nonlocal damaged
        for line in lines:
            damaged |= bool(line.reason)
            yield line

    for text in shown(watched(), known, options.json):
        print(text)
    return int(damaged)
