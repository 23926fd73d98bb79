"""Container images: built where they are kept, once for the same sources."""

from prefect import get_run_logger

from infra.backend import backend
from infra.container_images import BuiltImage, ImageSource
from infra.settings import get_settings
from tasks.framework.artifacts import create_markdown_artifact, table
from tasks.framework.stage import Result, stage


class Image(Result):
    """An image and how it came to be."""

    image: BuiltImage


@stage("Build image", "build the image {name}", always=True)
def build_image(name: str, base: str) -> Image:
    """Build an image in the platform's registry, or on this machine; what is unchanged since the last build is not.

    Raises:
        ImageBuildFailed: With the last lines of the build's log.
        ConfigurationError: There is no such image, or nothing to build it with.
    """
    log = get_run_logger()
    built = (
        backend(get_settings()).image_builder().build(ImageSource(name, base=base), lambda line: log.info("%s", line))
    )
    log.info("%s %s", built.reference, "is built." if built.built else "was built before from the same sources.")
    create_markdown_artifact(
        key=f"image-{name}",
        description=f"Image {name}: {'built' if built.built else 'unchanged'}",
        markdown=f"# Image {name}\n\n"
        + table(("fact", ""), [("reference", f"`{built.reference}`"), ("tags", ", ".join(built.tags))]),
    )
    return Image(image=built)
