"""Random crops, flips and colours of a whole batch at once, as tensor operations on whatever device it is on."""

import math

import torch
from torch import Tensor, nn

from model.config import AugmentationConfig
from model.data.decoding import Preprocessing

_GREY = (0.299, 0.587, 0.114)
"""Rec. 601 luma weights, as in Pillow's conversion to grey."""


class Augmentation:
    """Turns stored whole images into network inputs.

    The stored images are squeezed into squares; `aspect` (width by height of the original) undoes that, so a crop
    shows the image in its true proportions.

    Args:
        config: How much is varied.
        preprocessing: The size of a network input, and the plain centre crop.
    """

    def __init__(self, config: AugmentationConfig, preprocessing: Preprocessing) -> None:
        self.config = config
        self.preprocessing = preprocessing

    def plain(self, pixels: Tensor, aspect: Tensor) -> Tensor:
        """The centre crop that evaluation sees (up to its resampling filter). Shapes as in `__call__`."""
        edge = torch.full_like(aspect, self.preprocessing.crop_fraction)
        middle = torch.zeros_like(aspect)
        width, height = self._of_image(edge, edge, aspect)
        return self._crop(pixels, width, height, middle, middle)

    def __call__(
        self,
        pixels: Tensor,
        aspect: Tensor,
        generator: torch.Generator,
        *,
        whole: int,
        places: slice,
    ) -> Tensor:
        """A random view of each image.

        Random resized crops are those of Szegedy et al. 2015 (section 6), the area counted in the image's largest
        square; colours vary as a product of brightness, contrast and saturation.

        Args:
            pixels: uint8 [n, edge, edge, 3].
            aspect: float [n].
            generator: Source of the randomness, on the same device.
            whole: Images in the batch that these are a part of: each is varied as it would be among all of them.
            places: Of these images in that batch.

        Returns:
            float [n, 3, size, size], RGB, 0..255.
        """

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(whole, generator=generator, device=aspect.device)[places] * (high - low) + low

        edge = uniform(self.config.min_scale, 1.0).sqrt()
        bound = math.log(self.config.max_stretch)
        stretch = (uniform(-bound, bound) / 2).exp()
        width, height = self._of_image(edge * stretch, edge / stretch, aspect)
        x, y = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
        if self.config.flip:
            width = torch.where(uniform(0, 1) < 0.5, -width, width)
        views = self._crop(pixels, width, height, x, y)
        if self.config.colour == 0:
            return views
        factors = [uniform(1 - self.config.colour, 1 + self.config.colour) for _ in range(3)]
        return _recolour(views, *factors)

    @staticmethod
    def _of_image(width: Tensor, height: Tensor, aspect: Tensor) -> tuple[Tensor, Tensor]:
        """Edges in units of the image's shorter side to edges as shares of its width and height, at most 1."""
        return (width / aspect.clamp(min=1)).clamp(max=1), (height * aspect.clamp(max=1)).clamp(max=1)

    def _crop(self, pixels: Tensor, width: Tensor, height: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Cut boxes out, bilinearly; all arguments are [n], in shares of the image, the centre from -1 to 1."""
        count, size = len(pixels), self.preprocessing.size
        images = pixels.permute(0, 3, 1, 2).float()
        # An affine grid without rotation is an outer sum of two axes: cheaper than the general product.
        steps = (torch.arange(size, device=pixels.device, dtype=images.dtype) * 2 + 1) / size - 1
        columns = (x[:, None] + width[:, None] * steps)[:, None, :].expand(count, size, size)
        rows = (y[:, None] + height[:, None] * steps)[:, :, None].expand(count, size, size)
        grid = torch.stack((columns, rows), dim=-1)
        return nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _recolour(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Brightness, contrast around the image's mean and saturation, as one linear map of the channels.

    Args:
        images: [n, 3, height, width], 0..255.
        brightness: Factors, [n].
        contrast: Factors, [n].
        saturation: Factors, [n].
    """
    weights = images.new_tensor(_GREY)
    to_grey = weights.expand(3, 3)
    keep = saturation[:, None, None]
    matrix = keep * torch.eye(3, device=images.device) + (1 - keep) * to_grey
    matrix = matrix * (brightness * contrast)[:, None, None]
    grey = images.mean((2, 3)) @ weights
    offset = (brightness * (1 - contrast) * grey)[:, None, None]
    flat = images.permute(0, 2, 3, 1).flatten(1, 2)
    mapped = torch.baddbmm(offset.expand(-1, flat.shape[1], 3), flat, matrix.transpose(1, 2))
    return mapped.clamp_(0, 255).view(len(images), *images.shape[2:], 3).permute(0, 3, 1, 2)
