"""How a process signs in, by the variables of the place where it runs."""

import asyncio
import json
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from infra.azure.access.credentials import ThreadedCredential, async_credential, credential
from infra.azure.access.errors import azure_errors
from infra.errors import NoCredentials, ServiceUnavailable
from infra.settings import get_settings

pytestmark = pytest.mark.azure
SCOPE = "https://management.azure.com/.default"
ANYWHERE = ("SYSTEM_", "AZURE", "IDENTITY_", "MSI_", "IMDS_", "AHC_AZURE_MACHINE_IDENTITY")


@pytest.fixture
def place(monkeypatch, tmp_path):
    """A place that offers nothing; answers how to give it variables."""
    pytest.importorskip("azure.identity")
    for name in [name for name in os.environ if name.startswith(ANYWHERE)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    credential.cache_clear()
    get_settings.cache_clear()

    def offer(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    yield offer
    credential.cache_clear()
    get_settings.cache_clear()


def refused() -> str:
    with pytest.raises(NoCredentials) as caught, azure_errors("signing in"):
        credential().get_token(SCOPE)
    return str(caught.value)


def signed_in_with(bench, assertion: str) -> bool:
    """Whether the token was asked for with this assertion: the bench then waits a moment, which it notes."""
    bench.fault(path="/token$", match_body=f"client_assertion={re.escape(assertion)}", delay=0.01)
    assert credential().get_token(SCOPE).token
    return [bool(call["fault"]) for call in bench.calls(url="oauth2/v2.0/token")] == [True]


def test_a_place_that_offers_nothing_is_told_what_was_tried_and_why_it_failed(place):
    message = refused()
    for part in (
        "client secret: not tried, AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET are not set",
        "workload identity: not tried",
        "Azure Pipelines: not tried",
        "managed identity: not tried",
        "Azure CLI: Azure CLI not found on path",
        "Azure Developer CLI: Azure Developer CLI could not be found",
    ):
        assert part in message


def test_a_client_secret_signs_in_and_its_tokens_serve_asynchronous_clients_too(bench, place):
    place(AZURE_TENANT_ID="tenant", AZURE_CLIENT_ID="client", AZURE_CLIENT_SECRET="secret")
    token = credential().get_token(SCOPE)
    assert asyncio.run(async_credential().get_token(SCOPE)).token == token.token
    assert len(bench.calls(url="oauth2/v2.0/token")) == 1


def test_a_wrong_secret_is_refused_and_no_other_way_hides_it(bench, place):
    place(AZURE_TENANT_ID="tenant", AZURE_CLIENT_ID="client", AZURE_CLIENT_SECRET="wrong")
    message = refused()
    assert "AADSTS7000215" in message
    assert "Azure CLI" not in message


def test_a_pod_signs_in_with_its_federated_token(bench, place, tmp_path):
    (tmp_path / "token").write_text("header.payload.signature")
    place(AZURE_TENANT_ID="tenant", AZURE_CLIENT_ID="pod", AZURE_FEDERATED_TOKEN_FILE=str(tmp_path / "token"))
    assert signed_in_with(bench, "header.payload.signature")


class Address(BaseHTTPRequestHandler):
    """Where App Service, and the Azure Pipelines agent, answer with tokens."""

    asked: ClassVar[list[tuple[str, dict[str, str]]]] = []

    def do_GET(self):
        self.asked.append((self.path, dict(self.headers)))
        self.answer({"access_token": "machine", "expires_on": str(int(time.time()) + 3600), "resource": "x"})

    def do_POST(self):
        self.asked.append((self.path, dict(self.headers)))
        self.answer({"oidcToken": "header.pipeline.signature"})

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def address():
    Address.asked.clear()
    server = HTTPServer(("127.0.0.1", 0), Address)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    server.server_close()


def test_a_container_signs_in_with_the_user_assigned_identity_that_is_named(place, address, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    place(IDENTITY_ENDPOINT=address, IDENTITY_HEADER="header", AZURE_CLIENT_ID="mine")
    assert credential().get_token(SCOPE).token == "machine"
    assert "client_id=mine" in Address.asked[0][0]


def test_a_pipeline_signs_in_with_its_service_connection(bench, place, address):
    place(
        SYSTEM_ACCESSTOKEN="job",
        SYSTEM_OIDCREQUESTURI=address,
        AZURESUBSCRIPTION_TENANT_ID="tenant",
        AZURESUBSCRIPTION_CLIENT_ID="pipeline",
        AZURESUBSCRIPTION_SERVICE_CONNECTION_ID="connection",
    )
    assert signed_in_with(bench, "header.pipeline.signature")
    path, headers = Address.asked[0]
    assert "serviceConnectionId=connection" in path
    assert headers["Authorization"] == "Bearer job"


def test_a_virtual_machine_is_asked_only_where_the_setting_says_it_is_one(bench, place):
    refused()
    assert not bench.calls(url="metadata/identity")
    credential.cache_clear()
    get_settings.cache_clear()
    place(AHC_AZURE_MACHINE_IDENTITY="true")
    assert credential().get_token(SCOPE).token
    assert bench.calls(url="metadata/identity")


def test_a_cli_that_is_signed_in_gives_the_token(place, tmp_path):
    program = tmp_path / "az"
    answer = {"accessToken": "of the cli", "expiresOn": "2099-01-01 00:00:00.000000", "expires_on": 4070908800}
    program.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    program.chmod(0o755)
    assert credential().get_token(SCOPE).token == "of the cli"


def test_an_outage_of_the_sign_in_service_is_no_fault_of_the_identity(bench, place):
    place(AZURE_TENANT_ID="tenant", AZURE_CLIENT_ID="client", AZURE_CLIENT_SECRET="secret")
    bench.fault("outage", path="/token$")
    with pytest.raises(ServiceUnavailable, match="503"), azure_errors("signing in"):
        credential().get_token(SCOPE)
    bench.clear_faults()
    assert credential().get_token(SCOPE).token


def test_a_cut_connection_to_the_sign_in_service_is_an_outage_too(bench, place):
    place(AZURE_TENANT_ID="tenant", AZURE_CLIENT_ID="client", AZURE_CLIENT_SECRET="secret")
    bench.fault(path="/token$", reset=True, times=-1)
    with pytest.raises(ServiceUnavailable), azure_errors("signing in"):
        credential().get_token(SCOPE)


def test_an_asynchronous_client_may_close_the_shared_credential_and_it_goes_on(place, tmp_path):
    class Fixed:
        def get_token(self, *scopes, **_):
            return scopes

    async def use():
        async with ThreadedCredential(Fixed()) as shared:
            await shared.close()
            return await shared.get_token("a", "b")

    assert asyncio.run(use()) == ("a", "b")
