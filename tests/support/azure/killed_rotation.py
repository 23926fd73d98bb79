"""A key rotation in a process of its own: `python -m tests.support.azure.killed_rotation PATTERN|rerun`.

With a PATTERN it is killed (SIGKILL) after the request to Azure whose `METHOD URL` matches; `rerun` runs the last run
again, and ends with its exit code.
"""

import sys
from typing import TYPE_CHECKING

from deployments.cli import in_process
from infra.settings import get_settings
from tests.support.azure.killed_endpoint import die_at

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


def main(what: str) -> int:
    in_process.connect(get_settings())
    if what == "rerun":
        return in_process.outcome(in_process.rerun_here(_last_run(), "key-rotation"))
    die_at(what, nth=1, before=False)
    return in_process.outcome(in_process.run_here("key-rotation", {"environment": "test", "reason": "a test"}))


def _last_run() -> "FlowRun":
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        return client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
