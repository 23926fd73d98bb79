"""What a training changes in the process it runs in, and brings back: random state, memory, settings, logs."""

import ctypes
import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["own_process_state", "quiet_lightning"]

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


@contextmanager
def own_process_state() -> Iterator[None]:
    """Leave the process's random state and settings as they were found."""
    import torch

    strict, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    matmul, benchmark = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    with torch.random.fork_rng(), _memory_kept():
        try:
            # TF32 on a GPU's tensor cores, for what is left in float32; nothing changes on a CPU.
            torch.set_float32_matmul_precision("high")
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)
            torch.set_float32_matmul_precision(matmul)
            torch.backends.cudnn.benchmark = benchmark


@contextmanager
def _memory_kept() -> Iterator[None]:
    """Let malloc keep what a batch frees for the next batch.

    By default glibc hands each large block back to the system and gets it, page by page, again: up to a quarter of
    the CPU time of a training on CPUs.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # musl
        yield
        return
    libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, 128 << 10)
        libc.mallopt(_M_TRIM_THRESHOLD, 128 << 10)
        libc.malloc_trim(0)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice out of the run's log; errors still come through."""
    # Sets its loggers' levels itself, when it is imported.
    importlib.import_module("pytorch_lightning")

    names = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|torch)\b")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
