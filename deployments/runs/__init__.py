"""Starts, reads, follows, decides and reruns runs of a Prefect server. Prints nothing."""
