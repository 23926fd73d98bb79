"""The state of an organisation of Azure DevOps, for its stand-in."""

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
PAT = "a-personal-access-token"
BUILD_TOKEN = "a-token-of-a-build"
ORGANISATION = "contoso"
PROJECT = {"id": "5d2f9c1e-0000-4000-8000-000000000001", "name": "AHClassifier"}
REPOSITORY = {"id": "5d2f9c1e-0000-4000-8000-000000000002", "name": "AHClassifier", "remoteUrl": "https://repo"}
ISSUER = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0"
SIGN_IN_PAGE = b"<!DOCTYPE html><html><title>Azure DevOps Services | Sign In</title></html>"
APPROVAL, LOCK = "8c6f20a7-a545-4486-9777-f762fafe0d4d", "2ef31ad6-baa0-403a-8b45-2cbc9b4e5563"


@dataclass
class Fault:
    """The next `times` requests by this method to a path with this part are answered so."""

    method: str
    part: str
    status: int
    body: bytes = b'{"message": "injected"}'
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    times: int = 1
    after_work: bool = False
    """Whether the work is done before: the answer is lost on its way."""


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class StandIn:
    """The organisation's state; tests read and change it directly."""

    def __init__(self) -> None:
        self.address = ""
        self.endpoints: list[Json] = []
        self.groups: list[Json] = []
        self.pools: list[Json] = [{"id": 9, "name": "Azure Pipelines"}]
        self.queues: list[Json] = [{"id": 18, "name": "Azure Pipelines", "pool": {"id": 9}}]
        self.environments: list[Json] = []
        self.checks: list[Json] = []
        self.definitions: list[Json] = []
        self.policies: list[Json] = []
        self.permissions: dict[tuple[str, str], list[Json]] = {}
        self.builds: list[Json] = []
        self.timelines: dict[int, list[Json]] = {}
        self.approvals: list[Json] = []
        self.secrets: dict[str, str] = {}
        self.received: list[Json] = []
        self.identities = {
            "[AHClassifier]\\Contributors": "aaaaaaaa-0000-4000-8000-000000000001",
            "jansen@contoso.com": "aaaaaaaa-0000-4000-8000-000000000002",
            "id-ahc-flows": "aaaaaaaa-0000-4000-8000-000000000003",
        }
        self.faults: list[Fault] = []
        self.calls: list[tuple[str, str]] = []
        self.violations: list[str] = []
        self._counter = 100

    @property
    def written(self) -> list[str]:
        return [f"{method} {path}" for method, path in self.calls if method != "GET"]

    def number(self) -> int:
        self._counter += 1
        return self._counter
