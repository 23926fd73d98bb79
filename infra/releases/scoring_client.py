"""A client of the scoring API, whose errors are the platform's."""

from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import SecretStr

from infra.errors import AccessDenied, EndpointUnreachable, PlatformError, RequestRejected
from infra.ports import LiveModel
from infra.runs.telemetry import traceparent


class ScoringClient:
    """Speaks to one endpoint over one kept connection.

    Args:
        url: Where the endpoint listens, without a path.
        key: A valid key of its environment.
        seconds: Limit for one answer.
        sampled: Whether its images may be kept like those of clients, where an environment keeps any.
        cookie: Sent with every request (see `RunningVersion`). Cookies that come back are never kept: on App Service
            one would bind this client to the version that it met first, for an hour.
    """

    def __init__(
        self, url: str, key: SecretStr, *, seconds: float = 30.0, sampled: bool = True, cookie: str = ""
    ) -> None:
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"}
        headers |= {} if sampled else {"Cache-Control": "no-store"}
        headers |= {"Cookie": cookie} if cookie else {}
        self._client = httpx.Client(
            base_url=self._url,
            headers=headers,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=httpx.Timeout(seconds, connect=min(seconds, 5.0)),
            # A proxy can't reach this machine; what is elsewhere may be behind one, with a certificate of its own.
            trust_env=not on_this_machine(self._url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def score(
        self, image: bytes, content_type: str = "application/octet-stream", *, trace: str | None = None
    ) -> dict[str, Any]:
        """The answer to one image: `predictions`, `model` and `request_id` as of the scoring API.

        Args:
            image: The bytes of a JPEG, PNG or WebP file.
            content_type: What they are; the bytes decide where this is `application/octet-stream`.
            trace: The header `traceparent` to send; the trace that is open here, or a new one, if missing.

        Raises:
            EndpointUnreachable: It doesn't answer, is overloaded, or failed.
            AccessDenied: The key is not valid there.
            RequestRejected: The image can't be scored; the message says why.
        """
        headers = {"Content-Type": content_type, "traceparent": trace or traceparent()}
        answer = self._ask("POST", "/score", content=image, headers=headers)
        content: dict[str, Any] = answer.json()
        return content

    def model(self) -> LiveModel:
        """The model that the endpoint itself reports; raises as `score` does."""
        content = self._ask("GET", "/model", headers={"traceparent": traceparent()}).json()
        return LiveModel(name=content["name"], version=content["version"], digest=content["digest"])

    def ready(self) -> bool:
        """Whether it takes traffic; False where it doesn't answer."""
        try:
            return self._client.get("/health/ready").is_success
        except httpx.TransportError:
            return False

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise EndpointUnreachable(f"{self._url} doesn't answer: {error or type(error).__name__}.") from error
        if answer.is_success:
            return answer
        raise _translate(answer, self._url)


def on_this_machine(url: str) -> bool:
    """Whether this address is a loopback one."""
    host = httpx.URL(url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _translate(answer: httpx.Response, url: str) -> PlatformError:
    status = answer.status_code
    try:
        problem: dict[str, Any] = answer.json()
    except ValueError:
        problem = {}
    message = (
        f"{url} answered {status}: {problem.get('title', answer.reason_phrase)}. {problem.get('detail', '')}".strip()
    )
    next_step = problem.get("next_step")
    if status in {401, 403}:
        return AccessDenied(message, next_step=next_step)
    if status == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error:
        return EndpointUnreachable(message, next_step=next_step)
    kind = str(problem.get("type", "")).rpartition("#")[2]
    return RequestRejected(message, status=status, kind=kind, next_step=next_step)
