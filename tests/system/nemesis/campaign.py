"""One nemesis run from nothing to its result: start, load, faults, heal, stop, judge.

The exchange is started under this process, the load and the recorder are processes of their own;
whatever goes wrong, all of them are ended and waited for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.system.checker import run as checker
from tests.system.checker.capture import read_capture
from tests.system.checker.expect import Expect
from tests.system.checker.findings import Findings
from tests.system.checker.logs import read_logs
from tests.system.nemesis import settings as s
from tests.system.nemesis.exchange import Exchange, unique
from tests.system.nemesis.faults import Fault, Nemesis, plan
from tests.system.nemesis.recovery import measure
from tests.system.nemesis.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
DONE = "done"  # what the load says after an orderly end
FEED_QUIET_S = 0.5  # longer than the publisher needs for what is under way


class NoJournalError(RuntimeError):
    """The exchange keeps no journal: nothing can survive a kill."""


class RunFailedError(RuntimeError):
    """A process of ours did not start or did not live; the message says which."""


@dataclass
class Result:
    """What a run gave."""

    settings: Settings
    counts: dict[str, int]  # of the load
    faults: list[Fault]
    findings: Findings
    stop_code: int
    problems: list[str] = field(default_factory=list)  # beside the checker's violations

    @property
    def good(self) -> bool:
        return self.findings.good and not self.problems

    def summary(self) -> dict[str, object]:
        """The figures: what was done and how long it was felt, in seconds."""
        recoveries: dict[str, list[float]] = {}
        for fault in self.faults:
            if not fault.overtaken:
                recoveries.setdefault(fault.kind, []).append(round(fault.recovery_s, 4))
        return {
            "good": self.good,
            "seed": self.settings.seed,
            "faults": Counter(fault.kind for fault in self.faults),
            "recovery_s": recoveries,
            "feed_s": [round(fault.feed_s, 4) for fault in self.faults],
            "load": self.counts,
            "checked": dict(self.findings.counts),
            "violations": dict(self.findings.totals),
            "problems": self.problems,
        }

    def text(self) -> str:
        """All of it, for people."""
        alone = [fault for fault in self.faults if not fault.overtaken]
        recoveries = sorted(f.recovery_s for f in alone if f.recovery_s >= 0)
        lines = [f"seed {self.settings.seed}: {len(self.faults)} faults, {self.counts}"]
        for fault in self.faults:
            lines.append(
                f"  {fault.kind:10} {','.join(fault.names)[:40]:40} back {fault.back_s:6.2f} s,"
                f" acknowledged after {fault.recovery_s:6.3f} s, feed after {fault.feed_s:6.3f} s"
                + " (overtaken by the next)"
                * fault.overtaken
            )
        if recoveries:
            half = recoveries[len(recoveries) // 2]
            lines.append(f"recovery: median {half:.3f} s, longest {recoveries[-1]:.3f} s")
        lines += [f"PROBLEM: {problem}" for problem in self.problems]
        return "\n".join([*lines, self.findings.text()])


class Helper:
    """A process of ours that talks by lines and ends with its standard input."""

    def __init__(self, *arguments: str) -> None:
        self.name = arguments[0].rpartition(".")[2]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def hear(self) -> str:
        """Its next line; it has deadlines of its own."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self) -> None:
        """One line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write("end\n")
        self.process.stdin.flush()

    def check(self) -> None:
        """Raise when it has ended."""
        if self.process.poll() is not None:
            raise RunFailedError(f"the {self.name} ended with {self.process.returncode}")

    def close(self) -> None:
        """End it and wait."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.close()
            self.process.wait(10)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@contextmanager
def helper(*arguments: str, ready: str) -> Iterator[Helper]:
    """Start a helper, wait until it is ready, end it."""
    process = Helper(*arguments)
    try:
        word = process.hear()
        if word != ready:
            raise RunFailedError(f"the {process.name} says {word!r}")
        yield process
    finally:
        process.close()


def run_nemesis(settings: Settings, folder: Path) -> Result:
    """Do the whole run in an empty folder. NoJournalError when faults are asked for and there is
    no journal to survive them.
    """
    settings = unique(settings.check())
    data = folder / checker.DATA
    data.mkdir(parents=True, mode=0o700)
    exchange = Exchange(settings, data)
    with ExitStack() as stack:
        ports = [str(port) for port in settings.feed_ports]
        where = (str(folder / checker.CAPTURE), settings.feed_group, "127.0.0.1", *ports)
        recorder = stack.enter_context(
            helper("tests.system.checker.recorder", *where, ready="recording")
        )
        stack.callback(exchange.stop)
        exchange.start()
        settings = replace(settings, resume=exchange.has_journal)
        if settings.kills and not exchange.has_journal:
            raise NoJournalError(
                f"the exchange has no {s.JOURNAL_PROCESS}0, only {sorted(exchange.children())}"
            )
        settings.write(folder / "settings.json")
        Expect(accounts=settings.accounts).write(folder / checker.EXPECT)
        faults, problem = _under_load(settings, exchange, recorder, folder)
        if problem != DONE:  # nothing was cancelled, and not everybody heard all there was
            unfinished = Expect(settings.accounts, whole=False, flat=False)
            unfinished.write(folder / checker.EXPECT)
        time.sleep(FEED_QUIET_S)
        stop_code = exchange.stop()
    return _judge(settings, folder, faults, problem, stop_code)


def _under_load(
    settings: Settings, exchange: Exchange, recorder: Helper, folder: Path
) -> tuple[list[Fault], str]:
    with helper("tests.system.nemesis.load", str(folder), ready="ready") as load:

        def check_alive() -> None:
            load.check()
            recorder.check()

        nemesis = Nemesis(exchange, folder, check_alive)
        began = time.monotonic()
        try:
            nemesis.run(plan(settings))
            nemesis.wait(max(began + settings.seconds, time.monotonic() + s.LAST_FAULT_S))
        except (RuntimeError, OSError) as error:
            # It did not start again, or ended by itself. What is there by now is judged all the
            # same: it may say why.
            return nemesis.done, f"given up: {error}"
        load.tell()
        return nemesis.done, load.hear()


def _judge(
    settings: Settings, folder: Path, faults: list[Fault], word: str, stop_code: int
) -> Result:
    findings = checker.check_run(folder)
    logs = read_logs(folder / checker.CLIENTS, Findings())
    measure(faults, logs, list(read_capture(folder / checker.CAPTURE)))
    counted = folder / "result.json"
    counts = json.loads(counted.read_text())["counts"] if counted.exists() else {}
    result = Result(settings, counts, faults, findings, stop_code)
    if word != DONE:
        result.problems.append(f"the run: {word}")
    if stop_code:
        result.problems.append(f"the exchange ended with {stop_code}")
    for fault in faults:
        if fault.back_s < 0:
            result.problems.append(f"{fault.names[0]} did not come back")
        whole = fault.kind in s.WHOLE_KINDS
        felt = fault.recovery_s - (fault.back_s if whole else 0.0)
        if not fault.overtaken and (fault.recovery_s < 0 or felt > s.RECOVERY_S_MAX):
            text = f"{fault.kind} {fault.names[0]}: acknowledged after {fault.recovery_s:.1f} s"
            result.problems.append(text)
    result.problems += [text for text in counts if text.startswith("not understood")]
    (folder / "summary.json").write_text(json.dumps(result.summary(), indent=1) + "\n")
    return result
