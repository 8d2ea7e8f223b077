"""Learning rates are the historical numbers: a change here changes what old options files do."""

import pytest
import torch
from torch import nn
from torch.optim import SGD

from nenya.params import Params, complete_options
from nenya.training.optim import Schedule, adjust_learning_rate, set_optimizer, warmup_learning_rate

RELATIVE = 1e-12  # literals have 17 digits; some ten float64 operations each round by 1e-16

# mpmath, 30 digits: eta + (lr - eta) * (1 + cos(pi * epoch / epochs)) / 2 with eta = lr * rate**3
COSINE = [
    # lr, rate, epochs, epoch, learning rate
    (0.05, 0.1, 200, 1, 0.049996918896229473),
    (0.05, 0.1, 200, 2, 0.049987676345134146),
    (0.05, 0.1, 200, 10, 0.049692516306363565),
    (0.05, 0.1, 200, 50, 0.042684991860134024),
    (0.05, 0.1, 200, 100, 0.025025),
    (0.05, 0.1, 200, 150, 0.0073650081398659756),
    (0.05, 0.1, 200, 199, 5.3081103770526549e-5),
    (0.05, 0.1, 200, 200, 5.0e-5),
    (0.5, 0.5, 3, 1, 0.390625),
    (0.5, 0.5, 3, 2, 0.171875),
    (0.5, 0.5, 3, 3, 0.0625),
]

# lr * rate**(number of milestones below the epoch), by hand
STEPS = [
    # milestones, rate, epoch, learning rate from 0.05
    ([700, 800, 900], 0.1, 1, 0.05),
    ([700, 800, 900], 0.1, 700, 0.05),
    ([700, 800, 900], 0.1, 701, 0.005),
    ([700, 800, 900], 0.1, 800, 0.005),
    ([700, 800, 900], 0.1, 801, 0.0005),
    ([700, 800, 900], 0.1, 900, 0.0005),
    ([700, 800, 900], 0.1, 901, 0.00005),
    ([700, 800, 900], 0.1, 1000, 0.00005),
    ([2], 0.2, 2, 0.05),
    ([2], 0.2, 3, 0.01),
    ([1, 2], 0.5, 3, 0.0125),
]

# mpmath: w + (end - w) * (batch + (epoch - 1) * 4) / (10 * 4), w = 0.01, end = 0.049692516306363565 (cosine), 0.05
WARMUP = [
    # cosine, epoch, batch, learning rate
    (True, 1, 0, 0.01),
    (True, 1, 1, 0.010992312907659089),
    (True, 1, 3, 0.012976938722977267),
    (True, 2, 0, 0.013969251630636356),
    (True, 5, 2, 0.027861632337863604),
    (True, 10, 0, 0.045723264675727208),
    (True, 10, 3, 0.048700203398704476),
    (False, 1, 0, 0.01),
    (False, 1, 1, 0.011),
    (False, 5, 2, 0.028),
    (False, 10, 3, 0.049),
]


# by step, batches of 4 in each epoch, t = batch + 4 (epoch - 1) of T = 4 epochs, by mpmath:
# eta + (lr - eta) * (1 + cos(pi * t / T)) / 2 with eta = lr * rate**3
BY_STEP = [
    # lr, rate, epochs, epoch, batch, learning rate
    (0.05, 0.1, 1, 1, 0, 0.05),
    (0.05, 0.1, 1, 1, 1, 0.042684991860134024),
    (0.05, 0.1, 1, 1, 2, 0.025025),
    (0.05, 0.1, 1, 1, 3, 0.0073650081398659756),
    (0.05, 0.1, 2, 1, 0, 0.05),
    (0.05, 0.1, 2, 2, 0, 0.025025),
    (0.05, 0.1, 2, 2, 2, 0.0073650081398659756),
    (0.05, 0.1, 50, 50, 3, 5.3081103770526549e-5),
    (0.5, 0.5, 3, 2, 0, 0.390625),
    (0.5, 0.5, 3, 3, 0, 0.171875),
]


def options(**values):
    return Params.from_dict({"learning_rate": 0.05, "lr_decay_rate": 0.1, "epochs": 200} | values)


