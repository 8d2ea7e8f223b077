"""One pass: training is what plain PyTorch does, validation changes nothing, a stop in the middle costs nothing."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from nenya.data.augment import TwoCropTransform
from nenya.data.loaders import nenya_loader
from nenya.errors import DataError, NonFiniteLossError, OptionError
from nenya.evaluation import health
from nenya.losses import SupConLoss
from nenya.machine import memory
from nenya.params import Params
from nenya.training import validation
from nenya.training.build import set_model
from nenya.training.epoch import train_epoch, train_model
from nenya.training.optim import Schedule, set_optimizer
from nenya.training.step import Step
from nenya.training.validation import validate

CPU = torch.device("cpu")


class Own(Dataset):
    """A user's own dataset: random images that the transform makes two views of, with labels if asked for."""

    def __init__(self, count, labels=False, dtype=torch.float32):
        generator = torch.Generator().manual_seed(5)
        self.images = torch.randn(count, 1, 6, 6, generator=generator, dtype=dtype)
        self.labels = labels
        self.two_views = TwoCropTransform(lambda image: image + 0.1 * torch.randn(image.shape, dtype=dtype))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        views = self.two_views(self.images[row])
        return (views, row % 2) if self.labels else views


class Small(nn.Module):
    """A network with batch normalisation and no `encode`."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))

    def forward(self, x):
        return nn.functional.normalize(self.layers(x), dim=1)


def how(opt):
    """Step and schedule of the options, on the CPU."""
    return Step.from_options(opt, CPU), Schedule.from_options(opt)


def options(**values):
    return Params.from_dict({"learning_rate": 0.1, "epochs": 3, "precision": "fp32"} | values)


@pytest.fixture
def small():
    torch.manual_seed(3)
    return Small()


@pytest.fixture
def resnet(tiny):
    """Options, model, criterion and optimizer of a tiny run, the same at every call."""

    def make(**replaced):
        opt = tiny(**replaced)
        torch.manual_seed(0)
        model, criterion = set_model(opt, cuda_use=False)
        return opt, model, criterion, set_optimizer(opt, model)

    return make


def equal_states(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def with_labels(batch):
    return batch if isinstance(batch[0], list) else (batch, None)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("update_model", [False, True])
def test_a_users_own_loader_gives_losses_and_running_averages(small, labels, update_model):
    opt = options(ssl_method="SupCon" if labels else "SimCLR")
    loader = DataLoader(Own(10, labels), batch_size=4)  # batches of 4, 4 and 2
    criterion = SupConLoss(temperature=0.5)
    optimizer = torch.optim.SGD(small.parameters(), lr=1e-30)  # moves nothing: the losses can be made again
    torch.manual_seed(1)
    average, steps, running = train_model(
        loader, small, criterion, optimizer, 1, opt, cuda_use=False, update_model=update_model
    )

    torch.manual_seed(1)
    twin = copy.deepcopy(small).train(update_model)
    twin.layers[2].reset_running_stats()
    expected = []
    for batch in loader:
        (view1, view2), classes = with_labels(batch)
        z = twin(torch.cat((view1, view2)))
        expected.append(criterion(torch.stack((z[: len(view1)], z[len(view1) :]), dim=1), classes).item())
    assert steps == pytest.approx(expected, rel=1e-6)  # float32, the same operations
    by_hand = [steps[0], (4 * steps[0] + 4 * steps[1]) / 8, (4 * steps[0] + 4 * steps[1] + 2 * steps[2]) / 10]
    assert running == pytest.approx(by_hand, rel=1e-12)
    assert average == running[-1]
    assert all(isinstance(value, float) for value in [average, *steps, *running])


def test_supcon_and_simclr_differ_on_the_same_batches(small):
    """The labels really are used by the one, and really are not by the other."""
    losses = {}
    for method, labels in (("SimCLR", False), ("SimCLR", True), ("SupCon", True)):
        torch.manual_seed(1)
        loader = DataLoader(Own(8, labels), batch_size=8)
        opt = options(ssl_method=method)
        losses[method, labels], _, _ = train_model(loader, small, SupConLoss(), None, 1, opt, update_model=False)
    assert losses["SimCLR", True] == losses["SimCLR", False]
    assert losses["SupCon", True] != pytest.approx(losses["SimCLR", True], rel=1e-3)


def test_supcon_with_a_loader_without_labels_is_refused(small):
    loader = DataLoader(Own(8), batch_size=4)
    with pytest.raises(DataError, match="SupCon needs labels"):
        train_model(loader, small, SupConLoss(), None, 1, options(ssl_method="SupCon"), update_model=False)


def test_training_steps_are_those_of_plain_pytorch(resnet):
    """NT-Xent, backward and SGD with momentum and weight decay written out, in float64, over two batches."""
    opt, model, criterion, _ = resnet(temp=0.2, momentum=0.9, weight_decay=0.01)
    model.double().eval()  # training is a matter of train_model, whatever the mode before
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format).train()
    loader = DataLoader(Own(8, dtype=torch.float64), batch_size=4)
    torch.manual_seed(2)
    _, steps, _ = train_model(loader, model, criterion, set_optimizer(opt, model), 1, opt, cuda_use=False)

    torch.manual_seed(2)
    momentum = [torch.zeros_like(parameter) for parameter in plain.parameters()]
    losses = []
    for view1, view2 in loader:
        z = plain(torch.cat((view1, view2)))
        similarity = (z @ z.T / 0.2).masked_fill(torch.eye(8, dtype=torch.bool), -torch.inf)
        other_view = torch.tensor([4, 5, 6, 7, 0, 1, 2, 3])
        loss = 0.2 / 0.07 * nn.functional.cross_entropy(similarity, other_view)
        gradients = torch.autograd.grad(loss, list(plain.parameters()))
        with torch.no_grad():
            for parameter, gradient, velocity in zip(plain.parameters(), gradients, momentum, strict=True):
                velocity.mul_(0.9).add_(gradient + 0.01 * parameter)
                parameter -= 0.01 * velocity
        losses.append(loss.item())
    assert steps == pytest.approx(losses, rel=1e-9)
    for (name, value), expected in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        # float64 sums in another order (channels last), and two steps
        assert torch.allclose(value, expected, rtol=0, atol=1e-10), name
    assert not equal_states(model.state_dict(), resnet()[1].double().state_dict())


def test_the_warm_up_sets_the_learning_rate_of_every_batch(small):
    """By hand: from 0.01 to 0.05 in 2 epochs of 3 batches; in the second epoch 0.03 + 0.04 / 6 a batch."""
    opt = options(warm=True, warm_epochs=2, warmup_from=0.01, learning_rate=0.05, cosine=False)
    optimizer = set_optimizer(opt, small)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
    train_model(DataLoader(Own(12), batch_size=4), small, SupConLoss(), optimizer, 2, opt, cuda_use=False)
    assert seen == pytest.approx([0.03, 0.03 + 0.04 / 6, 0.03 + 0.08 / 6], rel=1e-12)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("with_optimizer", [True, False])
def test_validation_changes_nothing(resnet, mode, with_optimizer):
    opt, model, criterion, optimizer = resnet(warm=True)
    train_model(nenya_loader(opt), model, criterion, optimizer, 1, opt, cuda_use=False)  # momentum, statistics
    model.train(mode)
    model.encoder.layer1.eval()  # a user may have frozen a part
    modes = {name: module.training for name, module in model.named_modules()}
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    gradients = {name: copy.deepcopy(parameter.grad) for name, parameter in model.named_parameters()}
    generator = torch.get_rng_state()
    valid = nenya_loader(opt, valid=True)
    first = train_model(
        valid, model, criterion, optimizer if with_optimizer else None, 2, opt, cuda_use=False, update_model=False
    )
    assert equal_states(weights, model.state_dict())
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert optimizer.state_dict()["param_groups"] == state["param_groups"]
    buffers = optimizer.state_dict()["state"]
    assert all(
        torch.equal(buffers[key]["momentum_buffer"], state["state"][key]["momentum_buffer"]) for key in state["state"]
    )
    assert all(torch.equal(parameter.grad, gradients[name]) for name, parameter in model.named_parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    # and so it gives the same again, whatever the epoch
    assert train_model(valid, model, criterion, None, 9, opt, cuda_use=False, update_model=False) == first


def test_validation_restores_the_mode_when_it_fails(small):
    loader = [[torch.rand(4, 1, 6, 6), torch.rand(3, 1, 6, 6)]]
    small.train()
    with pytest.raises(DataError):
        train_model(loader, small, SupConLoss(), None, 1, options(), update_model=False)
    assert small.training


def test_training_without_an_optimizer_is_refused(small):
    with pytest.raises(OptionError, match="needs an optimizer"):
        train_model(DataLoader(Own(4), batch_size=4), small, SupConLoss(), None, 1, options())


@pytest.mark.parametrize("update_model", [False, True])
def test_a_loader_without_batches_is_refused(small, update_model):
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    loader = DataLoader(Own(3), batch_size=4, drop_last=True)
    with pytest.raises(OptionError, match="no batches"):
        train_model(loader, small, SupConLoss(), optimizer, 1, options(), update_model=update_model)


def test_our_loader_is_told_the_epoch(resnet):
    """Epoch 2 of a call is epoch 2 of the data, whatever was iterated before."""
    losses = []
    for passes in (0, 2):
        opt, model, criterion, optimizer = resnet()
        loader = nenya_loader(opt)
        for _ in range(passes):
            list(loader)
        losses.append(train_model(loader, model, criterion, optimizer, 2, opt, cuda_use=False)[1])
    assert losses[0] == losses[1]
    opt, model, criterion, optimizer = resnet()
    assert train_model(nenya_loader(opt), model, criterion, optimizer, 1, opt, cuda_use=False)[1] != losses[0]


@pytest.mark.parametrize("batches", [1, 2])
def test_an_epoch_interrupted_and_continued_ends_with_the_same_bits(resnet, batches):
    opt, model, criterion, optimizer = resnet(warm=True, warm_epochs=2)
    whole = train_epoch(nenya_loader(opt), model, criterion, optimizer, 1, *how(opt))
    assert whole.complete

    opt, other, criterion, optimizer = resnet(warm=True, warm_epochs=2)
    asked = []

    def stop(step_losses):
        asked.append(step_losses)
        return len(asked) == batches

    first = train_epoch(nenya_loader(opt), other, criterion, optimizer, 1, *how(opt), pause=stop)
    assert not first.complete
    assert first.step_losses == whole.step_losses[:batches]
    rest = train_epoch(nenya_loader(opt), other, criterion, optimizer, 1, *how(opt), earlier=first.step_losses)
    assert rest.complete
    assert rest.step_losses == whole.step_losses
    assert rest.running_averages == whole.running_averages
    assert equal_states(other.state_dict(), model.state_dict())


def test_validation_measures_health_on_what_the_model_sees(resnet):
    opt, model, criterion, _ = resnet()
    valid = nenya_loader(opt, valid=True)
    done = validate(valid, model, criterion, Step.from_options(opt, CPU))
    model.eval()
    views = [torch.cat([batch[view] for batch in valid]) for view in (0, 1)]
    with torch.no_grad():
        h1, h2 = (model.encode(view) for view in views)
        expected = health.measure(h1, h2, model.project(h1), model.project(h2))
    assert done.health.num_samples == 12
    assert vars(done.health) == pytest.approx(vars(expected), rel=1e-4)  # float32, batches of another size


def test_freed_memory_is_kept_while_a_model_trains_and_is_validated(resnet):
    opt, model, criterion, optimizer = resnet()
    keepers = []
    model.register_forward_hook(lambda *_: keepers.append(memory._keepers.count))
    model.encoder.register_forward_hook(lambda *_: keepers.append(memory._keepers.count))
    train_model(nenya_loader(opt), model, criterion, optimizer, 1, opt, cuda_use=False)
    train_model(nenya_loader(opt, valid=True), model, criterion, None, 1, opt, cuda_use=False, update_model=False)
    assert set(keepers) == {1}
    assert memory._keepers.count == 0


def test_validation_of_a_model_without_an_encoder_has_losses_and_no_health(small):
    done = validate(DataLoader(Own(8), batch_size=4), small, SupConLoss(), Step.from_options(options(), CPU))
    assert done.health is None
    assert len(done.step_losses) == 2
    assert done.complete


def test_health_is_measured_on_a_bounded_number_of_cutouts(resnet, monkeypatch):
    opt, model, criterion, _ = resnet(batch_size_valid=4)
    monkeypatch.setattr(validation, "MAX_HEALTH_SAMPLES", 6)
    done = validate(nenya_loader(opt, valid=True), model, criterion, Step.from_options(opt, CPU))
    assert done.health.num_samples == 6
    assert len(done.step_losses) == 3


class OwnLoss(nn.Module):
    """A user's own loss, with weights; it notes what it is given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 5)
        self.seen = []

    def forward(self, z, labels):
        self.seen.append((z.dtype, torch.is_autocast_enabled("cpu")))
        return (self.layer(z[:, 0]) - z[:, 1]).square().mean()


