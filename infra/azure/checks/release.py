"""What a release to an environment needs to read and write: each check finds out by trying."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from uuid import uuid4

from infra.azure.access.errors import azure_errors, translation
from infra.azure.access.resources import EnvironmentResources, platform_resources
from infra.azure.container_images.registry import pinned_image
from infra.azure.machine_learning.shared_models import registry_id
from infra.azure.storage.blobs import blob_service
from infra.azure.storage.key_vault import secret_client
from infra.config.environments import Environment, endpoint_key
from infra.errors import PlatformError
from infra.finding import Finding, Severity
from infra.settings import Settings

AT_ONCE: Final = 8
CONTAINERS: Final = ("bundles", "records")

Check = Callable[[], Finding]


def release_checks(environment: Environment, found: EnvironmentResources, settings: Settings) -> dict[str, Check]:
    """What a release needs to read and write, by the finding's name; a check raises what it can't find out."""
    name, registry = environment.name, environment.azure.model_registry
    shared = {f"{name}-model-registry": lambda: _model_registry(registry, environment, settings)} if registry else {}
    return {
        **shared,
        **{f"{name}-blobs-{item}": writable(name, found.storage_account, item) for item in CONTAINERS},
        f"{name}-secrets": lambda: _secrets(environment, found),
        f"{name}-image": lambda: _image(environment, settings),
    }


def all_at_once(checks: list[Check]) -> list[Finding]:
    """What they find, in their order; raises what the first of them raises."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="check") as pool:
        return list(pool.map(lambda check: check(), checks))


def found_out(name: str, check: Check, severity: Severity) -> Finding:
    """What a check finds, or what keeps it from finding out; raises what may be over soon."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return check()
    except PlatformError as error:
        if error.transient:
            raise
        return told(name, error, severity)
    except ResourceNotFoundError as error:
        return told(name, translation(error, f"checking {name}"), severity)


def told(name: str, error: PlatformError, severity: Severity) -> Finding:
    return Finding(name=name, ok=False, severity=severity, detail=str(error), fix=error.next_step)


def writable(name: str, account: str, container: str) -> Check:
    """Write a blob and delete it again."""
    finding = f"{name}-blobs-{container}"

    def check() -> Finding:
        from azure.core.exceptions import ResourceNotFoundError

        blob = blob_service(account).get_blob_client(container, f"probes/{uuid4().hex}")
        with azure_errors(f"writing a probe to {account}/{container}"):
            try:
                blob.upload_blob(b"probe")
                blob.delete_blob()
            except ResourceNotFoundError:
                fix = f"`ahc run infrastructure -p mode=provision -p environment={name}` makes it."
                detail = f"the container {container} of {account} is gone"
                return Finding(name=finding, ok=False, severity="blocks", detail=detail, fix=fix)
        return Finding(name=finding, ok=True, severity="blocks", detail=f"{account}/{container} can be written")

    return check


def _secrets(environment: Environment, found: EnvironmentResources) -> Finding:
    """List the secrets; read one that is there; name those that are missing."""
    finding = f"{environment.name}-secrets"
    with azure_errors(f"reading the secrets of {found.key_vault_url} (role Key Vault Secrets Officer)"):
        client = secret_client(found.key_vault_url.rstrip("/"))
        names = {str(secret.name) for secret in client.list_properties_of_secrets()}
        keys = [endpoint_key(environment.name), endpoint_key(environment.name, "secondary")]
        certificate = environment.azure.certificate
        for key in names.intersection((*keys, certificate)):
            client.get_secret(key)
    if certificate and certificate not in names:
        vault = vault_name(found.key_vault_url)
        fix = f"az keyvault secret set --vault-name {vault} --name {certificate} --file tls.pem"
        detail = f"the certificate `{certificate}` is not in {found.key_vault_url}"
        return Finding(name=finding, ok=False, severity="blocks", detail=detail, fix=fix)
    if missing := [key for key in keys[:1] if key not in names]:
        detail = f"{', '.join(missing)} is not in {found.key_vault_url} yet"
        return Finding(
            name=finding, ok=False, severity="warns", detail=detail, fix="Nothing to do: the first release makes it."
        )
    return Finding(name=finding, ok=True, severity="blocks", detail=f"{found.key_vault_url} has the endpoint's key")


def _image(environment: Environment, settings: Settings) -> Finding:
    found = pinned_image(platform_resources(settings).registry_login_server, environment.azure.image)
    return Finding(name=f"{environment.name}-image", ok=True, severity="blocks", detail=f"{found} is there")


def _model_registry(registry: str, environment: Environment, settings: Settings) -> Finding:
    found = registry_id(registry, environment, settings)
    return Finding(name=f"{environment.name}-model-registry", ok=True, severity="blocks", detail=f"{found} is there")


def vault_name(url: str) -> str:
    return url.removeprefix("https://").partition(".")[0]
