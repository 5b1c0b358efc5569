"""Every code of the exchange: kinds, types, flags, reasons, refusals. Numbers are never reused.

Cold: part of engine/records.py, which everybody imports them from.
"""

from enum import IntEnum


class CommandKind(IntEnum):
    """What a COMMAND asks for (RULES §1). TIME, CONTINUE and ACTIVATE come from the shard loop
    (producer 0).
    """

    NEW = 1
    CANCEL = 2
    REPLACE = 3
    MASS_CANCEL = 4
    QUOTE = 5
    QUERY_ORDER = 6
    QUERY_OPEN_ORDERS = 7
    SESSION_OPEN = 8
    SESSION_CLOSE = 9
    SESSION_KEEP = 10  # the client is alive: its dead-man time begins anew
    TIME = 16
    CONTINUE = 17
    ACTIVATE = 18
    INCARNATION = 19
    PRODUCER_RESET = 20
    FEED_STATE = 21  # start and end of a feed session: code in `order_type`
    OPEN_ACCOUNT = 32
    LIST_INSTRUMENT = 33
    SET_PHASE = 34
    SET_LIMITS = 35
    KILL_SWITCH = 36
    DEPOSIT = 37
    WITHDRAW = 38
    TRANSFER = 39
    BUST = 40
    SET_RULE = 41


class EventKind(IntEnum):
    """Kinds of EVENT, in the order of EVENTS.md §1."""

    ACCEPTED = 1
    REJECTED = 2
    REPLACED = 3
    CANCELED = 4
    EXPIRED = 5
    BOOKED = 6
    FILL = 7
    REFRESHED = 8
    PREVENTED = 9
    TRIGGERED = 10
    ACTIVATED = 11
    PARKED = 12
    REPRICED = 13
    REDUCED = 14
    MMP_FIRED = 15
    PHASE = 16
    INDICATIVE = 17
    CROSSED = 18
    BAND = 19
    LISTED = 20
    SESSION = 21
    SETTLED = 22
    BALANCE = 23
    POSITION = 24
    BUSTED = 25
    ACCOUNT = 26
    SUMMARY = 27
    STATUS = 28
    CONTINUED = 29


class Side(IntEnum):
    """FIX Side. The value is the index of the side in every per-side array."""

    BUY = 0
    SELL = 1


class OrderType(IntEnum):
    """RULES §2. Only LIMIT and MARKET trade in rules version 1; the others are refused
    NOT_SUPPORTED_HERE.
    """

    LIMIT = 1
    MARKET = 2
    MARKET_TO_LIMIT = 3
    BUDGET = 4
    STOP = 5
    STOP_LIMIT = 6
    TAKE_PROFIT = 7
    TAKE_PROFIT_LIMIT = 8
    TRAILING_STOP = 9
    TRAILING_STOP_LIMIT = 10
    PEG_PRIMARY = 11
    PEG_MARKET = 12
    PEG_MID = 13


class TimeInForce(IntEnum):
    """RULES §2. GTC is zero: a record that names none is good till cancelled."""

    GTC = 0
    IOC = 1
    FOK = 2
    DAY = 3
    GTD = 4
    AT_OPEN = 5
    AT_CLOSE = 6
    GOOD_FOR_AUCTION = 7


class SelfTrade(IntEnum):
    """Self-trade prevention modes of RULES §5."""

    DEFAULT = 0  # the instrument's
    NONE = 1
    EXPIRE_TAKER = 2
    EXPIRE_MAKER = 3
    EXPIRE_BOTH = 4
    DECREMENT = 5
    TRANSFER = 6


class CommandFlag(IntEnum):
    """Bits of COMMAND.flags."""

    POST_ONLY = 1
    SLIDE = 2
    HIDDEN = 4
    REDUCE_ONLY = 8
    TEXT_ID = 16  # the session's client ids are text
    CANCEL_DAY_ON_CLOSE = 32  # SESSION_OPEN
    CANCEL_ALL_ON_CLOSE = 64  # SESSION_OPEN
    BY_SESSION = 128  # MASS_CANCEL: only this session's orders
    BY_SIDE = 256  # MASS_CANCEL: only `side`
    BY_TAG = 512  # MASS_CANCEL: only `tag`
    BY_SYMBOL = 1024  # MASS_CANCEL: only `symbol_id`
    TRIGGER_BEST = 2048  # a stop looks at the best opposite displayed price, not at the last trade
    DISTANCE_BPS = 4096  # a trailing distance in hundredths of a percent, not in ticks
    PROTECTED = 8192  # a market order goes no further than the instrument's protection points
    LIST = 16384  # more legs of this list follow


class RuleSet(IntEnum):
    """What orders of an instrument may do; fixed when the kernel is compiled."""

    PLAIN = 0  # limit and market; GTC, IOC, FOK; post-only
    FULL = 1  # all of RULES


class InstrumentRule(IntEnum):
    """What SET_RULE sets (in `order_type`)."""

    ALGORITHM = 1
    ICEBERG_PARTS = 2
    PROTECTION = 3  # ticks
    STP = 4
    STATIC_BAND = 5  # bps
    DYNAMIC_BAND = 6  # bps
    ON_BREACH = 7
    MAX_PEGS = 8
    MAX_TRAILING = 9
    MAX_LEVEL_ORDERS = 10
    FIFO_PERCENT = 11
    BATCH_MS = 12
    MIN_ORDERS = 13
    BALANCE_PCT = 14
    MAX_WAIT_MS = 15
    LMM = 16  # account in the high half, percent in the low


