"""One request as the layers of the service see it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from model.serving.http.body import Body

if TYPE_CHECKING:
    from opentelemetry.trace import Span


@dataclass
class Exchange:
    """One request as the paths see it, in `scope["state"]["exchange"]`."""

    request_id: str
    body: Body
    notes: dict[str, str | int | float] = field(default_factory=dict)
    """What the path adds to the log line and to the span."""
    trace_id: str = ""
    span: "Span | None" = None
    samples: list[tuple[bytes, dict[str, Any]]] | None = None
    """Where the request is one to record: images and what was said about them."""
    storable: bool = True
    """Whether its images may be kept."""
