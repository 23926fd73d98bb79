"""What `ahc deploy` puts on a Prefect server: deployments, pools, automations, blocks. Shows nothing."""
