"""One platform per AHC_HOME: the lock, its holder, and the processes of a killed predecessor."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from infra.errors import AlreadyRunning
from infra.local.platform.child_process import end, session_members
from infra.settings import Settings
from model.files import try_lock


class Instance:
    """Holds AHC_HOME for this process.

    The lock belongs to the open file, so it ends with the process, however that ends; the content only tells people
    who holds it, and the next start which processes to look for.

    Raises (on enter):
        AlreadyRunning: Names the pid and addresses of the platform that runs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.path() / "up.lock"
        self._descriptor: int | None = None
        self._sessions: dict[str, list[int]] = {}

    def __enter__(self) -> Self:
        self._path.touch()
        self._descriptor = try_lock(self._path)
        if self._descriptor is None:
            raise AlreadyRunning(self._describe(read_instance(self._path)))
        return self

    def end_leftovers(self) -> int:
        """End what a killed platform of this AHC_HOME left running; answers how many processes that were."""
        recorded = read_instance(self._path).get("sessions", {})
        sessions = [number for numbers in recorded.values() for number in numbers]
        processes = session_members(sessions, home=self._settings.home) if sessions else []
        end(processes)
        self._write()
        return len(processes)

    def record(self, name: str, session: int) -> None:
        """Remember that a child with this session id was started."""
        self._sessions.setdefault(name, []).append(session)
        self._write()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self) -> None:
        assert self._descriptor is not None
        content = json.dumps(
            {
                "pid": os.getpid(),
                "prefect": self._settings.prefect_ui_url,
                "mlflow": self._settings.mlflow_url,
                "sessions": self._sessions,
            }
        )
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content.encode(), 0)

    def _describe(self, holder: dict[str, Any]) -> str:
        return (
            f"`ahc up` runs already for {self._settings.home}: process {holder.get('pid', 'unknown')}, "
            f"Prefect {holder.get('prefect', self._settings.prefect_ui_url)}, "
            f"MLflow {holder.get('mlflow', self._settings.mlflow_url)}."
        )


def read_instance(path: Path) -> dict[str, Any]:
    """What the platform that holds (or held) this lock file wrote into it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
