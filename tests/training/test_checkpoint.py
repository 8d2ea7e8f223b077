"""Checkpoints: what is in them, that old ones load, that none runs code, and that damage is found."""

import contextlib
import copy
import errno
import io
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import nenya
import nenya.params
from nenya.errors import CheckpointError, NenyaError
from nenya.models import assemble_model
from nenya.params import Params
from nenya.training.checkpoint import (
    LAST,
    checkpoints,
    drop_old_epochs,
    epoch_file,
    load_model,
    newest_whole,
    read_checkpoint,
    restore,
    save_model,
    write_checkpoint,
)
from nenya.training.meters import AverageMeter
from nenya.training.optim import set_optimizer

OLD_CLASSES = [
    "nenya.params.Params", "nenya.io.Params", "ulmo.nenya.train_util.Params", "ulmo.ssl.train_util.Params",
    "ulmo.io.Params", "argparse.Namespace",
]  # fmt: skip
OLD_OPTIONS = {"ssl_model": "resnet18", "ssl_method": "SimCLR", "temp": 0.07, "random_jitter": [5, 5], "cosine": True}


def options(**values):
    return Params.from_dict({"ssl_model": "resnet18"} | values)


def small(seed=0):
    """A model, and an optimizer with momentum in its state."""
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = set_optimizer(options(), model)
    step(model, optimizer)
    return model, optimizer


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()


def save_small(path, epoch=1, seed=0):
    model, optimizer = small(seed)
    save_model(model, optimizer, options(), epoch, path)
    return model


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def resnet(narrow):
    """Function -> narrow ResNet whose batch-norm statistics are not the initial ones, and images for it."""

    def make(head="mlp", channels=1):
        torch.manual_seed(4)
        model = assemble_model("resnet18", head, 6, channels)
        model(torch.randn(8, channels, 8, 8))
        return model.eval(), torch.randn(3, channels, 8, 8)

    return make


# What is in them


def test_a_checkpoint_holds_what_is_promised_and_loads_without_pickled_objects(tmp_path):
    opt = options(temp=0.2, trial="a", random_jitter=[4, 1])
    model, optimizer = small()
    save_model(model, optimizer, opt, 7, tmp_path / "a.pth")
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    assert {"opt", "model", "optimizer", "epoch"} <= set(state)
    assert type(state["opt"]) is dict
    assert Params.from_dict(state["opt"]) == opt
    assert equal(state["model"], model.state_dict())
    assert state["epoch"] == 7
    for key, parameter in enumerate(model.parameters()):
        momentum = optimizer.state[parameter]["momentum_buffer"]
        assert torch.equal(state["optimizer"]["state"][key]["momentum_buffer"], momentum)


def test_a_model_spread_over_gpus_is_saved_under_its_plain_names_and_restored(tmp_path, resnet):
    model, _ = resnet()
    plain = copy.deepcopy(model.state_dict())
    model.encoder = nn.DataParallel(model.encoder)
    optimizer = set_optimizer(options(), model)
    assert any("module." in name for name in model.state_dict())  # so that there is something to strip
    save_model(model, optimizer, options(), 1, tmp_path / "a.pth")
    assert equal(torch.load(tmp_path / "a.pth", weights_only=True)["model"], plain)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    restore(model, optimizer, read_checkpoint(tmp_path / "a.pth"), "a.pth")
    assert [torch.equal(*pair) for pair in zip(model.state_dict().values(), plain.values(), strict=True)] == (
        [True] * len(plain)
    )


@pytest.mark.parametrize(("head", "channels"), [("mlp", 1), ("mlp", 3), ("linear", 5)])
def test_a_model_is_rebuilt_from_its_checkpoint_alone(tmp_path, resnet, head, channels):
    model, images = resnet(head, channels)
    opt = options(head=head, feat_dim=6)
    save_model(model, set_optimizer(opt, model), opt, 1, tmp_path / "a.pth")
    loaded, told = load_model(tmp_path / "a.pth")
    assert not loaded.training
    assert told == opt.dict
    assert torch.equal(loaded(images), model(images))
    assert torch.equal(loaded.encode(images), model.encode(images))


