"""How `/openapi.json` describes bodies, answers, problems and keys."""

from typing import Any, Final

from model.serving.http.images_of_request import FORM_TYPE, IMAGE_TYPES
from model.serving.http.problems import KINDS, MEDIA_TYPE, Problem

SECURITY_SCHEME: Final = "key"
SECURED: Final[dict[str, Any]] = {"security": [{SECURITY_SCHEME: []}]}
BINARY: Final[dict[str, Any]] = {"type": "string", "format": "binary"}
REQUEST_ID: Final[dict[str, Any]] = {
    "X-Request-ID": {"description": "The request's id, given or made.", "schema": {"type": "string"}}
}
IMAGE_PROBLEMS: Final = (
    "empty-body",
    "malformed-request",
    "slow-upload",
    "body-too-large",
    "too-many-pixels",
    "wrong-content-type",
    "unsupported-format",
    "broken-image",
    "overloaded",
)
BATCH_PROBLEMS: Final = (
    "empty-body",
    "malformed-request",
    "slow-upload",
    "body-too-large",
    "too-many-files",
    "wrong-content-type",
    "overloaded",
)


def image_body() -> dict[str, Any]:
    """The body of `/score`."""
    form = {"type": "object", "properties": {"file": BINARY}, "required": ["file"]}
    content: dict[str, Any] = {media_type: {"schema": BINARY} for media_type in IMAGE_TYPES}
    return _body({**content, FORM_TYPE: {"schema": form}}, "One image, as it is or as the one file of a form.")


def batch_body(limit: int) -> dict[str, Any]:
    """The body of `/score/batch`."""
    files = {"type": "array", "items": BINARY, "minItems": 1, "maxItems": limit}
    form = {"type": "object", "properties": {"files": files}, "required": ["files"]}
    return _body({FORM_TYPE: {"schema": form}}, "Several images as the files of a form.")


def problems(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """Answers by status, for the `responses` of a path; kinds with one status share an entry."""
    answers: dict[int | str, dict[str, Any]] = {}
    for name in kinds:
        kind = KINDS[name]
        entry = answers.setdefault(
            int(kind.status),
            {
                "description": "",
                "headers": {**REQUEST_ID, **_headers(name)},
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        )
        entry["description"] = "; ".join(filter(None, [entry["description"], f"{kind.title} (`{name}`)"]))
    return answers


def complete(schema: dict[str, Any], platform: str = "") -> dict[str, Any]:
    """Add what FastAPI can't know to the schema it made."""
    if platform:
        schema["info"]["x-platform"] = platform
    components = schema.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    components["securitySchemes"] = {
        SECURITY_SCHEME: {"type": "http", "scheme": "bearer", "description": "A key of this environment."}
    }
    return schema


def _body(content: dict[str, Any], description: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "description": description, "content": content}, **SECURED}


def _headers(kind: str) -> dict[str, Any]:
    if kind == "overloaded":
        return {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    if kind == "wrong-key":
        return {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return {}
