"""An operation of an endpoint in a process of its own, which is killed (SIGKILL) at one of its requests to Azure.

`python -m tests.support.azure.killed_endpoint < JSON`: see `Served.killed`.
"""

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import requests

from infra.azure.storage.key_vault import KeyVaultSecrets
from infra.config.environments import Environment
from infra.ports import Candidate, LiveModel
from tests.support.azure.bench import azure_settings


def die_at(pattern: str, *, nth: int, before: bool) -> None:
    """End this process, as a power cut would, before or after the nth request that `METHOD URL` matches."""
    send, seen = requests.Session.send, 0

    def counted(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        nonlocal seen
        matches = re.search(pattern, f"{request.method} {request.url}") is not None
        seen += matches
        last = matches and seen == nth
        if last and before:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = send(session, request, **options)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    requests.Session.send = counted  # type: ignore[method-assign]


def main() -> None:
    from tests.support.azure.endpoints import adapter_of

    told = json.load(sys.stdin)
    settings = azure_settings(Path(told["home"]))
    target = Environment.model_validate(told["environment"])
    endpoint = adapter_of(target)(target, settings, KeyVaultSecrets(target.name, settings))
    die_at(told["at"], nth=told["nth"], before=told["before"])
    if told["operation"] == "deploy":
        endpoint.deploy(Path(told["bundle"]), LiveModel(**told["model"]))
    elif told["operation"] == "switch":
        endpoint.switch(Candidate(**told["candidate"]))
    elif told["operation"] == "split":
        endpoint.split(Candidate(**told["candidate"]), told["share"])
    elif told["operation"] == "discard":
        endpoint.discard(Candidate(**told["candidate"]))
    else:
        endpoint.rollback()


if __name__ == "__main__":
    main()
