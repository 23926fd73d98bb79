"""The network's shape: backbones and the classifier. No training, no export."""
