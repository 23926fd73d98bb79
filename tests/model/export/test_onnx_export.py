import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from model.bundle.read import open_bundle
from model.config import QuantizationConfig
from model.data.decoding import decode
from model.data.manifest import DataVersion, SplitConfig, build_manifest, read_manifest, write_manifest
from model.errors import DataRejected, ExportFailed, SourceUnreadable
from model.evaluation.evaluate import assess
from model.evaluation.metrics import PairedCounts, difference_bound
from model.evaluation.predictions import Images, onnx_answer
from model.evaluation.verdict import GateConfig, judge
from model.export.build import bundle_network
from model.export.golden_images import LARGEST
from model.export.onnx_export import PARITY_LIMIT, add_probabilities, check_parity, export_logits
from model.export.quantization import ALPHA, images_needed
from tests.support.colour_model import SIZE, ColourNetwork, colour_data, lineage, trained

WITHOUT = QuantizationConfig(enabled=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataVersion:
    return colour_data(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def built(data: DataVersion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for which int8 was tried and, as nothing is that fast, left out."""
    directory = tmp_path_factory.mktemp("built") / "bundle"
    unreachable = QuantizationConfig(margin=0.3, min_speedup=1000)
    bundle_network(trained(), data, directory, name="colours", lineage=lineage(data), quantization=unreachable)
    return directory


@pytest.fixture(scope="module")
def with_int8(data: DataVersion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("int8") / "bundle"
    anything = QuantizationConfig(margin=0.3, min_speedup=1e-6)
    bundle_network(trained(), data, directory, name="colours", lineage=lineage(data), quantization=anything)
    return directory


def test_the_exported_graph_answers_like_torch_for_any_batch(tmp_path: Path) -> None:
    network = ColourNetwork().eval()
    export_logits(network, tmp_path / "m.onnx", size=SIZE)
    add_probabilities(tmp_path / "m.onnx", temperature=1.7)
    answer = onnx_answer(tmp_path / "m.onnx")
    for batch in (1, 2, 5):
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, SIZE, SIZE, 3), dtype=np.uint8)
        with torch.no_grad():
            expected = torch.softmax(network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()) / 1.7, -1).numpy()
        given = answer(pixels)
        assert given.dtype == np.float32
        np.testing.assert_allclose(given, expected, atol=1e-5)


def test_the_exported_file_tells_nothing_of_the_machine_that_made_it(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        export_logits(ColourNetwork().eval(), tmp_path / name, size=SIZE)
        add_probabilities(tmp_path / name, temperature=1.0)
    data = (tmp_path / "a.onnx").read_bytes()
    assert data == (tmp_path / "b.onnx").read_bytes()
    assert str(Path(__file__).parent).encode() not in data
    assert b"stack_trace" not in data
    graph = onnx.load(str(tmp_path / "a.onnx")).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["images", "probabilities"]


def test_a_network_that_depends_on_its_input_is_refused(tmp_path: Path) -> None:
    class Moody(ColourNetwork):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) * (1.0 if images.mean().item() > 100 else 2.0)

    with pytest.raises(ExportFailed, match="can't be exported"):
        export_logits(Moody().eval(), tmp_path / "m.onnx", size=SIZE)


def test_a_difference_between_torch_and_onnx_names_the_images() -> None:
    images = Images("memory://", ("a/1.jpg", "a/2.jpg", "b/3.jpg"), ("a", "a", "b"), ("1", "2", "3"))
    trained = np.array([[0.7, 0.3], [0.5 + 1e-5, 0.5 - 1e-5], [0.1, 0.9]])
    # A tie may fall either way.
    assert check_parity(images, trained, np.array([[0.7, 0.3], [0.5, 0.5 + 1e-6], [0.1, 0.9]])) < PARITY_LIMIT
    with pytest.raises(ExportFailed, match=r"1 of 3 test images .* b/3\.jpg"):
        check_parity(images, trained, np.array([[0.7, 0.3], [0.5, 0.5], [0.2, 0.8]]))
    with pytest.raises(ExportFailed, match=r"a/1\.jpg"):
        check_parity(images, trained, np.array([[np.nan, 0.3], [0.5, 0.5], [0.1, 0.9]]))


def test_a_network_that_answers_otherwise_after_its_export_makes_no_bundle(data: DataVersion, tmp_path: Path) -> None:
    class Drifting(ColourNetwork):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            # The exporter traces with tensors of a class of its own and so sees another function.
            shift = 50.0 if type(images) is torch.Tensor else 0.0
            return super().forward(images) + torch.tensor([shift, 0.0, 0.0])

    made = trained()
    drifting = type(made)(Drifting().eval(), made.labels, made.preprocessing, made.config)
    with pytest.raises(ExportFailed, match=r"\.png"):
        bundle_network(drifting, data, tmp_path / "b", name="x", lineage=lineage(data), quantization=WITHOUT)
    assert list(tmp_path.iterdir()) == []


def test_a_built_bundle_is_whole_and_its_golden_images_hold(built: Path, data: DataVersion) -> None:
    bundle = open_bundle(built)
    assert (bundle.labels, bundle.model.name) == (data.labels, "model.onnx")
    assert bundle.lineage.data_version == data.version
    answer = onnx_answer(bundle.model)
    assert 3 <= len(bundle.golden) <= 10
    answered = set()
    for golden in bundle.golden:
        given = answer(decode(golden.read(), bundle.preprocessing)[None])[0]
        assert golden.matches(given)
        answered.add(int(given.argmax()))
    assert answered == {0, 1, 2}
    drawn = ("confusion-matrix", "reliability", "recall-by-class", "worst-mistakes", "training")
    names = {path.name for path in (built / "plots").iterdir()}
    assert names == {f"{name}.png" for name in drawn}


def test_the_same_inputs_give_the_same_digest(built: Path, data: DataVersion, tmp_path: Path) -> None:
    again = bundle_network(
        trained(),
        data,
        tmp_path / "again",
        name="colours",
        lineage=lineage(data),
        quantization=QuantizationConfig(margin=0.3, min_speedup=1000),
    )
    assert again.digest == open_bundle(built).digest
    other = bundle_network(
        trained(offset=(0.3, 0, 0)),
        data,
        tmp_path / "other",
        name="colours",
        lineage=lineage(data),
        quantization=WITHOUT,
    )
    assert other.digest != again.digest


def test_the_stored_metrics_are_those_of_the_served_model(built: Path, data: DataVersion) -> None:
    bundle = open_bundle(built)
    found = assess(built, None, read_manifest(data.manifest_uri), data.source_uri, seed=lineage(data).seed)
    stored = bundle.metrics["evaluation"]
    assert stored["accuracy"] == found.challenger.accuracy.model_dump()
    assert stored["confusion"] == [list(row) for row in found.challenger.confusion]
    assert found.challenger.digest == bundle.digest
    assert judge(found, GateConfig()).outcome == "promote"
    assert bundle.metrics["calibration"]["ece_after"] <= bundle.metrics["calibration"]["ece_before"] + 0.02
    assert bundle.metrics["parity"]["largest_difference"] < PARITY_LIMIT
    assert {"export_seconds", "parity_seconds", "float32_ms", "int8_ms"} <= set(bundle.measured)


def test_int8_that_is_not_faster_is_left_out_and_the_metrics_say_why(built: Path) -> None:
    decision = open_bundle(built).metrics["int8"]
    assert decision["served"] is False
    assert "times as fast" in decision["reason"]
    assert not (built / "model.int8.onnx").exists()
    assert decision["reason"] in (built / "MODEL_CARD.md").read_text()


def test_int8_that_holds_and_is_fast_is_served(with_int8: Path, built: Path, data: DataVersion) -> None:
    bundle = open_bundle(with_int8)
    assert bundle.model.name == "model.int8.onnx"
    assert (with_int8 / "model.onnx").read_bytes() == (built / "model.onnx").read_bytes()
    operators = {node.op_type for node in onnx.load(str(bundle.model)).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    pixels = decode(bundle.golden[0].read(), bundle.preprocessing)[None]
    exact, rounded = onnx_answer(with_int8 / "model.onnx")(pixels), onnx_answer(bundle.model)(pixels)
    assert 0 < np.abs(exact - rounded).max() < 0.2
    assert bundle.golden[0].matches(rounded[0])
    found = assess(with_int8, built, read_manifest(data.manifest_uri), data.source_uri)
    assert found.champion is not None
    assert found.challenger.accuracy.value >= found.champion.accuracy.value - 0.12


def test_int8_that_loses_accuracy_is_left_out(data: DataVersion, tmp_path: Path) -> None:
    class Wide(ColourNetwork):
        """One huge activation stretches the ranges until nothing else is left of 256 steps."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features = torch.relu(self.filters(images / 255))
            loud = features * torch.tensor([1.0, 1.0, 1.0]).view(1, 3, 1, 1) + 3000.0
            return self.head((loud * 1.0).mean((2, 3)) - 3000.0)

    made = trained()
    wide = type(made)(Wide().eval(), made.labels, made.preprocessing, made.config)
    config = QuantizationConfig(margin=0.3, min_speedup=1e-6)
    bundle_network(wide, data, tmp_path / "b", name="x", lineage=lineage(data), quantization=config)
    decision = open_bundle(tmp_path / "b").metrics["int8"]
    assert decision["served"] is False
    assert "isn't shown to hold" in decision["reason"]
    assert decision["difference"] < -0.1


def test_too_few_validation_images_for_the_margin_spare_the_attempt(data: DataVersion, tmp_path: Path) -> None:
    bundle_network(trained(), data, tmp_path / "b", name="x", lineage=lineage(data))
    bundle = open_bundle(tmp_path / "b")
    assert "are needed" in bundle.metrics["int8"]["reason"]
    assert "int8_ms" not in bundle.measured
    for margin in (0.3, 0.05, 0.03, 0.01):
        needed = images_needed(margin)
        assert difference_bound(PairedCounts(images=needed, wins=0, losses=0), alpha=ALPHA, upper=False) > -margin


def test_the_model_card_tells_what_a_reader_needs(built: Path, data: DataVersion) -> None:
    card = (built / "MODEL_CARD.md").read_text()
    accuracy = json.loads((built / "metrics.json").read_text())["evaluation"]["accuracy"]
    for fact in (f"{accuracy['value']:.1%}", f"{accuracy['low']:.1%}", data.version, "0123abc", "depth.layers"):
        assert fact in card
    for heading in ("## Data", "## Calibration", "## Intended use and limits", "## Lineage"):
        assert heading in card
    for line in card.splitlines():
        if line.startswith("!["):
            assert (built / line.split("(")[1].rstrip(")")).is_file()


def test_a_large_original_becomes_a_smaller_golden_image(tmp_path: Path) -> None:
    colour_data(tmp_path, each=8)
    source = tmp_path / "source"
    random = np.random.default_rng(0)
    for path in source.glob("*/*.png"):
        pixels = np.asarray(Image.open(path).resize((480, 400))).astype(int) + random.integers(-9, 10, (400, 480, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        assert path.stat().st_size > LARGEST
    frame = build_manifest(str(source), split=SplitConfig(test=0.3, validation=0.2))
    data = write_manifest(frame, root=str(tmp_path / "m"), name="large", source_uri=str(source))
    bundle_network(trained(), data, tmp_path / "b", name="x", lineage=lineage(data), quantization=WITHOUT)
    bundle = open_bundle(tmp_path / "b")
    answer = onnx_answer(bundle.model)
    for golden in bundle.golden:
        assert golden.path.stat().st_size < LARGEST / 10
        assert golden.matches(answer(decode(golden.read(), bundle.preprocessing)[None])[0])


def test_a_data_version_without_test_images_makes_no_bundle(tmp_path: Path) -> None:
    data = colour_data(tmp_path, each=3)
    frame = read_manifest(data.manifest_uri)
    frame.loc[frame["split"] == "test", "split"] = "train"
    data = write_manifest(frame, root=str(tmp_path / "m"), name="none", source_uri=data.source_uri)
    with pytest.raises(DataRejected, match="no test image"):
        bundle_network(trained(), data, tmp_path / "b", name="x", lineage=lineage(data))


def test_a_source_that_vanished_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    data = colour_data(tmp_path, each=6)
    shutil.rmtree(tmp_path / "source")
    with pytest.raises(SourceUnreadable, match=r"\.png"):
        bundle_network(trained(), data, tmp_path / "out" / "b", name="x", lineage=lineage(data))
    assert list((tmp_path / "out").iterdir()) == []


def test_the_export_says_nothing_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_logits(nn.Sequential(ColourNetwork()).eval(), tmp_path / "m.onnx", size=SIZE)
    assert capfd.readouterr() == ("", "")
