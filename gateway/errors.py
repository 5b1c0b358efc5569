"""The sentence and the name that go out with every reject code. Cold; the encoder bakes them into
its tables.

A sentence here is what a shard's reject carries. The gateway's own rejects say more: which key,
which value.
"""

from engine.records import RejectCode

SENTENCES: dict[RejectCode, str] = {
    RejectCode.NONE: "",
    RejectCode.MALFORMED: "not one flat JSON object on one line",
    RejectCode.BAD_FIELD: "a field is missing, unknown or of the wrong kind",
    RejectCode.OUT_OF_RANGE: "price or quantity is outside what the instrument allows",
    RejectCode.BAD_COMBINATION: "order type, option and time in force do not go together",
    RejectCode.BAD_CLIENT_ID: "the client id is not of the kind this session uses",
    RejectCode.NOT_LOGGED_ON: "not logged on, or another logon has taken the session over",
    RejectCode.NOT_AUTHORISED: "not allowed for this account",
    RejectCode.DUPLICATE: "this client id was used already; ids of a session must rise",
    RejectCode.ID_TABLE_FULL: "no room for another id or session",
    RejectCode.ACCOUNT_BLOCKED: "the account is blocked or may only cancel",
    RejectCode.THROTTLED: "more requests than the account's class allows",
    RejectCode.RESUME_TOO_OLD: "reports that far back are not kept; log on without resume",
    RejectCode.RESUME_AHEAD: "the exchange has not sent that many reports to this account",
    RejectCode.WRONG_INCARNATION: "the exchange was started anew since; log on without resume",
    RejectCode.UNKNOWN_SYMBOL: "no such instrument",
    RejectCode.LISTING_REFUSED: "the instrument cannot be listed: name not allowed or table full",
    RejectCode.NOT_IN_PHASE: "not possible in the present trading phase",
    RejectCode.NOT_SUPPORTED_HERE: "not supported by this version of the rules",
    RejectCode.NO_SUCH_AUCTION: "the instrument's calendar has no such auction",
    RejectCode.OFF_TICK: "the price is not a multiple of the tick",
    RejectCode.OFF_LOT: "the quantity is not a multiple of the lot",
    RejectCode.STATIC_BAND: "the price is outside the static band",
    RejectCode.NO_BAND: "market orders in a call need a static band",
    RejectCode.ICEBERG_PARTS: "too many iceberg slices",
    RejectCode.CAP_REQUIRED: "this order type needs a cap",
    RejectCode.EXPIRY_PAST: "the expiry is not in the future",
    RejectCode.IMMUTABLE: "side, type, time in force and symbol of an order cannot be changed",
    RejectCode.TOO_MANY: "too many orders of this kind on the instrument",
    RejectCode.QUOTE_CROSSED: "the bid of a quote must be below its ask",
    RejectCode.INSUFFICIENT_FUNDS: "not enough available balance",
    RejectCode.INSUFFICIENT_MARGIN: "not enough available margin",
    RejectCode.MAX_QTY: "quantity over the account's limit",
    RejectCode.MAX_NOTIONAL: "notional over the account's limit",
    RejectCode.MAX_OPEN_ORDERS: "too many open orders",
    RejectCode.MAX_POSITION: "position over the account's limit",
    RejectCode.NOT_REDUCING: "the order does not reduce the position",
    RejectCode.MMP_ACTIVE: "market-maker protection fired and is not re-armed",
    RejectCode.DEBT: "the account is in debt and may only reduce",
    RejectCode.UNKNOWN_ORDER: "no live order of this account answers to that id",
    RejectCode.WOULD_TRADE: "a post-only order may not trade at entry, this one would",
    RejectCode.NO_LIQUIDITY: "nobody on the other side of the book",
    RejectCode.FOK_UNFILLED: "the whole quantity is not available within the limit",
    RejectCode.BUDGET: "the budget buys less than one lot, or misses its exact sum",
    RejectCode.TRIGGER_TRUE: "the trigger condition holds already",
    RejectCode.BUSY: "a queue is full; no id was used, send it again",
    RejectCode.ORDERS_FULL: "the order pool of the shard is full",
    RejectCode.LEVELS_FULL: "the price level pool of the shard is full",
    RejectCode.WALK_TOO_LONG: "a fill-or-kill would have to look at too many orders",
    RejectCode.UNAVAILABLE: "the shard of this symbol is not running; the id is used up",
}


def reason_of(code: int) -> str:
    """Name of a reject code as the field `reason` carries it; "code_NNN" for one this version does
    not know.
    """
    try:
        return RejectCode(code).name.lower()
    except ValueError:
        return f"code_{code}"


class Refusal(Exception):
    """A request that goes no further: code and sentence. Raised by the slow path, caught where the
    line is handled.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = int(code)
        self.text = text
