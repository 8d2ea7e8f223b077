"""A few of the faults from outside, as `make soak` tries them by the hundred."""

import gc
import os

import pytest
from torch.nn.parallel import DistributedDataParallel

from nenya import parallel
from tests.faults import kills
from tests.faults.harness import DONE, USER_MISTAKE


@pytest.mark.parametrize(
    ("scenario", "count"),
    [
        (kills.killed_at_random_moments, 1),
        (kills.killed_in_a_write, 2),
        (kills.killed_without_hard_links, 1),
        (kills.stopped_by_sigterm, 1),
        (kills.disk_full, 1),
        (kills.clock_moved_back, 1),
        (kills.reader_fails, 2),
        (kills.rank_killed, 1),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_run_ends_as_promised_and_goes_on_to_the_identical_end(shop, scenario, count):
    record = scenario(shop, count, seed=0)
    assert record.held, "\n".join(record.failures)


@pytest.mark.parametrize(("rate", "code"), [(0.01, DONE), (1e30, USER_MISTAKE)], ids=["done", "failed"])
def test_the_network_does_not_outlive_the_process_group(shop, rate, code):
    """Freed with `DistributedDataParallel`, it waits for its threads with Python's lock held, and they for that."""

    def look():
        def checked(end):
            def check_and_end():
                if any(isinstance(thing, DistributedDataParallel) for thing in gc.get_objects()):
                    os._exit(77)
                end()

            return check_and_end

        places = (parallel.dist, "destroy_process_group"), (parallel.dist.distributed_c10d, "_abort_process_group")
        for module, name in places:
            setattr(module, name, checked(getattr(module, name)))

    options = shop.options(f"held_{rate}", learning_rate=rate, valid_key=None)
    ends = shop.train_ranks(options, hooks={0: look, 1: look})
    assert ends[0].code == code, ends[0].text[-500:]
    assert ends[1].code != 77