@pytest.fixture
def optimizer():
    """Two parameter groups, neither at a learning rate that the tables hold."""
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    return SGD([{"params": first.parameters(), "lr": 7.0}, {"params": second.parameters(), "lr": 8.0}])


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize(("lr", "rate", "epochs", "epoch", "expected"), COSINE)
def test_cosine(optimizer, lr, rate, epochs, epoch, expected):
    adjust_learning_rate(options(learning_rate=lr, lr_decay_rate=rate, epochs=epochs), optimizer, epoch)
    assert rates(optimizer) == pytest.approx([expected, expected], rel=RELATIVE)


@pytest.mark.parametrize(("milestones", "rate", "epoch", "expected"), STEPS)
def test_steps(optimizer, milestones, rate, epoch, expected):
    opt = options(cosine=False, epochs=1000, lr_decay_epochs=milestones, lr_decay_rate=rate)
    adjust_learning_rate(opt, optimizer, epoch)
    assert rates(optimizer) == pytest.approx([expected, expected], rel=RELATIVE)


@pytest.mark.parametrize(("cosine", "epoch", "batch", "expected"), WARMUP)
def test_warm_up(optimizer, cosine, epoch, batch, expected):
    opt = options(cosine=cosine, warm=True, warm_epochs=10, warmup_from=0.01)
    warmup_learning_rate(opt, epoch, batch, 4, optimizer)
    assert rates(optimizer) == pytest.approx([expected, expected], rel=RELATIVE)


def test_a_milestone_within_the_warm_up_lowers_where_it_ends(optimizer):
    opt = options(cosine=False, warm=True, warm_epochs=4, warmup_from=0.001, lr_decay_epochs=[2])
    warmup_learning_rate(opt, 3, 0, 5, optimizer)  # half-way from 0.001 to 0.05 * 0.1
    assert rates(optimizer) == pytest.approx([0.003, 0.003], rel=RELATIVE)


@pytest.mark.parametrize("epoch", [11, 12, 200])
def test_after_the_warm_up_the_schedule_is_left_alone(optimizer, epoch):
    warmup_learning_rate(options(warm=True, warm_epochs=10), epoch, 0, 4, optimizer)
    assert rates(optimizer) == [7.0, 8.0]


@pytest.mark.parametrize(
    ("batch_size", "warm", "warms"), [(256, False, False), (257, False, True), (8, True, True), (512, True, True)]
)
def test_warm_up_is_on_above_batch_256_or_when_it_is_asked_for(optimizer, batch_size, warm, warms):
    opt = options(batch_size_train=batch_size, warm=warm, warmup_from=0.02)
    warmup_learning_rate(opt, 1, 0, 4, optimizer)
    assert rates(optimizer) == ([0.02, 0.02] if warms else [7.0, 8.0])


@pytest.mark.parametrize(("lr", "rate", "epochs", "epoch", "batch", "expected"), BY_STEP)
@pytest.mark.parametrize("found_at", ["another epoch's rate", "another batch's rate"])
def test_by_step_each_batch_has_its_own_place_on_the_cosine(
    optimizer, lr, rate, epochs, epoch, batch, expected, found_at
):
    """Whatever the rate was before: a run that goes on in mid-epoch finds another one there."""
    opt = options(learning_rate=lr, lr_decay_rate=rate, epochs=epochs, schedule_by="step")
    if found_at == "another epoch's rate":
        adjust_learning_rate(opt, optimizer, epoch)
    warmup_learning_rate(opt, epoch, batch, 4, optimizer)
    assert rates(optimizer) == pytest.approx([expected, expected], rel=RELATIVE)


def test_by_step_an_epoch_begins_with_the_rate_of_its_first_batch(optimizer):
    opt = options(learning_rate=0.5, lr_decay_rate=0.5, epochs=3, schedule_by="step")
    for epoch, expected in ((1, 0.5), (2, 0.390625), (3, 0.171875)):
        adjust_learning_rate(opt, optimizer, epoch)
        assert rates(optimizer) == pytest.approx([expected, expected], rel=RELATIVE)


