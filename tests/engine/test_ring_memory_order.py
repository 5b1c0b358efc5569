"""The compiled code keeps the order of the ring protocols, here and on ARM.

x86 hides most mistakes: its loads and stores are ordered anyway, but LLVM's are not. So the IR is
read *after* optimisation: which access can follow which, over all paths (compiled_code.py). Then
the same IR is lowered to aarch64, where every acquire, release and fence must become an
instruction.
"""

import re
from typing import Any

import numpy as np
import pytest

from engine import book_top, command_ring, counters, event_ring, ring_words, segment
from engine.atomics import eventfd_signal, load_relaxed, lower_ir, store_release
from engine.jit import JIT_DISABLED, VERIFY, kernel_signatures
from engine.records import COMMAND_WORDS, EVENT_SLOT_WORDS, TOP_WORDS
from engine.shm_ring import (
    CTRL_WORDS,
    EVENT_CTRL_WORDS,
    command_clear,
    command_publish,
    command_ready,
    command_slot,
    event_commit,
    event_intend,
    event_slot,
    position_add,
    ring_release,
    ring_room,
    top_write_begin,
    top_write_end,
    wake_needed,
)
from tests.engine.compiled_code import Access, Body, on

# The code as it is shipped is read: with bounds checks there are other paths, without JIT no code.
__test__ = not (JIT_DISABLED or VERIFY)

ARM = "aarch64-unknown-linux-gnu"


def words(count: int) -> np.ndarray:
    return np.zeros(count, np.int64)


# ---------------------------------------- helpers inside kernels as the shard and gateway use them
def produce_one(ctrl, slot_words, shard_ctrl, ring, capacity, position):
    """A gateway: room, payload, publish, wake."""
    room, _ = ring_room(ctrl, ring, position, capacity, position - capacity)
    if room <= 0:
        return 0
    slot = command_slot(ring, position, capacity)
    command_clear(slot_words, slot)
    slot_words[slot * COMMAND_WORDS + 2] = 77
    command_publish(slot_words, slot, position)
    return 2 if wake_needed(shard_ctrl, 0) else 1


def consume(ctrl, slot_words, ring, capacity, position, out):
    """A shard: everything that is ready, then the slots are given back."""
    for index in range(capacity):
        slot = command_slot(ring, position_add(position, index), capacity)
        if not command_ready(slot_words, slot, position_add(position, index)):
            break
        out[index] = slot_words[slot * COMMAND_WORDS + 2]
    ring_release(ctrl, ring, position_add(position, capacity))


def write_event(ctrl, slot_words, shard, capacity, position):
    """A shard: one event."""
    base = shard * EVENT_CTRL_WORDS
    event_intend(ctrl, base, position_add(position, 1))
    first = event_slot(shard, position, capacity) * EVENT_SLOT_WORDS
    for word in range(EVENT_SLOT_WORDS):
        slot_words[first + word] = position
    event_commit(ctrl, base, position_add(position, 1))


def write_top(words, place, value):
    """A shard: the top of one book."""
    top_write_begin(words, place)
    for word in range(1, TOP_WORDS):
        words[place * TOP_WORDS + word] = value
    top_write_end(words, place)


KERNELS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ring_push": (
        command_ring.ring_push,
        (words(CTRL_WORDS), words(48), 0, 2, words(COMMAND_WORDS), 0),
    ),
    "ring_scan": (command_ring.ring_scan, (words(CTRL_WORDS), words(48), 0, 2)),
    "events_copy": (
        event_ring.events_copy,
        (words(EVENT_CTRL_WORDS), words(64), 0, 2, 0, words(EVENT_SLOT_WORDS)),
    ),
    "top_copy": (book_top.top_copy, (words(TOP_WORDS), 0, words(TOP_WORDS))),
    "sleep_prepare": (ring_words.sleep_prepare, (words(8), 0)),
    "sleep_cancel": (ring_words.sleep_cancel, (words(8), 0)),
    "wake_needed": (ring_words.wake_needed, (words(8), 0)),
    "wake_sleepers": (ring_words.wake_sleepers, (words(8), 0, np.full(8, -1))),
    "load_word": (segment.load_word, (words(8), 0)),
    "store_word": (segment.store_word, (words(8), 0, 1)),
    "counter_increase": (counters.counter_increase, (words(8), 0, 1)),
    "histogram_record_many": (
        counters.histogram_record_many,
        (words(counters.HISTOGRAM_WORDS), 0, words(4)),
    ),
    "produce_one": (produce_one, (words(CTRL_WORDS), words(48), words(16), 0, 2, 0)),
    "consume": (consume, (words(CTRL_WORDS), words(48), 0, 2, 0, words(2))),
    "write_event": (write_event, (words(EVENT_CTRL_WORDS), words(64), 0, 2, 0)),
    "write_top": (write_top, (words(TOP_WORDS), 0, 5)),
}
# Arrays that hold nothing but words two processes share: no plain access at all.
SHARED_ONLY = {"ctrl", "shard_ctrl", "flags"}
FLAG_KERNELS = ("sleep_prepare", "sleep_cancel", "wake_needed", "wake_sleepers", "load_word")
_bodies: dict[str, Body] = {}


