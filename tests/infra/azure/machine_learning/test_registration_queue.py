"""Notices of registered models, on a real queue service (Azurite's)."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from infra.azure.machine_learning.registration_queue import ASIDE, QUEUE, QueuedNotices
from infra.errors import NoCredentials
from tests.support.azure.bench import missing
from tests.support.azure.queues import Identity, QueueService, event, queue_service

pytestmark = pytest.mark.azure


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueService]:
    if reason := missing():
        pytest.skip(reason)
    with queue_service(tmp_path_factory.mktemp("queues")) as found:
        yield found


@pytest.fixture
def notices(service: QueueService, monkeypatch: pytest.MonkeyPatch) -> QueuedNotices:
    """On two empty queues."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(service.certificate))
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    for queue in (QUEUE, ASIDE):
        service.create(queue)
        service.clear(queue)
    return QueuedNotices(service.url, Identity())


def test_a_registered_model_is_told_once_and_comes_back_where_nobody_ended_it(
    service: QueueService, notices: QueuedNotices
) -> None:
    service.put(QUEUE, event("food", 20))
    [notice] = notices.take()
    assert (notice.name, notice.version, notice.taken) == ("food", 20, 1)
    assert notices.take() == []
    service.show_again(QUEUE, notice)
    [again] = notices.take()
    assert (again.id, again.taken) == (notice.id, 2)


def test_an_ended_notice_is_gone_and_ending_it_again_is_fine(service: QueueService, notices: QueuedNotices) -> None:
    service.put(QUEUE, event("food", 20))
    [notice] = notices.take()
    notices.end(notice)
    notices.end(notice)
    assert "MessageId" not in service.peek(QUEUE)


def test_a_notice_that_another_reader_has_by_now_is_left_to_it(service: QueueService, notices: QueuedNotices) -> None:
    service.put(QUEUE, event("food", 20))
    [notice] = notices.take()
    service.show_again(QUEUE, notice)
    [again] = notices.take()
    notices.end(notice)
    service.show_again(QUEUE, again)
    assert [item.id for item in notices.take()] == [again.id]


@pytest.mark.parametrize(
    "text", ["not JSON", base64.b64encode(b'{"data": {}}').decode(), base64.b64encode(b"\xff\xfe").decode()]
)
def test_a_message_that_nobody_understands_can_be_put_aside(
    service: QueueService, notices: QueuedNotices, text: str
) -> None:
    service.put(QUEUE, text)
    [notice] = notices.take()
    assert (notice.name, notice.version) == (None, None)
    notices.put_aside(notice)
    assert "MessageId" not in service.peek(QUEUE)
    assert f"<MessageText>{text}</MessageText>" in service.peek(ASIDE)


def test_without_the_queue_there_are_no_notices(service: QueueService, notices: QueuedNotices) -> None:
    service.remove(QUEUE)
    assert notices.take() == []


@pytest.mark.usefixtures("notices")
def test_a_refused_identity_is_told(service: QueueService) -> None:
    class Stranger:
        def get_token(self, *_scopes: str, **_options: Any) -> Any:
            return Identity().get_token()._replace(token="nobody")

    with pytest.raises(NoCredentials, match=QUEUE):
        QueuedNotices(service.url, Stranger()).take()
