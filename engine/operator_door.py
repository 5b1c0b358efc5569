"""The operator's door: a Unix socket where whoever runs the exchange asks the supervisor to change
phases and rules (engine/operator_verbs.py has the verbs; `run.py operator` is the other end).

Cold; served by the supervisor between two looks at its children, never blocking. Only the user who
runs the exchange gets in: the socket is 0600 in a 0700 directory, and the kernel is asked who the
caller is. One JSON object a message (SOCK_SEQPACKET), one answer each, in order.

    <runtime>/<instance>.operator

    request -> verb -> command into the supervisor's ring -> shard, journal -> its event -> answer

How an answer is told among all events: a refusal repeats the command's `client_order_id`, a number
nobody else uses; any other event of the command carries its producer_seq in the receipt. The door
copies events as any reader does, and registers nowhere: it slows nobody down, and when it is lapped
it looks on from where the ring is.

Bounds: CALLERS_MAX callers, MESSAGE_BYTES a message, ANSWER_S for a shard's answer, IDLE_S for a
caller that says nothing. What was sent is not taken back: a command without an answer in time may
still run, and the answer says so.
"""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from engine.codes import RejectCode
from engine.counters import State
from engine.event_ring import events_copy
from engine.instance import Instance, runtime_directory
from engine.operator_verbs import VERBS, Answer, Errand, Market, Refused, Task
from engine.records import EVENT_SLOT
from engine.shm_ring import Producer

CALLERS_MAX, MESSAGE_BYTES = 8, 1 << 16
ANSWER_S, IDLE_S = 5.0, 30.0
CLIENT_S = 3 * ANSWER_S
HEARTBEAT_DEAD_NS = 2_000_000_000
LOOK_EVENTS = 512  # copied at a time
OWNERS = frozenset({os.getuid(), 0})
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def door_path(instance: str) -> Path:
    """Where the door of an instance is."""
    return runtime_directory() / f"{instance}.operator"


@dataclass
class Sent:
    """An errand that is under way."""

    errand: Errand
    number: int  # client_order_id of its command
    position: int  # producer_seq of its command
    cursor: int  # in the shard's event ring
    answer: Answer | None = None


@dataclass
class Caller:
    """One connection."""

    socket: socket.socket
    pid: int
    heard: float
    verb: str = ""
    task: Task | None = None
    sent: list[Sent] = field(default_factory=list)
    until: float = 0.0


