"""Predictions, metrics, plots and the verdict. Changes no model."""
