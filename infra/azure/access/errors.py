"""What the Azure SDKs raise, translated once, at the border.

Error codes decide before HTTP statuses: a quota comes as 400, 403, 409 or inside an operation that ended as failed.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from infra.azure.access.roles import what_to_grant
from infra.errors import (
    SIGNATURE,
    AccessDenied,
    ConfigurationError,
    Conflict,
    NoCredentials,
    NotProvisioned,
    PlatformError,
    ProvisioningFailed,
    QuotaExceeded,
    ServiceUnavailable,
)

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError

NO_CAPACITY: Final = "Choose another size, SKU or region in the environment's parameters, or wait until there is room."
CODES: Final[dict[type[PlatformError], frozenset[str]]] = {
    QuotaExceeded: frozenset(
        {
            "ContainerGroupQuotaReached",
            "QuotaExceeded",
            "ResourceQuotaExceeded",
            "InsufficientVCPUQuota",
            "ErrCode_InsufficientVCPUQuota",
            "PublicIPCountLimitReached",
            "MaxStorageAccountsCountPerSubscriptionExceeded",
            "SkuNotAvailable",
            "AllocationFailed",
            "ZonalAllocationFailed",
            "OverconstrainedAllocationRequest",
            "OverconstrainedZonalAllocationRequest",
            "InsufficientCapacity",
        }
    ),
    AccessDenied: frozenset(
        {
            "AuthorizationFailed",
            "LinkedAuthorizationFailed",
            "LinkedAccessCheckFailed",
            "AuthorizationPermissionMismatch",
            "InsufficientAccountPermissions",
            "ForbiddenByRbac",
            "ForbiddenByFirewall",
            "ForbiddenByConnection",
            "RequestDisallowedByPolicy",
            "PublicAccessNotPermitted",
        }
    ),
    NoCredentials: frozenset(
        {
            "ExpiredAuthenticationToken",
            "InvalidAuthenticationToken",
            "InvalidAuthenticationTokenTenant",
            "AuthenticationFailed",
            "InvalidAuthenticationInfo",
            "NoAuthenticationInformation",
        }
    ),
    ServiceUnavailable: frozenset(
        {
            "TooManyRequests",
            "SubscriptionRequestsThrottled",
            "OperationTimedOut",
            "ServerBusy",
            "ServerTimeout",
            "ServiceUnavailable",
            "InternalServerError",
            "InternalError",
            "GatewayTimeout",
        }
    ),
    Conflict: frozenset(
        {
            "AnotherOperationInProgress",
            "ConditionNotMet",
            "ContainerGroupTransitioning",
            "DeploymentActive",
            "EtagMismatch",
            "LeaseAlreadyPresent",
            "LeaseIdMissing",
            "LeaseIdMismatchWithBlobOperation",
            "LeaseLost",
            "PreconditionFailed",
            "RetryableError",
        }
    ),
}
"""Error codes of Azure Resource Manager and of the services, most telling kind first."""
CAPACITY: Final = frozenset(code for code in CODES[QuotaExceeded] if "Allocation" in code) | {
    "SkuNotAvailable",
    "InsufficientCapacity",
}


T = TypeVar("T")


@contextmanager
def azure_errors(doing: str, missing: PlatformError | None = None) -> Iterator[None]:
    """Raise errors of the SDKs as `PlatformError`.

    Args:
        doing: Completes "while ..." in the message.
        missing: Is raised in place of azure.core.exceptions.ResourceNotFoundError; without it, that one passes, as the
            caller knows what it means.
    """
    from azure.core import exceptions

    try:
        yield
    except exceptions.ResourceNotFoundError as error:
        if missing is None:
            raise
        raise missing from error
    except exceptions.AzureError as error:
        # A traceback would print the chained error too.
        raise translation(error, doing) from (None if SIGNATURE.search(str(error)) else error)


def if_present(ask: Callable[[], T]) -> T | None:
    """What Azure answers to this request; None where it has no such thing."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return ask()
    except ResourceNotFoundError:
        return None


