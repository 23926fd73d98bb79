"""What an `ahc up` leaves behind for the next."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.client.schemas.objects import State, StateDetails, StateType

from deployments.runs.recovery import forget_scheduled
from deployments.server.connection import connect, server
from infra.settings import Settings


def test_runs_that_wait_for_their_time_are_forgotten_and_those_that_began_are_kept(
    platform: Settings, ended: Callable[..., Any]
) -> None:
    tomorrow = StateDetails(scheduled_time=datetime.now(UTC) + timedelta(days=1))
    waits = ended(State(type=StateType.SCHEDULED, state_details=tomorrow))
    began = ended(State(type=StateType.COMPLETED))

    async def forget(deployment: str) -> None:
        async with connect(platform) as client:
            await forget_scheduled(client, deployment)

    asyncio.run(forget("killed/nowhere"))
    asyncio.run(forget("killed/here"))
    with server(platform) as client:
        kept = {run.id for run in client.read_flow_runs(limit=200)}
    assert began.id in kept
    assert waits.id not in kept
