"""Training a network: data set, loop, checkpoints, several processes. Knows no bundle and no verdict."""
