"""The gradient of a batch's loss in parts: equal to one graph, where a mean of small losses is not."""

import copy

import pytest
import torch

from nenya.data.batch import Batch
from nenya.errors import OptionError
from nenya.losses import SupConLoss
from nenya.models.resnet_big import SupConResNet
from nenya.params import Params
from nenya.training.step import Step, compute_gradient, pair_views, stack_views

CPU = torch.device("cpu")
SAMPLES = 10


@pytest.fixture
def model(narrow):
    torch.manual_seed(0)
    return SupConResNet("resnet18", feat_dim=8).double()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    views = torch.randn(2, SAMPLES, 1, 8, 8, generator=generator, dtype=torch.float64)
    return Batch(views[0], views[1], torch.arange(SAMPLES) % 3, torch.arange(SAMPLES))


def step(**given):
    return Step(**{"method": "SimCLR", "device": CPU, "precision": "fp32"} | given)


def gradients(model):
    return {name: weights.grad for name, weights in model.named_parameters()}


@pytest.mark.parametrize("parts", [2, 3, 4, 10, 99])
@pytest.mark.parametrize("method", ["SimCLR", "SupCon"])
def test_in_parts_it_is_that_of_one_graph_with_batch_norm_in_parts(model, batch, method, parts):
    reference = copy.deepcopy(model).train()
    z = []
    for rows in torch.arange(SAMPLES).tensor_split(min(parts, SAMPLES)):
        part = Batch(batch.view1[rows], batch.view2[rows], None, rows)
        z.append(pair_views(reference(stack_views(part, reference, CPU))))
    expected = SupConLoss()(torch.cat(z), batch.labels if method == "SupCon" else None)
    expected.backward()

    model.train()
    loss = compute_gradient(model, SupConLoss(), batch, step(method=method, accumulate=parts))
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-12)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, gradients(reference)[name], rtol=1e-10, atol=1e-10, msg=name)
    # the running statistics too: noted once for each part, as in that graph
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, reference.state_dict()[name], rtol=1e-12, atol=1e-12, msg=name)


def test_without_batch_statistics_it_is_that_of_the_whole_batch_and_a_mean_of_small_losses_is_not(model, batch):
    model.eval()
    whole = copy.deepcopy(model)
    loss = compute_gradient(whole, SupConLoss(), batch, step())
    parts = copy.deepcopy(model)
    assert compute_gradient(parts, SupConLoss(), batch, step(micro_batch_size=4)) == pytest.approx(float(loss))
    for name, gradient in gradients(parts).items():
        torch.testing.assert_close(gradient, gradients(whole)[name], rtol=1e-10, atol=1e-10, msg=name)

    plain = [
        compute_gradient(copy.deepcopy(model), SupConLoss(), Batch(*(column[half] for column in batch)), step())
        for half in (slice(0, 5), slice(5, 10))
    ]
    assert float(sum(plain) / 2) < 0.9 * float(loss)  # 4 negatives instead of 9: an easier task


def test_batch_norm_tracks_again_when_a_part_fails(model, batch):
    broken = Batch(batch.view1, batch.view2[:, :, :4], None, batch.rows)
    with pytest.raises(RuntimeError):
        compute_gradient(model, SupConLoss(), broken, step(accumulate=2))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert all(norm.track_running_stats for norm in norms)


def test_bfloat16_in_parts_is_close_to_bfloat16_at_once(model, batch):
    model = model.float().eval()
    found = []
    for parts in (1, 5):
        one = copy.deepcopy(model)
        compute_gradient(one, SupConLoss(), batch, step(precision="bf16", accumulate=parts))
        found.append(torch.cat([gradient.flatten() for gradient in gradients(one).values()]))
    cosine = torch.nn.functional.cosine_similarity(found[0], found[1], dim=0)
    assert cosine > 0.999


@pytest.mark.parametrize(
    ("given", "samples", "expected"),
    [
        ({}, 64, 1),
        ({"accumulate": 4}, 64, 4),
        ({"accumulate": 100}, 64, 64),
        ({"micro_batch_size": 16}, 64, 4),
        ({"micro_batch_size": 15}, 64, 5),
        ({"micro_batch_size": 64}, 64, 1),
        ({"micro_batch_size": 100}, 64, 1),
    ],
)
def test_the_number_of_parts(given, samples, expected):
    assert step(**given).num_parts(samples) == expected


def test_two_ways_to_say_it_are_one_too_many():
    with pytest.raises(OptionError, match="give one of them"):
        Step.from_options(Params.from_dict({"accumulate": 2, "micro_batch_size": 16}), CPU)
