"""The full trading rules (RULES §1 to §7, §9 to §13) as plain Python, beside the plain model.

Cold; used by tests only: the oracle of everything a "full" instrument does. Written from RULES for
reading; docs/rules.md says what was decided where RULES is silent.
"""
