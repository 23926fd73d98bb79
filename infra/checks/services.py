"""Whether the running services answer: the Prefect server, its worker, and one environment's endpoint."""

import os
import stat
from collections.abc import Sequence

import httpx

from infra.backend import backend_of, champions, endpoint, secrets
from infra.config.environments import endpoint_key, load_environment
from infra.errors import AccessDenied
from infra.finding import Finding
from infra.local.platform.prefect_settings import WORK_POOL
from infra.ports import EndpointStatus, RegisteredModel
from infra.settings import Settings

TIMEOUT = 3.0


def check_services(settings: Settings) -> list[Finding]:
    """The Prefect server and its workers. Both may be off, so neither blocks."""
    api = os.environ.get("PREFECT_API_URL", settings.prefect_api_url)
    try:
        httpx.get(f"{api}/health", timeout=TIMEOUT).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fix = "Start it with `ahc up`, or point PREFECT_API_URL at the right server."
        detail = f"no answer at {api}: {error}"
        return [Finding(name="prefect-server", ok=False, severity="warns", detail=detail, fix=fix)]
    return [
        Finding(name="prefect-server", ok=True, severity="warns", detail=f"answers at {api}"),
        _check_worker(api),
    ]


def _check_worker(api: str) -> Finding:
    try:
        answer = httpx.post(f"{api}/work_pools/{WORK_POOL}/workers/filter", json={}, timeout=TIMEOUT)
        answer.raise_for_status()
        online = [worker["name"] for worker in answer.json() if worker["status"] == "ONLINE"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        online, why = [], f"the work pool `{WORK_POOL}` can't be read: {error}"
    else:
        why = f"no worker of the work pool `{WORK_POOL}` is online"
    return Finding(
        name="worker",
        ok=bool(online),
        severity="warns",
        detail=f"{len(online)} online in `{WORK_POOL}`" if online else why,
        fix="" if online else "Start one with `ahc up`; until then runs stay `Late`.",
    )


def check_environment(name: str, settings: Settings) -> list[Finding]:
    """The environment's endpoint, its key, and whether the registry agrees with what is live.

    Raises:
        ConfigurationError: There is no such environment.
    """
    load_environment(name, settings.environments)
    status = endpoint(name, settings).status()
    known = champions(settings, [name])[name]
    return [_check_endpoint(status, known), _check_champion(status, known), _check_key(name, settings)]


def _check_endpoint(status: EndpointStatus, known: Sequence[RegisteredModel]) -> Finding:
    if status.live is None and status.state == "stopped":
        detail = f"{status.environment} serves nothing now"
        fix = f"Release a version: `ahc trigger release/{status.environment} -p name=NAME -p version=N`."
        if known:
            fix = f"`ahc up` serves {known[0].label} again; or `ahc rollback {status.environment}`."
        return Finding(name="endpoint", ok=False, severity="blocks", detail=detail, fix=fix)
    live = status.live.label if status.live else "no model"
    return Finding(
        name="endpoint",
        ok=status.state == "running",
        severity="blocks",
        detail=f"{status.state} at {status.url} with {live}. {status.detail}".strip(),
        fix="" if status.state == "running" else f"`ahc up` starts it again; or `ahc rollback {status.environment}`.",
    )


def _check_champion(status: EndpointStatus, known: Sequence[RegisteredModel]) -> Finding:
    live = status.live
    ok = live is None or any(model.digest == live.digest for model in known)
    recorded = ", ".join(f"{model.label} ({model.digest[:12]})" for model in known) or "none"
    return Finding(
        name="champion",
        ok=ok,
        severity="warns",
        detail=f"champion of {status.environment} in the registry: {recorded}",
        fix="" if ok else "The endpoint is right. Release or roll back once more, then the registry agrees.",
    )


def _check_key(name: str, settings: Settings) -> Finding:
    store = secrets(name, settings)
    key = endpoint_key(name)
    try:
        store.get(key)
    except AccessDenied as error:
        return Finding(name="key", ok=False, severity="blocks", detail=str(error), fix=error.next_step)
    if backend_of(name, settings) != "local":
        return Finding(name="key", ok=True, severity="warns", detail=f"`{key}` is readable")
    mode = stat.S_IMODE((settings.path("secrets") / key).stat().st_mode)
    private = mode & 0o077 == 0
    return Finding(
        name="key",
        ok=private,
        severity="warns",
        detail=f"`{key}` is readable" + ("" if private else f" by others too (mode {mode:o})"),
        fix="" if private else f"`chmod 600 {settings.path('secrets') / key}`, then rotate the key (see the runbook).",
    )
