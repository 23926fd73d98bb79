"""Finds which releases are due and starts them; repairs records. Deploys nothing itself."""
