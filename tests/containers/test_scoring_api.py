"""What every endpoint of the platform answers; the process of this machine and the shipped container alike."""

import pytest
from pydantic import SecretStr

from infra.version import revision
from tests.model.serving.conftest import PRIMARY, SECONDARY, serving
from tests.support.azure.scoring_containers import key
from tests.support.bundles import colour_image


@pytest.fixture(
    scope="module",
    params=["process", pytest.param("container", marks=[pytest.mark.containers, pytest.mark.azure])],
)
def endpoint(request, tmp_path_factory):
    """How to ask with a key, both keys, and the digest of what is served."""
    if request.param == "process":
        with serving(tmp_path_factory.mktemp("process"), name="colours") as service:

            def client(secret):
                return service.client(headers={"Authorization": f"Bearer {secret}"})

            yield client, (PRIMARY, SECONDARY), service.bundle.digest
        return
    container, settings, config = request.getfixturevalue("scoring_container")
    keys = tuple(key(settings, which).get_secret_value() for which in ("primary", "secondary"))
    yield lambda secret: container.client(SecretStr(secret)), keys, config.model_digest


@pytest.fixture
def client(endpoint):
    make, keys, _ = endpoint
    with make(keys[0]) as session:
        yield session


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_an_image_is_scored(client, endpoint, colour, form):
    image = colour_image(colour, form=form)
    answer = client.post("/score", content=image, headers={"Content-Type": f"image/{form.lower()}"})
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["label"] == colour
    assert answer.json()["model"] == {"name": "colours", "version": 7, "digest": endpoint[2]}
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


def test_a_batch_is_scored_and_a_broken_image_in_it_does_not_stop_the_others(client):
    files = [("files", ("a.png", colour_image("red"), "image/png")), ("files", ("b.png", b"broken", "image/png"))]
    good, bad = client.post("/score/batch", files=files).json()["items"]
    assert good["predictions"][0]["label"] == "red"
    assert bad["problem"]["status"] == 422


@pytest.mark.parametrize(("body", "status"), [(b"", 400), (b"not an image", 422), (colour_image("red")[:60], 422)])
def test_what_can_not_be_scored_is_refused_with_a_next_step(client, body, status):
    answer = client.post("/score", content=body, headers={"Content-Type": "image/png"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["next_step"]


def test_both_keys_are_accepted_and_no_other(endpoint):
    make, keys, digest = endpoint
    for secret, status in [(keys[0], 200), (keys[1], 200), ("wrong", 401)]:
        with make(secret) as session:
            answer = session.get("/model")
        assert answer.status_code == status
        assert status != 200 or answer.json()["digest"] == digest


def test_its_health_and_its_figures_are_open(endpoint):
    make, _, digest = endpoint
    with make("wrong") as session:
        assert session.get("/health/live").json() == {"status": "live"}
        assert session.get("/health/ready").json() == {"status": "ready"}
        assert digest in session.get("/metrics").text
        described = session.get("/openapi.json").json()
        assert "/score" in described["paths"]
        assert described["info"]["x-platform"] in {"1.2.3 (abc)", f"1.2.3 ({revision()})"}
