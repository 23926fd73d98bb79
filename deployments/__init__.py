"""How people and pipelines reach the platform: the `ahc` command line, environment files and deployments."""
