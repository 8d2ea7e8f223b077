"""Work spread over processes."""

import os
from collections import Counter

import pytest

from nenya.granules import workers


@pytest.mark.parametrize("number", [4, 9])
def test_processes_are_renewed_and_all_is_done(monkeypatch, number):
    """Also where the last of them have done their share at once."""
    monkeypatch.setattr(workers, "_RENEWED_AFTER", 2)
    done = dict(workers.drive(os.getpid, {str(task): () for task in range(number)}, None, 2))
    assert sorted(done, key=int) == [str(task) for task in range(number)]
    assert len(set(done.values())) >= -(-number // 4)
    assert max(Counter(done.values()).values()) <= 4
