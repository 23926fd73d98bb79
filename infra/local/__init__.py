"""The embedded platform of one machine. No Azure package is imported here."""
