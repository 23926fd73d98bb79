"""Every refusal of the service: a problem document (RFC 9457) with a next step."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from model.errors import ImageRejected

MEDIA_TYPE: Final = "application/problem+json"
RUNBOOK: Final = "docs/runbook.md"


@dataclass(frozen=True)
class Kind:
    """One type of problem; its key in `KINDS` is its anchor in the runbook."""

    status: HTTPStatus
    title: str
    next_step: str


KINDS: Final[Mapping[str, Kind]] = {
    "empty-body": Kind(HTTPStatus.BAD_REQUEST, "The body is empty", "Send the bytes of an image as the body."),
    "malformed-request": Kind(
        HTTPStatus.BAD_REQUEST,
        "The request is malformed",
        "Correct the request; /openapi.json describes what each path takes.",
    ),
    "wrong-key": Kind(
        HTTPStatus.UNAUTHORIZED,
        "The key is missing or wrong",
        "Send the header `Authorization: Bearer KEY` with a current key of this environment.",
    ),
    "unknown-path": Kind(
        HTTPStatus.NOT_FOUND, "There is nothing at this path", "Use one of the paths that /openapi.json lists."
    ),
    "wrong-method": Kind(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "This path doesn't take this method",
        "Use a method that the header `Allow` lists.",
    ),
    "slow-upload": Kind(
        HTTPStatus.REQUEST_TIMEOUT, "The request took too long to arrive", "Send it again over a faster connection."
    ),
    "body-too-large": Kind(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large", "Scale the image down, or send fewer in a batch."
    ),
    "too-many-files": Kind(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The batch holds too many files", "Send them in several requests."
    ),
    "too-many-pixels": Kind(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The image has too many pixels", "Scale the image down and send it again."
    ),
    "wrong-content-type": Kind(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The content type is not supported",
        "Send image/jpeg, image/png or image/webp, or such files as multipart/form-data.",
    ),
    "unsupported-format": Kind(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The image format is not supported",
        "Convert the image to JPEG, PNG or WebP and send it again.",
    ),
    "broken-image": Kind(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The image can't be decoded",
        "Open the file with an image viewer; export or upload it again.",
    ),
    "headers-too-large": Kind(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large", "Send fewer or shorter headers."
    ),
    "overloaded": Kind(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The service is busy",
        "Wait for the seconds that `Retry-After` names and send the request again.",
    ),
    "internal-error": Kind(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "The service made a mistake",
        "Report the request id to the people who run this service.",
    ),
}

IMAGE_KINDS: Final[Mapping[str, str]] = {
    "empty": "empty-body",
    "not-an-image": "broken-image",
    "truncated": "broken-image",
    "unsupported-format": "unsupported-format",
    "too-large": "too-many-pixels",
}
"""The reasons of `ImageRejected` -> the kinds of problem."""


class Problem(BaseModel):
    """A problem document as of RFC 9457, section 3."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="Where the runbook explains this problem.")
    title: str
    status: int
    detail: str = Field(description="What happened to this request.")
    next_step: str = Field(description="What the caller should do now.")
    request_id: str = Field(description="Also in the service's log; name it when you ask for help.")


class Refusal(Exception):
    """A request, or one image of a batch, is answered with a problem."""

    def __init__(self, kind: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})

    @classmethod
    def of_image(cls, error: ImageRejected) -> "Refusal":
        return cls(IMAGE_KINDS.get(error.reason, "broken-image"), str(error))

    def problem(self, request_id: str) -> Problem:
        kind = KINDS[self.kind]
        return Problem(
            type=f"{RUNBOOK}#{self.kind}",
            title=kind.title,
            status=int(kind.status),
            detail=self.detail,
            next_step=kind.next_step,
            request_id=request_id,
        )

    def response(self, request_id: str) -> JSONResponse:
        problem = self.problem(request_id)
        return JSONResponse(problem.model_dump(), problem.status, self.headers, MEDIA_TYPE)
