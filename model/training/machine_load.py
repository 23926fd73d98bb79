"""How hard a training uses its machine: shown while it runs."""

import time
from typing import Final

import torch

from model.values import MachineLoad

_EVERY_SECONDS: Final = 5.0


class LoadMeter:
    """Counts images and answers a report every few seconds.

    Args:
        every_seconds: Between two reports.
    """

    def __init__(self, every_seconds: float = _EVERY_SECONDS) -> None:
        self._every = every_seconds
        self.restart()

    def restart(self) -> None:
        """Begin anew after something that is no training, as a validation."""
        self._since = time.monotonic()
        self._images = 0

    def count(self, images: int, device: torch.device) -> MachineLoad | None:
        """Add a batch; a report where the time has come for one."""
        self._images += images
        passed = time.monotonic() - self._since
        if passed < self._every:
            return None
        speed = self._images / passed
        self.restart()
        return measured_load(speed, device)


def measured_load(images_per_second: float, device: torch.device) -> MachineLoad:
    """What this device is used for just now."""
    if device.type != "cuda":
        return MachineLoad(images_per_second=images_per_second)
    free, total = torch.cuda.mem_get_info(device)
    return MachineLoad(
        images_per_second=images_per_second,
        gpu=torch.cuda.get_device_name(device),
        gpu_memory_used=total - free,
        gpu_memory_total=total,
        gpu_utilisation=_utilisation(device),
    )


def _utilisation(device: torch.device) -> float | None:
    try:
        return torch.cuda.utilization(device) / 100
    except (ModuleNotFoundError, RuntimeError):  # it asks NVIDIA's library, by a package that may be missing
        return None
