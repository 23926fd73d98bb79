"""The training code, published where engines other than Prefect start it."""

from tasks.framework.pipeline import pipeline
from tasks.operations.publication import Publication, publish_training


@pipeline("publication", "publish {version}")
def publication(version: str, image: str) -> Publication:
    """Publish the training code to the Azure ML workspace: environment, component and pipeline; once for a version.

    Args:
        version: Of the build.
        image: The training image by its digest, `sha256:...`, in the platform's registry; or with its whole name.
    """
    return publish_training(version, image)
