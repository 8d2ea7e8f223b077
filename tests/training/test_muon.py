"""Muon beside the singular value decomposition, a plain restatement, and torch's own."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from nenya.errors import OptionError
from nenya.models import assemble_model
from nenya.params import Params
from nenya.training.muon import Muon, _shares, orthogonalise
from nenya.training.optim import Schedule, adjust_learning_rate, set_optimizer

SHAPES = [(6, 4), (4, 6), (5, 5), (4, 36), (36, 4), (1, 9), (9, 1)]


def matrix(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_decomposition(m, steps):
    """What the steps are in exact arithmetic: the quintic on each singular value, the vectors as they are."""
    u, s, vt = np.linalg.svd(m.numpy().astype(np.float64), full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return torch.from_numpy(u * s @ vt)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_the_steps_act_on_each_singular_value_by_itself(shape, steps):
    m = matrix(shape)
    torch.testing.assert_close(orthogonalise(m, steps), by_decomposition(m, steps), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(orthogonalise(m.float(), steps).double(), by_decomposition(m, steps), rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(16, 24), (16, 144)])
def test_five_steps_bring_the_singular_values_into_the_known_band(shape):
    """Both ways of computing it; the smallest singular value is 0.013 of the norm, the largest 0.55."""
    u, _, vt = np.linalg.svd(matrix(shape).numpy(), full_matrices=False)
    s = np.geomspace(1, 1 / 40, 16)
    m = torch.from_numpy(u * s @ vt)
    found = torch.linalg.svdvals(orthogonalise(7 * m, 5))
    assert float(found.min()) > 0.68
    assert float(found.max()) < 1.14


@pytest.mark.parametrize(
    ("dtype", "steps", "most"), [(torch.float32, 5, 1e-3), (torch.bfloat16, 3, 0.15), (torch.bfloat16, 5, 0.45)]
)
@pytest.mark.parametrize("columns", [64, 576])
def test_directions_that_are_not_there_are_not_made_up(dtype, steps, most, columns):
    """A matrix of rank two: rounding must not grow into a third direction."""
    m = (matrix((64, 2)) @ matrix((2, columns), seed=1)).float()
    found = torch.linalg.svdvals(orthogonalise(m, steps, dtype).float())
    assert float(found[1]) > 0.68
    assert float(found[2]) < most


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1e30])
def test_the_length_of_the_matrix_is_no_matter(shape, factor):
    m = matrix(shape, dtype=torch.float32)
    torch.testing.assert_close(orthogonalise(factor * m, 3), orthogonalise(m, 3), rtol=0, atol=1e-5)


def test_it_turns_with_the_matrix():
    m = matrix((4, 9))
    left, right = (torch.linalg.qr(matrix((size, size), seed=size)).Q for size in (4, 9))
    torch.testing.assert_close(orthogonalise(left @ m @ right, 3), left @ orthogonalise(m, 3) @ right)
    torch.testing.assert_close(orthogonalise(m.T, 3), orthogonalise(m, 3).T)


@pytest.mark.parametrize("shape", SHAPES)
def test_zeros_stay_zeros(shape):
    assert torch.equal(orthogonalise(torch.zeros(shape), 3), torch.zeros(shape))


def test_autocast_and_half_precision_change_nothing():
    m = matrix((8, 72), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = orthogonalise(m, 3)
    assert torch.equal(inside, orthogonalise(m, 3))
    assert orthogonalise(m.bfloat16(), 3).dtype == torch.float32


@pytest.mark.parametrize("shape", [(64, 576), (576, 64), (64, 64)])
@pytest.mark.parametrize("steps", [1, 3, 4, 5])
def test_in_bfloat16_it_is_the_same_up_to_raised_rounding(shape, steps):
    """Singular values that fall to a 64th: the small ones, which are raised most, are still far above the rounding."""
    (u, _, vt), s = np.linalg.svd(matrix(shape).numpy(), full_matrices=False), 1 / np.arange(1, 65)
    m = torch.from_numpy(u * s @ vt)
    found = orthogonalise(m, steps, torch.bfloat16)
    assert found.dtype == torch.bfloat16
    expected = by_decomposition(m, steps)
    assert float((found.double() - expected).norm() / expected.norm()) < 0.04


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_in_bfloat16_too_the_length_is_no_matter(factor):
    m = matrix((8, 72), dtype=torch.float32)
    found = orthogonalise(factor * m, 3, torch.bfloat16).float()
    torch.testing.assert_close(found, orthogonalise(m, 3, torch.bfloat16).float(), rtol=0, atol=0.01)
    assert torch.equal(orthogonalise(0 * m, 3, torch.bfloat16), torch.zeros(8, 72, dtype=torch.bfloat16))


# ---------------------------------------------------------------- the optimizer


def network(dtype=torch.float64):
    """A stem, then a wide, a tall and a 1 x 1 convolution, batch-norm and a linear layer."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 3, bias=False), nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4)]
    return nn.Sequential(*layers, nn.Conv2d(4, 8, 1, bias=False), nn.Flatten(), nn.Linear(8, 3)).to(dtype)


