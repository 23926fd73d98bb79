"""What every task and flow has in common: stages, cache keys, failure cards, events. No step of the lifecycle."""
