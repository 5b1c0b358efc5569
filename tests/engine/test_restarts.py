"""How long a child that died has to wait, and when it stays down."""

from engine.restarts import DEATHS_MAX, WAIT_S_MAX, WINDOW_S, Restarts


def test_p10_first_death_costs_nothing_then_the_wait_doubles_then_it_stays_down() -> None:
    restarts = Restarts()
    waits = [restarts.died(float(second)) for second in range(DEATHS_MAX)]
    assert waits == [0.0, 0.1, 0.2, 0.4, 0.8]
    assert restarts.died(DEATHS_MAX) is None


def test_deaths_are_forgotten_after_a_while() -> None:
    restarts = Restarts()
    for number in range(50):
        assert restarts.died(number * (WINDOW_S + 1)) == 0.0


def test_wait_is_bounded() -> None:
    assert WAIT_S_MAX >= 0.1 * 2 ** (DEATHS_MAX - 2)