def test_a_run_restored_goes_on_with_the_same_bits(tmp_path):
    model, optimizer = small()
    write_checkpoint(model, optimizer, options(), 3, tmp_path / "a.pth", partial_losses=[0.1, 0.25])
    other, its_optimizer = small(seed=1)
    state = read_checkpoint(tmp_path / "a.pth")
    restore(other, its_optimizer, state, tmp_path / "a.pth")
    assert state["partial_losses"] == [0.1, 0.25]
    for _ in range(3):
        step(model, optimizer)
        step(other, its_optimizer)
    assert equal(model.state_dict(), other.state_dict())


def test_momentum_is_laid_out_as_its_parameter_whatever_the_file_has(tmp_path):
    """A fused update refuses momentum of another layout, and old files have it channels first."""

    def convolution(layout):
        model = nn.Conv2d(3, 4, 3).to(memory_format=layout)
        optimizer = set_optimizer(options(), model)
        model(torch.randn(2, 3, 5, 5)).square().sum().backward()
        optimizer.step()
        return model, optimizer, optimizer.state[model.weight]

    model, optimizer, momentum = convolution(torch.contiguous_format)
    write_checkpoint(model, optimizer, options(), 3, tmp_path / "a.pth")
    other, its_optimizer, _ = convolution(torch.channels_last)
    restore(other, its_optimizer, read_checkpoint(tmp_path / "a.pth"), tmp_path / "a.pth")
    restored = its_optimizer.state[other.weight]["momentum_buffer"]
    assert restored.stride() == other.weight.stride() != momentum["momentum_buffer"].stride()
    assert torch.equal(restored, momentum["momentum_buffer"])
    momentum["momentum_buffer"] = torch.ones(1)
    write_checkpoint(model, optimizer, options(), 3, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"momentum of shape \[1\] for weights \[4, 3, 3, 3\]"):
        restore(other, its_optimizer, read_checkpoint(tmp_path / "b.pth"), tmp_path / "b.pth")


def test_another_model_is_refused_by_what_differs(tmp_path, resnet):
    model, _ = resnet("linear")
    save_model(model, set_optimizer(options(), model), options(), 1, tmp_path / "a.pth")
    other, _ = resnet("mlp")
    message = r'a\.pth does not fit the model of these options: .*"head\.0\.weight".*Resume with the options of the run'
    with pytest.raises(CheckpointError, match=message):
        restore(other, set_optimizer(options(), other), read_checkpoint(tmp_path / "a.pth"), tmp_path / "a.pth")


# Odd ones


def laughs():
    """A list of lists that would be 2 to the 60 numbers long, in some hundred bytes."""
    nested = [1]
    for _ in range(60):
        nested = [nested, nested]
    return nested


def put(*path):
    """A change of a checkpoint: the last of the names leads to the value."""
    *names, value = path

    def change(state):
        place = state
        for name in names[:-1]:
            place = place[name]
        place[names[-1]] = value

    return change


