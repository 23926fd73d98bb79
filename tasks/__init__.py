"""One file a stage: thin Prefect tasks that connect `model` with `infra` and publish what a person wants to see."""
