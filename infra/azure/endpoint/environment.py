"""What every endpoint on Azure needs to release a version: names, keys, the published bundle, one writer at a time."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from infra.azure.access.errors import azure_errors
from infra.azure.access.resources import EnvironmentResources, environment_resources, platform_resources
from infra.azure.container_images.registry import pinned_image
from infra.azure.endpoint.container_settings import ContainerConfig
from infra.azure.storage.blobs import blob_service
from infra.azure.storage.folders import BlobFolders
from infra.azure.storage.leases import exclusive_blob
from infra.config.environments import Environment, endpoint_key
from infra.errors import CandidateFailed, EndpointUnreachable, PlatformError
from infra.ports import Candidate, LiveModel, SecretStore
from infra.releases.scoring_client import ScoringClient
from infra.runs.correlation import correlation_id
from infra.settings import Settings
from infra.stores.folder_files import files_of
from infra.waiting import polls

BUNDLES: Final = "bundles"
PORT: Final = 8080
ASK_SECONDS: Final = 5.0
LONGEST_PAUSE: Final = 5.0
"""Seconds between two looks at what takes minutes to start."""
KEYS_SECONDS: Final = 300.0
"""A container looks for new keys in the vault about once a minute."""


class ScoringEnvironment:
    """One release target on Azure."""

    def __init__(self, environment: Environment, settings: Settings, secrets: SecretStore) -> None:
        self.environment = environment
        self.settings = settings
        self.secrets = secrets

    @property
    def name(self) -> str:
        return self.environment.name

    @property
    def resources(self) -> EnvironmentResources:
        return environment_resources(self.environment, self.settings)

    @property
    def registry(self) -> str:
        """Login server of the platform's container registry."""
        return platform_resources(self.settings).registry_login_server

    def image(self) -> str:
        """The scoring image by its digest; raises as `pinned_image` does."""
        return pinned_image(self.registry, self.environment.azure.image)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Let no other process change this endpoint meanwhile.

        Raises:
            Conflict: Another process changes it, and went on for more than ten minutes.
        """
        blob = blob_service(self.resources.storage_account).get_blob_client(BUNDLES, "locks/endpoint")
        with ExitStack() as stack:
            with azure_errors(f"locking the endpoint {self.name}"):
                stack.enter_context(exclusive_blob(blob))
            yield

    def publish(self, bundle: Path, digest: str) -> str:
        """Where containers find the bundle.

        The name tells the bytes as well as the digest that they claim: a damaged copy never takes the place of a
        whole one.
        """
        folders = BlobFolders(self.resources.storage_account, BUNDLES, self.settings.path("bundles"))
        return folders.publish(bundle, f"{digest}-{_content(bundle)[:16]}")

    def config(self, model: LiveModel, *, bundle_url: str) -> ContainerConfig:
        """What the container of this version is told."""
        resources = self.resources
        return ContainerConfig(
            environment=self.name,
            model_name=model.name,
            model_version=model.version,
            model_digest=model.digest,
            bundle_url=bundle_url,
            key_vault_url=resources.key_vault_url,
            identity_client_id=resources.identity_client_id,
            records_url=f"https://{resources.storage_account}.blob.core.windows.net/records",
            sample_rate=self.environment.sample_rate,
            sample_images=self.environment.sample_images,
            scoring_threads=self.environment.scoring_threads,
            port=PORT,
            certificate=self.environment.azure.certificate or "",
            correlation_id=correlation_id(),
            telemetry=SecretStr(resources.application_insights_connection_string),
        )

    def ensure_keys(self) -> tuple[SecretStr, SecretStr]:
        """Both keys, made where they are missing."""
        primary, secondary = endpoint_key(self.name), endpoint_key(self.name, "secondary")
        return self.secrets.ensure(primary), self.secrets.ensure(secondary)

    def client(self, url: str, *, cookie: str = "") -> ScoringClient:
        return ScoringClient(url, self.secrets.get(endpoint_key(self.name)), seconds=ASK_SECONDS, cookie=cookie)

    def answers(self, url: str, model: LiveModel) -> bool:
        """Whether this version takes traffic there, and says that it is this one."""
        with self.client(url) as client:
            try:
                return client.ready() and client.model() == model
            except PlatformError:
                return False

    def ready(self, url: str) -> bool:
        """Whether what runs there takes traffic, with whatever key."""
        with self.client(url) as client:
            return client.ready()

    def await_answer(self, url: str, model: LiveModel, seconds: float) -> None:
        """Wait until the endpoint's own address leads to this version.

        Raises:
            EndpointUnreachable: It did not in time.
        """
        for _ in polls(seconds, longest_pause=LONGEST_PAUSE):
            if self.answers(url, model):
                return
        raise EndpointUnreachable(
            f"{url} does not answer as {model.label} after {seconds:g} s.",
            next_step="Rerun: what is done is not repeated. If it stays, see where the name leads from here.",
        )

    def await_keys(self, url: str) -> None:
        """Wait until what runs there accepts both of the store's keys.

        Raises:
            EndpointUnreachable: It did not in time.
        """
        for key in self.ensure_keys():
            with ScoringClient(url, key, seconds=ASK_SECONDS) as client:
                if not any(_accepts(client) for _ in polls(KEYS_SECONDS, longest_pause=LONGEST_PAUSE)):
                    raise EndpointUnreachable(
                        f"{url} does not accept the keys of the vault after {KEYS_SECONDS:g} s.",
                        next_step="See `ahc status` and the container's log; its identity must be able to read "
                        "the vault.",
                    )


def candidate_replaced(candidate: Candidate) -> CandidateFailed:
    """The error of a candidate that isn't there any more."""
    return CandidateFailed(
        f"The candidate {candidate.handle} of {candidate.environment} is gone: another one took its place.",
        process_exit_code=None,
    )


def _accepts(client: ScoringClient) -> bool:
    try:
        client.model()
    except PlatformError:
        return False
    return True


def _content(folder: Path) -> str:
    """sha256 over the names and bytes of all files."""
    whole = hashlib.sha256()
    for path in files_of(folder):
        whole.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()
