"""Checks of a manifest by Great Expectations, and their report. Reads no image files itself."""
