"""`run.py doctor`: is this machine fit for the exchange? Cold; leaves nothing behind.

Each check gives a mark, a name and a sentence. `bad` means that the exchange will not run, `note`
that it runs but something costs speed or room; the exit code is 1 if anything is bad.
"""

import os
import platform
import resource
import shutil
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cli.common import load

if TYPE_CHECKING:
    from engine.config import Config

PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 14)
FILES_NEEDED = 4096  # sockets of the gateway's connections_max, and some
MULTICAST_WAIT_S = 1.0
MIB = 1 << 20


class Finding(NamedTuple):
    """One line of the diagnosis. mark: ok, note or bad."""

    mark: str
    name: str
    sentence: str


def platform_refusal() -> str:
    """Say why the exchange cannot run here at all; empty when it can."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return (
            f"Ringbook runs on Linux x86-64 (futexes, eventfds, POSIX shared memory); this is "
            f"{platform.system()} {platform.machine()}"
        )
    if not PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW:
        return (
            f"Ringbook needs Python 3.11, 3.12 or 3.13; this is {platform.python_version()}. "
            "`make run PYTHON=/path/to/python3.12` uses another one"
        )
    return ""


def check_platform() -> Finding:
    """Linux x86-64 and a supported Python."""
    refusal = platform_refusal()
    if refusal:
        return Finding("bad", "platform", refusal)
    words = f"Linux {platform.release()} {platform.machine()}, Python {platform.python_version()}"
    return Finding("ok", "platform", words)


def check_cores() -> Finding:
    """Cores this process may use, which taskset and containers may have cut."""
    cores = sorted(os.sched_getaffinity(0))
    words = f"{len(cores)} usable ({', '.join(map(str, cores[:16]))}) of {os.cpu_count()}"
    if len(cores) < 2:
        return Finding("note", "cores", f"{words}; it runs, but shard and gateway take turns")
    if len(cores) < 4:
        return Finding("ok", "cores", f"{words}; processes share cores and park when idle")
    return Finding("ok", "cores", f"{words}; enough for a core to each busy process")


def check_governor() -> Finding:
    """CPU frequency governor, where the machine has one."""
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    try:
        governor = path.read_text().strip()
    except OSError:
        return Finding(
            "ok", "governor", "no frequency scaling to be seen (usual in a virtual machine)"
        )
    if governor != "performance":
        words = f"{governor}: latencies will wander; as root: cpupower frequency-set -g performance"
        return Finding("note", "governor", words)
    return Finding("ok", "governor", governor)


def segment_bytes(config: "Config") -> int:
    """Shared memory that the configuration takes, generously rounded."""
    from engine.records import BOOK_TOP, COMMAND, EVENT_SLOT

    shards = config.shards or max(1, len(os.sched_getaffinity(0)) - 1)
    rings, limits = config.rings, config.shard
    commands = rings.producers * rings.command_capacity * COMMAND.itemsize
    events = rings.event_capacity * EVENT_SLOT.itemsize
    tops = limits.symbols_max * BOOK_TOP.itemsize
    return shards * (commands + events + tops) + 16 * MIB


def check_shared_memory(config: "Config") -> Finding:
    """Room in /dev/shm for the segments, which are allocated whole."""
    try:
        usage = shutil.disk_usage("/dev/shm")
    except OSError as error:
        return Finding("bad", "/dev/shm", f"not usable: {error.strerror}; mount a tmpfs there")
    need = segment_bytes(config)
    words = f"{usage.free // MIB:,} MiB free, this configuration takes about {need // MIB:,}"
    if usage.free < need:
        words += "; enlarge it (docker run --shm-size=512m) or lower the [rings] capacities"
        return Finding("bad", "/dev/shm", words)
    return Finding("ok", "/dev/shm", words)


def check_limits() -> Finding:
    """Open files and locked memory."""
    files, files_hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < FILES_NEEDED:
        can = "ulimit -n 4096 raises it" if files_hard >= FILES_NEEDED else "ask root to raise it"
        words = f"{files} open files: fewer connections than the gateway would take; {can}"
        return Finding("note", "ulimits", words)
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    locked_words = "unlimited" if locked == resource.RLIM_INFINITY else f"{locked // 1024:,} KiB"
    return Finding("ok", "ulimits", f"{files:,} open files, {locked_words} lockable memory")


def check_port(config: "Config") -> Finding:
    """Whether the order port is free, or who is likely to hold it."""
    network = config.network
    where = f"{network.host}:{network.port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((network.host, network.port))
        except OSError as error:
            words = (
                f"{where} cannot be bound ({error.strerror}): is an exchange running? run.py top"
            )
            return Finding("note", "order port", words)
    return Finding("ok", "order port", f"{where} is free")


def check_multicast(config: "Config") -> Finding:
    """Send a datagram to ourselves through the feed's group and interface."""
    network = config.network
    interface = socket.inet_aton(network.feed_interface)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        try:
            receiver.bind((network.feed_group, 0))
            joined = struct.pack("4s4s", socket.inet_aton(network.feed_group), interface)
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
            receiver.settimeout(MULTICAST_WAIT_S)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            probe = os.urandom(8)
            sender.sendto(probe, (network.feed_group, receiver.getsockname()[1]))
            arrived = receiver.recv(64) == probe
        except TimeoutError:
            arrived = False
        except OSError as error:
            return Finding("bad", "multicast", f"{network.feed_group} not usable: {error.strerror}")
    via = f"{network.feed_group} via {network.feed_interface}"
    if not arrived:
        return Finding("bad", "multicast", f"a datagram sent to {via} did not come back")
    return Finding("ok", "multicast", f"a datagram to {via} comes back")