class OperatorDoor:
    """The owner's end."""

    def __init__(
        self,
        instance: Instance,
        producer: Callable[[], Producer | None],
        tell: Callable[[str], None],
    ) -> None:
        self.market = Market(instance.config, instance)
        self.instance, self.producer, self.tell = instance, producer, tell
        self.callers: list[Caller] = []
        self.numbers = time.time_ns()
        self._copies = np.zeros(LOOK_EVENTS, EVENT_SLOT)
        self.path = door_path(instance.config.instance)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()  # ours: we hold the lock of this name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind(str(self.path))
        self.path.chmod(0o600)
        self.socket.listen(CALLERS_MAX)
        self.socket.setblocking(False)

    def forget(self) -> None:
        """Let go of the descriptors: this is a child, the door is the supervisor's."""
        for caller in self.callers:
            caller.socket.close()
        self.socket.close()

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self.forget()
        self.callers = []
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def serve_once(self) -> None:
        """Let in, hear, look for answers, answer: whatever can be done now."""
        self._let_in()
        for caller in list(self.callers):
            try:
                if caller.task is None:
                    self._hear(caller)
                if caller.task is not None:
                    self._look(caller)
            except (OSError, EOFError):
                self._hang_up(caller)  # it went away: nobody waits for the answer

    # ---------------------------------------------------------------------------------- connections
    def _let_in(self) -> None:
        while len(self.callers) < CALLERS_MAX:
            try:
                connection, _ = self.socket.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, uid, _ = _CREDENTIALS.unpack(raw)
            if uid not in OWNERS:
                connection.close()
                continue
            self.callers.append(Caller(connection, pid, time.monotonic()))

    def _hear(self, caller: Caller) -> None:
        try:
            message = caller.socket.recv(MESSAGE_BYTES)
        except BlockingIOError:
            if time.monotonic() - caller.heard > IDLE_S:
                raise EOFError from None
            return
        if not message:
            raise EOFError
        caller.heard = time.monotonic()
        try:
            self._begin(caller, message)
        except Refused as refused:
            self._answer(caller, refused.answer)

    def _hang_up(self, caller: Caller) -> None:
        caller.socket.close()
        self.callers.remove(caller)

    # ------------------------------------------------------------------------------------- requests
    def _begin(self, caller: Caller, message: bytes) -> None:
        try:
            request = orjson.loads(message)
        except orjson.JSONDecodeError as error:
            raise Refused(RejectCode.MALFORMED, f"not JSON: {error}") from error
        if not isinstance(request, dict):
            raise Refused(RejectCode.MALFORMED, "a request is one JSON object")
        caller.verb = str(request.get("verb"))
        if caller.verb not in VERBS:
            known = ", ".join(VERBS)
            raise Refused(RejectCode.BAD_FIELD, f"no verb {caller.verb!r}; there are {known}")
        producer = self.producer()
        if producer is None:
            raise Refused(RejectCode.UNAVAILABLE, "the exchange is starting: try again")
        found = VERBS[caller.verb](self.market, request)
        if isinstance(found, dict):
            self._answer(caller, found)
            return
        self._send(caller, found, producer)
        stated = " ".join(str(value) for key, value in request.items() if key != "verb")
        self.tell(f"ringbook: operator (pid {caller.pid}): {caller.verb} {stated}\n")

    def _send(self, caller: Caller, task: Task, producer: Producer) -> None:
        for errand in task.errands:
            self._refuse_down(errand.shard)
        sent: list[Sent] = []
        for errand in task.errands:
            shard = errand.shard
            self.numbers += 1
            errand.record["client_order_id"] = self.numbers
            cursor = self.instance.event_rings.committed(shard)
            if producer.push(shard, errand.record) != 1:
                why = (
                    self.instance.gate_reason(shard) if self._gated(shard) else "its queue is full"
                )
                done = f"; shards before it: {len(sent)} of {len(task.errands)}" if sent else ""
                raise Refused(RejectCode.BUSY, f"shard {shard} takes nothing now, {why}{done}")
            sent.append(Sent(errand, self.numbers, producer.position[shard], cursor))
        caller.task, caller.sent = task, sent
        caller.until = time.monotonic() + ANSWER_S

    def _gated(self, shard: int) -> bool:
        gates = self.instance.gates()
        return bool(gates) and gates[shard]

    def _refuse_down(self, shard: int) -> None:
        block = self.instance.counters.block(f"shard{shard}")
        state = State(block.get("state"))
        silent = time.monotonic_ns() - block.get("heartbeat_ns") > HEARTBEAT_DEAD_NS
        if state != State.RUNNING or silent:
            word = "silent" if state == State.RUNNING else state.name.lower()
            raise Refused(
                RejectCode.UNAVAILABLE, f"shard {shard} is {word}: nothing was changed (run.py top)"
            )

    # -------------------------------------------------------------------------------------- answers
    def _look(self, caller: Caller) -> None:
        assert caller.task is not None
        try:
            for sent in caller.sent:
                if sent.answer is None:
                    self._look_for(sent)
            answers = [sent.answer for sent in caller.sent if sent.answer is not None]
            if len(answers) == len(caller.sent):
                self._answer(caller, caller.task.whole(answers))
            elif time.monotonic() > caller.until:
                late = [str(sent.errand.shard) for sent in caller.sent if sent.answer is None]
                raise Refused(
                    RejectCode.UNAVAILABLE,
                    f"no answer of shard {', '.join(late)} within {ANSWER_S:g} s; the command is in"
                    " its queue and may still run: look with run.py operator instruments",
                )
        except Refused as refused:
            self._answer(caller, refused.answer)

    def _look_for(self, sent: Sent) -> None:
        rings, shard = self.instance.event_rings, sent.errand.shard
        copies = self._copies
        while sent.answer is None:
            count, lapped = events_copy(
                rings.ctrl, rings.slot_words, shard, rings.capacity, sent.cursor,
                copies.view(np.int64),
            )  # fmt: skip
            if lapped:
                sent.cursor = rings.committed(shard)
                continue
            for event in copies[:count]:
                sent.answer = sent.errand.ends(event, _is_of(event, sent))
                if sent.answer is not None:
                    return
            sent.cursor += int(count)
            if count < len(copies):
                return

    def _answer(self, caller: Caller, answer: Answer) -> None:
        caller.task, caller.sent = None, []
        caller.socket.send(orjson.dumps(answer))


def _is_of(event: Any, sent: Sent) -> bool:
    # A refusal repeats the number; all else has the command's place in the ring in its receipt.
    number = int(event["client_order_id"])
    if number:
        return number == sent.number
    return int(event["receipt_producer_seq"]) == sent.position


def ask(instance: str, request: dict[str, Any]) -> Answer:
    """Ask the door of a running instance; ConnectionError says why there is no answer."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caller.settimeout(CLIENT_S)
    with caller:
        try:
            caller.connect(str(door_path(instance)))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ConnectionError(
                f"no exchange called {instance!r} is running here; start one with: run.py up"
            ) from error
        caller.send(orjson.dumps(request))
        try:
            message = caller.recv(MESSAGE_BYTES)
        except TimeoutError as error:
            raise ConnectionError(f"the exchange {instance!r} does not answer") from error
    if not message:
        raise ConnectionError(f"the exchange {instance!r} hung up: it belongs to another user")
    answer: Answer = orjson.loads(message)
    return answer
