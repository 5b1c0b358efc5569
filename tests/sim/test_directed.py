"""What seeds have found, as stories of their own: one fault at one moment, no dice for the rest."""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np
import orjson
import pytest

from engine.book_state import INCARNATION_NUMBER
from engine.records import EVENT_SLOT
from engine.snapshot import snapshot_list, snapshot_load
from engine.staging import DURABLE, GATE_CLOSED, STAGED
from gateway.session import Stage
from tests.sim.model_client import Pending
from tests.sim.processes import FollowerSim
from tests.sim.sim_time import NS, installed
from tests.sim.world import World

CALM = {
    "mode": "batch", "shards": 1, "clients": 3, "batch_max": 8, "slice_events": 200,
    "command_capacity": 256, "staging_capacity": 1024, "segment_bytes": 262_144,
    "snapshot_commands": 10**9, "orders_max": 512, "sync_ms": 10, "split": 0.0, "step_ns": 500_000,
    "kill_shard": 0, "kill_journal": 0, "kill_follow": 0, "kill_gateway": 0, "kill_feed": 0,
    "kill_all": 0, "power_cut": 0, "clean_stop": 0, "pause": 0, "disk_error": 0, "net_cut": 0,
    "clock_jump": 0, "quiet": 0, "crash_share": 0, "in_disk_share": 0,
}  # fmt: skip

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


def story(tell: Callable[[World], None], **knobs: object) -> None:
    """A calm exchange, what `tell` does to it, then rest and verdict."""
    world = World(1, CALM | knobs)
    with installed(world.clock, world.machine.boot_id, world.feed.hear):
        trade(world, 100)
        tell(world)
        world._liveness()
        world._verdict()


def trade(world: World, actions: int) -> None:
    """Clients send some requests."""
    done = 0
    for _ in range(100 * actions):
        done += world._turn(act=True)
        if done >= actions:
            return
    raise AssertionError("nobody could trade")


def turns(world: World, until: Callable[[], bool], *, act: bool = False) -> None:
    """Time passes until something is so."""
    for _ in range(5000):
        if until():
            return
        world._turn(act=act)
    raise AssertionError("it never came to that")


def owner(world: World) -> FollowerSim:
    """The process that has the shard, once there is one."""
    return next(p for p in world.machine.alive("shard") if getattr(p, "runner", None))  # type: ignore[return-value]


def has_owner(world: World) -> bool:
    """Whether the shard has one."""
    return any(getattr(p, "runner", None) for p in world.machine.alive("shard"))


def test_a_follower_comes_back_when_the_one_that_took_over_dies_at_once() -> None:
    def tell(world: World) -> None:
        turns(world, lambda: bool(world.machine.alive("follow")), act=True)
        owner(world).end(-9)
        follower = world.machine.alive("follow")[0]
        while getattr(follower, "runner", None) is None:
            world.machine.step_supervisor()
            follower.step()
        follower.end(-9)  # before the supervisor has seen that it serves
        turns(world, lambda: bool(world.machine.alive("follow")))

    story(tell)


def test_a_new_owner_opens_the_gate_that_the_dead_one_had_closed() -> None:
    def tell(world: World) -> None:
        staging = world.machine.instance.staging  # type: ignore[union-attr]
        assert staging is not None
        journal = world.machine.alive("journal")[0]
        journal.paused_until = world.clock.steady + 3 * NS
        turns(world, lambda: staging.get(0, GATE_CLOSED) == 1, act=True)
        journal.paused_until = 0
        owner(world).end(-9)
        while staging.get(0, DURABLE) != staging.get(0, STAGED):
            world.clock.pass_(10_000_000)
            journal.step()

    story(tell)


def test_a_new_owner_does_not_begin_the_loss_window_anew() -> None:
    def tell(world: World) -> None:
        staging = world.machine.instance.staging  # type: ignore[union-attr]
        assert staging is not None
        trade(world, 50)
        world.machine.alive("journal")[0].paused_until = world.clock.steady + 10 * NS
        trade(world, 20)
        owner(world).end(-9)
        turns(world, lambda: has_owner(world))
        world._turn(act=True)
        staged = staging.get(0, STAGED)
        for _ in range(50):
            world._turn(act=True)
        assert staging.get(0, STAGED) == staged
        world.machine.alive("journal")[0].paused_until = 0

    story(tell)


def test_logons_go_on_when_the_clock_was_set_back() -> None:
    def tell(world: World) -> None:
        world.machine.kill_all()
        world.clock.shift -= 3600 * NS
        trade(world, 100)

    story(tell)


