"""The `ahc` command line: parses, calls, exits with the mapped code. No business logic."""
