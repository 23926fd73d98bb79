"""The scoring service: a bundle in, the scoring API out. Runs without torch."""
