"""Azure DevOps over its REST API, with its refusals as errors of the platform."""

import time
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from infra.azure_devops.sign_in import TOKEN_OF_A_PERSON
from infra.errors import AccessDenied, Conflict, DevOpsRefused, NoCredentials, PlatformError, ServiceUnavailable

VERSION: Final = "7.1"
PREVIEW: Final = "7.1-preview.1"
"""Of checks and pipeline permissions, which Microsoft has not released."""
TRIES: Final = 4
LONGEST_WAIT: Final = 60.0
"""Seconds; who is asked to wait longer is told so."""
SIGN_IN_PAGE: Final = HTTPStatus.NON_AUTHORITATIVE_INFORMATION
"""Azure DevOps answers 203 and its sign-in page to a token that it doesn't know."""
BUSY: Final = frozenset({429, 500, 502, 503, 504})
Json = dict[str, Any]


class DevOps:
    """One organisation.

    Args:
        organisation: Such as https://dev.azure.com/NAME.
        authorization: Makes the header; asked for each request, since tokens end.
        wait: Sleeps so many seconds.
    """

    def __init__(
        self, organisation: str, authorization: Callable[[], SecretStr], wait: Callable[[float], None] = time.sleep
    ) -> None:
        self.organisation = organisation.rstrip("/")
        self._authorization = authorization
        self._wait = wait
        # A redirection leads to the sign-in page.
        self._http = httpx.Client(timeout=httpx.Timeout(60, connect=10), follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, version: str = VERSION, **query: Any) -> Json:
        """What is at this path below the organisation.

        Raises:
            NoCredentials, AccessDenied, ServiceUnavailable.
            DevOpsRefused: It refused; with `status` 404 where there is no such thing.
        """
        return self.send("GET", path, None, version, **query)

    def values(self, path: str, version: str = VERSION, **query: Any) -> list[Json]:
        """The elements of a list, over all its pages; raises as `get`."""
        items: list[Json] = []
        token: str | None = None
        while True:
            answer = self._answer("GET", path, version, {**query, "continuationToken": token}, None)
            items += answer.json()["value"]
            token = answer.headers.get("x-ms-continuationtoken")
            if not token:
                return items

    def send(self, method: str, path: str, body: Any, version: str = VERSION, **query: Any) -> Json:
        """The answer to a body that is sent; raises as `get`, and Conflict."""
        answer: Json = self._answer(method, path, version, query, body).json()
        return answer

    def identities(self, name: str) -> list[Json]:
        """Users and groups with this display name, mail address or account name; raises as `get`."""
        # Azure DevOps Services have identities at a host of its own; a server has all at one.
        base = self.organisation.replace("://dev.azure.com/", "://vssps.dev.azure.com/")
        query = {"searchFilter": "General", "filterValue": name}
        identities: list[Json] = self._answer("GET", "_apis/identities", VERSION, query, None, base).json()["value"]
        return identities

    def _answer(self, method: str, path: str, version: str, query: Json, body: Any, base: str = "") -> httpx.Response:
        url = f"{base or self.organisation}/{quote(path, safe='/')}"
        parameters = {"api-version": version, **{key: value for key, value in query.items() if value is not None}}
        for turn in range(1, TRIES + 1):
            # A POST that may have done its work isn't sent again; one that was held back is.
            again, pause = method != "POST", 0.5 * 2**turn
            try:
                answer = self._http.request(method, url, params=parameters, json=body, headers=self._headers())
            except httpx.TransportError as error:
                failure: PlatformError = ServiceUnavailable(f"{method} {url}: {error or type(error).__name__}.")
                failure.__cause__ = error
            else:
                if answer.is_success and answer.status_code != SIGN_IN_PAGE:
                    return answer
                failure = refusal(method, url, answer)
                again = answer.status_code == HTTPStatus.TOO_MANY_REQUESTS or (again and answer.status_code in BUSY)
                pause = _retry_after(answer) or pause
            if not again or pause > LONGEST_WAIT or turn == TRIES:
                raise failure
            self._wait(pause)
        raise AssertionError

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._authorization().get_secret_value(), "Accept": "application/json"}


def _retry_after(answer: httpx.Response) -> float:
    """Seconds; 0 where the service asks for nothing, or names a moment instead."""
    seconds = answer.headers.get("Retry-After", "")
    return float(seconds) if seconds.isdecimal() else 0.0


def refusal(method: str, url: str, answer: httpx.Response) -> PlatformError:
    """What this answer means, as an error of the platform."""
    status = answer.status_code
    where = f"{method} {url}: {status} {_message(answer)}".rstrip()
    if status in BUSY:
        return ServiceUnavailable(f"Azure DevOps can't answer now. {where}")
    if status in (SIGN_IN_PAGE, HTTPStatus.UNAUTHORIZED) or answer.is_redirect:
        return NoCredentials(
            f"Azure DevOps doesn't know who asks. {where}",
            next_step=f"Set {TOKEN_OF_A_PERSON} to a personal access token that is valid, or `az login` as a member of "
            "the organisation, which must be connected to the same Entra tenant.",
        )
    if status == HTTPStatus.FORBIDDEN:
        return AccessDenied(
            f"Azure DevOps refuses this identity. {where}",
            next_step="docs/devops.md lists who may make what; ask a project administrator.",
        )
    if status in (HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED):
        return Conflict(f"Somebody else changes the same thing in Azure DevOps. {where}")
    return DevOpsRefused(where, status=status)


def _message(answer: httpx.Response) -> str:
    if "html" in answer.headers.get("Content-Type", ""):
        return "(a sign-in page)" if answer.status_code in (SIGN_IN_PAGE, HTTPStatus.FOUND) else "(a page)"
    try:
        return " ".join(str(answer.json().get("message", "")).split())[:500]
    except (ValueError, AttributeError):
        return ""
