"""The bundle on disk: read, verified, written. No torch, and nothing about how a model was made."""
