"""Benchmarks: workloads, micro, throughput and open-loop latency, each with floor and baseline."""