@pytest.mark.parametrize("update_model", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_users_own_loss_is_computed_in_float32_whatever_the_network_is(parts, update_model):
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 5))  # ends in bfloat16
    criterion = OwnLoss()
    opt = options(precision="bf16", accumulate=parts, batch_size_train=4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss, _, _ = train_model(
        DataLoader(Own(8), batch_size=4),
        network,
        criterion,
        optimizer,
        1,
        opt,
        cuda_use=False,
        update_model=update_model,
    )
    assert math.isfinite(loss)
    assert criterion.seen == [(torch.float32, False)] * 2


@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_pixel_that_is_no_number_is_named_by_epoch_batch_and_row(small, view, value):
    batches = [[torch.rand(4, 1, 6, 6), torch.rand(4, 1, 6, 6)] for _ in range(3)]
    batches[1][view][2, 0, 3, 3] = value
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    with pytest.raises(NonFiniteLossError, match=r"nan in epoch 7, batch 2 .*pixels of samples \[2\] are not finite"):
        train_model(batches, small, SupConLoss(), optimizer, 7, options(epochs=9), cuda_use=False)
    small.layers[2].reset_running_stats()
    with pytest.raises(NonFiniteLossError, match=r"nan in validation, batch 2 .*samples \[2\] are not finite"):
        train_model(batches, Small(), SupConLoss(), None, 7, options(), cuda_use=False, update_model=False)


def test_a_loss_that_diverged_from_finite_pixels_says_what_to_change(small):
    with torch.no_grad():
        small.layers[1].weight.fill_(float("nan"))
    loader = DataLoader(Own(4), batch_size=4)
    with pytest.raises(NonFiniteLossError, match=r"The pixels are finite, .*lower learning_rate"):
        train_model(loader, small, SupConLoss(), None, 1, options(), cuda_use=False, update_model=False)