def body(name: str) -> Body:
    if name not in _bodies:
        _bodies[name] = Body(*KERNELS[name])
    return _bodies[name]


def arm(name: str) -> list[str]:
    """Memory-ordering instructions of a kernel on ARM, in order of the text."""
    text = lower_ir(body(name).ir, ARM)
    native = text.split(".cfi_endproc")[0]
    return re.findall(r"\t(ldar|stlr|dmb\tishld|dmb\tish|ldaxr|stlxr|casal)\b", native)


def is_plain(access: Access) -> bool:
    return access.kind in ("load", "store")


def test_every_kernel_of_the_shared_memory_is_examined() -> None:
    modules = (book_top, command_ring, counters, event_ring, ring_words, segment)
    files = {module.__name__ for module in modules}
    names = [name.rpartition(".") for name in kernel_signatures()]
    found = {name for module, _, name in names if module in files}
    assert found <= set(KERNELS)
    assert len(found) >= 12


@pytest.mark.parametrize("name", KERNELS)
def test_index_words_are_never_touched_by_plain_accesses(name: str) -> None:
    for access in filter(is_plain, body(name).accesses):
        assert not access.arrays & SHARED_ONLY, access.text


@pytest.mark.parametrize(
    "name", [*FLAG_KERNELS, "store_word", "counter_increase", "histogram_record_many"]
)
def test_flags_and_counters_are_never_touched_by_plain_accesses(name: str) -> None:
    for access in filter(is_plain, body(name).accesses):
        assert "words" not in access.arrays, access.text


# ------------------------------------------------------------------------------------- command ring
@pytest.mark.parametrize("name", ["ring_push", "produce_one"])
def test_producer_acquires_room_before_it_overwrites(name: str) -> None:
    payload = on("store", "slot_words")
    assert body(name).always_between(None, on("load acquire", "ctrl"), payload)


@pytest.mark.parametrize("name", ["ring_push", "produce_one"])
def test_payload_is_stored_before_the_readiness_word(name: str) -> None:
    payload, word = on("store", "slot_words"), on("store release", "slot_words")
    assert body(name).always_between(None, payload, word)
    assert not body(name).path_exists(payload, on("return"), word)
    assert not body(name).find(on("store monotonic"))


def test_no_payload_follows_its_readiness_word() -> None:
    # One message, hence no loop: after the word not a single store into the slot.
    word = on("store release", "slot_words")
    assert body("produce_one").never_after(word, on("store", "slot_words"))


def test_producer_position_for_display_is_stored_after_the_messages() -> None:
    position, word = on("store release", "ctrl"), on("store release", "slot_words")
    assert body("ring_push").always_between(None, word, position)
    assert body("ring_push").never_after(position, word)


def test_consumer_acquires_the_readiness_word_before_the_payload() -> None:
    word, payload = on("load acquire", "slot_words"), on("load", "slot_words")
    assert body("consume").always_between(None, word, payload)
    # In the loop as well: between one payload and the next there is the next one's word.
    assert body("consume").always_between(payload, word, payload)


def test_consumer_gives_slots_back_after_it_read_them() -> None:
    release, payload = on("store release", "ctrl"), on("load", "slot_words")
    assert body("consume").never_after(release, payload)
    assert not body("consume").path_exists(payload, on("return"), release)


def test_scan_of_a_new_producer_reads_with_acquire_alone() -> None:
    kinds = {a.kind for a in body("ring_scan").accesses if a.arrays}
    assert {k for k in kinds if "store" not in k} == {"load acquire"}
    assert not [a for a in body("ring_scan").accesses if a.arrays & {"ctrl", "slot_words"}
                and "store" in a.kind]  # fmt: skip


# --------------------------------------------------------------------------------------- event ring
def test_intent_and_fence_come_before_the_overwrite() -> None:
    intent, fence = on("store monotonic", "ctrl"), on("fence seq_cst")
    overwrite = on("store", "slot_words")
    found = body("write_event")
    assert found.always_between(intent, fence, overwrite)
    assert found.always_between(None, fence, overwrite)
    assert found.never_after(overwrite, intent)


def test_events_are_written_before_they_are_committed() -> None:
    overwrite, commit = on("store", "slot_words"), on("store release", "ctrl")
    assert body("write_event").always_between(None, overwrite, commit)
    assert body("write_event").never_after(commit, overwrite)


def test_reader_acquires_committed_before_it_copies() -> None:
    copy = on("load", "slot_words")
    assert body("events_copy").always_between(None, on("load acquire", "ctrl"), copy)