CONVOLUTIONS = ("1.weight", "2.weight", "4.weight")


def options(**values):
    base = {"optimizer": "muon", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01, "precision": "fp32"}
    return Params.from_dict(base | {"muon_learning_rate": 0.2, "muon_momentum": 0.6} | values)


def set_gradients(model, step):
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = matrix(parameter.shape, seed=100 * step + number).to(parameter.dtype)


def restated(weights, gradients, *, rate, momentum, steps, keep_norm, decay):
    """Muon in plain words, on the SVD: momentum, look ahead, length, orthogonal update."""
    w, buffer = weights.reshape(len(weights), -1).clone(), torch.zeros_like(weights).reshape(len(weights), -1)
    rows, columns = w.shape
    for gradient in gradients:
        g = gradient.reshape(rows, columns)
        buffer = momentum * buffer + g
        w = w * math.sqrt(rows) / w.norm() if keep_norm else w * (1 - rate * decay)
        w = w - rate * math.sqrt(max(1, rows / columns)) * by_decomposition(g + momentum * buffer, steps)
    return w.reshape(weights.shape)


@pytest.mark.parametrize("keep_norm", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
@pytest.mark.parametrize("steps", [2, 3])
def test_convolutions_are_moved_as_in_a_plain_restatement(keep_norm, momentum, steps):
    model = network()
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = set_optimizer(options(muon_momentum=momentum, muon_steps=steps, muon_keep_norm=keep_norm), model)
    gradients = {name: [] for name in CONVOLUTIONS}
    for step in range(3):
        set_gradients(model, step)
        for name in CONVOLUTIONS:
            gradients[name].append(model.get_parameter(name).grad.clone())
        optimizer.step()
    for name in CONVOLUTIONS:
        expected = restated(
            before[name], gradients[name], rate=0.2, momentum=momentum, steps=steps, keep_norm=keep_norm, decay=0.01
        )
        torch.testing.assert_close(model.get_parameter(name).detach(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("nesterov", [True, False])
def test_all_other_parameters_are_moved_as_by_torchs_sgd(nesterov):
    """To the bit; the stem and the biases of convolutions are among them."""
    model, twin = network(torch.float32), network(torch.float32)
    ours = set_optimizer(options(nesterov=nesterov), model)
    theirs = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
    for step in range(3):
        for optimizer, trained in ((ours, model), (theirs, twin)):
            set_gradients(trained, step)
            optimizer.step()
    same = [name for name, value in model.named_parameters() if torch.equal(value, twin.get_parameter(name))]
    assert same == [name for name, _ in model.named_parameters() if name not in CONVOLUTIONS]


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_the_norm_it_is_torchs_own_up_to_its_bfloat16(dtype):
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(8, 4, 3, 3)), nn.Parameter(torch.randn(8, 4, 1, 1))]
    twins = [nn.Parameter(weight.detach().flatten(1).clone()) for weight in weights]
    rest = nn.Parameter(torch.zeros(1))
    ours = Muon(
        weights, [rest], lr=0.1, momentum=0.0, weight_decay=0.1, nesterov=False, fused=None, muon_lr=0.3,
        muon_momentum=0.6, steps=5, keep_norm=False, dtype=dtype,
    )  # fmt: skip
    theirs = torch.optim.Muon(twins, lr=0.3, weight_decay=0.1, momentum=0.6, nesterov=True, ns_steps=5)
    for step in range(4):
        for weight, twin in zip(weights, twins, strict=True):
            weight.grad = matrix(weight.shape, seed=step, dtype=torch.float32)
            # its average is of (1 - momentum) times the gradients, and looks ahead by the same two parts
            twin.grad = weight.grad.flatten(1)
        ours.step()
        theirs.step()
    for weight, twin in zip(weights, twins, strict=True):
        difference = (weight.flatten(1) - twin).detach()
        assert float(difference.norm() / twin.detach().norm()) < 0.02


@pytest.mark.parametrize(("rows", "columns"), [(4, 36), (36, 4)])
def test_the_weights_turn_by_the_rate_whatever_their_shape(rows, columns):
    """An update has the length of the weights times the rate and the value that the steps bring singular values to."""
    weight = nn.Parameter(matrix((rows, columns))[:, :, None, None])
    optimizer = Muon(
        [weight], [nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.0, weight_decay=0.0, nesterov=False,
        fused=None, muon_lr=0.3, muon_momentum=0.0, steps=1, keep_norm=True,
    )  # fmt: skip
    tall = torch.linalg.qr(matrix((36, 4))).Q
    weight.grad = (tall if rows == 36 else tall.T)[:, :, None, None].contiguous()
    before = weight.detach() * math.sqrt(rows) / weight.detach().norm()
    optimizer.step()
    s = 3.4445 / 2 - 4.7750 / 8 + 2.0315 / 32  # of four equal singular values, each is half the norm
    assert float((weight.detach() - before).norm()) == pytest.approx(0.3 * s * math.sqrt(rows), rel=1e-12)


def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned():
    model = network(torch.float32)
    optimizer = set_optimizer(options(), model)

    def closure():
        loss = sum(parameter.square().sum() for parameter in model.parameters())
        loss.backward()
        return loss

    before = copy.deepcopy(model.state_dict())
    assert float(optimizer.step(closure).detach()) > 0
    assert not torch.equal(model.state_dict()["1.weight"], before["1.weight"])


def test_parameters_without_a_gradient_stay():
    model = network(torch.float32)
    optimizer = set_optimizer(options(), model)
    set_gradients(model, 0)
    model[1].weight.grad = None
    before = model[1].weight.detach().clone()
    optimizer.step()
    assert torch.equal(model[1].weight, before)
    assert model[1].weight not in optimizer.state


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_muon_has_the_3x3_and_1x1_convolutions_but_the_stem(name, narrow):
    model = assemble_model(name, "mlp", 8, 1)
    sgd, muon = set_optimizer(Params.from_dict({"optimizer": "muon"}), model).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    expected = [
        f"{where}.weight"
        for where, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and where != "encoder.conv1"
    ]
    assert [names[id(parameter)] for parameter in muon["params"]] == expected
    assert len(expected) == {"resnet18": 19, "resnet50": 52}[name]
    assert {names[id(p)] for p in sgd["params"]} == {*names.values()} - {*expected}


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_steps_are_computed_in_the_precision_of_the_run(precision, dtype, monkeypatch):
    types = []

    def noting(matrix, steps, dtype):
        types.append(dtype)
        return orthogonalise(matrix, steps, dtype)

    monkeypatch.setattr("nenya.training.muon.orthogonalise", noting)
    model = network(torch.float32)
    optimizer = set_optimizer(options(precision=precision), model)
    set_gradients(model, 0)
    optimizer.step()
    assert types == [dtype] * len(CONVOLUTIONS)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert {state["momentum_buffer"].dtype for state in optimizer.state.values()} == {torch.float32}


def test_a_network_without_convolutions_is_refused():
    with pytest.raises(OptionError, match=r'Linear has none\. Set optimizer to "sgd"'):
        set_optimizer(options(), nn.Linear(2, 2))


def test_the_layout_of_the_weights_is_no_matter():
    """Nor that of the gradients, which have it from the weights, or a layout of their own."""
    model, other = network(torch.float32), network(torch.float32).to(memory_format=torch.channels_last)
    for trained in (model, other):
        optimizer = set_optimizer(options(), trained)
        for step in range(3):
            set_gradients(trained, step)
            for parameter in trained.parameters() if step else ():
                parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
            optimizer.step()
    assert other[1].weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in model.named_parameters():
        assert torch.equal(value, other.get_parameter(name)), name


def test_both_rates_fall_and_warm_up_by_the_same_factors():
    opt = options(learning_rate=0.1, muon_learning_rate=0.25, epochs=4, warm=True, warm_epochs=1, warmup_from=0.01)
    optimizer = set_optimizer(opt, network())
    for epoch in range(1, 5):
        adjust_learning_rate(opt, optimizer, epoch)
        sgd, muon = (group["lr"] for group in optimizer.param_groups)
        assert sgd == Schedule.from_options(opt).rate(epoch)
        assert muon == pytest.approx(2.5 * sgd, rel=1e-12)
    Schedule.from_options(opt).set_for_batch(optimizer, 1, 0, 4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.025], rel=1e-12)


def test_a_loaded_state_goes_on_as_the_one_that_was_saved():
    runs = []
    for cut in (False, True):
        model = network(torch.float32)
        optimizer = set_optimizer(options(), model)
        for step in range(4):
            if cut and step == 2:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = set_optimizer(options(), model)
                optimizer.load_state_dict(state)
            set_gradients(model, step)
            optimizer.step()
        runs.append(copy.deepcopy(model.state_dict()))
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


def test_processes_share_the_work_evenly_and_leave_nothing_out():
    shapes = [torch.Size((512, 512, 3, 3))] * 3 + [torch.Size((512, 256, 3, 3))] + [torch.Size((64, 64, 3, 3))] * 4
    owners = _shares(shapes, 2)
    costs = [min(s[0], math.prod(s[1:])) ** 2 * max(s[0], math.prod(s[1:])) for s in shapes]
    loads = [sum(c for c, owner in zip(costs, owners, strict=True) if owner == rank) for rank in (0, 1)]
    assert max(loads) < 0.6 * sum(costs)
    assert _shares(shapes, 1) == [0] * len(shapes)
    assert set(_shares(shapes[:1], 3)) == {0}
