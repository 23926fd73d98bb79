"""Training as a job of a Kubernetes work pool. No other part of the platform runs here."""
