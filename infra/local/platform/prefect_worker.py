"""The worker of this machine's work pool: `python -m infra.local.platform.prefect_worker NAME`.

SIGTERM and SIGINT end it; flow runs that it started end with the process group (see `infra.local.platform.platform`).
"""

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any

from prefect.workers.process import ProcessWorker, ProcessWorkerResult

from infra.local.platform.prefect_settings import WORK_POOL

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


class Worker(ProcessWorker):
    """Prefect's, but one death of a process is reported once.

    Prefect reports it where the process is watched, and again when the crash hooks are through. By then the run may
    have been started again, and the second report would start it once more: two processes of one run at a time.
    """

    async def run(self, flow_run: "FlowRun", *arguments: Any, **named: Any) -> ProcessWorkerResult:
        """As Prefect's; but 0 is the status of a process whose end the server knows."""
        ends = await self._ends(flow_run)
        result = await super().run(flow_run, *arguments, **named)
        if result.status_code != 0 and await self._ends(flow_run) > ends:
            return result.model_copy(update={"status_code": 0})
        return result

    async def _ends(self, flow_run: "FlowRun") -> int:
        return sum(state.is_final() for state in await self.client.read_flow_run_states(flow_run.id))

    @classmethod
    def __dispatch_key__(cls) -> str:
        # Beside Prefect's in its registry, not in the place of it.
        return f"{cls.type}-of-ahc"


async def work(name: str) -> None:
    """Poll the work pool until a signal says stop."""
    worker = Worker(work_pool_name=WORK_POOL, name=name, create_pool_if_not_found=True)
    polling = asyncio.create_task(worker.start())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, polling.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await polling


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
