"""A tiny real bundle in milliseconds, for every test that needs one to serve, register or deploy."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from model.bundle.read import BundleRef, Lineage, open_bundle
from model.bundle.write import seal
from model.data.decoding import Preprocessing, decode
from model.files import staged

COLOURS: dict[str, tuple[int, int, int]] = {
    "blue": (30, 40, 220),
    "green": (30, 200, 40),
    "red": (220, 30, 40),
    "white": (230, 230, 230),
}


def colour_image(colour: tuple[int, int, int] | str, *, size: tuple[int, int] = (48, 40), form: str = "PNG") -> bytes:
    """The bytes of a plain image."""
    rgb = COLOURS[colour] if isinstance(colour, str) else colour
    buffer = io.BytesIO()
    Image.new("RGB", size, rgb).save(buffer, form)
    return buffer.getvalue()


def make_bundle(
    directory: Path,
    *,
    labels: tuple[str, ...] = ("blue", "green", "red"),
    name: str = "colours",
    bias: float = 0.0,
    golden: Mapping[str, tuple[float, ...]] | None = None,
    size: int = 32,
    code: str = "test",
    blinded: bool = False,
    heavy: int = 0,
) -> BundleRef:
    """A bundle whose model answers the label of the nearest colour (mean colour -> linear -> softmax).

    Args:
        directory: Where the bundle goes.
        labels: Keys of `COLOURS`; any others get a colour of their own.
        name: Name of the model.
        bias: Added to the first label's logit: two values make two different models; a large one makes a model that
            always answers the first label.
        golden: Label -> probabilities to write as expected, instead of what the model really answers.
        size: Edge of the model's input.
        code: Lineage; changes the digest and nothing else.
        blinded: Images that are nearly white make the network fail; the golden ones are not.
        heavy: So many products of 1024 x 1024 matrices for each answer: about 40 ms each on one core.
    """
    preprocessing = Preprocessing(size=size, crop_fraction=1.0)
    with staged(directory) as folder:
        (folder / "golden").mkdir()
        (folder / "model.onnx").write_bytes(_model(labels, bias, size, blinded=blinded, heavy=heavy))
        images = {f"golden/{i:02d}.png": colour_image(_colour(label, i)) for i, label in enumerate(labels)}
        answers = _answers(folder / "model.onnx", list(images.values()), preprocessing)
        expected: dict[str, tuple[float, ...]] = {}
        for (file, data), label, answer in zip(images.items(), labels, answers, strict=True):
            (folder / file).write_bytes(data)
            expected[file] = (golden or {}).get(label, tuple(float(value) for value in answer))
        seal(
            folder,
            name=name,
            served="model.onnx",
            labels=labels,
            preprocessing=preprocessing,
            golden=expected,
            lineage=Lineage(data_version="0" * 16, data_uri="memory://", code=code, config_hash="0" * 16, seed=0),
            metrics={"accuracy": {"value": 1.0, "low": 0.9, "high": 1.0}},
        )
    return open_bundle(directory).ref


def _colour(label: str, index: int) -> tuple[int, int, int]:
    return COLOURS.get(label, (40 + 50 * index % 200, 120, 220 - 35 * index % 200))


def _answers(model: Path, images: list[bytes], preprocessing: Preprocessing) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": np.stack([decode(data, preprocessing) for data in images])})[0]


def _model(labels: tuple[str, ...], bias: float, size: int, *, blinded: bool, heavy: int) -> bytes:
    """Logits = -|mean - colour|^2 / 2000 up to what is the same for all labels."""
    from onnx import TensorProto, checker, helper, numpy_helper

    colours = np.array([_colour(label, i) for i, label in enumerate(labels)], dtype=np.float32)
    offset = -(colours**2).sum(axis=1) / 2000
    offset[0] += bias
    constants = [
        numpy_helper.from_array((colours.T / 1000).astype(np.float32), "weight"),
        numpy_helper.from_array(offset.astype(np.float32), "offset"),
        numpy_helper.from_array(np.array([1, 2], dtype=np.int64), "axes"),
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["product"]),
        helper.make_node("Add", ["product", "offset"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    if blinded:
        # The second element of a list of one, for bright images.
        constants += [
            numpy_helper.from_array(np.array(200, dtype=np.float32), "bright"),
            numpy_helper.from_array(np.zeros(1, dtype=np.float32), "nothing"),
        ]
        nodes[-1:] = [
            helper.make_node("ReduceMean", ["pixels"], ["light"], keepdims=0),
            helper.make_node("Greater", ["light", "bright"], ["dazzled"]),
            helper.make_node("Cast", ["dazzled"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["nothing", "index"], ["zero"]),
            helper.make_node("Add", ["logits", "zero"], ["seen"]),
            helper.make_node("Softmax", ["seen"], ["probabilities"], axis=-1),
        ]
    if heavy:
        # Of the image, so that nothing of it can be known before.
        constants += [
            numpy_helper.from_array(np.array([1024, 1024], dtype=np.int64), "many"),
            numpy_helper.from_array(np.array(1e-9, dtype=np.float32), "tiny"),
        ]
        nodes[-1:] = [
            helper.make_node("ReduceMean", ["pixels"], ["light"], keepdims=0),
            helper.make_node("Mul", ["light", "tiny"], ["little"]),
            helper.make_node("Expand", ["little", "many"], ["work_0"]),
            *(helper.make_node("MatMul", [f"work_{turn}", "work_0"], [f"work_{turn + 1}"]) for turn in range(heavy)),
            helper.make_node("ReduceMean", [f"work_{heavy}"], ["worked"], keepdims=0),
            helper.make_node("Add", ["logits", "worked"], ["thought"]),
            helper.make_node("Softmax", ["thought"], ["probabilities"], axis=-1),
        ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", size, size, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(labels)])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    checker.check_model(model)
    return model.SerializeToString()
