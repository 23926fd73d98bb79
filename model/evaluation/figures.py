"""What pictures are made of: figures without pyplot and global state, labels that the font can draw, thumbnails."""

import io
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from model.data.decoding import open_image, to_rgb
from model.errors import ImageRejected

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE: Final = "#2a6fbb"
ORANGE: Final = "#e07b39"
GREY: Final = "#8a8f98"
GREEN: Final = "#2e7d4f"
RED: Final = "#b3352f"
DPI: Final = 110
LONGEST_LABEL: Final = 22
THUMBNAIL: Final = (208, 156)


def sheet(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def clean(axes: "Axes", *, grid: str = "y") -> "Axes":
    """The same axes without a frame, with a grid behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e3e6ea", linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    return axes


def thumbnail(data: bytes) -> np.ndarray:
    """The whole image, centred on a white card, so that all thumbnails line up."""
    from PIL import Image, ImageOps

    try:
        rgb = to_rgb(open_image(data), at_least=max(THUMBNAIL))
    except ImageRejected:
        rgb = Image.new("RGB", THUMBNAIL, (200, 200, 200))
    return np.asarray(ImageOps.pad(rgb, THUMBNAIL, color="white"))


def readable(label: str) -> str:
    """A label as this font can draw it: shortened, a character without a glyph as its code point."""
    known = _glyphs()
    shown = "".join(
        character if ord(character) in known else f"U+{ord(character):04X}"
        for character in label
        # Joiners and variation selectors have no shape of their own.
        if character not in "\u200d\ufe0e\ufe0f"
    )
    if len(shown) > LONGEST_LABEL:
        shown = f"{shown[: LONGEST_LABEL - 1]}…"
    # A dollar sign would start a formula.
    return shown.replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def png(figure: "Figure") -> bytes:
    """The bytes of a figure as a PNG file."""
    buffer = io.BytesIO()
    # Without the software's version in it, the same picture is the same bytes.
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})
    return buffer.getvalue()
