"""The scoring endpoint of one environment on App Service: a web app and its slot, which change places."""

import json
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.azure.access.errors import azure_errors, if_present
from infra.azure.endpoint.app_service.checks import web_app_checks
from infra.azure.endpoint.app_service.web_app import HANDLE, LIVE_COOKIE, PRODUCTION, SLOT, Place, WebApp
from infra.azure.endpoint.container_log import last_words
from infra.azure.endpoint.container_settings import PREFIX
from infra.azure.endpoint.environment import BUNDLES, LONGEST_PAUSE, PORT, ScoringEnvironment, candidate_replaced
from infra.azure.endpoint.preflight import preflight
from infra.azure.storage.blobs import blob_service
from infra.config.environments import Environment
from infra.errors import CandidateFailed, ConfigurationError, NothingToRollBackTo, NotProvisioned, PlatformError
from infra.ports import Candidate, EndpointStatus, LiveModel, RunningRole, RunningVersion, SecretStore
from infra.settings import Settings
from infra.waiting import polls

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

START_SECONDS: Final = 900.0
SWAP_SECONDS: Final = 180.0
DRAIN_SECONDS: Final = 10.0
"""For all front ends of App Service to know that the slot no longer gets clients."""
RELEASED: Final = "endpoint/released.json"
"""Blob with the handles of what has been live, newest first: tells a candidate in the slot from a previous version."""
NOTED: Final = 2
PLATFORM_SETTINGS: Final = {
    "WEBSITES_PORT": str(PORT),
    "WEBSITES_CONTAINER_START_TIME_LIMIT": "900",
    "WEBSITES_ENABLE_APP_SERVICE_STORAGE": "false",
    # A swap waits for these answers of the candidate.
    "WEBSITE_SWAP_WARMUP_PING_PATH": "/health/ready",
    "WEBSITE_SWAP_WARMUP_PING_STATUSES": "200",
}


