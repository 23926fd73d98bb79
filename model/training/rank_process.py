"""`python -m model.training.rank_process FILE`: trains as one rank, and writes nothing.

`model.training.local_processes` starts it.
"""

import logging
import os
import sys
import threading
from pathlib import Path

from model.errors import ModelError
from model.training.callbacks import Follower
from model.training.distributed import Place
from model.training.local_processes import RankFault, RankJob


def main(description: Path) -> int:
    """Train as the rank that the file describes; answer the exit code."""
    import torch

    from model.training.fit import fit_as

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = RankJob.model_validate_json(description.read_text())
    torch.set_num_threads(job.threads)
    try:
        fit_as(Place(**job.place), job.data, job.config, job.directory, Follower())
    except Exception as error:
        step = error.next_step if isinstance(error, ModelError) else None
        fault = RankFault(error=type(error).__name__, message=str(error), next_step=step)
        aside = job.report.with_suffix(".part")
        aside.write_text(fault.model_dump_json())
        aside.replace(job.report)
        raise
    return 0


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
