"""Where a client stands in the reports of its account: what it needs to come back. Cold, no I/O.

    state = client.state                       # after every report you have dealt with
    path.write_text(state.to_json())
    ...
    state = ResumeState.from_json(path.read_text())
    with Client(account="demo", token="demo", session=state.session, resume=state) as client:
        for report in client.reports(1.0):     # what was missed comes first
            ...

`seq` counts what the library has taken from the connection. Reports that lie in `client.reports()`
unread when a program ends are counted already: read them before you save.
"""

from dataclasses import dataclass, field
from typing import Self

import orjson


@dataclass(frozen=True, slots=True)
class ResumeState:
    """The last report seen of each shard, and the incarnation of the exchange that sent it."""

    account: str
    session: str = "main"
    incarnation: int = 0  # 0: not known, not checked
    seq: dict[int, int] = field(default_factory=dict)  # by shard

    @property
    def text(self) -> str:
        """The logon key `resume`."""
        return ",".join(f"{shard}:{seq}" for shard, seq in sorted(self.seq.items()))

    def to_json(self) -> str:
        """One line of JSON."""
        line = {
            "account": self.account,
            "session": self.session,
            "incarnation": self.incarnation,
            "seq": {str(shard): seq for shard, seq in sorted(self.seq.items())},
        }
        return orjson.dumps(line).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Inverse of to_json; ValueError when it is not one."""
        line = orjson.loads(text)
        try:
            seq = {int(shard): int(number) for shard, number in line["seq"].items()}
            return cls(str(line["account"]), str(line["session"]), int(line["incarnation"]), seq)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is no state to resume from: {error}") from error
