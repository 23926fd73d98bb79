"""`python -m infra.azure.inside_container.main`: process 1 of a scoring container.

It fetches the bundle, the keys and the certificate that its variables name, lets `model.serving` serve with them, gives
it new keys and a renewed certificate, uploads the records that it samples, and passes a request to end on to it.
Nothing is kept: a container that ended starts anew.
"""

import asyncio
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar

from infra.azure.endpoint.container_settings import ContainerConfig
from infra.azure.inside_container.secrets import VaultValue, follow, read_certificate, read_keys, write_certificate
from infra.azure.inside_container.ship_records import ship_records
from infra.azure.inside_container.start import Provisions, prepare, sign_in_as
from infra.errors import PlatformError
from infra.runs.telemetry import scoring_variables
from infra.version import platform
from model.faults import Fault
from model.serving.config import ServingConfig
from model.serving.observe.logs import log_as_json
from model.serving.process import ScoringProcess, spawn

T = TypeVar("T")

KILLED: Final = 128
"""A shell adds it to the number of the signal that ended a process."""
LAST_UPLOAD_SECONDS: Final = 3.0
"""For the records of the last requests, before the platform's patience with a container that is to end is over."""

log = logging.getLogger("container")


class Files(NamedTuple):
    """Files for the scoring process in the temporary folder of the container: all other folders may be read-only."""

    spool: Path
    """A folder for sampled records."""
    certificate: Path


def main() -> int:
    log_to_stderr()
    try:
        config = ContainerConfig.from_variables()
    except PlatformError as error:
        return give_up(error)
    sign_in_as(config.identity_client_id)
    os.environ.update(scoring_variables(config.telemetry.get_secret_value(), config.environment))
    loop = asyncio.new_event_loop()
    code = loop.run_until_complete(run(config))
    sys.stderr.flush()
    # A thread may still wait for a service that doesn't answer: nobody needs what it would say.
    os._exit(code)


def log_to_stderr() -> None:
    log_as_json("INFO")
    for name in ("azure", "urllib3", "msal"):
        logging.getLogger(name).setLevel(logging.ERROR)  # their faults come as `PlatformError`


def give_up(error: PlatformError) -> int:
    """Log why, in one line; answers the exit code."""
    fault = Fault.of(error)
    log.error(fault.message, extra={"fields": fault.log_fields})
    return fault.exit_code


async def run(config: ContainerConfig) -> int:
    """Serve until told to end, or until the scoring process ends; answers the exit code."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    end = asyncio.create_task(ending.wait())
    try:
        with tempfile.TemporaryDirectory(prefix="serving-") as folder:
            files = Files(spool=Path(folder, "records"), certificate=Path(folder, "tls.pem"))
            provisions = await _unless(end, asyncio.create_task(prepare(config, files.certificate)))
            if provisions is None:
                log.info("Told to end before it served.")
                return 0
            files.spool.mkdir()
            with _records_shipped(config, files.spool):
                return await _serve(config, provisions, files, end)
    except PlatformError as error:
        return give_up(error)
    except Exception:
        log.exception("A mistake of the scoring container's own program.")
        return 1


@contextmanager
def _records_shipped(config: ContainerConfig, spool: Path) -> Iterator[None]:
    """Upload the records that come into this folder meanwhile, and those that are left at the end."""
    if not _samples(config):
        yield
        return
    ended = threading.Event()
    shipping = threading.Thread(
        target=ship_records,
        args=(spool, config.records_url, config.environment),
        kwargs={"images": config.sample_images, "stopped": ended},
        daemon=True,
        name="records",
    )
    shipping.start()
    try:
        yield
    finally:
        ended.set()
        shipping.join(LAST_UPLOAD_SECONDS)


def _samples(config: ContainerConfig) -> bool:
    return bool(config.records_url) and config.sample_rate > 0


async def _serve(config: ContainerConfig, provisions: Provisions, files: Files, end: "asyncio.Task[Any]") -> int:
    process = ScoringProcess(await spawn(serving_config(config, provisions, files)))
    look = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, reap, process.pid)
    loop.add_signal_handler(signal.SIGHUP, look.set)
    watching = asyncio.create_task(follow(_vault_values(config, provisions, files, process), look))
    code = await _unless(end, asyncio.create_task(process.wait()))
    watching.cancel()
    if code is None:
        log.info("Told to end: what was begun is answered.")
        return _shell_code(await process.stop())
    code = _shell_code(code)
    log.error("The scoring process ended by itself.", extra={"fields": {"exit_code": code}})
    return code


def _shell_code(code: int) -> int:
    return KILLED - code if code < 0 else code


def _vault_values(
    config: ContainerConfig, provisions: Provisions, files: Files, process: ScoringProcess
) -> list[VaultValue[Any]]:
    keys = VaultValue("keys", partial(read_keys, config), provisions.keys, process.replace_keys)
    values: list[VaultValue[Any]] = [keys]
    if provisions.certificate is not None:
        # The scoring process notices a changed file.
        use = partial(write_certificate, files.certificate)
        values.append(VaultValue("certificate", partial(read_certificate, config), provisions.certificate, use))
    return values


def serving_config(config: ContainerConfig, provisions: Provisions, files: Files) -> ServingConfig:
    return ServingConfig(
        bundle=provisions.bundle,
        digest=config.model_digest,
        name=config.model_name,
        version=config.model_version,
        keys=provisions.keys,
        host="0.0.0.0",  # noqa: S104 - a container's own network
        port=config.port,
        threads=config.scoring_threads,
        environment=config.environment,
        platform=platform(),
        correlation_id=config.correlation_id,
        spool=files.spool if _samples(config) else None,
        sample_rate=config.sample_rate,
        sample_images=config.sample_images,
        certificate=files.certificate if config.certificate else None,
    )


async def _unless(end: "asyncio.Task[Literal[True]]", work: "asyncio.Future[T]") -> T | None:
    """The result of the work; None where the request to end came first."""
    first: set[asyncio.Future[Any]] = {end, work}
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        return work.result()
    work.cancel()
    return None


def reap(child: int) -> None:
    """Take the exit codes of processes that fall to process 1, but not that of its own child."""
    while True:
        try:
            zombie = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if zombie is None or zombie.si_pid == child:
            return
        os.waitpid(zombie.si_pid, os.WNOHANG)


if __name__ == "__main__":
    sys.exit(main())
