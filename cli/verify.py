"""`run.py verify`: a data directory held against a replay of itself. Cold: engine/verify.py works.

Exit code 0: everything is as written and as replayed. 1: bytes are damaged. 3: whole records say
something else than the replay.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cli.common import count_text, warm

if TYPE_CHECKING:
    from engine.verify import ShardReport

DAMAGED, DIFFERS = 1, 3
PROGRESS_S = 1.0


class Progress:
    """A line on stderr now and then, once it has taken a while."""

    def __init__(self) -> None:
        self.begun = self.said = time.monotonic()
        self.lines = False

    def __call__(self, shard: int, in_seq: int) -> None:
        now = time.monotonic()
        if now - self.said >= PROGRESS_S:
            self.said, self.lines = now, True
            end = "\r" if sys.stderr.isatty() else "\n"
            seconds = now - self.begun
            print(f"shard {shard}: {in_seq:,} commands, {seconds:.0f} s", file=sys.stderr, end=end)

    def end(self) -> None:
        """Make room for what follows."""
        if self.lines and sys.stderr.isatty():
            print("", file=sys.stderr)


def report_lines(report: "ShardReport") -> list[str]:
    """What there is to say about one shard."""
    crcs = " ".join(f"{crc:08x}" for crc in report.event_crc)
    begun = f" from snapshot {report.begun:,} on" if report.begun else ""
    speed = f", {count_text(report.speed)} commands/s" if report.speed else ""
    lines = [
        f"shard {report.shard}  {report.commands:,} commands{begun},"
        f" {report.events:,} events{speed}"
    ]
    if report.state_hash:
        lines += [f"  state      {report.state_hash}", f"  events     CRC {crcs}"]
    if report.snapshots:
        lines.append(f"  snapshots  {', '.join(f'{n:,}' for n in report.snapshots)} as replayed")
    if report.log[0]:
        lines.append(f"  event log  {report.log[0]:,} .. {report.log[1]:,} as replayed")
    lines += [f"  note       {note}" for note in report.notes]
    lines += [f"  DIFFERS    {text}" for text in report.differences]
    lines += [f"  DAMAGED    {text}" for text in report.damages]
    return lines


def command(directory: Path, shard: int | None, from_snapshot: bool) -> int:
    """Verify and report; give the exit code."""
    from engine.kept_directory import open_kept
    from engine.verify import verify_shard

    kept = open_kept(str(directory))
    shards = list(kept.shards) if shard is None else [kept.shard_checked(shard)]
    warm()
    damages = differences = 0
    for number in shards:
        progress = Progress()
        report = verify_shard(kept, number, from_snapshot=from_snapshot, progress=progress)
        progress.end()
        print("\n".join(report_lines(report)), flush=True)
        damages, differences = damages + len(report.damages), differences + len(report.differences)
    what = "shard" if len(shards) == 1 else "shards"
    if damages:
        print(f"DAMAGED: {damages} place(s); restore the directory from a backup")
        return DAMAGED
    if differences:
        print(f"DIFFERS: {differences} place(s) say something else than the replay")
        return DIFFERS
    print(f"verified: {len(shards)} {what}, everything is as written and as replayed")
    return 0
