"""One file a flow. Reading this folder for ten minutes shows the whole pipeline."""
