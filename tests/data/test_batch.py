"""What a loader may yield, and what a pass needs of it."""

import pytest
import torch
from torch.utils.data import DataLoader

from nenya.data.batch import Batch, as_batch, as_resumable
from nenya.errors import DataError

VIEW1, VIEW2 = torch.rand(3, 2, 4, 5), torch.rand(3, 2, 4, 5)
LABELS = torch.tensor([4, 5, 4])
BATCH = Batch(VIEW1, VIEW2, LABELS, torch.tensor([7, 8, 9]))


@pytest.mark.parametrize(
    ("items", "labels"),
    [
        ([VIEW1, VIEW2], None),
        ((VIEW1, VIEW2), None),
        ([[VIEW1, VIEW2]], None),
        ((VIEW1, VIEW2, LABELS), LABELS),
        ([VIEW1, VIEW2, LABELS], LABELS),
        (([VIEW1, VIEW2], LABELS), LABELS),
        ([(VIEW1, VIEW2), LABELS], LABELS),
        ((VIEW1, VIEW2, None), None),
    ],
)
def test_what_a_users_own_loader_yields_is_understood(items, labels):
    batch = as_batch(items)
    assert batch.view1 is VIEW1
    assert batch.view2 is VIEW2
    assert batch.labels is labels
    assert batch.rows.tolist() == [0, 1, 2]


def test_our_own_batch_is_passed_on():
    assert as_batch(BATCH) is BATCH


@pytest.mark.parametrize(
    "items",
    [
        VIEW1,
        [],
        [VIEW1],
        (VIEW1, LABELS),
        ([VIEW1], LABELS),
        [VIEW1, VIEW2[:2]],
        [VIEW1[0], VIEW2[0]],
        [VIEW1.numpy(), VIEW2.numpy()],
        {"view1": VIEW1, "view2": VIEW2},
        None,
    ],
)
def test_anything_else_is_refused_with_what_was_expected(items):
    with pytest.raises(DataError, match=r"expected \[view1, view2\] or \(\[view1, view2\], labels\)"):
        as_batch(items)


def test_a_users_own_loader_begins_every_pass_at_its_first_batch():
    loader = as_resumable([[VIEW1, VIEW2], [VIEW2, VIEW1]])
    for start in (0, 1):
        loader.set_epoch(3, start)
        assert [batch.view1 is VIEW1 for batch in loader] == [True, False]
    assert len(loader) == 2
    assert loader.num_samples is None
    assert loader.batch_size == 1  # nothing is known of it
    assert as_resumable(DataLoader(VIEW1, batch_size=3)).batch_size == 3


def test_a_loader_that_can_resume_is_taken_as_it_is():
    loader = as_resumable([[VIEW1, VIEW2]])
    assert as_resumable(loader) is loader


def test_a_loader_without_a_length_is_refused_by_name():
    with pytest.raises(DataError, match="list_iterator, has no length"):
        as_resumable(iter([]))
