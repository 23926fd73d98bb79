"""The processes of `ahc up`: Prefect server and worker, MLflow, their ports and settings. No endpoint."""
