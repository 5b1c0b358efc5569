"""Nemesis: processes under load are killed, stopped and started again; then the checker judges.

    python -m tests.system.nemesis --seed N --kills K --kinds shard,gateway,... --seconds S

Three kinds of processes beside the exchange, each on its own:

    this one      starts the exchange, kills its children by a plan drawn from the seed   faults.py
    load          clients on plain TCP: orders, cancels, replaces; reconnect and resume    load.py
    recorder      writes down the market data groups              tests/system/checker/recorder.py

settings.py has every number and name. Only exchange.py knows the exchange; the load side imports
the standard library alone (tests/system/test_checker_imports.py). All is on loopback, everything
has a deadline, and only processes that were started here are touched.
"""
