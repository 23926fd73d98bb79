"""Small images, made on the spot."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 96, height: int = 64, mode: str = "RGB", cells: int = 6) -> Image.Image:
    """Smooth random colours: `cells` patches along each edge."""
    noise = np.random.default_rng(seed).integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def write_tree(root: Path, classes: dict[str, int], suffix: str = ".jpg", **form: object) -> Path:
    """A source folder with so many different images in each class."""
    seed = 0
    for label, images in classes.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            seed += 1
            picture(seed, **form).save(root / label / f"{number:03}{suffix}")  # type: ignore[arg-type]
    return root


def bomb(edge: int = 20_000) -> bytes:
    """A whole PNG of edge x edge one-bit pixels in about 50 kB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", edge, edge, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + edge // 8) * edge))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
