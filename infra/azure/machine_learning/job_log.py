"""What the processes of an Azure ML job print, while they print it."""

import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from infra.training import TrainingUpdate

FILE: Final = re.compile(r"user_logs/std_log(?:_process_0*(?P<rank>\d+))?.*\.txt")
LAST_LINES: Final = 20
SECONDS: Final = 30.0


class JobLog:
    """The log of one job: lines of `deployments.entrypoints.training_job` as updates, all others as text."""

    def __init__(self, see: Callable[[TrainingUpdate], None]) -> None:
        self._see = see
        self._read: dict[str, int] = {}
        self._begun: dict[str, bytes] = {}
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        """The last lines, progress left out."""

    def follow(self, files: Mapping[str, str], *, ended: bool = False) -> None:
        """Report what is new. A file that can't be read now is read the next time.

        Args:
            files: Name to URL.
            ended: Nothing is written any more: a last line needs no end.
        """
        logs = {name: match for name in sorted(files) if (match := FILE.fullmatch(name))}
        for name, match in logs.items():
            rank = int(match["rank"] or 0)
            *lines, begun = (self._begun.get(name, b"") + self._new(name, files[name])).split(b"\n")
            self._begun[name] = b"" if ended else begun
            for line in [*lines, begun] if ended else lines:
                self._report(line.decode(errors="replace").rstrip(), rank, f"[rank {rank}] " if len(logs) > 1 else "")

    def _new(self, name: str, url: str) -> bytes:
        import httpx

        start = self._read.get(name, 0)
        try:
            answer = httpx.get(url, headers={"Range": f"bytes={start}-"}, timeout=SECONDS)
        except httpx.TransportError:
            return b""
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            # Where the job was started again, its log may begin anew.
            size = answer.headers.get("Content-Range", "").rpartition("/")[2]
            self._read[name] = 0 if size.isdigit() and int(size) < start else start
            return b""
        if answer.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            return b""
        whole = answer.status_code == httpx.codes.OK
        new = answer.content[start:] if whole else answer.content
        self._read[name] = start + len(new)
        return new

    def _report(self, line: str, rank: int, tag: str) -> None:
        update = TrainingUpdate.of_line(line)
        if update.done is not None:
            # All ranks advance together.
            if rank == 0:
                self._see(update)
        elif sentence := update.sentence:
            self.last.append(tag + sentence)
            self._see(update.model_copy(update={"text": tag + update.text}))
