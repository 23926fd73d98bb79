"""The scoring image of an environment, by the digest that its tag has now."""

from infra.azure.image_registry import ImageRegistry
from infra.errors import ConfigurationError


def pinned_image(registry: str, image: str) -> str:
    """`REGISTRY/REPOSITORY@sha256:...` of an image: what runs tomorrow is what was tested today.

    Args:
        registry: Login server, `NAME.azurecr.io`.
        image: `REPOSITORY:TAG` or `REPOSITORY@sha256:...`; a digest is taken at its word.

    Raises:
        ConfigurationError: The registry has no such image.
        AccessDenied: This identity may not pull there.
        ServiceUnavailable: The registry does not answer.
    """
    if "@" in image:
        return f"{registry}/{image}"
    repository, _, tag = image.partition(":")
    with ImageRegistry(registry) as images:
        digest = images.digest(repository, tag)
    if digest is None:
        raise ConfigurationError(
            f"There is no image {registry}/{image}.",
            next_step="Build it with `ahc run images -p image=scoring`, or correct `azure.image` in the environment "
            "file.",
        )
    return f"{registry}/{repository}@{digest}"