def test_a_renewal_is_made_good_when_its_start_has_died() -> None:
    def tell(world: World) -> None:
        machine = world.machine
        machine.power_cut()
        machine.start()
        assert machine.supervisor is not None
        assert machine.supervisor.directory is not None
        number = machine.supervisor.directory.manifest.incarnation
        machine.kill_all()  # the manifest is written, no shard was told
        turns(world, lambda: machine.serving)
        turns(world, lambda: has_owner(world))
        state = owner(world).runner.shard.state  # type: ignore[union-attr]
        assert int(state.hdr[INCARNATION_NUMBER]) == number

    story(tell)


def test_the_data_directory_outlives_a_power_cut() -> None:
    def tell(world: World) -> None:
        turns(world, lambda: world.observer.stories[0].records.count > 50, act=True)
        staging = world.machine.instance.staging  # type: ignore[union-attr]
        assert staging is not None
        turns(world, lambda: staging.get(0, DURABLE) > 50, act=True)
        world._power_cut("power_cut")

    for _ in range(3):
        story(tell)


def test_a_snapshot_names_the_crc_of_its_last_command() -> None:
    def tell(world: World) -> None:
        follower = world.machine.alive("follow")[0]
        follower.paused_until = world.clock.steady + 600 * NS
        trade(world, 1500)  # more events than one run of the replay takes
        follower.paused_until = 0
        before = world.machine.own_disk
        turns(world, lambda: bool(snapshot_list(before, "/data", 0)))
        for in_seq in snapshot_list(before, "/data", 0):
            loaded = snapshot_load(
                before, "/data", 0, world.config.shard, memory=None,
                events=np.zeros(world.config.rings.event_capacity, EVENT_SLOT),
            )  # fmt: skip
            assert loaded is not None
            extra = loaded[1]
            record = world.observer.stories[0].records.all[extra.in_seq - 1]
            assert extra.chain_crc == int(record["crc"]), in_seq

    story(tell, snapshot_commands=40, slice_events=40, orders_max=64)


def test_what_a_failed_sync_has_left_in_the_cache_is_written_again() -> None:
    def tell(world: World) -> None:
        machine = world.machine
        trade(world, 50)
        machine.disk_faulty = True
        machine.disk.fail(1, errno.EIO, names=("fdatasync",))
        turns(world, world._storage_failed, act=True)
        machine.kill_all()  # started again on the same boot: the pages count as clean
        turns(world, lambda: machine.serving)
        trade(world, 50)
        world._power_cut("power_cut")

    story(tell, mode="sync")


def test_the_end_of_a_lost_connection_is_not_the_answer_to_a_lost_mass_cancel() -> None:
    def tell(world: World) -> None:
        client, net = world.clients[0], world.machine.net
        client.resume_share, client.options = 1.0, {"cancel_on_disconnect": "all"}
        assert client.link is not None
        net.cut(client.link)
        turns(world, lambda: not client.logged_on)
        turns(world, lambda: client.logged_on and not client.pending)
        number = client.last_id = client.last_id + 1
        line = {"type": "mass_cancel", "symbol": client.who.symbols[0], "id": number}
        asked = Pending(number, "mass", client.who.shards[0], 0, orjson.dumps(line) + b"\n")
        client.pending[number] = asked
        client._send(asked)
        lost = client.link
        lost.up.clear()
        net.cut(lost)

        def told_what_was_missed() -> bool:
            link = client.link
            if link is None or not client.logged_on or link is lost:
                return False
            link.up.clear()  # nor does the repetition arrive
            return not client._behind(0)

        turns(world, told_what_was_missed)
        assert number in client.pending, "what cancelled its orders was not this request"
        net.cut(client.link)

    story(tell)


def test_the_refusal_of_what_an_old_connection_sent_is_not_the_answer_to_its_repetition() -> None:
    def tell(world: World) -> None:
        client, desk = world.clients[0], world.machine.alive("gateway")[0].desk  # type: ignore[attr-defined]
        turns(world, lambda: client.logged_on and not client.pending)
        older, shard = client.link, owner(world)
        number = client.last_id = client.last_id + 1
        line = {"type": "new", "symbol": client.who.symbols[0], "side": "buy", "qty": 1, "price": 1}
        sent = orjson.dumps(line | {"id": number}) + b"\n"
        client.pending[number] = Pending(number, "new", client.who.shards[0], 0, sent)
        client.lose()
        client.connect()
        shard.paused_until = 1 << 62
        turns(world, lambda: any(s.stage is Stage.OPENING for s in desk.sessions.by_logon.values()))
        assert older is not None
        assert not older.closed
        older.up += sent  # read behind the logon that takes its session over
        turns(world, lambda: not older.up)
        shard.paused_until = 0
        turns(world, lambda: client.logged_on)
        assert client.link is not None
        client.link.up.clear()  # the repetition does not arrive
        turns(world, lambda: older.closed)
        for _ in range(50):
            world._turn(act=False)
        assert number in client.pending, "this connection's request was not refused"
        world.machine.net.cut(client.link)

    story(tell)
