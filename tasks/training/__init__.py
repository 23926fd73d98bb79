"""The tasks from data to a registered model. No endpoint."""
