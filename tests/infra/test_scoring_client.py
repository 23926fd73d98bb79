import pytest
from pydantic import SecretStr

from infra.errors import AccessDenied, EndpointUnreachable, RequestRejected
from infra.scoring_client import ScoringClient
from tests.bundles import colour_image
from tests.conftest import free_ports
from tests.model.serving.conftest import PRIMARY, serving


def test_answers_and_errors_of_the_service_are_the_platforms_own(tmp_path):
    with serving(tmp_path) as service:
        with ScoringClient(service.url, SecretStr(PRIMARY)) as client:
            assert client.ready()
            assert client.model().version == 7
            assert client.score(colour_image("blue"), "image/png")["predictions"][0]["label"] == "blue"
            with pytest.raises(RequestRejected, match="can't be decoded") as caught:
                client.score(b"no image")
            assert (caught.value.status, caught.value.kind) == (422, "broken-image")
            assert "image viewer" in caught.value.next_step
        with ScoringClient(service.url, SecretStr("wrong")) as stranger, pytest.raises(AccessDenied, match="401"):
            stranger.model()


def test_an_endpoint_that_is_not_there_is_unreachable():
    with ScoringClient(f"http://127.0.0.1:{free_ports(1)[0]}", SecretStr("x"), seconds=2) as client:
        assert not client.ready()
        with pytest.raises(EndpointUnreachable, match="doesn't answer"):
            client.model()
