"""A scoring endpoint of an environment: what both kinds share. Runs outside the container."""
