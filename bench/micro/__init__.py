"""Micro benchmarks of single kernels: run once as tests, measured by `run.py bench micro`."""
