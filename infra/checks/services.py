"""Whether the running services answer: the Prefect server, its worker, and one environment's endpoint."""

import os
import stat
from collections.abc import Sequence

import httpx

from infra.backend import ReleaseTarget, backend, release_target
from infra.config.environments import endpoint_key
from infra.errors import AccessDenied
from infra.finding import Finding, finding_of_error
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
        return [Finding.of("prefect-server", f"no answer at {api}: {error}", fix, "warns")]
    return [Finding.of("prefect-server", f"answers at {api}", severity="warns"), _check_worker(api)]


def _check_worker(api: str) -> Finding:
    try:
        answer = httpx.post(f"{api}/work_pools/{WORK_POOL}/workers/filter", json={}, timeout=TIMEOUT)
        answer.raise_for_status()
        online = [worker["name"] for worker in answer.json() if worker["status"] == "ONLINE"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        online, why = [], f"the work pool `{WORK_POOL}` can't be read: {error}"
    else:
        why = f"no worker of the work pool `{WORK_POOL}` is online"
    if online:
        return Finding.of("worker", f"{len(online)} online in `{WORK_POOL}`", severity="warns")
    return Finding.of("worker", why, "Start one with `ahc up`; until then runs stay `Late`.", "warns")


def check_environment(name: str, settings: Settings) -> list[Finding]:
    """The environment's endpoint, its key, and whether the registry agrees with what is live.

    Raises:
        ConfigurationError: There is no such environment.
    """
    target = release_target(name, settings)
    status = target.endpoint().status()
    champions = backend(settings).champions([name])[name]
    return [_check_endpoint(status, champions), _check_champion(status, champions), _check_key(name, target, settings)]


def _check_endpoint(status: EndpointStatus, champions: Sequence[RegisteredModel]) -> Finding:
    if status.live is None and status.state == "stopped":
        detail = f"{status.environment} serves nothing now"
        fix = f"Release a version: `ahc trigger release/{status.environment} -p name=NAME -p version=N`."
        if champions:
            fix = f"`ahc up` serves {champions[0].label} again; or `ahc rollback {status.environment}`."
        return Finding.of("endpoint", detail, fix)
    live = status.live.label if status.live else "no model"
    return Finding.of(
        "endpoint",
        f"{status.state} at {status.url} with {live}. {status.detail}".strip(),
        "" if status.state == "running" else f"`ahc up` starts it again; or `ahc rollback {status.environment}`.",
    )


def _check_champion(status: EndpointStatus, champions: Sequence[RegisteredModel]) -> Finding:
    live = status.live
    ok = live is None or any(model.digest == live.digest for model in champions)
    recorded = ", ".join(f"{model.label} ({model.digest[:12]})" for model in champions) or "none"
    fix = "" if ok else "The endpoint is right. Release or roll back once more, then the registry agrees."
    return Finding.of("champion", f"champion of {status.environment} in the registry: {recorded}", fix, "warns")


def _check_key(name: str, target: ReleaseTarget, settings: Settings) -> Finding:
    key = endpoint_key(name)
    try:
        target.secrets().get(key)
    except AccessDenied as error:
        return finding_of_error("key", error)
    path = settings.path("secrets") / key
    mode = stat.S_IMODE(path.stat().st_mode) if target.place == "local" else 0
    if mode & 0o077 == 0:
        return Finding.of("key", f"`{key}` is readable", severity="warns")
    fix = f"`chmod 600 {path}`, then rotate the key (see the runbook)."
    return Finding.of("key", f"`{key}` is readable by others too (mode {mode:o})", fix, "warns")
