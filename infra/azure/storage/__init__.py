"""Blobs, Key Vault, leases, and what is kept in them. Knows no model and no endpoint."""
