"""The independent checker: what clients, the network and the disk saw must be one story. Cold.

It reads three kinds of witnesses and nothing else, and shares no code with the exchange: only the
standard library is imported here (tests/system/test_checker_imports.py proves it), and layouts are
written down anew from their description.

    client logs    what every connection said and heard      logs.py
    capture        the datagrams of the market data groups   capture.py, recorder.py
    journal        the segment files of the data directory   journal.py

    streams.py     report numbers: gapless, once, in order, one content, across reconnects
    orders.py      life of each order, its quantities; each client id executed once
    trades.py      both sides of each trade
    inputs.py      acknowledged requests and journal inputs are the same requests
    tape.py        market data against reports: numbers, trades, references

What it finds are `Violation`s with evidence (findings.py). What it could not check it says in
`notes`: silence would look like a pass. `python -m tests.system.checker RUN` judges the folder of a
run again; run.py describes such a folder.
"""
