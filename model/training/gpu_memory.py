"""What to say, and to try, when a batch does not fit into the memory of the GPU."""

import gc

from model.config import TrainingConfig
from model.errors import GpuMemoryExhausted
from model.training.sampling import Share

__all__ = ["free_gpu_memory", "memory_exhausted", "trains_on_gpu"]


def trains_on_gpu(config: TrainingConfig) -> bool:
    """Whether this machine trains this configuration on a GPU."""
    import torch

    return config.accelerator != "cpu" and torch.cuda.is_available()


def memory_exhausted(config: TrainingConfig, share: Share, cause: str) -> GpuMemoryExhausted:
    """The error with its numbers, and what to set instead.

    Args:
        config: Of the training.
        share: What this process computes at once.
        cause: What PyTorch said.
    """
    at_once = max(1, config.batch_size // (share.world * share.parts))
    size = config.preprocessing.size
    message = (
        f"{at_once} images of {size} x {size} pixels at once ({config.network}, {config.precision}, the last "
        f"{config.trainable_blocks} blocks learn) need more memory than the GPU has{_memory()}."
    )
    # Elsewhere than on a GPU, PyTorch's own words are all there is.
    return GpuMemoryExhausted(f"{message} {cause.splitlines()[0]}", next_step=_proposal(config, at_once))


def _proposal(config: TrainingConfig, at_once: int) -> str:
    if at_once == 1:
        return "One image is too much: lower `preprocessing.size` or `trainable_blocks`, or take a larger GPU."
    half, twice = config.batch_size // 2, config.accumulate_grad_batches * 2
    return (
        f"Set `batch_size` {config.batch_size} -> {half} and `accumulate_grad_batches` "
        f"{config.accumulate_grad_batches} -> {twice}: the steps stay the same. Or set `find_batch_size`."
    )


def _memory() -> str:
    import torch

    if not torch.cuda.is_available():
        return ""
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    peak = torch.cuda.max_memory_allocated()
    name = torch.cuda.get_device_name()
    return f" ({name}: {total / 2**30:.1f} GiB; this training held {peak / 2**30:.1f} GiB at most)"


def free_gpu_memory() -> None:
    """Give back what a training that failed still holds; once no frame of it is left."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
