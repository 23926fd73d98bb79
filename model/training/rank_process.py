"""`python -m model.training.rank_process FILE`: trains as one rank, and writes nothing.

`model.training.local_processes` starts it.
"""

import logging
import os
import sys
import threading
from pathlib import Path

from model.faults import Fault
from model.files import write_whole
from model.training.callbacks import Follower
from model.training.distributed import Place
from model.training.local_processes import RankJob


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
        write_whole(job.report, Fault.of(error).model_dump_json())
        raise
    return 0


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
