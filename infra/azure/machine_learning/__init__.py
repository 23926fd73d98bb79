"""The Azure ML workspace: registry, data assets, tracking, training jobs, components. No endpoint."""
