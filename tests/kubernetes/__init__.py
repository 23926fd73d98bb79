"""Training on a real Kubernetes cluster."""