class AppServiceEndpoint:
    """`infra.ports.Endpoint` on a web app with the slot `candidate`.

    The slot holds a candidate, or, after a swap, the previous version, kept warm. All settings belong to the version
    and none to the slot: they move with it, and a swap restarts nothing. Azure itself makes a swap whole or not at all.
    """

    def __init__(self, environment: Environment, settings: Settings, secrets: SecretStore) -> None:
        self._target = ScoringEnvironment(environment, settings, secrets)

    @property
    def environment(self) -> str:
        return self._target.name

    def status(self) -> EndpointStatus:
        try:
            app, slot = self._app.place(PRODUCTION), self._app.place(SLOT)
            previous = slot.model if slot.handle and slot.handle in self._released() else None
        except PlatformError as error:
            return self._status("unhealthy", detail=str(error))
        if not app.handle:
            return self._status("stopped", url=app.url, detail="No version was switched to yet.")
        if not app.running:
            return self._status("stopped", url=app.url, previous=previous, detail=f"{self._app.name} is stopped.")
        try:
            with self._target.client(app.url, cookie=LIVE_COOKIE) as client:
                live = client.model()
        except PlatformError as error:
            return self._status("unhealthy", url=app.url, previous=previous, detail=f"{error} {self._troubles()}")
        return self._status("running", url=app.url, previous=previous, live=live)

    def deploy(self, bundle: Path, model: LiveModel) -> Candidate:
        with self._target.exclusive():
            self._settle()
            slot, started = self._app.place(SLOT), datetime.now(UTC)
            desired = self._settings(bundle, model)
            handle = f"{model.digest[:12]}-{uuid.uuid4().hex[:8]}"
            if slot.handle not in self._released() and _same(slot.settings, desired):
                # An interrupted deployment has left this very candidate.
                handle = slot.handle
            else:
                self._app.configure(
                    self._target.image(),
                    self._target.resources.identity_client_id,
                    {**_foreign(slot), **PLATFORM_SETTINGS, **desired, HANDLE: handle},
                )
            if not slot.running:
                self._app.start(SLOT)
            try:
                self._await_ready(model, slot.url, started)
            except PlatformError:
                with suppress(PlatformError):
                    self._empty()
                raise
        return Candidate(environment=self.environment, model=model, url=slot.url, handle=handle)

    def switch(self, candidate: Candidate) -> LiveModel:
        with self._target.exclusive():
            app, slot = self._settle(), self._app.place(SLOT)
            if app.handle != candidate.handle:
                if slot.handle != candidate.handle:
                    raise candidate_replaced(candidate)
                self._swap_in(slot)
            self._target.await_answer(app.url, candidate.model, SWAP_SECONDS)
        return candidate.model

    def discard(self, candidate: Candidate) -> None:
        with self._target.exclusive():
            self._settle()
            if self._app.place(SLOT).handle == candidate.handle and candidate.handle not in self._released():
                self._empty()

    def preflight(self) -> Sequence[str]:
        return preflight(self._target, lambda: web_app_checks(self._target, self._app))

    def versions(self) -> Sequence[RunningVersion]:
        app, slot, released = self._app.place(PRODUCTION), self._app.place(SLOT), self._released()
        versions = []
        if app.handle and app.running:
            versions.append(RunningVersion(role="live", model=app.model, url=app.url, cookie=LIVE_COOKIE))
        if slot.handle and slot.running:
            role: RunningRole = "previous" if slot.handle in released else "candidate"
            versions.append(RunningVersion(role=role, model=slot.model, url=slot.url))
        return versions

    def split(self, candidate: Candidate, share: float) -> None:
        """The share is of the clients that send no routing cookie (`LIVE_COOKIE`); each request of theirs is drawn."""
        with self._target.exclusive():
            if not share:
                self._settle()
                return
            app, slot = self._app.place(PRODUCTION), self._app.place(SLOT)
            if slot.handle != candidate.handle or not slot.running or candidate.handle in self._released():
                raise candidate_replaced(candidate)
            if not app.handle:
                raise ConfigurationError(f"Nothing is live in {self.environment}: there is no traffic to divide.")
            self._app.divide(share, slot.host)

    def rollback(self) -> LiveModel:
        with self._target.exclusive():
            released = self._released()
            app, slot = self._settle(), self._app.place(SLOT)
            if app.handle in released[1:]:
                # The rollback that was interrupted after its swap is this one.
                self._target.await_answer(app.url, app.model, SWAP_SECONDS)
                return app.model
            if not app.handle or not slot.handle or slot.handle not in self._released():
                raise NothingToRollBackTo(f"The endpoint {self.environment} has no earlier version.")
            self._swap_in(slot)
            self._target.await_answer(app.url, slot.model, SWAP_SECONDS)
        return slot.model

    def refresh_keys(self) -> None:
        self._target.ensure_keys()
        for name in (PRODUCTION, SLOT):
            place = self._app.place(name)
            if place.handle and place.running:
                self._target.await_keys(place.url)

    def logs(self, lines: int = 50) -> Sequence[str]:
        slot = PRODUCTION if self._app.place(PRODUCTION).handle else SLOT
        return self._app.logs(slot)[-lines:]

    def stop(self) -> None:
        with self._target.exclusive():
            for name in (PRODUCTION, SLOT):
                if self._app.place(name).running:
                    self._app.stop(name)

    def start(self) -> EndpointStatus:
        with self._target.exclusive():
            app = self._settle()
            if app.handle:
                for place in (app, self._app.place(SLOT)):
                    if place.handle and not place.running:
                        self._app.start(place.slot)
                self._target.await_answer(app.url, app.model, START_SECONDS)
        return self.status()

    @property
    def _app(self) -> WebApp:
        resources, azure = self._target.resources, self._target.environment.azure
        if azure.certificate or azure.private:
            raise ConfigurationError(
                f"`azure.certificate` and `azure.private` of {self.environment} are for container instances: App "
                "Service has certificates and private endpoints of its own.",
                next_step="Remove them from the environment file, or set `azure.endpoint: container-instances`.",
            )
        if not resources.web_app:
            raise NotProvisioned(f"The environment {self.environment} has no web app.")
        return WebApp(resources.subscription_id, resources.resource_group, resources.web_app)

    def _settings(self, bundle: Path, model: LiveModel) -> dict[str, str]:
        self._target.ensure_keys()
        # Application settings are encrypted at rest and read by who may deploy; the endpoint's keys aren't among them.
        return self._target.config(model, bundle_url=self._target.publish(bundle, model.digest)).variables()

    def _await_ready(self, model: LiveModel, url: str, since: datetime) -> None:
        """Wait until the slot answers as this version.

        Raises:
            CandidateFailed: Its container said why it ended, or it took too long.
        """
        where = f"{model.label} in the slot {SLOT} of {self._app.name}"
        for _ in polls(START_SECONDS, longest_pause=LONGEST_PAUSE):
            if self._target.answers(url, model):
                return
            words = last_words(self._app.logs(SLOT), since=since)
            if words.exit_code is not None:
                raise CandidateFailed(f"{where} failed. {words.message}", process_exit_code=words.exit_code)
        raise CandidateFailed(f"{where} is not ready in time. {words.message}", process_exit_code=None)

    def _swap_in(self, slot: Place) -> None:
        if not slot.running:
            self._app.start(SLOT)
            self._target.await_answer(slot.url, slot.model, START_SECONDS)
        self._app.swap()
        self._settle()

    def _settle(self) -> Place:
        """The web app, with all of its clients and what is live there noted as released, whatever was interrupted."""
        # It is not documented whether a swap takes the rule along: it ends before one.
        if self._app.share():
            self._app.divide(0)
            time.sleep(DRAIN_SECONDS)
        app, released = self._app.place(PRODUCTION), self._released()
        if app.handle and (not released or released[0] != app.handle):
            others = [handle for handle in released if handle != app.handle]
            with azure_errors(f"noting what is live in {self.environment}"):
                self._released_blob.upload_blob(json.dumps([app.handle, *others][:NOTED]), overwrite=True)
        return app

    def _released(self) -> list[str]:
        blob = self._released_blob
        with azure_errors(f"reading what was live in {self.environment}"):
            content = if_present(lambda: blob.download_blob().readall())
        handles: list[str] = json.loads(content or b"[]")
        return handles

    @property
    def _released_blob(self) -> "BlobClient":
        return blob_service(self._target.resources.storage_account).get_blob_client(BUNDLES, RELEASED)

    def _empty(self) -> None:
        """Nothing runs in the slot, and nothing says that something does."""
        slot = self._app.place(SLOT)
        self._app.stop(SLOT)
        self._app.keep_only(_foreign(slot))

    def _troubles(self) -> str:
        try:
            return last_words(self._app.logs(PRODUCTION)).message
        except PlatformError as error:
            return str(error)

    def _status(self, state: Any, *, url: str = "", **facts: Any) -> EndpointStatus:
        return EndpointStatus(environment=self.environment, url=url, state=state, **facts)


def _foreign(place: Place) -> dict[str, str]:
    """Settings that no version brought."""
    return {name: value for name, value in place.settings.items() if not name.startswith((PREFIX, HANDLE))}


def _same(actual: dict[str, str], desired: dict[str, str]) -> bool:
    """Whether the same version runs there with the same settings, whoever asked for it."""
    correlation = f"{PREFIX}CORRELATION_ID"
    version = {name: value for name, value in actual.items() if name.startswith(PREFIX) and name != correlation}
    return bool(version) and version == {name: value for name, value in desired.items() if name != correlation}
