"""What a manifest says about one image: content hash, size, form, and a perceptual hash that survives re-encoding."""

import hashlib
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.data.decoding import open_image, to_rgb
from model.errors import ImageRejected

_EDGE: Final = 32
_FREQUENCIES: Final = 8
_FLAT: Final = 1.0
"""Largest DCT coefficient, in grey levels, up to which an image has no structure to hash."""


class Measured(NamedTuple):
    """Sizes are of the stored pixels, before an EXIF rotation. `error` says why the image can't be used, or is None."""

    sha256: str = ""
    bytes: int = 0
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    phash: str = ""
    error: str | None = None


def measure(data: bytes) -> Measured:
    """Hash, decode and measure one image. Never raises: an image at fault comes back with its error."""
    facts = Measured(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    try:
        image = open_image(data)
        # Decoding at a reduced scale changes what the image says of itself.
        facts = facts._replace(width=image.width, height=image.height, format=image.format or "", mode=image.mode)
        return facts._replace(phash=f"{perceptual_hash(to_rgb(image, at_least=2 * _EDGE)):016x}")
    except ImageRejected as error:
        return facts._replace(error=str(error))
    except Exception as error:  # noqa: BLE001 - a hostile file can raise anything from a decoder; it is one bad row
        return facts._replace(error=f"The image can't be decoded: {type(error).__name__}: {error}.")


def perceptual_hash(image: Image.Image) -> int:
    """A 64-bit hash, of which few bits change when an image is scaled, re-encoded or slightly recoloured.

    The 8 x 8 lowest frequencies but the constant ones of a 32 x 32 grey image's discrete cosine transform, each
    compared with their median (Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions",
    section 3.2.1). An image without structure has the hash 0.
    """
    grey = image.convert("L").resize((_EDGE, _EDGE), Image.Resampling.BOX)
    coefficients = (_COSINES @ np.asarray(grey, dtype=np.float64) @ _COSINES.T).ravel()
    if np.abs(coefficients).max() < _FLAT:
        return 0
    bits = coefficients > np.median(coefficients)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _cosines() -> NDArray[np.float64]:
    """Rows 1 to 8 of the orthonormal DCT-II of length 32, scaled so that results are in grey levels."""
    frequency = np.arange(1, _FREQUENCIES + 1)[:, None]
    position = np.arange(_EDGE)[None, :]
    return np.asarray(np.cos(np.pi * frequency * (2 * position + 1) / (2 * _EDGE)) * np.sqrt(2) / _EDGE)


_COSINES: Final = _cosines()
