"""Stay with a run that was started here: its log lines as they come, then how it ended."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from deployments.display.plain_log import as_text
from deployments.runs.follow import follow
from deployments.runs.run_reader import Snapshot
from deployments.server.connection import connect
from infra.settings import Settings
from tasks.framework.error_table import ended_as, exit_code

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


def attend(run_id: UUID, settings: Settings) -> tuple["FlowRun", int]:
    """Follow a run to its end, log lines to stderr; answers it and the exit code of how it ended.

    Ctrl-C stops the following, not the run.

    Raises:
        ServerUnreachable: The server stayed away.
    """
    return asyncio.run(_attend(run_id, settings, datetime.now(UTC) - timedelta(seconds=1)))


async def _attend(run_id: UUID, settings: Settings, since: datetime) -> tuple["FlowRun", int]:
    async with connect(settings) as client:
        run = await follow(client, run_id, see=_see, tell=_tell, since=since)
    state = run.state
    assert state is not None
    kind = state.type.value
    return run, exit_code(kind, ended_as(kind, state.name or "", state.message or ""))


def _see(snapshot: Snapshot) -> None:
    for line in snapshot.lines:
        _tell(as_text(line, colour=sys.stderr.isatty()))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
