"""Runs as people and pipelines see them: trees, logs, tables, JUnit. Asks no server."""
