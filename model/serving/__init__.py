"""The scoring service: one process that answers for one bundle. No torch, no Prefect, no Azure."""
