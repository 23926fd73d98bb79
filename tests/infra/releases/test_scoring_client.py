import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from pydantic import SecretStr

from infra.errors import AccessDenied, EndpointUnreachable, RequestRejected
from infra.releases.scoring_client import ScoringClient
from tests.conftest import free_ports
from tests.model.serving.conftest import PRIMARY, serving
from tests.support.bundles import colour_image


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


class _Proxy(BaseHTTPRequestHandler):
    """Says yes to whatever it is asked to fetch."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_other_machines_are_reached_through_the_proxy_and_this_one_is_not(tmp_path, monkeypatch):
    asked: list[str] = []
    with HTTPServer(("127.0.0.1", 0), type("Proxy", (_Proxy,), {"asked": asked})) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_address[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with ScoringClient("http://scoring.example:8080", SecretStr("x"), seconds=5) as client:
            assert client.ready()
        assert asked == ["http://scoring.example:8080/health/ready"]
        with ScoringClient(f"http://127.0.0.1:{free_ports(1)[0]}", SecretStr("x"), seconds=2) as client:
            assert not client.ready()
        assert len(asked) == 1
        proxy.shutdown()