NAN, ONES = float("nan"), torch.ones(2, 3)
FIRST, GROUP = ("optimizer", "state", 0), ("optimizer", "param_groups", 0)
ODD = [
    *(put("epoch", value) for value in (True, -1, 10**12, 201, 3.0, "3", None, laughs())),
    *(put("partial_losses", value) for value in (
        None, (0.5,), [True], [NAN], ["a"], [1], [-1.0], laughs(), torch.ones(2))),
    *(put("epoch_files", value) for value in (
        None, "ckpt_epoch_1.pth", [1], ["../ckpt_epoch_1.pth"], ["/tmp/ckpt_epoch_1.pth"], ["a/ckpt_epoch_1.pth"],
        ["ckpt_epoch_1.pth\n"], ["ckpt_epoch_1.pth"] * 2, ["ckpt_epoch_99.pth"], ["last.pth"], [""], laughs(),
        ["ckpt_epoch_\u0663.pth"], ["ckpt_epoch_3.pth", "ckpt_epoch_2.pth"], ["ckpt_epoch_02.pth"],
        ["ckpt_epoch_0.pth"])),
    *(put("random_state", value) for value in (
        None, [1, 2], torch.zeros(3, dtype=torch.uint8), torch.get_rng_state().float(), torch.get_rng_state()[None])),
    *(put("num_processes", value) for value in (None, 0, -1, True, 2.0, 10**300, "2")),
    *(put("data", value) for value in (3, ["a"], laughs())),
    *(put("valid_data", value) for value in (3, {"a": 1})),
    *(put("table", value) for value in ("cutouts.parquet", {"name": 3}, {3: "x"}, laughs())),
    put("nenya_version", 3),
    *(put("opt", "temp", value) for value in (ONES, {"a": ONES}, laughs(), b"0.1")),
    put("opt", 3, "x"), put("opt", {}), put("opt", {"temp": 0.07}),
    put("optimizer", None), put("optimizer", {}), put("optimizer", laughs()), put("optimizer", "state", None),
    put("optimizer", "state", []), put("optimizer", "param_groups", None), put("optimizer", "param_groups", []),
    put("optimizer", "param_groups", [1]), put("optimizer", "param_groups", laughs()),
    *(put(*GROUP, "params", value) for value in (None, [], [0], [1, 0], [0, 0], [False, True], [0, 1, 2], laughs())),
    *(put(*GROUP, "lr", value) for value in (NAN, -0.1, "fast", ONES, laughs())),
    put(*GROUP, "momentum", float("inf")),
    put("optimizer", "state", 7, {"momentum_buffer": ONES}), put("optimizer", "state", -1, {"momentum_buffer": ONES}),
    put("optimizer", "state", "0", {"momentum_buffer": ONES}), put("optimizer", "state", True, {}),
    put(*FIRST, ONES), put(*FIRST, []), put(*FIRST, {"exp_avg": ONES}), put(*FIRST, {}),
    *(put(*FIRST, "momentum_buffer", value) for value in (
        None, 1, [1.0], ONES.to(torch.int8), ONES.double(), ONES.half(), ONES.to(torch.complex64), ONES * NAN,
        ONES / 0, torch.empty(0), torch.ones(3, 2), torch.ones(1).expand(2, 3), ONES.to_sparse(), laughs())),
    *(put("model", "weight", value) for value in (
        ONES.to(torch.int8), ONES.double(), ONES.half(), ONES.to(torch.complex64), ONES * NAN, ONES / 0,
        torch.empty(0), torch.ones(3, 2), torch.ones(1).expand(2, 3), ONES.to_sparse(), torch.ones(2, 3, 1))),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ODD)))
def test_what_no_run_writes_is_refused_soon_by_name_and_changes_nothing(tmp_path, number):
    """Each of these was taken for a run's own, or ended in a traceback."""
    model, optimizer = small()
    write_checkpoint(model, optimizer, options(), 3, tmp_path / "a.pth", epoch_files=["ckpt_epoch_2.pth"])
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    ODD[number](state)
    torch.save(state, tmp_path / "a.pth")
    other, its_optimizer = small(seed=1)
    before = copy.deepcopy((other.state_dict(), its_optimizer.state_dict(), torch.get_rng_state()))
    with pytest.raises(CheckpointError) as refused:
        restore(other, its_optimizer, read_checkpoint(tmp_path / "a.pth"), tmp_path / "a.pth")
    assert len(str(refused.value)) < 1000
    assert equal(other.state_dict(), before[0])
    momentum = [entry["momentum_buffer"] for entry in its_optimizer.state_dict()["state"].values()]
    expected = [entry["momentum_buffer"] for entry in before[1]["state"].values()]
    assert all(map(torch.equal, momentum, expected))
    assert torch.equal(torch.get_rng_state(), before[2])


def convolutions(seed=0):
    """A model with two convolutions after the stem, and Muon with momentum in its state."""
    torch.manual_seed(seed)
    model = nn.Sequential(*(nn.Conv2d(2, 2, 3, bias=False) for _ in range(3)), nn.BatchNorm2d(2))
    optimizer = set_optimizer(options(optimizer="muon"), model)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return model, optimizer


