"""HTTPS, and a certificate that is renewed while serving."""

import asyncio
import ssl

import httpx
import pytest

from model.errors import InvalidConfig
from model.serving import certificate
from model.serving.certificate import Certificate
from tests.model.serving.conftest import AUTHORIZED, serving
from tests.model.serving.test_process import run_to_its_end
from tests.support.bundles import colour_image

trustme = pytest.importorskip("trustme")


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def issue(authority, path):
    draft = path.with_suffix(".new")
    draft.write_bytes(authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes())
    draft.replace(path)
    return path


def test_an_endpoint_with_a_certificate_answers_https_and_nothing_else(tmp_path, authority, trusting):
    with serving(tmp_path, certificate=str(issue(authority, tmp_path / "tls.pem"))) as service:
        url = f"https://127.0.0.1:{service.port}"
        headers = {**AUTHORIZED, "Content-Type": "image/png"}
        with httpx.Client(verify=trusting, trust_env=False, headers=headers) as client:
            answer = client.post(f"{url}/score", content=colour_image("red"))
        assert answer.json()["predictions"][0]["label"] == "red"
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{service.port}/health/live", trust_env=False)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_certificate_that_can_not_be_used_ends_the_process_with_a_clear_line(tmp_path, content):
    path = tmp_path / "tls.pem"
    if content:
        path.write_text(content)
    code, [line] = run_to_its_end({"bundle": str(tmp_path), "keys": ["key"], "certificate": str(path)})
    assert code == InvalidConfig.exit_code
    assert str(path) in line["message"]


def test_connections_that_are_handed_over_take_no_certificate(tmp_path):
    code, [line] = run_to_its_end({"bundle": str(tmp_path), "keys": ["key"], "certificate": "x", "handover_fd": 3})
    assert code == InvalidConfig.exit_code
    assert "handover_fd" in line["message"]


def test_a_renewed_certificate_is_shown_and_a_broken_one_is_not(tmp_path, authority, trusting, monkeypatch, caplog):
    monkeypatch.setattr(certificate, "LOOK_SECONDS", 0.02)
    path = issue(authority, tmp_path / "tls.pem")

    async def shown(port: int) -> int:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        serial = writer.get_extra_info("peercert")["serialNumber"]
        writer.close()
        return serial

    async def watch() -> list[int]:
        followed = Certificate(path)
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=followed.context)
        following = asyncio.create_task(followed.follow())
        port = server.sockets[0].getsockname()[1]
        seen = [await shown(port)]
        for change in (lambda: issue(authority, path), lambda: path.write_text("broken")):
            change()
            await asyncio.sleep(0.3)
            seen.append(await shown(port))
        following.cancel()
        server.close()
        return seen

    first, renewed, kept = asyncio.run(watch())
    assert first != renewed
    assert renewed == kept
    assert "can't be used" in caplog.text


def test_a_locked_key_is_refused_instead_of_asked_for(tmp_path, authority):
    from cryptography.hazmat.primitives import serialization

    leaf = authority.issue_cert("127.0.0.1")
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    path = tmp_path / "tls.pem"
    path.write_bytes(locked + b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    with pytest.raises(InvalidConfig):
        Certificate(path)
