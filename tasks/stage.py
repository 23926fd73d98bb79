"""What every task of ours has in common: a telling name, retries by type of error, reuse by key, a failure card.

A stage is a Prefect task. It answers a `Result`, a small frozen value with the run that made it, so that a later run
that reuses it can say from where.
"""

import ast
import functools
import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar, Final, ParamSpec, TypeVar

from prefect import Task, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext
from prefect.tasks import exponential_backoff
from pydantic import BaseModel, Field

from infra.correlation import root_run
from infra.ports import Frozen
from tasks.failures import Known, is_transient, runbook, translated
from tasks.spans import reused_span, run_span

P = ParamSpec("P")
R = TypeVar("R", bound="Result")

RETRIES: Final = 3
CARD: Final = "A failure card with the next step is among the run's artifacts."
PROJECT: Final = Path(__file__).resolve().parents[1]


class Origin(Frozen):
    """The run that made a result."""

    root_run_id: str = Field(description="The run that a person started, of which the making flow run was a part.")
    flow_run_name: str
    at: datetime
    seconds: float


class Result(Frozen):
    """What a stage answers."""

    origin: Origin | None = None


def stage(
    name: str, run_name: str, *, key: Callable[..., str] | None = None, always: bool = False
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a Prefect task of this platform.

    Args:
        name: What the task is called in the UI.
        run_name: What one run of it is called; a format string over its arguments.
        key: Answers, from the same arguments, the key of everything that the result depends on (see `key_of`). A
            result of the same key is used again, by any run; without, only by a rerun of the same run.
        always: Never use a result again: for what looks at the world as it is now.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            started = monotonic()
            try:
                with run_span(name, function, *args, **kwargs) as tell, translated():
                    result = function(*args, **kwargs)
                    tell(result)
            except Exception as error:
                if not is_transient(error) or runtime.task_run.run_count > RETRIES:
                    publish_failure_card(error, name)
                raise
            return result.model_copy(update={"origin": _origin(monotonic() - started)})

        def cache_key(_: TaskRunContext, arguments: dict[str, Any]) -> str | None:
            return key(**arguments) if key else None

        return _Stage(
            run,
            name=name,
            task_run_name=run_name,
            cache_key_fn=cache_key if key else None,
            persist_result=not always,
            retries=RETRIES,
            retry_delay_seconds=exponential_backoff(backoff_factor=2),
            retry_jitter_factor=0.5,
            retry_condition_fn=_worth_retrying,
        )

    return decorate


class _Stage(Task[P, R]):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        started = datetime.now(UTC)
        result = super().__call__(*args, **kwargs)
        # The function itself, which has a span of its own, didn't run for it.
        reused_span(self.name, result, started)
        return result


def _worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    try:
        state.result()
    except Exception as error:  # noqa: BLE001 - any error of a task is asked for its kind
        return is_transient(error)
    return False


def _origin(seconds: float) -> Origin:
    return Origin(
        root_run_id=root_run(),
        flow_run_name=str(runtime.flow_run.name or "no flow run"),
        at=datetime.now(UTC),
        seconds=round(seconds, 2),
    )


# --- what a result depends on -------------------------------------------------------------------------------------


def key_of(stage_name: str, *parts: Any, code: Iterable[str], packages: Iterable[str] = ()) -> str:
    """A key over values, the source code of modules with all of `model` that they import, and package versions.

    Args:
        stage_name: Leads the key, so that a person finds it in the result storage.
        parts: Values that JSON or Pydantic can write.
        code: Module names such as `model.fit`.
        packages: Distribution names such as `torch`.
    """
    depends_on = {
        "parts": [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts],
        "code": {name: digest for module in code for name, digest in sorted(_sources(module).items())},
        "packages": package_versions(*packages),
    }
    return f"{stage_name}-{_digest(depends_on)}"


def config_hash(config: BaseModel) -> str:
    """24 hex digits over a configuration."""
    return _digest(config.model_dump(mode="json"))


def package_versions(*packages: str) -> dict[str, str]:
    """The installed versions by distribution name."""
    return {name: _version(name) for name in packages}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _sources(module: str) -> dict[str, str]:
    """Digest of a module's source and of every module of the same package that it imports, directly or not."""
    found: dict[str, str] = {}
    waiting = deque([module])
    while waiting:
        name = waiting.popleft()
        path = PROJECT.joinpath(*name.split(".")).with_suffix(".py")
        if name in found or not path.is_file():
            continue
        source = path.read_bytes()
        # A template of the same name is as much a part of the module as its lines.
        beside = b"".join(other.read_bytes() for other in sorted(path.parent.glob(f"{path.stem}.*")))
        found[name] = hashlib.sha256(beside).hexdigest()
        waiting.extend(_imports(source, module.split(".")[0]))
    return found


def _imports(source: bytes, package: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# --- when it fails ------------------------------------------------------------------------------------------------


class LastLines(logging.Handler):
    """Keeps the last log lines of this process for the failure card."""

    lines: ClassVar[deque[str]] = deque(maxlen=30)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{datetime.now(UTC):%H:%M:%S} {record.levelname:<7} {record.getMessage()}")


for _name in ("prefect.task_runs", "prefect.flow_runs"):
    logging.getLogger(_name).addHandler(LastLines())


def publish_failure_card(error: BaseException, where: str) -> None:
    """An artifact for whoever has to find out at 3 a.m. what happened and how to go on; one for each error."""
    if CARD in getattr(error, "__notes__", ()):
        return
    error.add_note(CARD)
    name = type(error).__name__
    next_step = error.next_step if isinstance(error, Known) else "This is a bug: the traceback is in the run's log."
    link = runbook(name if isinstance(error, Known) else "Bugs")
    run = root_run()
    log = "\n".join(LastLines.lines) or "(nothing was logged)"
    create_markdown_artifact(
        key="failure-card",
        description=f"{name} in {where}",
        markdown=f"""# {where}: {name}

**What happened.** {error}

**What to do.** {next_step}

**Then continue with**

```sh
ahc rerun {run}
```

Steps that had finished are not repeated. Runbook: `{link}`

## Last log lines

```
{log}
```
""",
    )