MUON, KERNEL = ("optimizer", "param_groups", 1), torch.ones(2, 2, 3, 3)
# parameters 0, 1, 2 are SGD's: the stem's weights and batch-norm's; 3 and 4 Muon's
ODD_MUON = [
    (put("opt", "optimizer", "sgd"), "the state of optimizer 'muon', where its options say 'sgd'"),
    (lambda state: state["opt"].pop("optimizer"), "the state of optimizer 'muon', where its options say 'sgd'"),
    (lambda state: state["optimizer"]["param_groups"].pop(), "the state of optimizer 'sgd', where its options say"),
    (lambda state: state["optimizer"]["param_groups"].reverse(), "an optimizer of parameters"),
    (lambda state: state["optimizer"]["param_groups"].append({**MUON_GROUP, "params": []}), "optimizer 'of 3 groups'"),
    (lambda state: state["optimizer"]["param_groups"][1].pop("newton_schulz_steps"), "optimizer 'of 2 groups'"),
    *((put(*MUON, "newton_schulz_steps", value), "an optimizer with 'newton_schulz_steps'")
      for value in (NAN, -1, "3", ONES, laughs())),
    (put(*MUON, "relative_rate", float("inf")), "an optimizer with 'relative_rate'"),
    (put(*MUON, "lr", "fast"), "an optimizer with 'lr'"),
    *((put(*MUON, "params", value), "an optimizer of parameters") for value in (3, None, [4, 3], [0, 1])),
    (put(*MUON, "params", [3]), "its optimizer has groups of [3, 1] parameters, that of the model [3, 2]"),
    (lambda state: state["optimizer"]["state"].pop(4), "momentum for 1 of 2 parameters"),
    (lambda state: state["optimizer"]["state"].pop(0), "momentum for 2 of 3 parameters"),
    (put("optimizer", "state", 3, "momentum_buffer", KERNEL[:1]), "momentum of shape"),
    (put("optimizer", "state", 3, "momentum_buffer", KERNEL * NAN), "momentum of 1.weight"),
    (put("optimizer", "state", 4, "momentum_buffer", KERNEL.half()), "momentum of 2.weight"),
    (put("optimizer", "state", 3, {"exp_avg": KERNEL}), "for parameter 3"),
]  # fmt: skip
MUON_GROUP = {"lr": 0.1, "momentum": 0.6, "newton_schulz_steps": 3}


@pytest.mark.parametrize("number", range(len(ODD_MUON)))
def test_what_is_no_state_of_muon_is_refused_by_name_and_changes_nothing(tmp_path, number):
    model, optimizer = convolutions()
    write_checkpoint(model, optimizer, options(optimizer="muon"), 3, tmp_path / "a.pth")
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    change, named = ODD_MUON[number]
    change(state)
    torch.save(state, tmp_path / "a.pth")
    other, its_optimizer = convolutions(seed=1)
    before = copy.deepcopy((other.state_dict(), its_optimizer.state_dict()))
    with pytest.raises(CheckpointError) as refused:
        restore(other, its_optimizer, read_checkpoint(tmp_path / "a.pth"), tmp_path / "a.pth")
    assert named in str(refused.value)
    assert len(str(refused.value)) < 1000
    assert equal(other.state_dict(), before[0])
    after = its_optimizer.state_dict()["state"]
    assert all(
        torch.equal(after[n]["momentum_buffer"], entry["momentum_buffer"]) for n, entry in before[1]["state"].items()
    )


def test_muons_state_comes_back_to_the_bit(tmp_path):
    model, optimizer = convolutions()
    write_checkpoint(model, optimizer, options(optimizer="muon"), 3, tmp_path / "a.pth")
    other, its_optimizer = convolutions(seed=1)
    restore(other, its_optimizer, read_checkpoint(tmp_path / "a.pth"), tmp_path / "a.pth")
    assert equal(other.state_dict(), model.state_dict())
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(optimizer.state[mine]["momentum_buffer"], its_optimizer.state[theirs]["momentum_buffer"])


