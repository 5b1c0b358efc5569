"""Which instruments there are: the gateway's copy of every shard's list, where the compiled codec
finds it.

Cold: filled at start from the shared book tops, then by LISTED events; read hot by both codecs
through gateway/state.py. One row per (shard, index), and a hash from name to row. Instruments are
never removed or changed (step 1 has no such command).

An instrument whose tick or lot has a mantissa of 2**31 or more is listed but not traded here: its
prices could not be written without overflow. Orders for it are refused 304; under the policy
`create` it must not look unknown, or it would be priced by the template.
"""

import zlib
from typing import Any

import numpy as np

from engine.config import Config
from engine.records import SYMBOL_INDEX_BITS, RuleSet, pack_name, unpack_name
from gateway.codec_numbers import mantissa_decimals
from gateway.codec_text import json_name
from gateway.state import (
    H_HASH_BASE,
    H_HASH_MASK,
    SYMBOL_WORDS,
    Y_JSON,
    Y_JSON_BYTES,
    Y_LOT,
    Y_LOT_DECIMALS,
    Y_LOT_MANTISSA,
    Y_NAME,
    Y_PX_MAX,
    Y_RULES,
    Y_SHARD,
    Y_SYMBOL_ID,
    Y_TICK,
    Y_TICK_DECIMALS,
    Y_TICK_MANTISSA,
    Y_TRADED,
    GatewayState,
)  # fmt: skip

MANTISSA_MAX = 2**31 - 1
INDEX_MASK = (1 << SYMBOL_INDEX_BITS) - 1


def shard_of_name(name: str, shards: int) -> int:
    """Shard of a symbol by the placement rule (DESIGN §9)."""
    return zlib.crc32(name.encode("ascii")) % shards


def hash_start(packed: int) -> int:
    """Where the search for a name begins, before masking; codec_decode.name_hash is the compiled
    twin.
    """
    return (((packed ^ (packed >> 31)) & 0x7FFFFFFF) * 0x4F1BBCDD) >> 20


class Directory:
    """Instruments by name and by (shard, index)."""

    def __init__(self, state: GatewayState, config: Config) -> None:
        self.state = state
        self.config = config
        self.symbols_max = config.shard.symbols_max + 1  # index 0 is nobody
        self.rows: dict[str, int] = {}  # name -> first word of its row
        self.places: dict[str, int] = {}  # name -> place of its book top
        self.sorted_names: list[str] | None = None
        # Book tops do not tell the rule set; what is created on first use is plain.
        self.rule_sets = {i.symbol: int(i.rule_set) for i in config.instruments}

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, tops: np.ndarray[Any, Any] | None) -> int:
        """Take over everything the book tops name; returns how many were new.

        Name, tick, lot and px_max of a top are written once, before its symbol_id is visible to
        anybody who got an event.
        """
        if tops is None:
            return 0
        before = len(self)
        for place in np.flatnonzero(tops["symbol"]):
            top = tops[place]
            if int(top["symbol_id"]) > 0 and int(top["tick"]) > 0 and int(top["lot"]) > 0:
                name = unpack_name(int(top["symbol"]))
                self.add(
                    int(top["symbol_id"]),
                    name,
                    int(top["tick"]),
                    int(top["lot"]),
                    int(top["px_max"]),
                )
        return len(self) - before

    def add(
        self, symbol_id: int, name: str, tick: int, lot: int, px_max: int, rules: int | None = None
    ) -> None:
        """Enter an instrument; one that is there already stays as it is. `rules`: a RuleSet, None
        where nobody said: that of the configuration.
        """
        if rules is None:
            rules = self.rule_sets.get(name, int(RuleSet.PLAIN))
        shard, index = symbol_id >> SYMBOL_INDEX_BITS, symbol_id & INDEX_MASK
        if name in self.rows or shard >= self.state.shards or not 0 <= index < self.symbols_max:
            return
        place = shard * self.symbols_max + index
        row, view = self.state.symbol_base(place), self.state.view
        (tick_mantissa, tick_decimals), (lot_mantissa, lot_decimals) = (
            mantissa_decimals(tick),
            mantissa_decimals(lot),
        )
        packed = pack_name(name)
        traded = tick_mantissa <= MANTISSA_MAX and lot_mantissa <= MANTISSA_MAX
        low, high, size = json_name(name)
        values = {
            Y_SYMBOL_ID: symbol_id, Y_SHARD: shard, Y_TICK: tick, Y_LOT: lot, Y_PX_MAX: px_max,
            Y_TRADED: int(traded), Y_RULES: rules,
            Y_TICK_MANTISSA: min(tick_mantissa, MANTISSA_MAX), Y_TICK_DECIMALS: tick_decimals,
            Y_LOT_MANTISSA: min(lot_mantissa, MANTISSA_MAX), Y_LOT_DECIMALS: lot_decimals,
            Y_JSON: low, Y_JSON + 1: high, Y_JSON_BYTES: size, Y_NAME: packed,
        }  # fmt: skip
        for word, value in values.items():
            view[row + word] = value
        self._hash(packed, place)
        self.rows[name], self.places[name] = row, place
        self.sorted_names = None

    def has(self, symbol_id: int) -> bool:
        """Whether the instrument's row is filled."""
        place = (symbol_id >> SYMBOL_INDEX_BITS) * self.symbols_max + (symbol_id & INDEX_MASK)
        return self.state.view[self.state.symbol_base(place) + Y_NAME] != 0

    def placeholder(self, symbol_id: int) -> None:
        """Give an instrument nobody told us about a row, so that its reports can go out: named by
        number, in ticks and lots.
        """
        place = (symbol_id >> SYMBOL_INDEX_BITS) * self.symbols_max + (symbol_id & INDEX_MASK)
        row, view = self.state.symbol_base(place), self.state.view
        low, high, size = json_name(f"#{symbol_id}"[:8])
        for word, value in {
            Y_NAME: -1, Y_SYMBOL_ID: symbol_id, Y_TICK_MANTISSA: 1, Y_LOT_MANTISSA: 1, Y_JSON: low,
            Y_JSON + 1: high,
            Y_JSON_BYTES: size,
        }.items():  # fmt: skip
            view[row + word] = value

    def _hash(self, packed: int, place: int) -> None:
        view = self.state.view
        base, mask = view[H_HASH_BASE], view[H_HASH_MASK]
        slot = hash_start(packed) & mask
        while view[base + slot]:
            slot = (slot + 1) & mask
        view[base + slot] = place + 1

    def names(self) -> list[str]:
        """All names in ascending order."""
        if self.sorted_names is None:
            self.sorted_names = sorted(self.rows)
        return self.sorted_names

    def get(self, name: str, word: int) -> int:
        """One word (Y_*) of an instrument's row."""
        return int(self.state.view[self.rows[name] + word])


assert SYMBOL_WORDS > Y_RULES > Y_JSON_BYTES
