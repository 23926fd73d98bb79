"""An organisation of Azure DevOps for tests."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from infra.azure_devops.client import DevOps
from infra.azure_devops.project_file import ProjectFile, read_project_file
from infra.azure_devops.sign_in import TOKEN_OF_A_BUILD, TOKEN_OF_A_PERSON, authorization
from infra.settings import PROJECT
from tests.support.azure_devops.organisation import PAT, StandIn
from tests.support.azure_devops.standin import standing_in


@pytest.fixture
def organisation(monkeypatch) -> Iterator[StandIn]:
    """A stand-in, in which this process is signed in with a personal access token."""
    monkeypatch.setenv(TOKEN_OF_A_PERSON, PAT)
    monkeypatch.delenv(TOKEN_OF_A_BUILD, raising=False)
    with standing_in() as state:
        yield state


@pytest.fixture
def devops(organisation, waits) -> Iterator[DevOps]:
    with DevOps(organisation.address, authorization, waits.append) as found:
        yield found


@pytest.fixture
def waits() -> list[float]:
    """Seconds for which the client would have slept."""
    return []


@pytest.fixture
def secret() -> SecretStr:
    return SecretStr("what signs the webhook")


@pytest.fixture
def project_file(organisation) -> ProjectFile:
    """The shipped file, for this organisation."""
    return read_project_file(PROJECT / "deployments" / "devops.yaml", organisation=organisation.address)