def test_reader_checks_intent_behind_a_fence_after_every_copy() -> None:
    copy, fence = on("load", "slot_words"), on("fence acquire")
    intent, end = on("load monotonic", "ctrl"), on("return")
    found = body("events_copy")
    assert found.always_between(copy, fence, end)
    assert found.always_between(copy, fence, intent)
    assert found.always_between(fence, intent, end)
    assert found.never_after(fence, copy)


# ----------------------------------------------------------------------------------------- book top
def test_top_is_odd_behind_a_fence_before_it_is_written() -> None:
    odd, fence = on("store monotonic", "words"), on("fence seq_cst")
    write, even = on("store", "words"), on("store release", "words")
    found = body("write_top")
    assert found.always_between(None, odd, write)
    assert found.always_between(odd, fence, write)
    assert found.always_between(None, write, even)
    assert found.never_after(even, write)


def test_top_reader_looks_at_the_version_before_and_after_its_copy() -> None:
    before, copy = on("load acquire", "words"), on("load", "words")
    fence, again = on("fence acquire"), on("load monotonic", "words")
    found = body("top_copy")
    assert found.always_between(None, before, copy)
    assert found.always_between(copy, fence, again)
    assert found.always_between(copy, again, on("return"))
    assert found.always_between(again, before, copy)


# ------------------------------------------------------------------------------------ the handshake
def test_sleeper_has_a_full_fence_behind_its_flag() -> None:
    flag = on("store monotonic", "words")
    assert body("sleep_prepare").always_between(flag, on("fence seq_cst"), on("return"))


@pytest.mark.parametrize("name", ["wake_needed", "wake_sleepers"])
def test_publisher_has_a_full_fence_before_it_reads_the_flag(name: str) -> None:
    look, fence = on("load monotonic", "words"), on("fence seq_cst")
    assert body(name).always_between(None, fence, look)
    assert body(name).always_between(None, look, on("swap", "words"))


def test_fence_stands_between_publishing_and_reading_the_flag() -> None:
    # wake_needed stays a call or is inlined: both are in order behind the readiness word.
    found = body("produce_one")
    word = on("store release", "slot_words")
    if not re.search(r"call .*wake_needed", found.ir):
        assert found.always_between(word, on("fence seq_cst"), on("load monotonic", "shard_ctrl"))
        assert found.never_after(on("load monotonic", "shard_ctrl"), word)


# ---------------------------------------------------------------------------------------------- ARM
ON_ARM = {
    "ring_push": {"ldar", "stlr"},
    "ring_scan": {"ldar"},
    "events_copy": {"ldar", "dmb\tishld"},
    "top_copy": {"ldar", "dmb\tishld"},
    "sleep_prepare": {"dmb\tish"},
    "load_word": {"ldar"},
    "store_word": {"stlr"},
    "consume": {"ldar", "stlr"},
    "write_event": {"dmb\tish", "stlr"},
    "write_top": {"dmb\tish", "stlr"},
}


@pytest.mark.parametrize("name", ON_ARM)
def test_order_becomes_instructions_on_arm(name: str) -> None:
    assert set(arm(name)) == ON_ARM[name]


@pytest.mark.parametrize("name", ["wake_needed", "wake_sleepers"])
def test_flag_is_taken_by_an_ordered_swap_on_arm(name: str) -> None:
    found = arm(name)
    assert "dmb\tish" in found
    assert {"ldaxr", "stlxr"} <= set(found) or "casal" in found


# ----------------------------------------------------------------------- the lint can see a mistake
def plain_flag(words, slot_words):
    """What F2 of the reliability contract is about: a plain store as flag."""
    slot_words[1] = 5
    words[0] = 1


def word_before_payload(ctrl, slot_words):
    """Publishes, then writes."""
    store_release(slot_words, 0, 1)
    slot_words[1] = 5


def no_fence(ctrl, flags):
    """A handshake without its fence."""
    store_release(ctrl, 0, 1)
    if load_relaxed(flags, 0) == 1:
        eventfd_signal(-1)


def test_lint_sees_a_plain_flag() -> None:
    found = Body(plain_flag, (words(2), words(2)))
    assert [a for a in found.accesses if is_plain(a) and "words" in a.arrays]


def test_lint_sees_payload_after_its_word() -> None:
    found = Body(word_before_payload, (words(2), words(2)))
    word, payload = on("store release", "slot_words"), on("store", "slot_words")
    assert not found.never_after(word, payload)
    assert found.path_exists(None, word, payload)


def test_lint_sees_a_missing_fence() -> None:
    found = Body(no_fence, (words(2), words(2)))
    published, look = on("store release", "ctrl"), on("load monotonic", "flags")
    assert found.path_exists(published, look, on("fence seq_cst"))
