"""Event Grid's ModelRegistered events, in a storage queue of the Azure ML workspace's account.

Over Azure's HTTP pipeline, since the SDK for queues is one more package for four requests.
"""

import base64
import binascii
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlencode
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from pydantic import BaseModel, Field, ValidationError

from infra.azure.access.clients import RETRIES
from infra.azure.access.credentials import credential
from infra.azure.access.errors import azure_errors
from infra.azure.access.resources import platform_resources
from infra.ports import Notice
from infra.settings import Settings

if TYPE_CHECKING:
    from azure.core import PipelineClient
    from azure.core.credentials import TokenCredential
    from azure.core.exceptions import HttpResponseError
    from azure.core.rest import HttpResponse

QUEUE: Final = "model-registered"
"""Made by `infra/arm/modules/model-events.json`."""
ASIDE: Final = f"{QUEUE}-aside"
"""Likewise."""
SCOPE: Final = "https://storage.azure.com/.default"
VERSION: Final = "2023-11-03"
HIDDEN_SECONDS: Final = 300
"""For so long nobody else gets a message that was taken: longer than a reconciliation takes."""
AT_ONCE: Final = 32
"""The most that the service gives in one answer."""
ASIDE_SECONDS: Final = 30 * 24 * 3600
"""What was put aside stays for so long."""


class QueuedNotices:
    """`infra.ports.Notices` on a storage account.

    Args:
        service: Where its queue service answers, such as https://ACCOUNT.queue.core.windows.net.
        identity: Whose; with the roles Storage Queue Data Message Processor and Sender.
    """

    def __init__(self, service: str, identity: "TokenCredential") -> None:
        self._service = service.rstrip("/")
        self._identity = identity

    def take(self) -> Sequence[Notice]:
        query = {"numofmessages": AT_ONCE, "visibilitytimeout": HIDDEN_SECONDS}
        # Without the queue, events are switched off in the platform's parameters.
        answer = self._send("GET", f"{QUEUE}/messages", query, fine=("QueueNotFound",))
        if answer.status_code != HTTPStatus.OK:
            return []
        return [_notice(item) for item in ET.fromstring(answer.content)]  # noqa: S314 - the service's own answer

    def end(self, notice: Notice) -> None:
        absent = ("MessageNotFound", "PopReceiptMismatch")
        self._send("DELETE", f"{QUEUE}/messages/{notice.id}", {"popreceipt": notice.receipt}, fine=absent)

    def put_aside(self, notice: Notice) -> None:
        body = f"<QueueMessage><MessageText>{escape(notice.text)}</MessageText></QueueMessage>"
        self._send("POST", f"{ASIDE}/messages", {"messagettl": ASIDE_SECONDS}, body=body)
        self.end(notice)

    def _send(
        self, method: str, path: str, query: dict[str, Any], *, body: str | None = None, fine: Sequence[str] = ()
    ) -> "HttpResponse":
        """The answer; one that is no success where its error code is among `fine`."""
        from azure.core.rest import HttpRequest

        request = HttpRequest(
            method,
            f"{self._service}/{path}?{urlencode(query)}",
            headers={"x-ms-version": VERSION, "x-ms-date": formatdate(usegmt=True)},
            content=body,
        )
        with azure_errors(f"asking the queue {QUEUE}"), self._client() as client:
            answer: HttpResponse = client.send_request(request)
            code = answer.headers.get("x-ms-error-code", "")
            if answer.status_code >= HTTPStatus.BAD_REQUEST and code not in fine:
                raise _refused(answer, code)
            return answer

    def _client(self) -> "PipelineClient[Any, Any]":
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy

        identity: Any = BearerTokenCredentialPolicy(self._identity, SCOPE)
        # A message that is taken twice by a repeated GET comes back later, as any that is not ended.
        return PipelineClient(self._service, policies=[RetryPolicy(retry_total=RETRIES), identity])


def _refused(answer: "HttpResponse", code: str) -> "HttpResponseError":
    """What the SDKs would raise: by the status, with the service's own code and words."""
    from azure.core import exceptions

    kinds = {HTTPStatus.UNAUTHORIZED: exceptions.ClientAuthenticationError}
    kind = kinds.get(HTTPStatus(answer.status_code), exceptions.HttpResponseError)
    error = kind(message=f"{code} {answer.reason}".strip(), response=cast("Any", answer))
    error.error_code = code  # type: ignore[attr-defined]
    return error


class _ModelRegistered(BaseModel):
    """`data` of Microsoft.MachineLearningServices.ModelRegistered."""

    name: str = Field(alias="ModelName", min_length=1)
    version: int = Field(alias="ModelVersion", ge=1)


class _CloudEvent(BaseModel):
    data: _ModelRegistered


def _notice(message: ET.Element) -> Notice:
    text = message.findtext("MessageText") or ""
    about = _about(text)
    return Notice(
        id=message.findtext("MessageId") or "",
        receipt=message.findtext("PopReceipt") or "",
        text=text,
        taken=int(message.findtext("DequeueCount") or 1),
        name=about.name if about else None,
        version=about.version if about else None,
    )


def _about(text: str) -> _ModelRegistered | None:
    """Event Grid writes the event's JSON in base64; who writes by hand may not."""
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error:
        content = text.encode()
    try:
        return _CloudEvent.model_validate_json(content).data
    except ValidationError:
        return None


def platform_notices(settings: Settings) -> QueuedNotices | None:
    """The platform's queue; None where its workspace tells no events."""
    account = platform_resources(settings).workspace_storage_account
    return QueuedNotices(f"https://{account}.queue.core.windows.net", credential()) if account else None
