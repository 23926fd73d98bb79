"""The trained network as one ONNX graph: raw pixels in, calibrated probabilities out. Imports torch."""

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model.errors import ExportFailed
from model.evaluation.metrics import Floats
from model.evaluation.predictions import Answer, Images

if TYPE_CHECKING:
    import onnx

PARITY_LIMIT = 1e-3
"""Largest difference of a probability between torch and ONNX Runtime; float32 sums in another order differ by 1e-5."""


class FromPixels(nn.Module):
    """What is exported: uint8 [batch, size, size, 3] -> logits [batch, classes]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images.permute(0, 3, 1, 2).float())
        return logits


def torch_logits(network: nn.Module) -> Answer:
    """The network as a function of uint8 NHWC batches; on the device that its weights are on."""
    device = next(network.parameters()).device

    def answer(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float()
            return np.asarray(network(batch).float().cpu().numpy())

    return answer


def export_logits(network: nn.Module, path: Path, *, size: int) -> None:
    """Write the network as an ONNX file: `images` uint8 [batch, size, size, 3] -> `logits` float32 [batch, classes].

    Args:
        network: In eval mode on the CPU; float NCHW raw 0..255 -> logits.
        path: Of the file to write.
        size: Edge of the input in pixels.

    Raises:
        ExportFailed: torch can't express the network as a graph with a free batch size.
    """
    # It says at every export which torchvision operators it leaves out.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                FromPixels(network).eval(),
                (example,),
                dynamo=True,
                external_data=False,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ExportFailed(
            f"The network can't be exported to ONNX: {first}",
            next_step="Use a network whose forward has no control flow that depends on its input.",
        ) from error
    assert program is not None
    path.write_bytes(_without_traces(program.model_proto).SerializeToString(deterministic=True))


def add_probabilities(path: Path, *, temperature: float) -> None:
    """Let an exported file answer softmax(logits / temperature): `model.bundle.read.image_signature`."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    classes = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    graph.initializer.append(numpy_helper.from_array(np.array(temperature, dtype=np.float32), "temperature"))
    graph.node.append(helper.make_node("Div", ["logits", "temperature"], ["scaled"], name="calibrate"))
    graph.node.append(helper.make_node("Softmax", ["scaled"], ["probabilities"], name="softmax", axis=-1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["batch", classes]))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def check_parity(images: Images, trained: Floats, exported: Floats) -> float:
    """The largest difference between the probabilities of torch and of ONNX Runtime, both [n, classes].

    Raises:
        ExportFailed: It exceeds `PARITY_LIMIT`, or another class comes first for an image that isn't a tie.
    """
    if not len(images):
        return 0.0
    gaps = np.abs(trained - exported).max(axis=1)
    rows = np.arange(len(trained))
    # How much less torch gives the class that ONNX Runtime prefers; a tie within the limit may go either way.
    behind = trained.max(axis=1) - trained[rows, exported.argmax(axis=1)]
    wrong = np.flatnonzero((gaps > PARITY_LIMIT) | (behind > PARITY_LIMIT) | ~np.isfinite(gaps))
    if len(wrong):
        worst = wrong[np.argsort(-gaps[wrong])][:5]
        named = ", ".join(f"{images.paths[at]} ({gaps[at]:.4f})" for at in worst)
        raise ExportFailed(
            f"ONNX Runtime and torch disagree on {len(wrong)} of {len(images)} test images by more than "
            f"{PARITY_LIMIT:g}: {named}."
        )
    return float(gaps.max())


def _without_traces(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Without the stack traces of the exporting machine: they hold its paths and make equal models differ."""
    model.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.graph.doc_string = ""
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.functions):
        part.doc_string = ""
        del part.metadata_props[:]
    return model
