"""Where the short forms of the fault scenarios are tried."""

import pytest

from tests.faults.harness import Shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    return Shop(tmp_path_factory.mktemp("faults"))
