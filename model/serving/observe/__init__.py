"""What the service says of itself: logs, metrics, spans, records, kept images. Never changes an answer."""