def test_by_step_steps_of_the_rate_stay_between_epochs(optimizer):
    opt = options(cosine=False, schedule_by="step", lr_decay_epochs=[2], lr_decay_rate=0.2, epochs=4)
    for epoch, expected in ((1, 0.05), (2, 0.05), (3, 0.01), (4, 0.01)):
        adjust_learning_rate(opt, optimizer, epoch)
        for batch in range(4):
            warmup_learning_rate(opt, epoch, batch, 4, optimizer)
            assert rates(optimizer) == pytest.approx([expected, expected], rel=RELATIVE)


def test_by_step_the_warm_up_ends_on_the_cosine(optimizer):
    """Half an epoch of two: the second batch is half-way up to what the third has."""
    opt = options(schedule_by="step", epochs=2, warm=True, warm_epochs=0.5, warmup_from=0.01)
    end = Schedule.from_options(opt).rate(0.5)
    assert end == pytest.approx(5e-5 + (0.05 - 5e-5) * (1 + 2**-0.5) / 2, rel=RELATIVE)
    for batch, expected in ((0, 0.01), (1, 0.01 + (end - 0.01) / 2), (2, end)):
        warmup_learning_rate(opt, 1, batch, 4, optimizer)
        assert rates(optimizer) == pytest.approx([expected, expected], rel=RELATIVE)


def test_by_epoch_a_warm_up_that_ends_within_one_leaves_the_rest_at_the_epochs_rate(optimizer):
    opt = options(cosine=False, warm=True, warm_epochs=1.5, warmup_from=0.01)
    for epoch, batch, expected in ((1, 2, 0.01 + 0.04 / 3), (2, 1, 0.01 + 0.04 * 5 / 6), (2, 2, 0.05), (2, 3, 0.05)):
        warmup_learning_rate(opt, epoch, batch, 4, optimizer)
        assert rates(optimizer) == pytest.approx([expected, expected], rel=RELATIVE)


@pytest.mark.parametrize(
    ("by", "epochs", "given", "length"),
    [("step", 8, 10, 0.8), ("step", 1, 1, 0.1), ("step", 8, 0.5, 0.5), ("epoch", 8, 10, 1), ("epoch", 1, 1, 1)],
)
def test_a_warm_up_that_would_fill_the_run_is_a_tenth_of_it(by, epochs, given, length, tmp_path):
    opt = options(schedule_by=by, epochs=epochs, warm=True, warm_epochs=given, model_root=str(tmp_path))
    for _ in range(2):
        complete_options(opt)
        assert opt.warm_epochs == length


def test_the_optimizer_is_sgd_over_all_parameters_with_the_options_settings():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = set_optimizer(options(learning_rate=0.3, momentum=0.6, weight_decay=0.002), model)
    (group,) = optimizer.param_groups
    assert type(optimizer) is SGD
    assert {id(parameter) for parameter in group["params"]} == {id(parameter) for parameter in model.parameters()}
    settings = {name: group[name] for name in ("lr", "momentum", "weight_decay", "dampening", "nesterov")}
    assert settings == {"lr": 0.3, "momentum": 0.6, "weight_decay": 0.002, "dampening": 0, "nesterov": False}


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.5, True), (0.0, False)])
def test_nesterov_is_on_where_there_is_momentum(momentum, nesterov):
    optimizer = set_optimizer(options(momentum=momentum, nesterov=True), nn.Linear(2, 2))
    assert optimizer.param_groups[0]["nesterov"] is nesterov


def test_the_optimizers_step_is_that_of_sgd_with_momentum_by_hand():
    parameter = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    model = nn.ParameterList([parameter])
    optimizer = set_optimizer(options(learning_rate=0.5, momentum=0.5, weight_decay=0.25), model)
    for gradient in (1.0, 2.0):
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    # v = 1 + 0.25 = 1.25, p = 1 - 0.625 = 0.375; v = 0.625 + 2 + 0.09375 = 2.71875, p = 0.375 - 1.359375
    assert parameter.item() == -0.984375  # all binary fractions: exact
