"""The error tree of the client library, and which class each reject code raises. Cold, no I/O.

    RingbookError                     everything this library raises on purpose
    ├─ NetworkError                   no answer: the request may have run; an order has .client_id:
    │   │                             sent again under it, it runs at most once
    │   ├─ ConnectionLost             the connection ended
    │   │   └─ LoggedOut              the exchange ended it and said why
    │   └─ RequestTimeout             no answer in time
    ├─ ProtocolError                  the other side does not speak this protocol
    └─ ExchangeError                  the exchange answered no; has .code, .name and .report
        ├─ AuthenticationError        logon refused, not logged on, not this account's
        ├─ ResumeRefused              missed reports cannot be had: log on without resume, then ask
        │   │                         for the open orders
        │   ├─ ResumeTooOld           they are not kept any more
        │   ├─ ResumeAhead            the exchange has not sent that many
        │   └─ WrongIncarnation       acknowledged orders may have been lost since
        ├─ AccountBlocked             kill switch, cancel-only
        ├─ RateLimitExceeded          throttle
        ├─ BadSymbol                  unknown symbol, listing refused
        ├─ DuplicateOrderId           client id used already
        ├─ OrderNotFound              never issued, ended, or somebody else's
        ├─ InsufficientFunds          spot reserve, margin, debt
        ├─ RiskLimitExceeded          a limit of account or instrument
        ├─ InvalidOrder               the request itself is wrong; sending it again cannot help
        │   ├─ OrderImmediatelyFillable   post-only that would trade
        │   └─ OrderNotFillable       market with nobody opposite, fill-or-kill not whole
        └─ ExchangeNotAvailable       nothing wrong with the request, not now
            ├─ ExchangeBusy           a queue is full: send it again (no id was used)
            └─ ExchangeFull           order pool, level pool, id table, walk limit

Names are CCXT's where CCXT has one. Codes are those of docs/protocol.md; the table below is tested
against engine/records.py, which this module does not import: a client must start fast and without
NumPy.
"""

from typing import Any


class RingbookError(Exception):
    """Anything this library raises on purpose."""


class NetworkError(RingbookError):
    """No answer came; whether the request ran is not known.

    `client_id`: the id of the new order it was about. After `reconnect()` the same order may be
    sent again under it: it runs at most once.
    """

    client_id: int | str | None = None


class ConnectionLost(NetworkError):
    """The connection ended."""


class LoggedOut(ConnectionLost):
    """The exchange ended the connection and said why; there is no automatic way back from it."""


class RequestTimeout(NetworkError):
    """No answer came in time."""


class ProtocolError(RingbookError):
    """The other side sent what this protocol does not have."""


class ExchangeError(RingbookError):
    """The exchange refused: stable `code`, its `name`, and the answer as `report`."""

    def __init__(self, code: int, sentence: str = "", report: Any = None) -> None:
        self.code, self.report = code, report
        self.name = CODES[code][0] if code in CODES else ""
        super().__init__(f"{self.name or 'refused'} ({code}): {sentence or MEANINGS.get(code, '')}")


class AuthenticationError(ExchangeError):
    """Logon refused, not logged on, or not this session's account."""


class ResumeRefused(ExchangeError):
    """What was missed cannot be had: log on without resume, and ask for the open orders."""


class ResumeTooOld(ResumeRefused):
    """Reports that far back are not kept any more."""


class ResumeAhead(ResumeRefused):
    """The exchange has not sent as many reports as the client says it has seen."""


class WrongIncarnation(ResumeRefused):
    """The exchange was started anew since, and what it acknowledged last may be lost."""


class AccountBlocked(ExchangeError):
    """Kill switch, or the account may only cancel."""


class RateLimitExceeded(ExchangeError):
    """More requests than the account's throttle class allows."""


class BadSymbol(ExchangeError):
    """No such symbol, or it cannot be listed."""


class DuplicateOrderId(ExchangeError):
    """The client id was used before, or is not higher than the last one."""


class OrderNotFound(ExchangeError):
    """The order was never issued, has ended, or is not this account's."""


class InsufficientFunds(ExchangeError):
    """Money or margin is missing."""


class RiskLimitExceeded(ExchangeError):
    """A limit of the account or the instrument."""


class InvalidOrder(ExchangeError):
    """The request is wrong as it stands."""


class OrderImmediatelyFillable(InvalidOrder):
    """A post-only order that would trade."""


class OrderNotFillable(InvalidOrder):
    """A market order with nobody opposite, or a fill-or-kill that cannot be filled whole."""


class ExchangeNotAvailable(ExchangeError):
    """Not now; nothing is wrong with the request."""


