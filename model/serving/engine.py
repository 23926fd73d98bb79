"""Bytes of images in, probabilities out: a pool of threads that decode and run the network."""

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.bundle.read import Bundle
from model.data.decoding import decode
from model.errors import BundleCorrupt, ImageRejected
from model.serving.http.problems import Refusal

WARM_UP_RUNS: Final = 3
Probabilities = NDArray[np.float32]


class Scored(NamedTuple):
    """The outcome of one image, and how many seconds each step took."""

    outcome: Probabilities | ImageRejected
    decoding: float
    inference: float = 0.0


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Engine:
    """Scores images with one bundle.

    Each thread of the pool decodes an image and runs the network on one core, which is how a number of cores score
    the most images a second. An image that is alone in the engine runs on all cores instead, which is how it is
    answered soonest. Idle threads sleep; none spin.

    Raises:
        BundleCorrupt: ONNX Runtime can't load the network or run it.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 0, waiting_images: int = 64) -> None:
        self.bundle = bundle
        self.threads = threads or available_cores()
        self._waiting_images = waiting_images
        self._admitted = 0
        self._shared = self._session(threads=1)
        self._alone = self._session(threads=self.threads) if self.threads > 1 else self._shared
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="scoring")
        self._warm_up()

    @property
    def admitted(self) -> int:
        """Images that wait or are being scored."""
        return self._admitted

    async def score(self, images: Sequence[bytes]) -> list[Scored]:
        """Probabilities of each image in label order, or why it was rejected.

        Raises:
            Refusal: There is no room for so many images; waiting would only make every answer late.
        """
        if self._admitted and self._admitted + len(images) > self._waiting_images:
            raise Refusal(
                "overloaded",
                f"{self._admitted} images wait already; the limit is {self._waiting_images}.",
                headers={"Retry-After": "1"},
            )
        loop = asyncio.get_running_loop()
        self._admitted += len(images)
        try:
            return list(await asyncio.gather(*(loop.run_in_executor(self._pool, self._score, data) for data in images)))
        finally:
            self._admitted -= len(images)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _score(self, data: bytes) -> Scored:
        start = time.perf_counter()
        try:
            pixels = decode(data, self.bundle.preprocessing)
        except ImageRejected as error:
            return Scored(error, time.perf_counter() - start)
        decoded = time.perf_counter()
        probabilities = self._run(self._alone if self._admitted <= 1 else self._shared, pixels[None])
        return Scored(probabilities, decoded - start, time.perf_counter() - decoded)

    def _run(self, session: onnxruntime.InferenceSession, images: NDArray[np.uint8]) -> Probabilities:
        """uint8 [1, size, size, 3] -> float32 [classes]."""
        answer: Probabilities = session.run(None, {self.bundle.signature.input.name: images})[0][0]
        return answer

    def _session(self, *, threads: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(
                self.bundle.model.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise BundleCorrupt(f"ONNX Runtime can't load {self.bundle.model}: {error}") from error

    def _warm_up(self) -> None:
        size = self.bundle.preprocessing.size
        with suppress(ImageRejected):
            decode(b"?", self.bundle.preprocessing)  # loads every format's decoder
        blank = np.zeros((1, size, size, 3), dtype=np.uint8)
        try:
            for session in {id(item): item for item in (self._shared, self._alone)}.values():
                for _ in range(WARM_UP_RUNS):
                    answer = self._run(session, blank)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise BundleCorrupt(f"ONNX Runtime can't run {self.bundle.model}: {error}") from error
        if answer.shape != (len(self.bundle.labels),):
            raise BundleCorrupt(f"{self.bundle.model} answers {answer.shape}; {len(self.bundle.labels)} labels.")
