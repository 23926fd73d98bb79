"""From a checkpoint to a bundle: ONNX, int8, golden images, the model card. The only user of torch beside training."""
