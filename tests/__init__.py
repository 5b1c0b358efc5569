"""The test suite. It mirrors the source tree; tests/tier.py says which part runs when."""
