"""Checks of machine, services and subscription, for `ahc doctor` and the lifecycle. Changes nothing."""
