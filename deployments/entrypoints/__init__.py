"""Programs that a cluster or Azure ML starts. Nobody types them."""
