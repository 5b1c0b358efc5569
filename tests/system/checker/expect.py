"""What a run promised, so that the checker knows which silence is a fault."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Expect:
    """Facts of a run that are in no witness."""

    # Names of accounts as clients say them -> their numbers in the journal.
    accounts: dict[str, int] = field(default_factory=dict)
    whole: bool = True  # every order came from a logged client
    flat: bool = True  # at the end everything was cancelled
    # Nobody may be refused a resume, the client incarnation stays: true unless power was cut or the
    # exchange was stopped cleanly in between.
    resumable: bool = True
    feed_gapless: bool = True  # no feed number may be left out (no publisher was lapped)
    template_tick: str = "0.01"  # of instruments made on first use
    template_lot: str = "1"

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Expect:
        return cls(**json.loads(path.read_text()))
