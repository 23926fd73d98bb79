"""The scoring image of an environment, by the digest that its tag has now."""

import re

from infra.azure.image_registry import ImageRegistry
from infra.errors import ConfigurationError


def pinned_image(registry: str, image: str) -> str:
    """`REGISTRY/REPOSITORY@sha256:...` of an image: what runs tomorrow is what was tested today.

    Args:
        registry: Login server, `NAME.azurecr.io`.
        image: `REPOSITORY:TAG` or `REPOSITORY@sha256:...`.

    Raises:
        ConfigurationError: The registry has no such image.
        AccessDenied: This identity may not pull there.
        ServiceUnavailable: The registry does not answer.
    """
    repository, reference = re.split("[@:]", image, maxsplit=1)
    with ImageRegistry(registry) as images:
        digest = images.digest(repository, reference)
    if digest is None:
        raise ConfigurationError(
            f"There is no image {registry}/{image}.",
            next_step="Build it with `ahc run images -p image=scoring`, or correct `azure.image` in the environment "
            "file.",
        )
    return f"{registry}/{repository}@{digest}"
