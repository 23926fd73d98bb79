"""New log lines of flow runs: each once, however late it came to the server, at the cost of one page a look.

The server sorts lines by their time and can be asked for those after so many. Whoever knows all lines up to a place
finds there the line that he knows, unless another one came in before it: then he looks further back.
"""

import bisect
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import Log

PAGE: Final = 200
"""More than this the server doesn't answer at once."""


class LogReader:
    """Reads the log lines of flow runs, again and again.

    Args:
        client: An open client.
    """

    def __init__(self, client: "PrefectClient") -> None:
        self._client = client
        self._known: list[tuple[datetime, UUID]] = []
        self._ids: set[UUID] = set()
        self._told: set[int] = set()

    async def new(self, flow_runs: Sequence[UUID]) -> "list[Log]":
        """What was not answered yet, in the order of the server."""
        offset, back = max(0, len(self._known) - 1), PAGE
        page = await self._page(flow_runs, offset)
        while offset and not (page and page[0].id == self._known[offset][1]):
            offset, back = max(0, offset - back), back * 2
            page = await self._page(flow_runs, offset)
        new = self._take(page)
        while len(page) == PAGE:
            offset += PAGE
            page = await self._page(flow_runs, offset)
            new += self._take(page)
        return new

    async def _page(self, flow_runs: Sequence[UUID], offset: int) -> "list[Log]":
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=list(flow_runs)))
        return await self._client.read_logs(log_filter=wanted, limit=PAGE, offset=offset)

    def _take(self, page: "list[Log]") -> "list[Log]":
        new = []
        for log in page:
            if log.id in self._ids:
                continue
            self._ids.add(log.id)
            bisect.insort(self._known, (log.timestamp, log.id))
            # A process whose server died in the middle of an answer sends its lines again, and they get new ids.
            same = hash((log.timestamp, log.flow_run_id, log.task_run_id, log.level, log.message))
            if same not in self._told:
                self._told.add(same)
                new.append(log)
        return new
