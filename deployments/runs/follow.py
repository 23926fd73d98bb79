"""Stay with a flow run until it ended, whatever happens to the connection, the server or the run's process."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID

from deployments.runs.run_reader import Line, Snapshot, Watch
from infra.errors import ServerUnreachable
from infra.runs.restarts import may_continue

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.context import SettingsContext
    from prefect.settings import Settings

GRACE: Final = 10.0
"""Seconds in which that automation answers to a crash."""
SLOW: Final = 5.0
"""Seconds for an answer after which the server was away: while it starts again, questions wait in its socket."""
RETURN: Final = 1.2
"""Prefect's clients double their pause after each failure, give or take a fifth: they come back after the server by at
most this many times the time that it was away, and the first pause of 2 s."""


Answer = TypeVar("Answer")


class FollowTimeout(Exception):
    """The run goes on, but nobody follows it any more."""


async def follow(
    client: "PrefectClient",
    run_id: UUID,
    *,
    see: Callable[[Snapshot], None],
    tell: Callable[[str], None],
    since: datetime | None = None,
    interval: float = 0.3,
    patience: float = 300,
) -> "FlowRun":
    """Follow a run to its end; answers it with its final state.

    A crashed run isn't at its end while it can be expected to be started again.

    Args:
        client: An open client.
        run_id: The run.
        see: Called after every look, with what is new.
        tell: Called with a sentence when the connection is lost or back.
        since: Leave out states and log lines before this moment.
        interval: Seconds between two looks, at least.
        patience: Seconds without an answer from the server after which this gives up.

    Raises:
        ServerUnreachable: The server didn't answer for `patience` seconds.
    """
    watch = Watch(client, run_id, since=since)
    connection = ConnectionWatch(tell, patience, back=lambda seconds: watch.hold(RETURN * (seconds + 2)))
    crashed_at: float | None = None
    while True:
        asked_at = time.monotonic()
        snapshot = await connection.ask(watch.poll)
        if snapshot is not None:
            see(snapshot)
            crashed_at = (crashed_at or time.monotonic()) if may_continue(snapshot.run) else None
            waited = crashed_at is None or time.monotonic() - crashed_at > GRACE
            if snapshot.run.state is not None and snapshot.run.state.is_final() and waited:
                break
        # A server that is slow to answer is asked less often.
        await asyncio.sleep(max(interval, min(2, time.monotonic() - asked_at)))
    if watch.held() > SLOW:
        tell(f"Waits up to {watch.held():.0f} s for lines that its processes kept while the server was away.")
    last = await _last_lines(watch, connection)
    see(replace(snapshot, bars=(), lines=last))
    return snapshot.run


async def _last_lines(watch: Watch, connection: "ConnectionWatch") -> tuple[Line, ...]:
    # The run's process sends its last lines just before it ends, or when it notices that the server is back.
    await asyncio.sleep(max(1, watch.held()))
    lines = None
    while lines is None:
        lines = await connection.ask(watch.rest)
    return lines


class ConnectionWatch:
    """Asks a server that may be away for a while.

    Args:
        tell: Called with a sentence when it is lost or back.
        patience: Seconds without an answer after which this gives up.
        back: Called with the seconds that it was away, once it is back.
    """

    def __init__(
        self, tell: Callable[[str], None], patience: float, back: Callable[[float], None] = lambda _: None
    ) -> None:
        self._tell = tell
        self._patience = patience
        self._back = back
        self._lost_at: float | None = None
        self._settings: Settings | None = None

    async def ask(self, question: Callable[[], Awaitable[Answer]]) -> Answer | None:
        """The answer, or None where there was none this time.

        Raises:
            ServerUnreachable: There has been none for too long.
        """
        import httpx
        from prefect.exceptions import PrefectHTTPStatusError

        asked_at = time.monotonic()
        try:
            with self._no_retries():
                answer = await question()
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            if isinstance(error, PrefectHTTPStatusError) and error.response.status_code < 500:
                raise
            self._lost(error)
            return None
        away = time.monotonic() - (self._lost_at or asked_at)
        if self._lost_at is not None:
            self._tell(f"The server answers again after {away:.0f} s.")
            self._lost_at = None
            self._back(away)
        elif away > SLOW:
            self._back(away)
        return answer

    def _no_retries(self) -> "SettingsContext":
        """Who asks again anyway needs no client that does so silently, for up to a minute."""
        from prefect.context import SettingsContext, get_settings_context
        from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

        now = get_settings_context()
        if self._settings is None:
            # Once: it takes as long as several questions to the server.
            self._settings = now.settings.copy_with_update({PREFECT_CLIENT_MAX_RETRIES: 0})
        return SettingsContext(profile=now.profile, settings=self._settings)

    def _lost(self, error: Exception) -> None:
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            self._tell(f"The server doesn't answer ({type(error).__name__}); trying again.")
        elif time.monotonic() - self._lost_at > self._patience:
            raise ServerUnreachable(
                f"The Prefect server hasn't answered for {self._patience:.0f} s; the run may still go on."
            ) from error


async def cancel(client: "PrefectClient", run_id: UUID, *, patience: float = 30) -> "FlowRun":
    """Cancel a run and wait for its process to end; answers the run as it is then."""
    from prefect.client.schemas.objects import State, StateType

    await client.set_flow_run_state(
        run_id, State(type=StateType.CANCELLING, name="Cancelling", message="Cancelled from the command line.")
    )
    deadline = time.monotonic() + patience
    while True:
        run = await client.read_flow_run(run_id)
        if run.state is None or run.state.is_final() or time.monotonic() > deadline:
            return run
        await asyncio.sleep(0.5)
