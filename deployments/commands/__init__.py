"""The commands of `ahc`, one module each; `deployments/cli.py` lists them."""
