"""Benchmarks: `make bench`, or `python -m topologies.experiments --quick --only install`.

What is noisy is measured side by side in one run and given as a ratio; docs/benchmarks.md explains each.
"""
