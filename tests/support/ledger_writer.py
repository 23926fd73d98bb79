"""A process that writes events and prints each one's number when it is told to be there.

Arguments: root-run id, how many events, characters of details, and after how many bytes of a file the system ends this
process (0 for never).
"""

import resource
import signal
import sys

from infra.backend import backend
from infra.ports import LiveModel
from infra.settings import get_settings

MODEL = LiveModel(name="photos", version=1, digest="ab" * 32)


def main(run: str, count: int, size: int, limit: int) -> None:
    writer = backend(get_settings()).ledger()
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for _ in range(count):
        event = writer.append("test", "started", MODEL, by="someone", run=run, details={"text": "x" * size})
        print(event.sequence, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
