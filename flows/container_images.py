"""The platform's container images."""

from tasks.framework.pipeline import pipeline
from tasks.operations.container_images import Image, build_image


@pipeline("images", "build the image {image}")
def images(image: str = "scoring", base: str = "") -> Image:
    """Build a container image: in the platform's registry, or with the local backend on this machine.

    Args:
        image: Of `infra/docker`: prefect, scoring, training.
        base: The image to build on, such as a mirror's; the Dockerfile's own if empty.
    """
    return build_image(image, base)
