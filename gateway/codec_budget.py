"""What a budget order says: a sum of the quote asset to be spent, or raised, in whole lots. Cold.

Part of gateway/codec_options.py. The sum is exact, digit by digit, in the engine's quote units of
1e-9 (engine/full_budget.py); no step of the instrument has a say in it. Such an order states a
quantity only where it is fill-or-kill: then all of it, for no more (a sale: no less) than the sum.
"""

from collections.abc import Iterator

from engine.records import NOTIONAL_MAX, OrderType, RejectCode, TimeInForce
from gateway.codec_fields import Request
from gateway.codec_numbers import DECIMALS_MAX, exact_units, units_text
from gateway.codec_tables import MARKET
from gateway.state import C_AMOUNT, C_ORDER_TYPE, C_TIF

BUDGET_OPTIONS = frozenset({"budget"})
WHOLE_DIGITS_MAX = 30  # more digits before the point are too many, and need no arithmetic


def budget_options(request: Request) -> None:
    """The sum in quote units, in its word; refuses a budget order without one."""
    value = request.keys.get("budget")
    request.words[C_AMOUNT] = 0
    if value is None:
        if request.words[C_ORDER_TYPE] == OrderType.BUDGET:
            request.refuse(RejectCode.BAD_FIELD, "budget is missing")
        return
    number = exact_units(value) if isinstance(value, str) else None
    if number is None:
        request.refuse(RejectCode.BAD_FIELD, "budget must be a decimal number")
        return
    mantissa, decimals = number
    if mantissa <= 0:
        request.refuse(RejectCode.OUT_OF_RANGE, "budget must be above zero")
    elif len(str(mantissa)) - decimals > WHOLE_DIGITS_MAX:
        request.refuse(RejectCode.OUT_OF_RANGE, _too_large())
    elif decimals > DECIMALS_MAX:
        request.refuse(RejectCode.OUT_OF_RANGE, f"budget has more than {DECIMALS_MAX} decimals")
    else:
        units = mantissa * 10 ** (DECIMALS_MAX - decimals)
        if units > NOTIONAL_MAX:
            request.refuse(RejectCode.OUT_OF_RANGE, _too_large())
        else:
            request.words[C_AMOUNT] = units


def _too_large() -> str:
    return f"budget is too large: at most {units_text(NOTIONAL_MAX)}"


def states_quantity(request: Request) -> bool:
    """Whether a new order of this kind has to say how many lots."""
    spends = request.words[C_ORDER_TYPE] == OrderType.BUDGET
    return not spends or request.words[C_TIF] == TimeInForce.FOK


def budget_misfits(request: Request) -> Iterator[str]:
    """What does not go together in a new order, a sentence each."""
    keys = request.keys
    if request.words[C_ORDER_TYPE] == OrderType.BUDGET:
        if "price" in keys:
            yield "a budget order has no price: its budget is the limit"
        if "qty" in keys and not states_quantity(request):
            yield "a budget order that is not fok buys what its budget is worth: it has no qty"
    elif "budget" in keys:
        named = "type market" if request.type == MARKET else "another order type"
        yield f"a budget order is a type of its own: not with {named}"
