"""Builds images in the container registry and reads what is there. Runs no container."""
