"""Registry, ledger, folders and secrets as files and SQLite of one machine. Starts no process."""
