"""One request on its way through the service."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from model.serving.http.body import Body
from model.serving.http.problems import Refusal

if TYPE_CHECKING:
    from opentelemetry.trace import Span


@dataclass
class Exchange:
    """One request and what is noted about it; `of` reads it from what FastAPI hands to an endpoint."""

    request_id: str
    body: Body
    method: str
    """Out of a bounded set, as `path`: for metrics and spans."""
    path: str
    status: int = 0
    """Of the answer; 0 until it begins."""
    reusable: bool = True
    """Whether the connection may carry another request after the answer."""
    notes: dict[str, str | int | float] = field(default_factory=dict)
    """What the endpoint adds to the log line and to the span."""
    trace_id: str = ""
    span: "Span | None" = None
    samples: list[tuple[bytes, dict[str, Any]]] | None = None
    """Where the request is one to record: images and the record of each."""
    storable: bool = True
    """Whether its images may be kept."""

    @staticmethod
    def of(request: Request) -> "Exchange":
        exchange: Exchange = request.scope["state"]["exchange"]
        return exchange

    def refuse(self, refusal: Refusal) -> Response:
        """The answer to a request that is refused as a whole."""
        self.notes["problem"] = refusal.kind
        return refusal.response(self.request_id)
