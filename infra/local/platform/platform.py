"""The embedded platform of one machine: Prefect server, worker and MLflow UI, started, watched and ended together."""

import os
import selectors
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from infra.errors import PlatformUnhealthy
from infra.local.platform.child_process import ChildProcess
from infra.local.platform.instance import Instance
from infra.local.platform.ports import listen
from infra.local.platform.prefect_settings import process_environment
from infra.settings import Settings
from infra.waiting import polls

RESTARTS = 5
"""After so many unexpected ends of one child, the platform gives up on it."""


class Platform:
    """Everything that `ahc up` starts, and nothing else.

    Use as a context manager: entering takes AHC_HOME and the ports, ends the processes of a killed predecessor, and
    starts the children without waiting for them; leaving ends them.

    Args:
        settings: Where state lives and which ports are used.
        report: Called with a sentence when a child had to be started again.

    Raises (on enter):
        AlreadyRunning, PortInUse, ConfigurationError.
    """

    def __init__(self, settings: Settings, report: Callable[[str], None] = lambda _: None) -> None:
        self._settings = settings
        self._report = report
        self._instance = Instance(settings)
        self._resources = ExitStack()
        self._ended = threading.Event()
        self._restarts: dict[str, int] = {}
        self.children: dict[str, ChildProcess] = {}
        self.leftovers = 0

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            resources.enter_context(self._instance)
            self.leftovers = self._instance.end_leftovers()
            api = resources.enter_context(self._listen(self._settings.prefect_port, "the Prefect server"))
            ui = resources.enter_context(self._listen(self._settings.mlflow_port, "the MLflow UI"))
            resources.callback(self._stop_children)
            self._start("prefect-server", "infra.local.platform.prefect_server", api)
            self._start("worker", "infra.local.platform.prefect_worker")
            threading.Thread(target=self._await_mlflow, args=(ui,), name="mlflow-on-request", daemon=True).start()
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._resources.close()

    def wait_until_ready(self, timeout: float = 90) -> None:
        """Wait for the server's first answer.

        Raises:
            PlatformUnhealthy: The server ended or didn't answer in time; shows its last log lines.
        """
        server = self.children["prefect-server"]
        for _ in polls(timeout):
            if self._server_answers():
                return
            if server.exit_code is not None:
                raise PlatformUnhealthy(_exit_report(server))
            if self._ended.is_set():
                break
        raise PlatformUnhealthy(f"The Prefect server didn't answer within {timeout:.0f} s. {_tail(server)}")

    def check(self) -> None:
        """Start children again that ended unexpectedly.

        Raises:
            PlatformUnhealthy: One of them ends again and again; shows its last log lines.
        """
        for name, child in self.children.items():
            if child.exit_code is None or self._ended.is_set():
                continue
            self._restarts[name] = self._restarts.get(name, 0) + 1
            if self._restarts[name] > RESTARTS:
                raise PlatformUnhealthy(_exit_report(child))
            self._report(f"{_exit_report(child, lines=3)}\nStarting it again ({self._restarts[name]} of {RESTARTS}).")
            self._instance.record(name, child.start())

    def _listen(self, port: int, purpose: str) -> socket.socket:
        return listen(self._settings.host, port, purpose)

    def _start(self, name: str, module: str, listener: socket.socket | None = None) -> None:
        descriptors = [] if listener is None else [listener.fileno()]
        child = ChildProcess(
            name,
            [sys.executable, "-m", module, *(map(str, descriptors) if descriptors else [f"ahc-{os.getpid()}"])],
            environment=process_environment(self._settings),
            log=self._settings.path("logs") / f"{name}.log",
            descriptors=descriptors,
        )
        self.children[name] = child
        self._instance.record(name, child.start())

    def _await_mlflow(self, listener: socket.socket) -> None:
        """Start MLflow when somebody connects; it takes the connection from the queue itself."""
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            while not self._ended.is_set():
                if selector.select(timeout=0.5) and not self._ended.is_set():
                    self._start("mlflow", "infra.local.platform.mlflow_server", listener)
                    return

    def _server_answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._settings.prefect_api_url}/health", timeout=2) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _stop_children(self) -> None:
        # The worker first: it still reports the last states of its runs.
        for name in ("worker", "mlflow", "prefect-server"):
            child = self.children.get(name)
            if child is not None:
                child.stop()


def _exit_report(child: ChildProcess, lines: int = 15) -> str:
    return f"{child.name} ended unexpectedly with code {child.exit_code}. {_tail(child, lines)}"


def _tail(child: ChildProcess, lines: int = 15) -> str:
    return f"Its log is {child.log}; the last lines:\n" + "\n".join(f"  {line}" for line in child.last_lines(lines))
