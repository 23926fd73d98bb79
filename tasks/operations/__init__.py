"""Tasks beside the lifecycle: infrastructure, container images, keys, records, publication. No model is judged here."""
