"""Liveness and readiness over HTTP, for whoever runs the exchange as a service.

Cold; served by the supervisor between two looks at its children, one request at a time, each bound
in time, on its own address (loopback by default) and never on the path of an order.

    GET /live     200 while the supervisor watches
    GET /ready    200 when every shard serves and its journal keeps up; else 503; the body says
                  which process is in which state, as JSON
"""

import contextlib
import http.server
import time
from collections.abc import Callable
from typing import Any

import orjson

from engine.counters import Counters, State

REQUEST_S_MAX = 0.2
HEARTBEAT_DEAD_NS = 2_000_000_000
NEEDED = ("shard", "journal", "gateway")


def readiness(counters: Counters, gates: list[bool], now_ns: int) -> tuple[bool, dict[str, Any]]:
    """Return (ready, what every process does). `gates`: per shard whether its gate is closed."""
    processes: dict[str, Any] = {}
    ready = True
    for name, block in counters.blocks.items():
        state = State(block.get("state"))
        age_ns = now_ns - block.get("heartbeat_ns")
        processes[name] = {"state": state.name, "heartbeat_age_ms": age_ns // 1_000_000}
        serves = state == State.RUNNING and age_ns < HEARTBEAT_DEAD_NS
        if name.startswith(NEEDED) and not serves and state != State.ABSENT:
            ready = False
    shut = [shard for shard, closed in enumerate(gates) if closed]
    return ready and not shut, {"ready": ready and not shut, "processes": processes, "gated": shut}


class HealthServer:
    """The endpoint; `serve_once` answers whoever is waiting and never blocks for long."""

    def __init__(
        self, host: str, port: int, look: Callable[[], tuple[bool, dict[str, Any]]]
    ) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = REQUEST_S_MAX

            def do_GET(self) -> None:
                ready, body = look()
                known = self.path in ("/live", "/ready")
                status = 404 if not known else 200 if ready or self.path == "/live" else 503
                text = orjson.dumps(body if known else {"error": "ask /live or /ready"})
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                """Say nothing: a probe asks every second."""

        class Server(http.server.HTTPServer):
            def handle_error(self, *_: Any) -> None:
                """A prober that went away or never spoke is no error of ours."""

        self.server = Server((host, port), Handler)
        self.server.timeout = 0

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def serve_once(self) -> None:
        """Answer one request, if there is one."""
        with contextlib.suppress(OSError):
            self.server.handle_request()

    def close(self) -> None:
        """Stop answering."""
        self.server.server_close()


def look_at(counters: Counters, gates: Callable[[], list[bool]]) -> Callable[[], Any]:
    """Return what a HealthServer asks."""
    return lambda: readiness(counters, gates(), time.monotonic_ns())