def test_what_a_run_writes_is_not_odd(tmp_path):
    """Without momentum SGD keeps no state; files of earlier versions lack what came later."""
    model = nn.Linear(3, 2)
    optimizer = set_optimizer(options(momentum=0.0), model)
    step(model, optimizer)
    write_checkpoint(
        model, optimizer, options(epochs=4), 3, tmp_path / "a.pth", partial_losses=[0.5], data="d", valid_data="none",
        epoch_files=["ckpt_epoch_1.pth", "ckpt_epoch_3.pth"], num_processes=8,
    )  # fmt: skip
    state = read_checkpoint(tmp_path / "a.pth")
    restore(model, optimizer, copy.deepcopy(state), "a.pth")
    for later in ("partial_losses", "random_state", "data", "valid_data", "epoch_files", "num_processes",
                  "nenya_version"):  # fmt: skip
        del state[later]
        restore(model, optimizer, copy.deepcopy(state), "a.pth")
    state["optimizer"]["state"] = {0: {"momentum_buffer": None}, 1: {"momentum_buffer": None}}  # as torch 1 had it
    restore(model, optimizer, state, "a.pth")


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        (lambda w: w.to(torch.complex64), "complex64, expected float32"),
        (lambda w: (w * 100).to(torch.int8), "int8, expected float32"),
        (lambda w: w * NAN, "not finite"),
        (lambda w: w.double() * 1e300, "not finite"),
        (lambda w: torch.ones(1).expand(w.shape), "no ordinary tensor"),
        (lambda w: torch.ones(10**8, 0), "size mismatch"),
    ],
)
def test_weights_that_are_none_are_refused_where_a_model_is_rebuilt(tmp_path, resnet, weights, named):
    model, _ = resnet()
    state = model.state_dict()
    for name in ("encoder.layer1.0.conv1.weight", "head.2.weight"):
        torch.save({"model": state | {name: weights(state[name])}, "opt": OLD_OPTIONS}, tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match=rf"weights are not those of a resnet18: .*{named}"):
            load_model(tmp_path / "a.pth")


@pytest.mark.parametrize("statistic", ["running_var", "num_batches_tracked"])
def test_statistics_below_zero_are_refused(tmp_path, resnet, statistic):
    state = resnet()[0].state_dict()
    state[f"encoder.bn1.{statistic}"] -= 10
    torch.save({"model": state, "opt": OLD_OPTIONS}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=rf"encoder\.bn1\.{statistic} is negative"):
        load_model(tmp_path / "a.pth")


def test_weights_of_half_precision_make_a_model(tmp_path, resnet):
    model, images = resnet()
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    torch.save({"model": state, "opt": OLD_OPTIONS}, tmp_path / "a.pth")
    loaded, _ = load_model(tmp_path / "a.pth")
    torch.testing.assert_close(loaded(images), model(images), atol=1e-2, rtol=0)


# Old ones


@contextlib.contextmanager
def old_class(dotted):
    """A class that pickles under an old name, importable only while the file is written."""
    module_name, name = dotted.rsplit(".", 1)
    old = type(name, (), {"__module__": module_name, "__qualname__": name})
    with pytest.MonkeyPatch.context() as patch:
        parts = module_name.split(".")
        for end in range(1, len(parts) + 1):
            package = ".".join(parts[:end])
            if package not in sys.modules:
                patch.setitem(sys.modules, package, types.ModuleType(package))
        patch.setattr(sys.modules[module_name], name, old, raising=False)
        yield old


def write_old(path, dotted, state, *, zipped):
    with old_class(dotted) as old:
        opt = old()
        opt.__dict__.update(state["opt"])
        torch.save(state | {"opt": opt}, path, _use_new_zipfile_serialization=zipped)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("dotted", OLD_CLASSES)
def test_historical_checkpoints_give_the_same_latents(tmp_path, resnet, dotted, zipped):
    model, images = resnet(channels=3)
    weights = {name.replace("encoder.", "encoder.module."): value for name, value in model.state_dict().items()}
    state = {"opt": OLD_OPTIONS, "model": weights, "optimizer": {"state": {}}, "epoch": 10}
    path = tmp_path / "old.pth"
    write_old(path, dotted, state, zipped=zipped)
    assert dotted.rpartition(".")[0].encode() in path.read_bytes()  # an object is in there, not a dict
    assert "ulmo" not in sys.modules
    assert "nenya.io" not in sys.modules

    read = read_checkpoint(path)
    assert type(read["opt"]) is dict
    assert read["opt"] == OLD_OPTIONS
    assert read["epoch"] == 10
    loaded, told = load_model(path)
    assert told == OLD_OPTIONS
    assert torch.equal(loaded.encode(images), model.encode(images))
    assert torch.equal(loaded(images), model(images))


