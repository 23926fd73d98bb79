"""What a release to an environment needs to read and write: each check finds out by trying."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Final
from uuid import uuid4

from infra.azure.access.errors import azure_errors, translation
from infra.azure.access.resources import EnvironmentResources, platform_resources
from infra.azure.container_images.registry import pinned_image
from infra.azure.machine_learning.shared_models import registry_id
from infra.azure.storage.blobs import blob_service
from infra.azure.storage.key_vault import secret_client
from infra.config.environments import Environment, endpoint_key
from infra.finding import Check, Finding, Severity, run_check
from infra.settings import Settings

AT_ONCE: Final = 8
CONTAINERS: Final = ("bundles", "records")


def release_checks(environment: Environment, resources: EnvironmentResources, settings: Settings) -> list[Check]:
    """What a release needs to read and write."""
    name, account = environment.name, resources.storage_account
    checks = [
        *(Check(f"{name}-blobs-{item}", partial(writable, name, account, item)) for item in CONTAINERS),
        Check(f"{name}-secrets", partial(_secrets, environment, resources.key_vault_url)),
        Check(f"{name}-image", partial(_image, environment, settings)),
    ]
    if registry := environment.azure.model_registry:
        checks.insert(0, Check(f"{name}-model-registry", partial(_shared, registry, environment, settings)))
    return checks


def run_checks(checks: Sequence[Check], *, outage: Severity | None = None) -> list[Finding]:
    """Run them all at once, as `run_check` does; answers their findings in their order."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="check") as pool:
        return list(pool.map(lambda check: run_check(_translating(check), outage=outage), checks))


def _translating(check: Check) -> Check:
    """The same check, where what is not there is a PlatformError too."""

    def find(name: str) -> Finding:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return check.find(name)
        except ResourceNotFoundError as error:
            raise translation(error, f"checking {name}") from error

    return replace(check, find=find)


def writable(part: str, account: str, container: str, name: str) -> Finding:
    """Write a blob and delete it again."""
    from azure.core.exceptions import ResourceNotFoundError

    blob = blob_service(account).get_blob_client(container, f"probes/{uuid4().hex}")
    with azure_errors(f"writing a probe to {account}/{container}"):
        try:
            blob.upload_blob(b"probe")
            blob.delete_blob()
        except ResourceNotFoundError:
            fix = f"`ahc run infrastructure -p mode=provision -p environment={part}` makes it."
            return Finding.of(name, f"the container {container} of {account} is gone", fix)
    return Finding.of(name, f"{account}/{container} can be written")


def _secrets(environment: Environment, url: str, name: str) -> Finding:
    """List the secrets; read one that is there; name those that are missing."""
    with azure_errors(f"reading the secrets of {url} (role Key Vault Secrets Officer)"):
        client = secret_client(url.rstrip("/"))
        names = {str(secret.name) for secret in client.list_properties_of_secrets()}
        keys = [endpoint_key(environment.name), endpoint_key(environment.name, "secondary")]
        certificate = environment.azure.certificate
        for key in names.intersection((*keys, certificate)):
            client.get_secret(key)
    if certificate and certificate not in names:
        fix = f"az keyvault secret set --vault-name {vault_name(url)} --name {certificate} --file tls.pem"
        return Finding.of(name, f"the certificate `{certificate}` is not in {url}", fix)
    if keys[0] not in names:
        fix = "Nothing to do: the first release makes it."
        return Finding.of(name, f"{keys[0]} is not in {url} yet", fix, "warns")
    return Finding.of(name, f"{url} has the endpoint's key")


def _image(environment: Environment, settings: Settings, name: str) -> Finding:
    image = pinned_image(platform_resources(settings).registry_login_server, environment.azure.image)
    return Finding.of(name, f"{image} is there")


def _shared(registry: str, environment: Environment, settings: Settings, name: str) -> Finding:
    return Finding.of(name, f"{registry_id(registry, environment, settings)} is there")


def vault_name(url: str) -> str:
    return url.removeprefix("https://").partition(".")[0]
