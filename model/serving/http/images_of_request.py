"""The images that a request holds."""

from dataclasses import dataclass
from typing import Final

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from model.serving.config import ServingConfig
from model.serving.http.body import Body
from model.serving.http.problems import Refusal

IMAGE_TYPES: Final = ("image/jpeg", "image/png", "image/webp")
RAW_TYPES: Final = (*IMAGE_TYPES, "image/jpg", "application/octet-stream")
"""`image/jpg` is a common mistake, and many clients send octet-stream: the bytes decide."""
FORM_TYPE: Final = "multipart/form-data"
FORM_OVERHEAD: Final = 64 * 1024
MAX_NAME: Final = 200


@dataclass(frozen=True)
class NamedImage:
    """One image as it was sent; `data` is encoded, and may be anything."""

    file: str
    data: bytes


class _FormInMemory(MultiPartParser):
    """The body's limit bounds the memory; temporary files would only make it slower."""

    spool_max_size = 1 << 40


async def read_image(headers: Headers, body: Body, config: ServingConfig) -> bytes:
    """The one image of a request to `/score`.

    Raises:
        Refusal: The body is empty, too large, too slow, malformed or of another type.
    """
    media_type = _media_type(headers, body)
    if media_type in RAW_TYPES:
        data = await body.read(config.max_image_bytes)
        if not data:
            raise _empty()
        return data
    if media_type != FORM_TYPE:
        raise _wrong_type(headers, (*IMAGE_TYPES, FORM_TYPE))
    images = await _read_form(headers, body, config.max_image_bytes + FORM_OVERHEAD, config)
    if len(images) != 1:
        raise Refusal("malformed-request", f"The form holds {len(images)} files; /score takes one, /score/batch more.")
    return images[0].data


async def read_batch(headers: Headers, body: Body, config: ServingConfig) -> list[NamedImage]:
    """The images of a request to `/score/batch`, in the order in which they were sent.

    Raises:
        Refusal: The body is empty, too large, too slow, malformed, of another type, or holds too many files.
    """
    if _media_type(headers, body) != FORM_TYPE:
        raise _wrong_type(headers, (FORM_TYPE,))
    return await _read_form(headers, body, config.max_batch_bytes, config)


async def _read_form(headers: Headers, body: Body, limit: int, config: ServingConfig) -> list[NamedImage]:
    # One more than may be, so that too many files can be told from a malformed form.
    parser = _FormInMemory(headers, body.chunks(limit), max_files=10 * config.max_batch_images, max_fields=100)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal("malformed-request", f"The form can't be read: {error.message}") from error
    try:
        return _images(form, config.max_batch_images)
    finally:
        await form.close()


def _images(form: FormData, limit: int) -> list[NamedImage]:
    uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not uploads:
        raise Refusal(
            "empty-body", "The form holds no file. Each part needs a `filename` (with curl: -F file=@photo.jpg)."
        )
    if len(uploads) > limit:
        raise Refusal("too-many-files", f"The form holds {len(uploads)} files; the limit is {limit}.")
    return [NamedImage((upload.filename or "")[:MAX_NAME], upload.file.read()) for upload in uploads]


def _media_type(headers: Headers, body: Body) -> str:
    if body.finished:
        raise _empty()
    if encoding := headers.get("content-encoding", "").strip().lower().replace("identity", ""):
        raise Refusal(
            "wrong-content-type",
            f"The body is encoded as {encoding[:50]!r}; send it as it is.",
            headers={"Accept-Encoding": "identity"},
        )
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _empty() -> Refusal:
    return Refusal("empty-body", "The body holds 0 bytes.")


def _wrong_type(headers: Headers, accepted: tuple[str, ...]) -> Refusal:
    name = headers.get("content-type")
    problem = f"The content type is {name[:100]!r}" if name else "The request names no content type"
    return Refusal("wrong-content-type", f"{problem}; {', '.join(accepted)} are accepted.")
