"""The Prefect server on a socket that is already bound: `python -m infra.local.platform.prefect_server FD`.

The socket belongs to the supervisor. While the server starts, or starts again, requests wait in its queue instead of
being refused, and no other program can take the port in between. Without Prefect's own command line around it the
server answers 2 to 4 s earlier.
"""

import asyncio
import contextlib
import gc
import itertools
import os
import socket
import sqlite3
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path


def serve(descriptor: int) -> None:
    import uvicorn
    from prefect.server.api.server import create_app

    prepare_database(Path(os.environ["PREFECT_HOME"]) / "prefect.db")
    config = uvicorn.Config(
        create_app(final=True),
        log_level="warning",
        timeout_keep_alive=30,
        # Browsers and workers hold web sockets open; they come back by themselves.
        timeout_graceful_shutdown=2,
    )
    collect_garbage_in_a_thread()
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def collect_garbage_in_a_thread() -> None:
    """Let no other thread free what only the collector can find.

    What SQLite refused leaves a cursor in a cycle of tracebacks. Whoever frees it waits while its connection is in use,
    and that may wait for the end of a transaction. Where the event loop's thread freed it, the transaction couldn't
    end: the server stood still until SQLite gave up, a minute later. In a thread of its own nobody else waits.
    """
    gc.collect()
    gc.freeze()  # what was imported stays
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    for turn in itertools.count(1):
        time.sleep(0.5)
        gc.collect(2 if turn % 100 == 0 else 1)


def prepare_database(path: Path) -> None:
    """Make the empty database of a first start from one that was migrated before, where there is one.

    Prefect replays over a hundred migrations (3 s). The result depends on nothing but its version, so it is kept in
    the Python environment, and the next AHC_HOME starts with a copy.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    template = Path(sys.prefix, "share", "ahclassifier", f"prefect-{version('prefect')}.db")
    if template.exists():
        _copy(template, path)
        return
    asyncio.run(_migrate())
    with contextlib.suppress(OSError):  # the environment may belong to another user
        template.parent.mkdir(parents=True, exist_ok=True)
        _copy(path, template)


async def _migrate() -> None:
    from prefect.server.database import provide_database_interface

    database = provide_database_interface()
    await database.create_db()
    await (await database.engine()).dispose()


def _copy(source: Path, target: Path) -> None:
    """Copy a database with its write-ahead log: nobody sees half of it, and one that is there meanwhile stays."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(part)) as new:
        old.backup(new)
    with contextlib.suppress(FileExistsError):
        target.hardlink_to(part)
    part.unlink()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
