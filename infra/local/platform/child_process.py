"""One child process of the platform: its log, its session, and its orderly end."""

import os
import signal
import subprocess
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil


class ChildProcess:
    """A process in a session of its own, so that a Ctrl-C in the terminal reaches only the supervisor.

    Args:
        name: Its name in messages; its log is `logs/<name>.log`.
        command: Fixed argument list.
        environment: The whole environment of the process.
        log: File that its output is appended to.
        descriptors: File descriptors that it inherits.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        descriptors: Sequence[int],
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment)
        self._descriptors = tuple(descriptors)
        self._process: subprocess.Popen[bytes] | None = None
        # What a killed process had started lives on in its session, also after a new start.
        self._sessions: list[int] = []

    def start(self) -> int:
        """Start it, or start it again; answers its pid."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=self._descriptors,
                start_new_session=True,
            )
        self._sessions.append(self._process.pid)
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs or before it started."""
        return None if self._process is None else self._process.poll()

    def last_lines(self, count: int = 15) -> list[str]:
        try:
            with self.log.open(encoding="utf-8", errors="replace") as stream:
                return [line.rstrip("\n") for line in deque(stream, count)]
        except OSError:
            return []

    def stop(self, patience: float = 5) -> None:
        """End the process and all processes of its sessions, also of those before a restart."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        end(session_members(self._sessions), patience=patience)


def session_members(sessions: Iterable[int], *, home: Path | None = None) -> list[psutil.Process]:
    """Processes of these sessions; with `home`, only those that work for this AHC_HOME."""
    ids = set(sessions)
    return [item for item in psutil.process_iter() if _session(item.pid) in ids and _works_for(item, home)]


def end(processes: Sequence[psutil.Process], *, patience: float = 5) -> None:
    """Ask these processes to end, and after `patience` seconds kill those that haven't."""
    for item in processes:
        _signal(item, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=patience)
    for item in alive:
        _signal(item, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=2)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)  # psutil checks that the pid is still the same process
    except psutil.Error:
        return


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _works_for(process: psutil.Process, home: Path | None) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return home is None or process.environ().get("AHC_HOME") == str(home)
    except psutil.Error:
        return False