class ExchangeBusy(ExchangeNotAvailable):
    """A queue is full; no id was used, send it again."""


class ExchangeFull(ExchangeNotAvailable):
    """A table of the exchange is full."""


CODES: dict[int, tuple[str, type[ExchangeError]]] = {
    101: ("MALFORMED", InvalidOrder),
    102: ("BAD_FIELD", InvalidOrder),
    103: ("OUT_OF_RANGE", InvalidOrder),
    104: ("BAD_COMBINATION", InvalidOrder),
    105: ("BAD_CLIENT_ID", InvalidOrder),
    201: ("NOT_LOGGED_ON", AuthenticationError),
    202: ("NOT_AUTHORISED", AuthenticationError),
    203: ("DUPLICATE", DuplicateOrderId),
    204: ("ID_TABLE_FULL", ExchangeFull),
    205: ("ACCOUNT_BLOCKED", AccountBlocked),
    206: ("THROTTLED", RateLimitExceeded),
    207: ("RESUME_TOO_OLD", ResumeTooOld),
    208: ("RESUME_AHEAD", ResumeAhead),
    209: ("WRONG_INCARNATION", WrongIncarnation),
    301: ("UNKNOWN_SYMBOL", BadSymbol),
    302: ("LISTING_REFUSED", BadSymbol),
    303: ("NOT_IN_PHASE", InvalidOrder),
    304: ("NOT_SUPPORTED_HERE", InvalidOrder),
    305: ("NO_SUCH_AUCTION", InvalidOrder),
    306: ("OFF_TICK", InvalidOrder),
    307: ("OFF_LOT", InvalidOrder),
    308: ("STATIC_BAND", InvalidOrder),
    309: ("NO_BAND", InvalidOrder),
    310: ("ICEBERG_PARTS", InvalidOrder),
    311: ("CAP_REQUIRED", InvalidOrder),
    312: ("EXPIRY_PAST", InvalidOrder),
    313: ("IMMUTABLE", InvalidOrder),
    314: ("TOO_MANY", InvalidOrder),
    315: ("QUOTE_CROSSED", InvalidOrder),
    401: ("INSUFFICIENT_FUNDS", InsufficientFunds),
    402: ("INSUFFICIENT_MARGIN", InsufficientFunds),
    403: ("MAX_QTY", RiskLimitExceeded),
    404: ("MAX_NOTIONAL", RiskLimitExceeded),
    405: ("MAX_OPEN_ORDERS", RiskLimitExceeded),
    406: ("MAX_POSITION", RiskLimitExceeded),
    407: ("NOT_REDUCING", RiskLimitExceeded),
    408: ("MMP_ACTIVE", RiskLimitExceeded),
    409: ("DEBT", InsufficientFunds),
    501: ("UNKNOWN_ORDER", OrderNotFound),
    502: ("WOULD_TRADE", OrderImmediatelyFillable),
    503: ("NO_LIQUIDITY", OrderNotFillable),
    504: ("FOK_UNFILLED", OrderNotFillable),
    505: ("BUDGET", OrderNotFillable),
    506: ("TRIGGER_TRUE", InvalidOrder),
    901: ("BUSY", ExchangeBusy),
    902: ("ORDERS_FULL", ExchangeFull),
    903: ("LEVELS_FULL", ExchangeFull),
    904: ("WALK_TOO_LONG", ExchangeFull),
    905: ("UNAVAILABLE", ExchangeNotAvailable),
}

# What to say when the answer carries no sentence of its own.
MEANINGS: dict[int, str] = {
    203: "this client id was used before; ids of a session must rise",
    206: "more requests than the account's throttle class allows",
    501: "no live order with that id belongs to this account",
    502: "a post-only order may not trade at entry, and this one would",
    503: "a market order needs somebody on the other side, and there is nobody",
    504: "the whole quantity is not available at that price",
    901: "a queue is full; no id was used, send it again",
    905: "the shard of this symbol is not running",
}


def about_order(error: NetworkError, client_id: int | str) -> NetworkError:
    """Give the same error, of this order."""
    made = type(error)(*error.args)
    made.client_id = client_id
    return made


def error_of(code: int, sentence: str = "", report: Any = None) -> ExchangeError:
    """Give the exception for a reject code; unknown codes fall back to their band's class."""
    if code in CODES:
        return CODES[code][1](code, sentence, report)
    bands = {1: InvalidOrder, 2: AuthenticationError, 3: InvalidOrder, 4: RiskLimitExceeded}
    bands |= {5: InvalidOrder, 9: ExchangeNotAvailable}
    return bands.get(code // 100, ExchangeError)(code, sentence, report)
