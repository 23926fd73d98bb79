"""Every way in which the platform, a service or a setting can be at fault, and how foreign errors are translated.

The type decides: an error with `transient = True` is retried with backoff, all others are not. Each has its own exit
code and a section in `docs/runbook.md` (the anchor is the class name in kebab case). Faults of data, training and
models are in `model/errors.py`, with the root of all; `tasks/framework/error_table.py` is the table of all.
"""

import re
from typing import Final

from model.errors import KnownError

SIGNATURE: Final = re.compile(r"(?<=[?&]sig=)[^&\s'\"]+")
"""The secret part of a URL with a shared access signature: no error may quote it."""


class PlatformError(KnownError):
    """A fault of the platform, a service or a setting."""


class ConfigurationError(PlatformError):
    """A setting, parameter or environment file is wrong; the message names it and the nearest valid word."""

    exit_code = 20
    next_step = "Correct the named setting and run again; nothing was changed."


class PortInUse(PlatformError):
    """Another program listens on a port that the platform needs."""

    exit_code = 21
    next_step = "Stop the named program, or choose another port."


class ServerUnreachable(PlatformError):
    """The Prefect server doesn't answer."""

    exit_code = 22
    transient = True
    next_step = "Start it with `ahc up`, or point PREFECT_API_URL at the right server."


class AlreadyRunning(PlatformError):
    """A second `ahc up` on the same AHC_HOME."""

    exit_code = 23
    next_step = "Use the platform that runs (`ahc status`), or stop it with Ctrl-C where it was started."


class DiskFull(PlatformError):
    """No space is left where the platform writes; what was complete before is kept."""

    exit_code = 24
    next_step = "Free some space under AHC_HOME, then rerun: finished steps are not repeated."


class SmokeTestFailed(PlatformError):
    """A new version gave a wrong answer before it took traffic; the live one stays."""

    exit_code = 25
    next_step = "The live version is untouched. Read the failed checks, correct the model, release again."


class EndpointUnreachable(PlatformError):
    """An environment's endpoint doesn't answer."""

    exit_code = 26
    transient = True
    next_step = "Look at `ahc status`; start the endpoint again with `ahc up`, or roll back."


class ModelNotFound(PlatformError):
    """The registry has no such model version, or an environment runs none."""

    exit_code = 27
    next_step = "List what there is with `ahc status`, or train a model with `ahc up`."


class NothingToRollBackTo(PlatformError):
    """An environment has no earlier good version."""

    exit_code = 28
    next_step = "Name a version with `ahc rollback ENV --to VERSION`."


class DownloadFailed(PlatformError):
    """A sample data set couldn't be fetched."""

    exit_code = 29
    transient = True
    next_step = "Check the network, or use photos of your own: `ahc up --data DIR`."


class AccessDenied(PlatformError):
    """The current identity or key may not do this."""

    exit_code = 30
    next_step = "Check the key or role that the message names."


class ReleaseRejected(PlatformError):
    """A person rejected the release, or nobody decided in time."""

    exit_code = 31
    next_step = "Read the reason on the release; start a new one when it is settled."


class RunNotFound(PlatformError):
    """No flow run has this id or name."""

    exit_code = 32
    next_step = "List recent runs with `ahc status`."


class PlatformUnhealthy(PlatformError):
    """A check of the infrastructure found something that blocks."""

    exit_code = 33
    next_step = "Run `ahc doctor`: each finding comes with its fix."