def test_module_is_taken_out_of_names_wherever_it_stands(tmp_path):
    weights = {name: torch.ones(1) for name in ("module.a.weight", "a.module.b", "module.module.c", "submodule.d")}
    torch.save({"model": weights, "opt": {}}, tmp_path / "a.pth")
    assert list(read_checkpoint(tmp_path / "a.pth")["model"]) == ["a.weight", "a.b", "c", "submodule.d"]


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("part", ["", "encoder."])
def test_names_of_a_compiled_model_are_read_as_its_own(tmp_path, resnet, wrapper, part):
    model, images = resnet()
    optimizer = set_optimizer(options(), model)
    weights = {name.replace(part, part + wrapper, 1): value for name, value in model.state_dict().items()}
    assert weights.keys() != model.state_dict().keys()
    state = {"opt": options(feat_dim=6).dict, "model": weights, "epoch": 1, "optimizer": optimizer.state_dict()}
    torch.save(state, tmp_path / "a.pth")
    assert torch.equal(load_model(tmp_path / "a.pth")[0](images), model(images))
    other, _ = resnet()
    with torch.no_grad():
        other.head[0].weight.zero_()
    restore(other, set_optimizer(options(), other), read_checkpoint(tmp_path / "a.pth"), "a.pth")
    assert equal(other.state_dict(), model.state_dict())


@pytest.mark.slow
def test_a_compiled_model_is_saved_under_its_plain_names(tmp_path):
    model, optimizer = small()
    save_model(torch.compile(model), optimizer, options(), 1, tmp_path / "a.pth")
    assert equal(torch.load(tmp_path / "a.pth", weights_only=True)["model"], model.state_dict())


