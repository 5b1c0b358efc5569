"""The exchange a second time, naive and readable, and what is needed to compare it with the engine.

Written from docs/rules.md alone; no line is shared with the compiled engine but the names and
numbers of engine/records.py.
"""
