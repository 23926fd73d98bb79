"""The run that this process belongs to: its cancellation, its continuation, its correlation id, its spans.

Starts no run.
"""
