"""How this process signs in to Azure, by the place where it runs.

The SDK's default chain tries everything everywhere: a laptop waits for a virtual machine's metadata address. Here, a
way is tried only where its own variables say that it exists; what was passed over is told when none works.
"""

import asyncio
import os
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from infra.settings import get_settings

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, AccessTokenInfo, TokenCredential
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.core.exceptions import AzureError

CLI_SECONDS: Final = 20
"""A first `az` after a restart takes several seconds on a slow disk."""
OPTIONS: Final[dict[str, Any]] = {
    "retry_total": 3,
    "retry_backoff_factor": 0.2,
    "connection_timeout": 5,
    "read_timeout": 20,
}

PIPELINE_VARIABLES: Final = {
    "tenant_id": "AZURESUBSCRIPTION_TENANT_ID",
    "client_id": "AZURESUBSCRIPTION_CLIENT_ID",
    "service_connection_id": "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID",
}
"""What the pipeline tasks AzureCLI@2 and AzurePowerShell@5 set."""


class _Way(NamedTuple):
    name: str
    missing: str
    """Why it is not tried here; empty where it is."""
    make: Callable[[], Any]


@lru_cache(maxsize=1)
def credential() -> "TokenCredential":
    """One credential for all clients of this process.

    It tries what this place offers, in this order: a client secret, the identity of a pod or of a pipeline's service
    connection, a managed identity, the Azure CLI, the Azure Developer CLI. Asked for a token, it raises
    ClientAuthenticationError (`azure_errors` makes it NoCredentials) with what each way said; an outage of the
    sign-in service passes as what it is.
    """
    ways = _ways()
    return PlaceCredential(
        {way.name: way.make for way in ways if not way.missing},
        {way.name: way.missing for way in ways if way.missing},
    )


def async_credential() -> "AsyncTokenCredential":
    """The same credential for asynchronous clients such as adlfs, with the same tokens."""
    return ThreadedCredential(credential())


class PlaceCredential:
    """The first of several credentials that gives a token; the one that did is asked alone from then on."""

    def __init__(self, ways: dict[str, Callable[[], Any]], absent: dict[str, str]) -> None:
        self._ways = ways
        self._absent = absent
        self._made: dict[str, Any] = {}
        self._chosen: str | None = None

    def get_token(self, *scopes: str, **options: Any) -> "AccessToken":
        token: AccessToken = self._first(lambda item: item.get_token(*scopes, **options))
        return token

    def get_token_info(self, *scopes: str, options: Any = None) -> "AccessTokenInfo":
        token: AccessTokenInfo = self._first(lambda item: item.get_token_info(*scopes, options=options))
        return token

    def close(self) -> None:
        """Nothing to close: it serves all clients of the process, whichever of them ends first."""

    def _first(self, ask: Callable[[Any], Any]) -> Any:
        from azure.core.exceptions import ClientAuthenticationError
        from azure.identity import CredentialUnavailableError

        reasons = {}
        for name in [self._chosen] if self._chosen else self._ways:
            try:
                token = ask(self._credential(name))
            except CredentialUnavailableError as error:
                reasons[name] = error.message
            except ClientAuthenticationError as error:
                if (outage := _outage_behind(error)) is not None:
                    # Made anew next time: the credential would remember the outage for a minute.
                    self._made.pop(name, None)
                    raise outage from error
                reasons[name] = error.message
                # An identity that is refused is what is wrong; going on to another would hide it.
                break
            else:
                self._chosen = name
                return token
        raise ClientAuthenticationError(message=self._account(reasons))

    def _credential(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._ways[name]()
        return self._made[name]

    def _account(self, reasons: dict[str, str]) -> str:
        tried = [f"{name}: {' '.join(reason.split())}" for name, reason in reasons.items()]
        passed_over = [f"{name}: not tried, {reason}" for name, reason in self._absent.items()]
        return "No way to sign in to Azure worked.\n  " + "\n  ".join(tried + passed_over)


class ThreadedCredential:
    """An asynchronous face of a credential; it asks in a thread, so that no event loop owns its connections."""

    def __init__(self, credential: "TokenCredential") -> None:
        self._credential = credential

    async def get_token(self, *scopes: str, **options: Any) -> "AccessToken":
        return await asyncio.to_thread(self._credential.get_token, *scopes, **options)

    async def close(self) -> None:
        """Nothing of its own is open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _ways() -> list[_Way]:
    import azure.identity as identity

    variable = os.environ.get
    client = variable("AZURE_CLIENT_ID")
    return [
        _Way(
            "client secret",
            _unset("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"),
            lambda: identity.ClientSecretCredential(
                variable("AZURE_TENANT_ID", ""), client or "", variable("AZURE_CLIENT_SECRET", ""), **OPTIONS
            ),
        ),
        _Way(
            "workload identity",
            _unset("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"),
            lambda: identity.WorkloadIdentityCredential(**OPTIONS),
        ),
        _Way(
            "Azure Pipelines",
            _unset("SYSTEM_ACCESSTOKEN", "SYSTEM_OIDCREQUESTURI", *PIPELINE_VARIABLES.values()),
            lambda: identity.AzurePipelinesCredential(
                system_access_token=variable("SYSTEM_ACCESSTOKEN", ""),
                **{argument: variable(name, "") for argument, name in PIPELINE_VARIABLES.items()},
                **OPTIONS,
            ),
        ),
        _Way("managed identity", _no_machine_identity(), lambda: identity.ManagedIdentityCredential(client_id=client)),
        _Way("Azure CLI", "", lambda: identity.AzureCliCredential(process_timeout=CLI_SECONDS)),
        _Way("Azure Developer CLI", "", lambda: identity.AzureDeveloperCliCredential(process_timeout=CLI_SECONDS)),
    ]


def _unset(*names: str) -> str:
    absent = [name for name in names if not os.environ.get(name)]
    return f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not set" if absent else ""


def _no_machine_identity() -> str:
    # Containers, web apps and Azure ML name their identity's address. A virtual machine doesn't, so somebody has to.
    announced = any(os.environ.get(name) for name in ("IDENTITY_ENDPOINT", "MSI_ENDPOINT"))
    if announced or get_settings().azure_machine_identity:
        return ""
    return "none of IDENTITY_ENDPOINT, MSI_ENDPOINT and AHC_AZURE_MACHINE_IDENTITY is set"


def _outage_behind(error: BaseException) -> "AzureError | None":
    """The fault of network or service that kept an identity from being judged."""
    from azure.core import exceptions

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, exceptions.ServiceRequestError | exceptions.ServiceResponseError):
            return cause
        if _is_busy(cause):
            return exceptions.ServiceResponseError(f"The sign-in service can't answer now: {cause}")
        cause = cause.__cause__ or cause.__context__
    return None


def _is_busy(error: BaseException) -> bool:
    # azure-identity keeps the answer; MSAL, below it, tells the status only in its words.
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None:
        match = re.fullmatch(r"HTTP Error: (\d{3})", str(error))
        status = int(match[1]) if match else 0
    return bool(status == 429 or status >= 500)
