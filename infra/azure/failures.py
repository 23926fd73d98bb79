"""What the Azure SDKs raise, translated once, at the border."""

from collections.abc import Iterator
from contextlib import contextmanager

from infra.errors import AccessDenied, Conflict, NoCredentials, PlatformError, QuotaExceeded, ServiceUnavailable


@contextmanager
def azure_errors(doing: str) -> Iterator[None]:
    """Raise SDK errors as errors of ours; `doing` completes "while ..." in the message.

    "Not found" is left to the caller, who knows what it means (azure.core.exceptions.ResourceNotFoundError).
    """
    from azure.core import exceptions

    try:
        yield
    except exceptions.ResourceNotFoundError:
        raise
    except exceptions.ClientAuthenticationError as error:
        raise NoCredentials(f"Azure did not accept this identity while {doing}: {error.message}") from error
    except exceptions.HttpResponseError as error:
        raise _translate(error.status_code or 0, error.message or str(error), doing) from error
    except (exceptions.ServiceRequestError, exceptions.ServiceResponseError) as error:
        raise ServiceUnavailable(f"The connection to Azure broke while {doing}: {error.message}") from error


def _translate(status: int, message: str, doing: str) -> PlatformError:
    text = f"Azure answered {status} while {doing}: {message}"
    if "quota" in message.lower():
        return QuotaExceeded(text)
    if status in {401, 403}:
        return AccessDenied(text)
    if status in {409, 412}:
        return Conflict(text)
    if status in {408, 429} or status >= 500:
        return ServiceUnavailable(text)
    return PlatformError(text)
