"""Where the owner of an instance can be asked: for descriptors, for its health, by an operator.

Cold; made by the supervisor with the instance, served between two looks at its children.

    <runtime>/<instance>.sock       parts started apart get the descriptors (engine/instance.py)
    http://health_host:port         liveness and readiness (engine/health.py)
    <runtime>/<instance>.operator   phases and rules (engine/operator_door.py)
"""

from collections.abc import Callable

from engine.health import HealthServer, look_at
from engine.instance import DescriptorServer, Instance
from engine.operator_door import OperatorDoor
from engine.shm_ring import Producer


class OwnerSockets:
    """All of them."""

    def __init__(
        self,
        instance: Instance,
        ready: Callable[[], bool],
        producer: Callable[[], Producer | None],
        tell: Callable[[str], None],
    ) -> None:
        self.descriptors = DescriptorServer(instance, ready)
        self.health = _health(instance, tell)
        self.operator = OperatorDoor(instance, lambda: producer() if ready() else None, tell)

    def serve_once(self) -> None:
        """Answer whoever asks; never blocks for long."""
        self.descriptors.serve_once()
        if self.health is not None:
            self.health.serve_once()
        self.operator.serve_once()

    def forget(self) -> None:
        """Let go of the descriptors: this is a child."""
        self.descriptors.socket.close()
        if self.health is not None:
            self.health.close()
        self.operator.forget()

    def close(self) -> None:
        """Stop answering and remove the sockets."""
        self.descriptors.close()
        if self.health is not None:
            self.health.close()
        self.operator.close()


def _health(instance: Instance, tell: Callable[[str], None]) -> HealthServer | None:
    network = instance.config.network
    if network.health_port < 0:
        return None
    # An exchange on any free port has its endpoint on any free one, too.
    port = network.health_port if network.port else 0
    look = look_at(instance.counters, instance.gates)
    try:
        return HealthServer(network.health_host, port, look)
    except OSError as error:
        tell(f"ringbook: no health endpoint on {network.health_host}:{port}: {error.strerror}\n")
        return None
