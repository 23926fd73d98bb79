"""A scoring endpoint of one machine: the supervisor, its versions, its listener. Knows no flow."""
