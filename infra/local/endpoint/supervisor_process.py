"""The process of an environment's supervisor: `python -m infra.local.endpoint.supervisor_process`.

Its config comes on stdin, its start or its error goes to stdout, and it outlives the process that started it.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from infra.errors import PlatformError
from infra.local.endpoint.control_socket import refusal
from infra.local.endpoint.log_file import log_to
from infra.local.endpoint.state import EndpointFiles, SupervisorConfig
from infra.local.endpoint.supervisor import Supervisor
from infra.local.platform.ports import bind


def main() -> int:
    config = SupervisorConfig.model_validate_json(sys.stdin.read())
    files = EndpointFiles(config.directory)
    log_to(files.log)
    claim = files.claim_supervision()
    if claim is None:
        _announce({"ok": True})
        return 0
    try:
        listener = bind(config.host, config.port)
    except PlatformError as error:
        _announce(refusal(error))
        return error.exit_code
    control = files.control_socket(create=True)
    assert control is not None
    asyncio.run(_run(config, files, listener, control))
    files.remove_control_socket()
    return 0


async def _run(config: SupervisorConfig, files: EndpointFiles, listener: socket.socket, control: Path) -> None:
    await Supervisor(config, files, listener).run(control, on_ready=lambda: _announce({"ok": True}))


def _announce(event: dict[str, Any]) -> None:
    """Tell the process that started this one, and close the pipe: this one may outlive it."""
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(event), flush=True)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
