"""A run in a process of its own, with everything that spans have to tell."""

import sys
import time
from datetime import UTC, datetime

from infra.errors import EndpointUnreachable
from infra.ports import RegisteredModel
from model.bundle.read import BundleRef
from model.errors import BundleCorrupt
from tasks.framework.cache_key import key_of
from tasks.framework.pipeline import completed_as, pipeline
from tasks.framework.stage import Result, stage

OTHER = RegisteredModel(name="food", version=1, digest="ee" * 32, uri="u", created=datetime(2026, 1, 1, tzinfo=UTC))


class Registered(Result):
    model: RegisteredModel


@stage("Register it", "register {bundle.name}", key=lambda bundle, **_: key_of("spans", bundle.digest, code=[]))
def register(bundle: BundleRef, champion: RegisteredModel) -> Registered:
    return Registered(model=champion.model_copy(update={"version": 2, "digest": bundle.digest}))


@stage("Fail for good", "fail")
def fail() -> Registered:
    raise BundleCorrupt("model.onnx has other bytes.")


@stage("Fail for now", "fail")
def fail_for_now() -> Registered:
    raise EndpointUnreachable("The endpoint is away.")


@pipeline("inner", "inner {number}")
def inner(number: int, digest: str) -> Registered:
    return register(BundleRef(path="b", digest=digest, name="food"), OTHER)


@pipeline("outer", "outer", keep_result=True)
def outer(digest: str) -> int:
    inner(1, digest)
    inner(2, digest)
    return completed_as("NotPromoted", "The champion is better.", 1)


@pipeline("failing", "failing")
def failing() -> Registered:
    return fail()


@pipeline("trying", "trying")
def trying() -> Registered:
    return fail_for_now.with_options(retry_delay_seconds=0, retry_jitter_factor=None)()


if __name__ == "__main__":
    print(outer(sys.argv[1], return_state=True).state_details.flow_run_id)
    if "failing" in sys.argv:
        failing(return_state=True)
        trying(return_state=True)
    # When the work was done; what follows is the end of the process.
    print(time.time())
