"""Where things run: settings, environments, ports and their adapters. No machine learning in here."""
