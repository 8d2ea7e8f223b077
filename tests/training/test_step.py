"""One step: views, embeddings, labels, loss."""

import math

import pytest
import torch
from torch import nn

from nenya import parallel
from nenya.data.batch import Batch, as_batch
from nenya.errors import DataError, OptionError
from nenya.losses import SupConLoss
from nenya.place import Ranks
from nenya.training.step import Step, compute_gradient, contrastive_loss, labels_for, pair_views, stack_views

MODEL = torch.nn.Linear(1, 1)
CPU = torch.device("cpu")
VIEW1, VIEW2 = torch.rand(3, 2, 4, 5), torch.rand(3, 2, 4, 5)
LABELS = torch.tensor([4, 5, 4])
BATCH = Batch(VIEW1, VIEW2, LABELS, torch.tensor([7, 8, 9]))


def test_all_first_views_come_before_all_second_ones():
    images = stack_views(BATCH, MODEL, CPU)
    assert images.shape == (6, 2, 4, 5)
    assert torch.equal(images, torch.cat((VIEW1, VIEW2)))


def test_pairing_puts_the_two_views_of_a_sample_side_by_side():
    z = torch.arange(12).view(6, 2)  # first views: rows 0 1 2, second ones: rows 3 4 5
    assert pair_views(z).tolist() == [[[0, 1], [6, 7]], [[2, 3], [8, 9]], [[4, 5], [10, 11]]]


def test_pairing_undoes_stacking():
    paired = pair_views(stack_views(BATCH, MODEL, CPU))
    assert torch.equal(paired[:, 0], VIEW1)
    assert torch.equal(paired[:, 1], VIEW2)


def test_simclr_uses_no_labels_and_supcon_needs_them():
    assert labels_for("SimCLR", BATCH, CPU) is None
    assert torch.equal(labels_for("SupCon", BATCH, CPU), LABELS)
    with pytest.raises(DataError, match="SupCon needs labels"):
        labels_for("SupCon", BATCH._replace(labels=None), CPU)


class Pixels(nn.Module):
    """z is four pixels of the image, normalised: a model whose output is known by hand."""

    def forward(self, x):
        return nn.functional.normalize(x[:, 0, 0, :4].double(), dim=1)


def loss_by_loops(z, positive, temperature):
    """Khosla et al. 2020, eq. 2, over rows z [2B, D]; `positive(i, j)` says which pairs belong together."""
    total = 0.0
    for i in range(len(z)):
        logits = [sum(a * b for a, b in zip(z[i], other, strict=True)) / temperature for other in z]
        partition = math.log(sum(math.exp(logits[a]) for a in range(len(z)) if a != i))
        own = [logits[p] for p in range(len(z)) if p != i and positive(i, p)]
        total += sum(partition - logit for logit in own) / len(own)
    return temperature / 0.07 * total / len(z)


@pytest.mark.parametrize("method", ["SimCLR", "SupCon"])
def test_the_loss_of_a_batch_is_the_papers_sum(method):
    z = Pixels()(torch.cat((VIEW1, VIEW2))).tolist()
    classes = (LABELS.tolist() if method == "SupCon" else [0, 1, 2]) * 2
    expected = loss_by_loops(z, lambda i, j: classes[i] == classes[j], 0.2)
    loss = contrastive_loss(Pixels(), SupConLoss(temperature=0.2), BATCH, Step(method, CPU))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-12)  # float64 throughout


@pytest.mark.parametrize("given_type", [torch.uint8, torch.float16, torch.float64])
def test_views_of_any_type_become_the_models(given_type):
    batch = as_batch([torch.ones(2, 1, 4, 4, dtype=given_type)] * 2)
    assert stack_views(batch, MODEL, CPU).dtype == torch.float32
    assert stack_views(batch, torch.nn.Linear(1, 1).double(), CPU).dtype == torch.float64


def test_a_criterion_that_does_not_know_other_processes_is_refused_beside_them(monkeypatch):
    """Its losses would add up to another one than that of the whole batch."""

    class Spread(nn.Module):
        def forward(self, z, labels=None):
            return -z.std(dim=0).sum()

    model = nn.Sequential(nn.Flatten(), nn.Linear(40, 4))
    compute_gradient(model, Spread(), BATCH, Step("SimCLR", CPU))
    monkeypatch.setattr(parallel, "current", lambda: Ranks(0, 2, 0))
    with pytest.raises(OptionError, match="Spread does not know the embeddings of the other processes"):
        compute_gradient(model, Spread(), BATCH, Step("SimCLR", CPU))
