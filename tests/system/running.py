"""An exchange of one's own for a test module: own name, own multicast group, any free port."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.background import start_in_background
from engine.config import Config, load_config
from gateway.client import Client

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Running:
    """A running exchange, and how to start a command beside it."""

    config: Config
    file: Path

    @property
    def port(self) -> int:
        return self.config.network.port

    def client(self, account: str = "demo", **options: str) -> Client:
        """Return a client of it, not yet connected."""
        return Client(port=self.port, account=account, token=account, **options)  # type: ignore[arg-type]

    def run(
        self, *words: str, stdin: str = "", timeout_s: float = 100, connects: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run one command with its configuration."""
        where = ["--config", str(self.file), *(["--port", str(self.port)] if connects else [])]
        return subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *words, *where],
            cwd=ROOT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "TERM": "dumb", "COLUMNS": "160"},
        )


def configuration(folder: Path, extra: str = "") -> Path:
    """Write a configuration that meets no other exchange of this machine."""
    unique = uuid.uuid4().int
    group = f"239.255.{71 + unique % 180}.{1 + unique // 180 % 250}"
    path = folder / "ringbook.toml"
    path.write_text(
        f'instance = "s{os.getpid()}_{unique % 10**8}"\nshards = 1\n{extra}\n'
        f'[network]\nport = 0\nfeed_group = "{group}"\nfeed_port = 9500\ndirectory_port = 9499\n'
    )
    return path


@contextmanager
def running_exchange(folder: Path, extra: str = "") -> Iterator[Running]:
    """Start an exchange, stop it at the end."""
    path = configuration(folder, extra)
    with start_in_background(load_config(path)) as handle:
        yield Running(handle.config, path)
