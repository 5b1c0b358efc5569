"""Simulated machinery: one thread, one seed, every fault."""
