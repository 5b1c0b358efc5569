"""What the supervisor does to a shard is no client's business: nobody is told."""

from engine.admin import feed_state, incarnation, list_instrument, open_account, producer_reset
from tests.gateway.support import INSTRUMENTS, bench


def test_image_and_notices_reach_no_client_and_orders_go_on() -> None:
    with bench() as made:
        client, other = made.log_on(), made.log_on("alice")
        symbol = INSTRUMENTS[0].symbol
        order = {"type": "new", "symbol": symbol, "side": "buy", "qty": 5, "price": "1", "id": 1}
        assert [line["type"] for line in made.say(client, order)] == ["accepted", "booked"]
        records = (
            feed_state("O", 20260102, 3),
            incarnation(2, orders_lost=True),
            producer_reset(9, 10**9),
            open_account(1),
            list_instrument(INSTRUMENTS[0]),
        )
        for record in records:
            made.exchange._publish(0, made.exchange.step(0, record[0]), None)
            made.settle()
        assert made.heard(client) == made.heard(other) == []
        answers = made.say(client, {"type": "cancel", "symbol": symbol, "target_id": 1, "id": 2})
        assert [line["type"] for line in answers] == ["canceled"], answers