def check_receive_buffer() -> Finding:
    """How much a listener may buffer while it is busy."""
    most = int(Path("/proc/sys/net/core/rmem_max").read_text())
    if most < MIB:
        words = (
            f"{most // 1024} KiB: a slow listener loses datagrams; sysctl net.core.rmem_max=8388608"
        )
        return Finding("note", "socket buffer", words)
    return Finding("ok", "socket buffer", f"up to {most // 1024:,} KiB")


def check_disk(config: "Config") -> Finding:
    """Whether the data directory's file system keeps what it is told, and how quickly."""
    from cli.doctor_disk import judge, look
    from cli.up import data_directory

    directory = data_directory(config)
    mark, sentence = judge(config, directory, look(directory))
    return Finding(mark, "data directory", sentence)


def check_packages() -> Finding:
    """The packages the exchange stands on."""
    from importlib.metadata import PackageNotFoundError, version

    names = ("numpy", "numba", "llvmlite", "posix_ipc", "uvloop", "orjson", "typer", "rich")
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding(
            "bad", "packages", f"missing: {', '.join(missing)}; `make run` installs them"
        )
    return Finding("ok", "packages", ", ".join(found))


def diagnose(config: "Config") -> list[Finding]:
    """Run all checks."""
    plain: list[Callable[[], Finding]] = [check_platform, check_cores, check_governor, check_limits]
    with_config = [check_shared_memory, check_disk, check_port, check_multicast]
    findings = [check() for check in plain]
    findings += [check(config) for check in with_config]
    return [*findings, check_receive_buffer(), check_packages()]


def command(path: Path | None) -> int:
    """Print the diagnosis; give 1 if something is bad."""
    refusal = platform_refusal()
    if refusal:
        print(f"bad   platform       {refusal}")
        return 1
    findings = diagnose(load(path))
    for mark, name, sentence in findings:
        print(f"{mark:5} {name:14} {sentence}")
    bad = sum(finding.mark == "bad" for finding in findings)
    print(f"\n{bad} reason(s) not to start." if bad else "\nReady: run.py demo")
    return 1 if bad else 0
