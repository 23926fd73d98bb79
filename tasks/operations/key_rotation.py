"""Rotation of an endpoint's keys: at every moment, the key that clients use is accepted."""

import time
from contextlib import suppress
from secrets import token_urlsafe
from typing import Final

from prefect import get_run_logger
from pydantic import Field, SecretStr

from infra.backend import release_target
from infra.config.environments import Environment, KeyName, endpoint_key
from infra.errors import AccessDenied
from infra.ports import SecretStore
from infra.releases.scoring_client import ScoringClient
from infra.settings import get_settings
from tasks.framework.artifacts import create_markdown_artifact
from tasks.framework.stage import Result, stage

ACCEPT_SECONDS: Final = 120.0
"""A container on Azure asks its vault for new keys every 30 s."""
LOOK_SECONDS: Final = 2.0
EXPECTED: Final[dict[KeyName, bool]] = {"primary": True, "secondary": True, "retired": False}
"""Which keys an endpoint accepts after a rotation."""


class Rotated(Result):
    """An environment whose keys were rotated."""

    environment: str
    verified: bool = Field(description="Whether a running endpoint was asked; a stopped one has the keys at its start.")


@stage("Retire secondary key", "let the primary key of {environment.name} be its secondary")
def retire_secondary(environment: Environment) -> Result:
    """The secondary key, which nobody uses any more, gives way to the primary; it is kept only to show that it is dead.

    Where both are equal, or no client was told of the primary, a rotation ended half way, and this one completes it.
    """
    store = release_target(environment.name, get_settings()).secrets()
    primary, secondary = store.ensure(endpoint_key(environment.name)), store.ensure(_name(environment, "secondary"))
    if primary != secondary and primary == _announced(environment, store, primary):
        store.put(_name(environment, "retired"), secondary)
        store.put(_name(environment, "secondary"), primary)
    return Result()


@stage("Replace primary key", "make a new primary key of {environment.name}")
def replace_primary(environment: Environment) -> Result:
    """Make the primary key new; the one of before is the secondary by now."""
    store = release_target(environment.name, get_settings()).secrets()
    if store.get(endpoint_key(environment.name)) == store.get(_name(environment, "secondary")):
        store.put(endpoint_key(environment.name), SecretStr(token_urlsafe(32)))
    return Result()


@stage("Verify keys", "ask {environment.name} which keys it accepts", always=True)
def verify_keys(environment: Environment, reason: str) -> Rotated:
    """Let the endpoint take up its new keys, and ask it: both are accepted, the retired one is not.

    Raises:
        AccessDenied: After ACCEPT_SECONDS it is still otherwise; the message says which key.
        EndpointUnreachable: It doesn't answer.
    """
    settings = get_settings()
    target = release_target(environment.name, settings)
    store, endpoint = target.secrets(), target.endpoint()
    endpoint.refresh_keys()
    status = endpoint.status()
    verified = status.state != "stopped"
    deadline = time.monotonic() + ACCEPT_SECONDS
    while verified and (wrong := _wrong_keys(status.url, environment, store)):
        if time.monotonic() > deadline:
            raise AccessDenied(
                f"{environment.name} has new keys, and after {ACCEPT_SECONDS:g} s {wrong}.",
                next_step="No client is locked out. Read the endpoint's log, whether it can read its keys; then rerun.",
            )
        time.sleep(LOOK_SECONDS)
    store.put(_name(environment, "announced"), store.get(endpoint_key(environment.name)))
    _record(environment, reason, store, verified=verified)
    return Rotated(environment=environment.name, verified=verified)


def _announced(environment: Environment, store: SecretStore, primary: SecretStr) -> SecretStr:
    """The primary key that clients were told of; this one, where no rotation has ended or begun yet."""
    with suppress(AccessDenied):
        return store.get(_name(environment, "announced"))
    store.put(_name(environment, "announced"), primary)
    return primary


def _wrong_keys(url: str, environment: Environment, store: SecretStore) -> str:
    for which, expected in EXPECTED.items():
        # A retired key is missing where the first rotation ended half way: any that is new stands for it.
        if _accepted(url, store.ensure(_name(environment, which))) is not expected:
            return f"it {'refuses' if expected else 'still accepts'} the {which} key"
    return ""


def _accepted(url: str, key: SecretStr) -> bool:
    try:
        with ScoringClient(url, key) as client:
            client.model()
    except AccessDenied:
        return False
    return True


def _record(environment: Environment, reason: str, store: SecretStore, *, verified: bool) -> None:
    asked = "It was asked and accepts both" if verified else "It is stopped and has them when it starts"
    get_run_logger().info("The keys of %s were rotated: %s", environment.name, reason)
    create_markdown_artifact(
        key=f"keys-{environment.name}",
        description=f"Keys of {environment.name} rotated: {reason}",
        markdown=f"# Keys of {environment.name} rotated\n\n**Why.** {reason}\n\nThe primary key is new, the one of "
        f"before is the secondary, and the secondary of before is not valid any more. {asked}.\n\nClients have until "
        "the next rotation to take up the new primary key:\n\n"
        f"```sh\ncurl -H {store.curl_header(environment.name)} ..\n```\n",
    )


def _name(environment: Environment, which: KeyName) -> str:
    return endpoint_key(environment.name, which)
