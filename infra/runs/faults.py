"""The record of what failed a run: an artifact of the run that the failed step writes and every reader finds."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic import ValidationError

from model.faults import Fault

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import Artifact

FAULT: Final = "fault"
"""The key of a table artifact with one row, the record."""
CARD: Final = "failure-card"
"""The key of the same as Markdown, for people in the UI."""


def attach_fault(fault: Fault) -> None:
    """Make this record an artifact of the run that this code is a part of."""
    from prefect.artifacts import create_table_artifact

    create_table_artifact(
        key=FAULT, description=f"{fault.name} in {fault.where}", table=[fault.model_dump(mode="json")]
    )


def fault_in(artifact: "Artifact | None") -> Fault | None:
    """The record in an artifact of the key `FAULT`; None where it holds none."""
    try:
        return next((Fault.model_validate(row) for row in table_rows(artifact)), None)
    except ValidationError:
        return None  # a table of the same name from somebody else


def table_rows(artifact: "Artifact | None") -> list[dict[str, Any]]:
    """The rows of a table artifact; none without one."""
    data = artifact.data if artifact else None
    rows = json.loads(data) if isinstance(data, str) else data
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def read_fault(client: "SyncPrefectClient", run_ids: Sequence[UUID]) -> Fault | None:
    """The newest record of these runs."""
    return fault_in(newest_artifact(client, run_ids, FAULT))


def newest_artifact(client: "SyncPrefectClient", run_ids: Sequence[UUID], key: str) -> "Artifact | None":
    """The newest artifact of this key of these runs."""
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    artifacts = client.read_artifacts(
        artifact_filter=ArtifactFilter(
            key=ArtifactFilterKey(any_=[key]), flow_run_id=ArtifactFilterFlowRunId(any_=list(run_ids))
        ),
        sort=ArtifactSort.CREATED_DESC,
        limit=1,
    )
    return artifacts[0] if artifacts else None
