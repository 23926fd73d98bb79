"""The tasks of a release and a rollback: checks, approval, deploy, traffic, watch. No training."""
