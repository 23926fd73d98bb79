"""Tests mirror the packages; `tests/contract`, `tests/e2e` and `tests/benchmarks` cut across them."""