class CandidateFailed(PlatformError):
    """A new version's scoring process ended before it could take over.

    `process_exit_code` is what it ended with: that of an error in `model/errors.py` where the bundle is at fault.
    """

    exit_code = 34
    next_step = "The live version is untouched. Read the endpoint's log, correct the model, release again."

    def __init__(self, message: str, *, process_exit_code: int | None, next_step: str | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.process_exit_code = process_exit_code


class RequestRejected(PlatformError):
    """The endpoint refused a request (an image that can't be decoded, for instance) with a problem document."""

    exit_code = 35
    next_step = "Correct the request as the message says, and send it again."

    def __init__(self, message: str, *, status: int, kind: str, next_step: str | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.status = status
        self.kind = kind


class ServiceUnavailable(PlatformError):
    """A cloud service throttles, is down, or the connection to it broke; trying again later helps."""

    exit_code = 36
    transient = True
    next_step = "Wait a few minutes and rerun; finished steps are not repeated."


class QuotaExceeded(PlatformError):
    """The subscription has no quota left for what is to be created; it frees up, or it is raised."""

    exit_code = 37
    transient = True
    next_step = "Free what is not needed, or ask for more quota in the Azure portal (Usage + quotas), then rerun."


class NotProvisioned(PlatformError):
    """A resource that infrastructure as code makes is not there."""

    exit_code = 38
    next_step = "Provision it: `ahc run infrastructure -p mode=provision -p environment=NAME`."


class ProvisioningFailed(PlatformError):
    """Azure refused a template deployment, or one of its operations ended as failed."""

    exit_code = 39
    next_step = "Correct the cause that the message names, then provision again: what is there already stays."


class NoCredentials(PlatformError):
    """No way to sign in to Azure worked; the message names each that was tried."""

    exit_code = 44
    next_step = "Sign in with `az login`, or give this place an identity; docs/azure.md says which for where."


class Conflict(PlatformError):
    """Another writer was at the same resource at the same time."""

    exit_code = 45
    transient = True
    next_step = "Rerun; if it stays, see who else works on the named resource."


class ImageBuildFailed(PlatformError):
    """A container image couldn't be built; the message has the last lines of the build's log."""

    exit_code = 46
    next_step = "Correct what the last lines name, then run `ahc run images -p image=NAME` again."


class ShadowDisagrees(PlatformError):
    """A new version answers real images differently from the live one, more often than the environment allows."""

    exit_code = 47
    next_step = "The live version is untouched. Look at the images in the artifact; correct the model, or the limit."


class CanaryAborted(PlatformError):
    """A new version went beyond a limit while it had a share of the traffic; the live one has all of it again."""

    exit_code = 48
    next_step = "The live version serves everything. Read the canary's figures, correct the model, release again."


class WatchFailed(PlatformError):
    """A new version went beyond a limit after the switch; the previous one was brought back."""

    exit_code = 49
    next_step = "The previous version serves again. Read the watch's figures; the bad one is not released again."


class ReleaseHeld(PlatformError):
    """A gate says not now, or not this version: a freeze window, a soak time, an older or rolled-back version."""

    exit_code = 50
    next_step = "Wait until the message says, or release with `force` and a reason where that is meant."


class LedgerBroken(PlatformError):
    """An event of the release ledger was edited, removed or added by hand."""

    exit_code = 51
    next_step = "See `ahc ledger`. Put the named file back from a backup of the storage; find out who wrote to it."


class TrainingJobFailed(PlatformError):
    """A training on another machine ended without a result; the message says what its last attempt died of.

    `process_exit_code` is what the job ended with, where it told. A job that ended in a known error raises that one.
    """

    exit_code = 52
    next_step = "Read the job's last log lines; correct what they name, then rerun: it goes on at the last checkpoint."

    def __init__(
        self,
        message: str,
        *,
        process_exit_code: int | None = None,
        next_step: str | None = None,
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.process_exit_code = process_exit_code


class DevOpsRefused(PlatformError):
    """Azure DevOps refused a request, or has no such project, repository or person.

    Args:
        message: As of every error.
        status: The HTTP status of the answer; 0 without one.
        next_step: As of every error.
    """

    exit_code = 53
    next_step = "Correct what the message names, in Azure DevOps or in deployments/devops.yaml; then run it again."

    def __init__(self, message: str, *, status: int = 0, next_step: str | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.status = status
