"""Ringbook's public Python face: the clients, errors, reports, the in-process exchange.

    import ringbook
    with ringbook.Client("127.0.0.1", 9100, account="demo", token="demo") as client:
        client.limit("AAPL", "buy", 10, "187.42")

Names are loaded on first use: a client imports neither NumPy nor the compiler,
`ringbook.LocalExchange` does both.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.local import LocalExchange as LocalExchange
    from gateway.client import Client as Client
    from gateway.client_async import AsyncClient as AsyncClient

_HOME = {
    "Client": "gateway.client",
    "AsyncClient": "gateway.client_async",
    "ResumeState": "gateway.client_state",
    "LocalExchange": "engine.local",
}
_HOME |= dict.fromkeys(
    (
        "RingbookError",
        "NetworkError",
        "ConnectionLost",
        "LoggedOut",
        "RequestTimeout",
        "ProtocolError",
        "ExchangeError",
        "AuthenticationError",
        "ResumeRefused",
        "ResumeTooOld",
        "ResumeAhead",
        "WrongIncarnation",
        "AccountBlocked",
        "RateLimitExceeded",
        "BadSymbol",
        "DuplicateOrderId",
        "OrderNotFound",
        "InsufficientFunds",
        "RiskLimitExceeded",
        "InvalidOrder",
        "OrderImmediatelyFillable",
        "OrderNotFillable",
        "ExchangeNotAvailable",
        "ExchangeBusy",
        "ExchangeFull",
    ),
    "gateway.client_errors",
)
_HOME |= dict.fromkeys(
    (
        "Report",
        "Accepted",
        "Rejected",
        "Replaced",
        "Quote",
        "MmpFired",
        "Canceled",
        "Expired",
        "Booked",
        "Fill",
        "Refreshed",
        "Prevented",
        "Triggered",
        "Parked",
        "Repriced",
        "Activated",
        "Status",
        "Summary",
        "Order",
        "Book",
        "Level",
        "InstrumentInfo",
        "Logon",
        "Gap",
    ),
    "gateway.client_reports",
)

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ringbook' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__doc__"]
