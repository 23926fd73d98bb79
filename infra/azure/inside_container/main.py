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
from infra.azure.inside_container.secrets import Followed, follow, read_certificate, read_keys, write_certificate
from infra.azure.inside_container.serving_process import ServingProcess
from infra.azure.inside_container.ship_records import ship_records
from infra.azure.inside_container.start import Needed, prepare, sign_in_as
from infra.errors import PlatformError
from infra.runs.telemetry import scoring_variables
from model.serving.observe.logs import JsonFormatter

T = TypeVar("T")

LAST_UPLOAD_SECONDS: Final = 3.0
"""For the records of the last requests, before the platform's patience with a container that is to end is over."""

log = logging.getLogger("container")


class Files(NamedTuple):
    """What the container writes for its scoring process, in its temporary folder: all else may be read-only."""

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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in ("azure", "urllib3", "msal"):
        logging.getLogger(name).setLevel(logging.ERROR)  # their faults come as errors of ours


def give_up(error: PlatformError) -> int:
    """Tell why, in one line; answers the exit code."""
    fields = {"error": type(error).__name__, "next_step": error.next_step, "exit_code": error.exit_code}
    log.error("%s", error, extra={"fields": fields})
    return error.exit_code


async def run(config: ContainerConfig) -> int:
    """Serve until told to end, or until the scoring process ends; answers the exit code."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    told = asyncio.create_task(ending.wait())
    try:
        with tempfile.TemporaryDirectory(prefix="serving-") as folder:
            files = Files(spool=Path(folder, "records"), certificate=Path(folder, "tls.pem"))
            needed = await _unless(told, asyncio.create_task(prepare(config, files.certificate)))
            if needed is None:
                log.info("Told to end before it served.")
                return 0
            files.spool.mkdir()
            with _records_shipped(config, files.spool):
                return await _serve(config, needed, files, told)
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


async def _serve(config: ContainerConfig, needed: Needed, files: Files, told: "asyncio.Task[Any]") -> int:
    process = await ServingProcess.start(serving_config(config, needed.bundle, files), needed.keys)
    look = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, reap, process.pid)
    loop.add_signal_handler(signal.SIGHUP, look.set)
    watching = asyncio.create_task(follow(_followed(config, needed, files, process), look))
    code = await _unless(told, asyncio.create_task(process.wait()))
    watching.cancel()
    if code is None:
        log.info("Told to end: what was begun is answered.")
        return await process.drain()
    log.error("The scoring process ended by itself.", extra={"fields": {"exit_code": code}})
    return code


def _followed(config: ContainerConfig, needed: Needed, files: Files, process: ServingProcess) -> list[Followed[Any]]:
    found: list[Followed[Any]] = [Followed("keys", partial(read_keys, config), needed.keys, process.accept)]
    if needed.certificate is not None:
        # The scoring process sees that the file is another one.
        take = partial(write_certificate, files.certificate)
        found.append(Followed("certificate", partial(read_certificate, config), needed.certificate, take))
    return found


def serving_config(config: ContainerConfig, bundle: Path, files: Files) -> dict[str, Any]:
    """The JSON form of `model.serving.config.ServingConfig`, without the keys."""
    return {
        "bundle": str(bundle),
        "digest": config.model_digest,
        "name": config.model_name,
        "version": config.model_version,
        "host": "0.0.0.0",  # noqa: S104 - a container's own network
        "port": config.port,
        "threads": config.scoring_threads,
        "environment": config.environment,
        "correlation_id": config.correlation_id,
        **(_sampling(config, files.spool) if _samples(config) else {}),
        **({"certificate": str(files.certificate)} if config.certificate else {}),
    }


def _sampling(config: ContainerConfig, spool: Path) -> dict[str, Any]:
    return {"spool": str(spool), "sample_rate": config.sample_rate, "sample_images": config.sample_images}


async def _unless(told: "asyncio.Task[Literal[True]]", work: "asyncio.Future[T]") -> T | None:
    """What the work answers; None where the request to end came first."""
    first: set[asyncio.Future[Any]] = {told, work}
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        return work.result()
    work.cancel()
    return None


def reap(child: int) -> None:
    """Take the exit codes of processes that fall to process 1, but not that of its own child."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == child:
            return
        os.waitpid(ended.si_pid, os.WNOHANG)


if __name__ == "__main__":
    sys.exit(main())
