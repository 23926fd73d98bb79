"""Files, locks, tables and experiment tracking that do not depend on the place. Opens no Azure client."""