def test_two_weights_of_one_bare_name_are_refused(tmp_path):
    torch.save({"model": {"module.a": torch.ones(1), "_orig_mod.a": torch.zeros(1)}, "opt": {}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="two weights of one name"):
        read_checkpoint(tmp_path / "a.pth")


def test_reading_allows_nothing_to_later_loads(tmp_path):
    path = tmp_path / "a.pth"
    write_old(path, "ulmo.io.Params", {"opt": OLD_OPTIONS, "model": {}}, zipped=True)
    assert read_checkpoint(path)["opt"] == OLD_OPTIONS
    with pytest.raises(pickle.UnpicklingError, match=r"ulmo\.io\.Params"):
        torch.load(path, weights_only=True)


# Hostile ones


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


def hostile_states(payload):
    """The payload at every place of a checkpoint, with the class of the options object, if there is one."""
    weights = {"weight": torch.ones(2)}
    yield None, {"model": weights, "opt": {}, "extra": payload}
    yield None, {"model": weights, "opt": payload}
    yield None, {"model": weights, "opt": {"temp": payload}}
    yield None, {"model": {"weight": payload}, "opt": {}}
    for dotted in OLD_CLASSES:
        yield dotted, {"model": weights, "opt": {"temp": [payload]}}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("function", [os.system, exec, eval], ids=["system", "exec", "eval"])
def test_code_in_a_file_is_not_run(tmp_path, function, place, zipped):
    marker = tmp_path / "it ran"
    code = f"touch '{marker}'" if function is os.system else f"open({str(marker)!r}, 'w').close()"
    dotted, state = list(hostile_states(Payload(function, code)))[place]
    path = tmp_path / "hostile.pth"
    if dotted is None:
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
    else:
        write_old(path, dotted, state, zipped=zipped)
    for read in (read_checkpoint, load_model):
        with pytest.raises(CheckpointError, match="does not load because loading them would run code"):
            read(path)
    assert not marker.exists()
    # the payload does work where a file is trusted
    with contextlib.suppress(Exception), old_class(dotted or "ulmo.io.Params"):
        torch.load(path, weights_only=False)
    assert marker.exists()


def test_objects_of_other_classes_are_refused_even_our_own(tmp_path):
    torch.save({"model": {}, "opt": AverageMeter()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"GLOBAL nenya\.training\.meters\.AverageMeter was not") as caught:
        read_checkpoint(tmp_path / "a.pth")
    assert "weights_only" not in str(caught.value)  # torch's own message says how to run the code after all


# Damaged ones


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a checkpoint"),
        (b"epoch,loss\n1,2.5\n", "cannot be read as a checkpoint"),
        (bytes(1000), "cannot be read as a checkpoint"),
        (b"PK\x03\x04" + bytes(100), "cannot be read as a checkpoint"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, message):
    (tmp_path / "a.pth").write_bytes(content)
    for read in (read_checkpoint, load_model):
        with pytest.raises(CheckpointError, match=message):
            read(tmp_path / "a.pth")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    "state",
    [
        [1, 2],
        {"epoch": 3},
        {"model": None},
        {"model": torch.ones(3)},
        {"model": {"weight": 3}},
        {"model": {3: torch.ones(1)}},
        {"model": {}, "opt": None},
        {"model": {}, "opt": [1]},
        {"model": {}, "opt": torch.ones(1)},
    ],
)
def test_a_torch_file_that_is_no_checkpoint_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="not a checkpoint of Nenya"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("name", "encoder.layer1.2.conv1.weight"),
        ("missing", "encoder.layer1.0.conv1.weight"),
        ("shape", "size mismatch for encoder.bn1.weight"),
        ("no head", "head.2.weight"),
    ],
)
def test_weights_that_are_not_those_of_the_model_named_are_refused(tmp_path, resnet, change, named):
    weights = dict(resnet()[0].state_dict())
    opt = {"ssl_model": "resnet34" if change == "name" else "resnet18"}
    if change == "missing":
        del weights["encoder.layer1.0.conv1.weight"]
    elif change == "shape":
        weights["encoder.bn1.weight"] = torch.ones(7)
    elif change == "no head":
        weights = {name: value for name, value in weights.items() if "head" not in name}
    torch.save({"model": weights, "opt": opt}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=rf"a\.pth: the weights are not those of a resnet\d\d: .*{named}"):
        load_model(tmp_path / "a.pth")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of a checkpoint, what they hold, and a path to write damaged versions to."""
    path = tmp_path_factory.mktemp("damage") / "a.pth"
    save_small(path)
    return path.read_bytes(), flat(read_checkpoint(path)), path


def flat(state):
    """A checkpoint as comparable text, every float to the last bit."""
    with io.StringIO() as text:
        for name, value in state["model"].items() | {("buffers", state["optimizer"]["state"][0]["momentum_buffer"])}:
            text.write(f"{name} {value.numpy().tobytes().hex()}\n")
        lines = sorted(text.getvalue().splitlines())
    return lines, repr(state["opt"]), state["epoch"], repr(state["partial_losses"]), state["nenya_version"]


@given(st.data())
def test_a_truncated_checkpoint_is_found(whole, data):
    content, _, path = whole
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


@given(st.data())
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_flipped_bit_is_found_or_lies_where_nothing_is_read(whole, data):
    content, expected, path = whole
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    try:
        state = read_checkpoint(path)
    except CheckpointError:
        return
    assert flat(state) == expected


def test_a_flipped_bit_in_the_weights_is_found(whole):
    content, _, path = whole
    weights = save_small(path).weight.detach().numpy().tobytes()
    damaged = bytearray(content)
    damaged[content.index(weights) + 5] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"the checksum of .* is wrong"):
        read_checkpoint(path)


# The newest


def test_checkpoints_come_newest_first_by_number_and_nothing_else_counts(tmp_path):
    for name in ("ckpt_epoch_9.pth", "ckpt_epoch_10.pth", LAST, "ckpt_epoch_x.pth", ".last-abc.pth", "other.pth"):
        (tmp_path / name).touch()
    assert [path.name for path in checkpoints(tmp_path)] == [LAST, "ckpt_epoch_10.pth", "ckpt_epoch_9.pth"]
    assert epoch_file(tmp_path, 10) == tmp_path / "ckpt_epoch_10.pth"


def test_the_newest_is_the_last(tmp_path):
    for epoch in (9, 10):
        save_small(epoch_file(tmp_path, epoch), epoch)
    save_small(tmp_path / LAST, 11)
    path, state = newest_whole(tmp_path)
    assert (path.name, state["epoch"]) == (LAST, 11)


def test_damaged_ones_are_passed_over_in_the_log_to_the_newest_whole_one(tmp_path, caplog):
    for epoch in (8, 9, 10):
        save_small(epoch_file(tmp_path, epoch), epoch)
    (tmp_path / LAST).write_bytes(b"")
    path, state = newest_whole(tmp_path)
    assert (path.name, state["epoch"]) == ("ckpt_epoch_10.pth", 10)
    content = epoch_file(tmp_path, 10).read_bytes()
    epoch_file(tmp_path, 10).write_bytes(content[: len(content) // 2])
    caplog.clear()
    path, state = newest_whole(tmp_path)
    assert (path.name, state["epoch"]) == ("ckpt_epoch_9.pth", 9)
    named = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(named) == 2
    assert LAST in named[0]
    assert "ckpt_epoch_10.pth" in named[1]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_one_that_the_system_does_not_give_is_not_passed_over(tmp_path, monkeypatch, number):
    save_small(epoch_file(tmp_path, 1), 1)
    save_small(tmp_path / LAST, 2)
    open_path = Path.open

    def refuse(path, *arguments, **named):
        if path.name == LAST:
            raise OSError(number, os.strerror(number))
        return open_path(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(NenyaError, match=rf"{LAST} cannot be read: {os.strerror(number)}\. It may be sound"):
        newest_whole(tmp_path)


def test_none_that_can_be_read_is_an_error_and_none_at_all_is_not(tmp_path):
    assert newest_whole(tmp_path) is None
    assert newest_whole(tmp_path / "not there") is None
    (tmp_path / LAST).write_bytes(b"")
    epoch_file(tmp_path, 1).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints in .* can be read"):
        newest_whole(tmp_path)


def test_old_ones_are_removed_by_plain_name_only(tmp_path):
    """The names stand in a checkpoint, which may be anybody's."""
    folder = tmp_path / "run"
    folder.mkdir()
    outside = tmp_path / "ckpt_epoch_1.pth"
    kept = [outside, *(folder / name for name in ("last.pth", "notes.txt", "ckpt_epoch_1.pth\n", "ckpt_epoch_7.pth"))]
    for path in (*kept, epoch_file(folder, 4), epoch_file(folder, 8)):
        path.write_bytes(b"a checkpoint")
    epoch_file(folder, 2).symlink_to(outside)
    epoch_file(folder, 3).mkdir()
    listed = [
        "../ckpt_epoch_1.pth", str(outside), "./../ckpt_epoch_1.pth", "last.pth", "notes.txt", "ckpt_epoch_1.pth\n",
        "ckpt_epoch_2.pth", "ckpt_epoch_3.pth", "ckpt_epoch_4.pth", "ckpt_epoch_5.pth", "", ".", "..",
        "ckpt_epoch_8.pth",
    ]  # fmt: skip
    assert drop_old_epochs(folder, listed, 1) == ["ckpt_epoch_8.pth"]
    assert all(path.read_bytes() == b"a checkpoint" for path in kept)
    assert epoch_file(folder, 2).is_symlink()
    assert epoch_file(folder, 3).is_dir()
    assert not epoch_file(folder, 4).exists()
    assert epoch_file(folder, 8).exists()


