"""The flow `images`, recorded by a real Prefect server, with the builder of this machine."""

import pytest

from flows.container_images import images
from infra.container_images import ImageSource
from tests.support.containers import podman

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.containers]


def test_the_sources_that_an_image_was_built_of_are_not_built_again(scoring_image, monkeypatch):
    for name, value in podman.environment().items():
        monkeypatch.setenv(name, value)
    source = ImageSource("scoring", base=podman.BASE)
    podman.podman("tag", scoring_image, f"localhost/scoring:{source.content_tag}")
    try:
        image = images("scoring", base=podman.BASE).image
        assert (image.reference, image.built) == (f"localhost/scoring:{source.content_tag}", False)
        assert "stable" in image.tags
    finally:
        podman.podman("untag", scoring_image, *(f"localhost/scoring:{tag}" for tag in source.tags), check=False)


def test_an_unknown_image_ends_the_run_as_a_configuration_error(images_can_be_built):
    state = images("scorin", return_state=True)
    assert state.name == "ConfigurationError"
    assert "did you mean `scoring`" in state.message
