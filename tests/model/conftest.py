"""What several tests of trainings start from."""

from collections.abc import Iterator

import pytest
import torch

from model.data.manifest import DataVersion
from tests.support.training_case import small_data


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums of floats depend on how many threads there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> DataVersion:
    return small_data(tmp_path_factory.mktemp("colours"))
