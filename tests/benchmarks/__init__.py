"""Benchmarks: each measures a number of `docs/benchmarks.md`."""
