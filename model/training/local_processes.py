"""The other ranks of this machine as processes of our own: Lightning would run this process's command line again."""

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from model.config import TrainingConfig
from model.data.manifest import DataVersion
from model.errors import TrainingInterrupted
from model.faults import Fault
from model.training.distributed import Place, RankLost
from model.values import Frozen

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore

log = logging.getLogger(__name__)

_GRACE: Final = 20.0
_TAIL: Final = 5


class RankJob(Frozen):
    """What another rank gets: all that `fit` gets but who looks on, and the file for the record of its fault."""

    data: DataVersion
    config: TrainingConfig
    directory: Path
    place: dict[str, Any]
    threads: int
    report: Path


class _Rank:
    """One of them, its output in this process's log."""

    def __init__(self, job: RankJob, number: int, folder: Path) -> None:
        self.number = number
        self.report = job.report
        description = folder / f"rank-{number}.json"
        description.write_text(job.model_dump_json())
        self.tail: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "model.training.rank_process", str(description)],
            # It ends when this pipe does: with this process, however that ends.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=Path(__file__).parents[2],
            # A signal to all of a terminal's processes is this one's to answer.
            start_new_session=True,
            env=os.environ | {"RANK": str(number), "PYTHONUNBUFFERED": "1"},
        )
        self._reader = threading.Thread(target=self._read, name=f"rank-{number}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.tail = [*self.tail, line.rstrip()][-_TAIL:]
            log.info("[rank %d] %s", self.number, line.rstrip())

    def fault(self) -> Fault | None:
        """Why it ended; None where it ended well or goes on."""
        code = self.process.poll()
        if not code:
            return None
        if self.report.exists():
            return Fault.model_validate_json(self.report.read_text())
        self._reader.join(timeout=5)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        tail = f" It said last: {' | '.join(self.tail)}" if self.tail else ""
        return Fault.of(TrainingInterrupted(f"Rank {self.number} of this training {how}.{tail}"))

    def end(self) -> None:
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(timeout=5)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def local_ranks(
    place: Place, data: DataVersion, config: TrainingConfig, directory: Path
) -> Iterator["tuple[Place, TCPStore | None]"]:
    """Start the ranks of this machine's other devices; end them with this one.

    Yields: This process's place and, where it is the first of one machine only, where they meet.

    Raises: What ended a rank, where it is that which ended this one.
    """
    if place.local_world == 1:
        yield place, None
        return
    import torch
    from torch._C._distributed_c10d import TCPStore

    store = None
    if place.nodes == 1:
        store = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
        place = Place(**(asdict(place) | {"port": store.port}))
    threads = max(1, torch.get_num_threads() // place.local_world)
    before = torch.get_num_threads()
    ranks: list[_Rank] = []
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        try:
            torch.set_num_threads(threads)
            for local in range(1, place.local_world):
                own = asdict(place) | {"rank": place.rank + local, "local_rank": local}
                report = Path(folder) / f"fault-{local}.json"
                job = RankJob(data=data, config=config, directory=directory, place=own, threads=threads, report=report)
                ranks.append(_Rank(job, place.rank + local, Path(folder)))
            yield place, store
        except RankLost as error:
            raise _cause(ranks, error) from error
        finally:
            torch.set_num_threads(before)
            for rank in ranks:
                rank.end()


def _cause(ranks: list[_Rank], lost: RankLost) -> Exception:
    """What ended another process first, where this one only lost it."""
    until = time.monotonic() + _GRACE
    while time.monotonic() < until:
        for rank in ranks:
            fault = rank.fault()
            if fault is not None and fault.name != RankLost.__name__:
                return fault.error()
        if all(rank.process.poll() is not None for rank in ranks):
            break
        time.sleep(0.1)
    return TrainingInterrupted(str(lost))