def azure_error_behind(error: BaseException) -> "AzureError | None":
    """The SDK error that caused this one, however often it was wrapped; None without, or where no SDK is loaded."""
    core = sys.modules.get("azure.core.exceptions")
    cause: BaseException | None = error if core else None
    while core is not None and cause is not None:
        if isinstance(cause, core.AzureError):
            azure_error: AzureError = cause
            return azure_error
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def error_of_step(error: Exception) -> PlatformError | None:
    """What a step's error is called here where an SDK error caused it, however often it was wrapped; None for others.

    Who wrapped "not found" in an error of its own knows better what it means: that one isn't translated.
    """
    from azure.core.exceptions import ResourceNotFoundError

    cause = azure_error_behind(error)
    if cause is None or (cause is not error and isinstance(cause, ResourceNotFoundError)):
        return None
    return translation(cause, "this step ran")


def translation(error: "AzureError", doing: str) -> PlatformError:
    """What an SDK error is called here."""
    from azure.core import exceptions

    if isinstance(error, exceptions.HttpResponseError):
        return _of_answer(error, doing)
    if isinstance(
        error, exceptions.ServiceRequestError | exceptions.ServiceResponseError | exceptions.StreamClosedError
    ):
        return ServiceUnavailable(f"The connection to Azure broke while {doing}: {SIGNATURE.sub('***', error.message)}")
    return _of_azure_ml(error, doing)


def _of_answer(error: Any, doing: str) -> PlatformError:
    from azure.core import exceptions

    status = error.status_code or 0
    message = SIGNATURE.sub("***", error.message or str(error))
    codes = error_codes(error)
    text = f"Azure answered {' '.join([str(status or 'an error'), *codes[:1]])} while {doing}: {message}"
    if isinstance(error, exceptions.ResourceNotFoundError):
        return NotProvisioned(text)
    refused = refusal(codes, status, message, text)
    if isinstance(error, exceptions.ClientAuthenticationError) and not isinstance(refused, ServiceUnavailable):
        return NoCredentials(f"Azure did not accept this identity while {doing}: {message}")
    return refused


def refusal(codes: Sequence[str], status: int, message: str, text: str) -> PlatformError:
    """What a refusal is called here.

    Args:
        codes: Azure's error codes, outermost first.
        status: Of the answer; 200 where an operation ended as failed.
        message: Azure's own words.
        text: The message of the error.
    """
    kind = next((kind for kind, its in CODES.items() if its & set(codes)), None) or _by_status(status, message)
    if kind is AccessDenied:
        return AccessDenied(text, next_step=what_to_grant(message, codes))
    if kind is QuotaExceeded and CAPACITY & set(codes):
        return QuotaExceeded(text, next_step=NO_CAPACITY)
    return kind(text)


def _by_status(status: int, message: str) -> type[PlatformError]:
    if "quota" in message.lower():
        return QuotaExceeded
    if status in {408, 429} or status >= 500:
        return ServiceUnavailable
    # An operation that ended as failed is told in an answer that is itself fine.
    by_status = {401: NoCredentials, 403: AccessDenied, 409: Conflict, 412: Conflict}
    return by_status.get(status, ProvisioningFailed if 200 <= status < 300 else PlatformError)


def error_codes(error: Any) -> list[str]:
    """All codes of an answer, outermost first: its own, those of its details and those quoted in its messages."""
    codes = [str(getattr(error, "error_code", None) or "")]
    queue = [error.error] if getattr(error, "error", None) else []
    while queue:
        item = queue.pop(0)
        codes.append(str(getattr(item, "code", None) or ""))
        queue += getattr(item, "details", None) or []
    # A failed template deployment quotes the answer of the service as JSON, within a message.
    codes += re.findall(r'\\?"code\\?"\s*:\s*\\?"(\w+)', error.message or "")
    return list(dict.fromkeys(filter(None, codes)))


def _of_azure_ml(error: "AzureError", doing: str) -> PlatformError:
    """Of azure-ai-ml's own exceptions, which say who is at fault and wrap what a service said."""
    inner = error.inner_exception or error.__cause__ or error.__context__
    behind = azure_error_behind(inner) if inner is not None else None
    if behind is not None:
        return translation(behind, doing)
    text = f"{type(error).__name__} while {doing}: {error.message}"
    category = getattr(error, "error_category", None)
    if category == "UserError":
        return ConfigurationError(text, next_step="Correct what the message names and run again.")
    return ServiceUnavailable(text) if category == "SystemError" else PlatformError(text)
