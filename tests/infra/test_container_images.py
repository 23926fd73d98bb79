"""What an image is known by, and images built on this machine."""

import shutil

import pytest

from infra import container_images as images
from infra.container_images import ImageSource
from infra.errors import ConfigurationError, ImageBuildFailed
from infra.local.image_builds import LocalBuilds
from tests.support.containers import podman


@pytest.fixture
def copied_project(tmp_path, monkeypatch):
    """A small project of its own."""
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("[project]\n")
    for folder in ("infra", "model"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "code.py").write_text("1\n")
    shutil.copytree(images.DOCKERFILES, tmp_path / "infra" / "docker")
    monkeypatch.setattr(images, "PROJECT", tmp_path)
    monkeypatch.setattr(images, "version", lambda: "1.2.3+abc")
    monkeypatch.setattr(images, "DOCKERFILES", tmp_path / "infra" / "docker")
    return tmp_path


def test_an_image_is_known_by_its_sources_and_its_base(copied_project):
    before = ImageSource("scoring").digest
    (copied_project / "README.md").write_text("not copied")
    (copied_project / "model" / "__pycache__").mkdir()
    (copied_project / "model" / "__pycache__" / "code.pyc").write_text("not copied")
    assert ImageSource("scoring").digest == before
    assert ImageSource("scoring", base="other").digest != before
    (copied_project / "model" / "code.py").write_text("2\n")
    assert ImageSource("scoring").digest != before
    assert ImageSource("scoring").tags[1] == "1.2.3-abc"


def test_an_unknown_image_is_answered_with_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean `scoring`"):
        ImageSource("scorin")


def test_a_machine_without_a_builder_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="podman and docker"):
        LocalBuilds()


@pytest.fixture
def builds(images_can_be_built, monkeypatch):
    for name, value in podman.environment().items():
        monkeypatch.setenv(name, value)
    return LocalBuilds()


@pytest.mark.containers
def test_podman_builds_once_for_the_same_sources(builds, copied_project):
    (copied_project / "infra" / "docker" / "scoring.Dockerfile").write_text(
        f"ARG BASE_IMAGE={podman.BASE}\nFROM ${{BASE_IMAGE}}\nCOPY model /model\nCOPY infra /infra\n"
        'ARG VERSION\nARG REVISION\nLABEL version="${VERSION}" revision="${REVISION}"\n'
    )
    source, told = ImageSource("scoring"), []
    try:
        first = builds.build(source, told.append)
        assert first.built
        assert "COPY model /model" in "\n".join(told)
        assert podman.podman("run", "--rm", first.reference, "cat", "/model/code.py") == "1"
        assert not builds.build(source, told.append).built
        assert podman.podman("image", "exists", "localhost/scoring:stable") == ""
        labels = podman.podman("image", "inspect", "--format", "{{.Labels}}", first.reference)
        assert f"revision:{source.arguments['REVISION']} version:1.2.3+abc" in labels
    finally:
        podman.podman("rmi", "--force", *(f"localhost/scoring:{tag}" for tag in source.tags), check=False)


@pytest.mark.containers
def test_a_build_that_fails_on_this_machine_tells_its_last_lines(builds, copied_project):
    (copied_project / "infra" / "docker" / "scoring.Dockerfile").write_text(
        f"ARG BASE_IMAGE={podman.BASE}\nFROM ${{BASE_IMAGE}}\nRUN echo the cause && exit 3\n"
    )
    with pytest.raises(ImageBuildFailed, match="the cause"):
        builds.build(ImageSource("scoring"), print)