# A full disk

FULL_DISK = """
import resource, signal, sys
import torch
from nenya.errors import NenyaError
from nenya.params import Params
from nenya.training.checkpoint import save_model
from nenya.training.optim import set_optimizer

opt = Params.from_dict({})
model = torch.nn.Linear(100, 200)
optimizer = set_optimizer(opt, model)
save_model(model, optimizer, opt, 1, sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (0, 100, 20_000, 79_000):  # the file has some 80 kB
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        save_model(model, optimizer, opt, 2, sys.argv[1])
    except NenyaError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no RLIMIT_FSIZE there")
def test_a_full_disk_leaves_the_last_checkpoint_whole_and_is_said(tmp_path):
    path = tmp_path / LAST
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        env=os.environ | {"PYTHONPATH": str(Path(nenya.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.startswith(f"NenyaError cannot write {path}: ") for line in lines)
    assert [file.name for file in tmp_path.iterdir()] == [LAST]
    assert read_checkpoint(path)["epoch"] == 1


def test_a_checkpoint_that_cannot_be_removed_is_told(tmp_path, monkeypatch):
    def refuse(*arguments, **named):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    (tmp_path / "ckpt_epoch_1.pth").touch()
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(NenyaError, match=r"cannot remove .*ckpt_epoch_1\.pth, which keep = 1 says: Operation not"):
        drop_old_epochs(tmp_path, ["ckpt_epoch_1.pth", "ckpt_epoch_2.pth"], 1)


def test_of_several_momenta_without_a_parameter_the_first_is_named(tmp_path):
    model, optimizer = small()
    write_checkpoint(model, optimizer, options(), 3, tmp_path / "a.pth")
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    state["optimizer"]["state"] |= {9: {"momentum_buffer": ONES}, 7: {"momentum_buffer": ONES}}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"momentum for parameter 7, where the model has 2"):
        restore(model, optimizer, read_checkpoint(tmp_path / "a.pth"), tmp_path / "a.pth")