class Algorithm(IntEnum):
    """How a level is shared out (RULES §4)."""

    FIFO = 0
    PRO_RATA = 1
    FIFO_PRO_RATA = 2
    SIZE_PRIORITY = 3
    TIME_PRO_RATA = 4
    BATCH_AUCTION = 5
    BALANCED_BATCH = 6


class AccountLimit(IntEnum):
    """What SET_LIMITS limits (in `order_type`); 0 of the value takes the limit away."""

    PROTECTION = 0  # fills on quotes within a window
    PROTECTION_START = 1  # the same, of a start: what is so already stays as it is
    MAX_QTY = 2  # lots of one order
    MAX_NOTIONAL = 3  # price times quantity of one order, ticks times lots
    MAX_OPEN_ORDERS = 4
    MAX_POSITION = 5  # lots, either way, as if all that is open on a side were filled


class KillAction(IntEnum):
    """What KILL_SWITCH does (in `order_type`)."""

    RELEASE = 0
    BLOCK = 1  # new orders, replaces and quotes are refused
    BLOCK_AND_CANCEL = 2  # and what is live is cancelled


class EventFlag(IntEnum):
    """Bits of EVENT.flags."""

    LAST = 1  # last event of its command (or slice)
    KEPT = 2  # REPLACED: time priority kept
    LEFT_BOOK = 4  # REPLACED: the order left its queue
    WILL_TRADE = 8  # REPLACED: and trades now
    NON_FIFO = 16
    PRINTABLE = 32
    TOP = 64
    TEXT_ID = 128  # `text` holds the client id
    DONE = 256  # CONTINUED: nothing left
    POST_ONLY = 512
    MORE = 1024  # answer to one side of a quote: that to the other side is next


class Role(IntEnum):
    """FILL.role."""

    NONE = 0
    MAKER = 1
    TAKER = 2
    AUCTION = 3


class Reason(IntEnum):
    """Why an order was CANCELED or EXPIRED, and what an ACCOUNT event reports."""

    NONE = 0
    CLIENT = 1
    MASS = 2
    DISCONNECT = 3
    REPLACED_BELOW_FILLED = 4
    OCO = 5
    KILL = 6
    MMP = 7
    IOC_REMAINDER = 16
    MARKET_REMAINDER = 17
    MINIMUM = 18
    DAY = 19
    GTD = 20
    AUCTION_END = 21
    SELF_TRADE = 22
    BAND = 23
    OTO_FAILURE = 24
    SESSION_OPENED = 32
    SESSION_CLOSED = 33
    ACCOUNT_OPENED = 34
    PRODUCER_RESET = 35
    INCARNATION = 36
    DEAD_MAN = 37
    LIMITS = 38


class Phase(IntEnum):
    """RULES §6."""

    NONE = 0
    PRE_OPEN = 1
    OPENING_CALL = 2
    CONTINUOUS = 3
    VOLATILITY_CALL = 4
    CLOSING_CALL = 5
    CLOSED = 6
    HALTED = 7
    CANCEL_ONLY = 8


class OrderState(IntEnum):
    """STATUS.role: where an order stands (RULES §1)."""

    NEW = 1
    PARTIALLY_FILLED = 2
    FILLED = 3
    CANCELED = 4
    EXPIRED = 5
    REJECTED = 6


class RejectCode(IntEnum):
    """EVENTS.md §2: banded by stage, ascending = order of test, numbers never reused."""

    NONE = 0
    MALFORMED = 101
    BAD_FIELD = 102
    OUT_OF_RANGE = 103
    BAD_COMBINATION = 104
    BAD_CLIENT_ID = 105
    NOT_LOGGED_ON = 201
    NOT_AUTHORISED = 202
    DUPLICATE = 203
    ID_TABLE_FULL = 204
    ACCOUNT_BLOCKED = 205
    THROTTLED = 206
    RESUME_TOO_OLD = 207
    RESUME_AHEAD = 208
    WRONG_INCARNATION = 209
    UNKNOWN_SYMBOL = 301
    LISTING_REFUSED = 302
    NOT_IN_PHASE = 303
    NOT_SUPPORTED_HERE = 304
    NO_SUCH_AUCTION = 305
    OFF_TICK = 306
    OFF_LOT = 307
    STATIC_BAND = 308
    NO_BAND = 309
    ICEBERG_PARTS = 310
    CAP_REQUIRED = 311
    EXPIRY_PAST = 312
    IMMUTABLE = 313
    TOO_MANY = 314
    QUOTE_CROSSED = 315
    INSUFFICIENT_FUNDS = 401
    INSUFFICIENT_MARGIN = 402
    MAX_QTY = 403
    MAX_NOTIONAL = 404
    MAX_OPEN_ORDERS = 405
    MAX_POSITION = 406
    NOT_REDUCING = 407
    MMP_ACTIVE = 408
    DEBT = 409
    UNKNOWN_ORDER = 501
    WOULD_TRADE = 502
    NO_LIQUIDITY = 503
    FOK_UNFILLED = 504
    BUDGET = 505
    TRIGGER_TRUE = 506
    BUSY = 901
    ORDERS_FULL = 902
    LEVELS_FULL = 903
    WALK_TOO_LONG = 904
    UNAVAILABLE = 905
