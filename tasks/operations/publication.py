"""The training code where an engine finds it: published once for each build."""

from prefect import get_run_logger

from infra.backend import backend
from infra.settings import get_settings
from tasks.framework.artifacts import create_markdown_artifact, table
from tasks.framework.stage import Result, stage


class Publication(Result):
    """What is published under a version."""

    version: str
    new: bool
    links: dict[str, str]


@stage("Publish", "publish {version}", always=True)
def publish_training(version: str, image: str) -> Publication:
    """Publish environment, component and pipeline of this version; what is there with the same content stays.

    Raises:
        ConfigurationError: The version is published with other content, or this platform has nowhere to publish to.
    """
    log = get_run_logger()
    published = backend(get_settings()).publication().publish(version, image)
    for asset in published:
        log.info("%s %s:%s %s", asset.kind, asset.name, asset.version, "is published." if asset.new else "was there.")
    links = {f"{asset.kind} {asset.name}": asset.link for asset in published}
    create_markdown_artifact(
        key="publication",
        description=f"Training code {version}",
        markdown=f"# Training code {version}\n\nImage `{image}`\n\n"
        + table(
            ("what", "name", ""),
            [(a.kind, f"[{a.name}:{a.version}]({a.link})", "new" if a.new else "unchanged") for a in published],
        ),
    )
    return Publication(version=version, new=any(asset.new for asset in published), links=links)
