"""Templates, deployments, what-if, costs, removal: the subscription's resources from code. Deploys no model."""
