"""Bytes in, pixels out: the one way in which an image is decoded, for training, evaluation and scoring alike."""

import io
import struct
import warnings
import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import Field

from model.errors import ImageRejected
from model.values import Frozen

FORMATS: Final = ("JPEG", "PNG", "WEBP")
MULTI_PICTURE: Final = "MPO"
"""A JPEG with further pictures behind it (depth or gain maps), as many phones write it; the first one counts."""
MAX_PIXELS: Final = 60_000_000
"""A limit of our own, checked on the header before a pixel is decoded (Pillow's only warns below twice its own)."""
Image.MAX_IMAGE_PIXELS = None
DECODER_ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders are known to raise on damaged bytes; it promises no common class."""

Pixels = NDArray[np.uint8]


class Preprocessing(Frozen):
    """How an image becomes the network's input; part of every bundle."""

    size: int = Field(default=224, ge=32, le=1024, description="Edge of the square network input, in pixels.")
    crop_fraction: float = Field(
        default=0.875,
        gt=0,
        le=1,
        description="Edge of the centre crop as a share of the shorter side of the image.",
    )


def open_image(data: bytes) -> Image.Image:
    """Open an image and check its header, without decoding its pixels.

    Raises:
        ImageRejected: The bytes are empty, no image, of another format, or hold more than `MAX_PIXELS` pixels.
    """
    if not data:
        raise ImageRejected("The image is empty (0 bytes).", reason="empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
    except DECODER_ERRORS as error:
        raise ImageRejected("The bytes are not an image that can be read.", reason="not-an-image") from error
    if image.format not in (*FORMATS, MULTI_PICTURE):
        raise ImageRejected(
            f"The image is of the format {image.format}; {', '.join(FORMATS)} are supported.",
            reason="unsupported-format",
        )
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageRejected(
            f"The image has {width} x {height} pixels; the limit is {MAX_PIXELS:,} in all.",
            reason="too-large",
        )
    return image


def to_rgb(image: Image.Image, *, at_least: int | None = None) -> Image.Image:
    """Decode an opened image upright in 8-bit RGB: EXIF rotation applied, transparency on white, first frame only.

    Args:
        image: What `open_image` returned.
        at_least: Shortest edge in pixels that is needed; a JPEG is decoded at a reduced scale of 1/2, 1/4 or 1/8
            where that leaves at least this much (libjpeg's scaled inverse DCT).

    Raises:
        ImageRejected: The data ends early or is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if at_least is not None:
                image.draft("RGB", (at_least, at_least))
            image.load()
            upright = ImageOps.exif_transpose(image)
            return _flatten(upright)
    except DECODER_ERRORS as error:
        raise ImageRejected(f"The image is damaged or incomplete: {error}.", reason="truncated") from error


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):
        # Pillow clips 16-bit greys at 255 instead of scaling them.
        values = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.clip(values / 257.0, 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def center_box(width: int, height: int, fraction: float) -> tuple[float, float, float, float]:
    """The centred square of `fraction` of the shorter side, as (left, top, right, bottom)."""
    edge = min(width, height) * fraction
    left, top = (width - edge) / 2, (height - edge) / 2
    return left, top, left + edge, top + edge


def preprocess(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """Centre-crop and scale an opened image to uint8 [size, size, 3] (RGB, 0..255; the network normalises itself)."""
    wanted = int(np.ceil(preprocessing.size / preprocessing.crop_fraction))
    rgb = to_rgb(image, at_least=wanted)
    box = center_box(*rgb.size, preprocessing.crop_fraction)
    size = (preprocessing.size, preprocessing.size)
    scaled = rgb.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    return np.asarray(scaled)


def decode(data: bytes, preprocessing: Preprocessing) -> Pixels:
    """Bytes of a JPEG, PNG or WebP to uint8 [size, size, 3].

    Raises:
        ImageRejected: See `open_image` and `to_rgb`.
    """
    return preprocess(open_image(data), preprocessing)
