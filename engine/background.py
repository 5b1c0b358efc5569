"""An exchange under a supervisor process of its own: for tests, the demo and benchmarks.

Cold. The supervisor is started by exec (`run.py _supervisor`), says its configuration with the real
port on a pipe when it serves, and dies with the process that started it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from engine.child_parts import StartError, exit_word
from engine.children import die_with_parent, name_process
from engine.config import Config, config_from_mapping
from engine.supervisor import START_S_MAX
from engine.topology import ROLES, operating_errors, run_up, tell

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = "RINGBOOK_SUPERVISOR"
STOP_S_MAX = 20.0


class Handle:
    """An exchange running in processes of its own: for tests, the demo and benchmarks."""

    def __init__(self, process: subprocess.Popen[bytes], config: Config) -> None:
        self.process = process
        self.config = config

    def stop(self, timeout_s: float = STOP_S_MAX) -> int:
        """End it and wait; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def __enter__(self) -> "Handle":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_in_background(
    config: Config, roles: Sequence[str] = ROLES, timeout_s: float = START_S_MAX
) -> Handle:
    """Start an exchange under a supervisor process of its own and wait until it serves.

    network.port 0 takes any free port; the handle's config has the real one. It dies with this
    process.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    message = {
        "config": orjson.loads(config.to_json()),
        "roles": list(roles),
        "ready_fd": write_end,
        "parent": os.getpid(),
    }
    environment = {**os.environ, ENVIRONMENT: orjson.dumps(message).decode()}
    command = [sys.executable, str(ROOT / "run.py"), "_supervisor"]
    process = subprocess.Popen(
        command, env=environment, pass_fds=[write_end], stdin=subprocess.DEVNULL, cwd=ROOT
    )
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        os.set_blocking(pipe.fileno(), False)
        deadline, text = time.monotonic() + timeout_s, b""
        while not text.endswith(b"\n"):
            if process.poll() is not None or time.monotonic() > deadline:
                code = Handle(process, config).stop()
                raise StartError(f"the exchange did not start ({exit_word(code)})")
            text += pipe.read() or b""
            time.sleep(0.005)
    return Handle(process, config_from_mapping(orjson.loads(text)))


def supervisor_main() -> int:
    """Be the supervisor that `start_in_background` started: `run.py _supervisor`."""
    text = os.environ.pop(ENVIRONMENT, "")
    if not text:
        raise StartError("run.py _supervisor is started by the project's own code only")
    message = orjson.loads(text)
    die_with_parent(int(message["parent"]))
    name_process("supervisor")
    ready_fd = int(message["ready_fd"])

    def on_ready(config: Config) -> None:
        os.write(ready_fd, config.to_json() + b"\n")

    try:
        return run_up(
            config_from_mapping(message["config"]),
            set(message["roles"]),
            on_ready,
            _quiet,
            background=True,
        )
    except operating_errors() as error:
        tell(f"ringbook: {error}\n")
        return 1


def _quiet(done: int, total: int, name: str, seconds: float) -> None:
    """Report no progress."""
