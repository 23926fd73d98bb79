"""Adapters for one machine: real processes, SQLite-backed MLflow, files. Not mocks; a small team could live on them."""
