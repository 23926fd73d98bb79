"""The worker of this machine's work pool: `python -m infra.local.worker_process NAME`.

SIGTERM and SIGINT end it; flow runs that it started end with the process group (see `infra.local.platform`).
"""

import asyncio
import contextlib
import signal
import sys


async def work(name: str) -> None:
    """Poll the work pool until a signal says stop."""
    from prefect.workers.process import ProcessWorker

    from infra.local.prefect_env import WORK_POOL

    worker = ProcessWorker(work_pool_name=WORK_POOL, name=name, create_pool_if_not_found=True)
    polling = asyncio.create_task(worker.start())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, polling.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await polling


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
