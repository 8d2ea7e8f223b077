"""Several processes do what one does: the same loss, gradients and weights; and they end together."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import socket
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from nenya import parallel
from nenya.data.loaders import nenya_loader
from nenya.errors import DataError, NenyaError, OptionError, OtherProcessError
from nenya.losses import SupConLoss
from nenya.models import resnet_big
from nenya.models.resnet_big import SupConResNet
from nenya.params import Params, complete_options
from nenya.train import run
from nenya.training import curves
from nenya.training.build import distribute
from nenya.training.checkpoint import read_checkpoint
from nenya.training.curves import load_curves
from nenya.training.optim import set_optimizer
from nenya.training.step import Step, compute_gradient

CPU = torch.device("cpu")
BATCH, STEPS = 12, 2
CASES = list(product(["SimCLR", "SupCon"], [1, 2], [torch.float64, torch.float32]))
MUON = ("SimCLR", 2, torch.float64, "muon")
WIDTHS = (8, 16, 32, 64)  # an eighth: the same code
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def train_some(images_file, method, parts, dtype, optimizer="sgd"):
    """Train for two steps of all processes' batch of 12: losses, the first step's gradient and weights, weights, views.

    Batch-norm uses its running statistics: those of a batch depend on how it is shared.
    """
    ranks = parallel.current()
    opt = Params.from_dict(
        {
            "images_file": images_file, "ssl_method": method, "ssl_model": "resnet18", "feat_dim": 8, "image_size": 8,
            "random_jitter": [2, 1], "batch_size_train": BATCH, "precision": "fp32", "learning_rate": 0.05,
            "accumulate": parts, "num_workers": 0, "optimizer": optimizer,
        }
    )  # fmt: skip
    loader, step = nenya_loader(opt), Step.from_options(opt, CPU)
    torch.manual_seed(ranks.rank)  # the first process's weights count
    model = SupConResNet("resnet18", feat_dim=8).to(dtype)
    with torch.no_grad():  # temper the logits, so that every pair has a say in the gradient
        model.head[0].bias.fill_(0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    network = distribute(model, CPU, num_parts=step.num_parts(loader.batch_size // ranks.size))
    optimizer = set_optimizer(opt, model)
    losses, first, after_first, seen = [], {}, {}, []
    for batch in loader:
        optimizer.zero_grad(set_to_none=True)
        share = compute_gradient(network, SupConLoss(temperature=0.5), batch, step)
        losses.append(float(parallel.all_reduce_sum(share)))
        first = first or {name: weights.grad.clone() for name, weights in model.named_parameters()}
        optimizer.step()
        after_first = after_first or copy.deepcopy(model.state_dict())
        seen.append((batch.rows, batch.view1, batch.view2))
    views = parallel.all_gather_objects(seen)
    together = [[torch.cat(column) for column in zip(*columns, strict=True)] for columns in zip(*views, strict=True)]
    return losses, first, after_first, copy.deepcopy(model.state_dict()), together


def in_processes(size, work, *arguments):
    """Call ``work(rank, *arguments)`` in so many processes that find each other; their exit codes.

    They are forked from a server that has imported torch and done nothing with it: from this process, which has, a
    fork is not safe.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nenya.train", "scipy", "matplotlib.figure"])
    processes = [context.Process(target=begin, args=(rank, size, port, work, arguments)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    alive = [process for process in processes if process.exitcode is None]
    for process in alive:
        process.kill()
    assert not alive, "processes hang"
    return [process.exitcode for process in processes]


def begin(rank, size, port, work, arguments):
    torch.set_num_threads(1)
    resnet_big.STAGE_WIDTHS = WIDTHS
    curves.draw = lambda drawn, path, title: Path(path).write_bytes(b"")
    place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    work(rank, *arguments)


def compute(rank, folder, images_file):
    with parallel.join(cuda_use=False) as ranks:
        results = {str(case): train_some(images_file, *case) for case in (*CASES, MUON)}
        results["errors"] = errors_of(rank)
        results["buffers"] = buffers_of(rank)
        results["one"] = loss_of_first_views(rank, ranks.size)
        results["any"] = parallel.all_reduce_any(rank == 1, False)
        results["objects"] = parallel.all_gather_objects({"rank": rank})
        results["first"] = parallel.broadcast_object(f"from {rank}")
        results["rank zero"] = rank_zero_of(rank)
    torch.save(results, f"{folder}/{ranks.size}_{rank}.pt")


def errors_of(rank):
    """What `together` raises when only process 1 fails."""

    def fail():
        if rank == 1:
            raise DataError("the file is gone")
        return 7

    try:
        parallel.together(fail)
    except NenyaError as error:
        return type(error).__name__, str(error)
    return None


def six_samples():
    generator = torch.Generator().manual_seed(3)
    return nn.functional.normalize(torch.randn(6, 3, 4, generator=generator), dim=2)


def loss_of_first_views(rank, size):
    """The whole loss where only first views are anchors, from the shares of all."""
    share = slice(rank * 6 // size, (rank + 1) * 6 // size)
    part = SupConLoss(0.3, contrast_mode="one").share(six_samples()[share])
    return parallel.all_reduce_sum(part[None])[0]


def rank_zero_of(rank):
    """Where work for rank 0 is done, and what all raise when it fails."""
    done = []

    @parallel.rank_zero
    def work(*, fail):
        done.append(rank)
        if fail:
            raise DataError("no room")

    work(fail=False)
    try:
        work(fail=True)
    except NenyaError as error:
        return done, type(error).__name__, str(error)
    return done, None, None


def buffers_of(rank):
    norm = nn.BatchNorm1d(3)
    norm.running_mean.fill_(rank + 5)
    parallel.broadcast_buffers(norm)
    return norm.running_mean


@pytest.fixture(scope="module")
def images_file(cutouts, tmp_path_factory):
    path = tmp_path_factory.mktemp("parallel") / "cutouts.h5"
    with h5py.File(path, "w") as file:
        file["train"] = cutouts(STEPS * BATCH, 16, 3)
        file["train_labels"] = np.arange(STEPS * BATCH) % 5
    return str(path)


@pytest.fixture(scope="module")
def alone(images_file):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nenya.models.resnet_big.STAGE_WIDTHS", WIDTHS)
        return {str(case): train_some(images_file, *case) for case in (*CASES, MUON)}


@pytest.fixture(scope="module", params=[2, 3])
def many(request, images_file, tmp_path_factory):
    """What each of 2 and of 3 processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    size = request.param
    assert in_processes(size, compute, folder, images_file) == [0] * size
    return [torch.load(folder / f"{size}_{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_gradient_and_weights_are_those_of_one_process(alone, many, case):
    # The reference has no parts: with running statistics in batch-norm, parts change nothing either.
    losses, gradient, after_first, weights, _ = alone[str((case[0], 1, case[2]))]
    tolerance = TOLERANCE[case[2]]
    assert max(float(part.abs().max()) for part in gradient.values()) > 1e-2
    for found in many:
        found_losses, found_gradient, found_after_first, found_weights, _ = found[str(case)]
        assert found_losses == pytest.approx(losses, abs=tolerance)
        for name, expected in gradient.items():
            torch.testing.assert_close(found_gradient[name], expected, rtol=tolerance, atol=tolerance, msg=name)
        for name, expected in after_first.items():
            torch.testing.assert_close(found_after_first[name], expected, rtol=tolerance, atol=tolerance, msg=name)
        if case[2] == torch.float64:  # in float32, the first step's last bits may switch a ReLU of the second
            for name, expected in weights.items():
                torch.testing.assert_close(found_weights[name], expected, rtol=tolerance, atol=tolerance, msg=name)


def test_muon_moves_the_weights_as_in_one_process_and_to_the_same_bits_in_all(alone, many):
    """Each process computes some of the matrices only."""
    _, gradient, _, weights, _ = alone[str(MUON)]
    for found in many:
        for name, expected in gradient.items():
            torch.testing.assert_close(found[str(MUON)][1][name], expected, rtol=1e-10, atol=1e-10, msg=name)
        for name, expected in weights.items():
            # the steps raise what is small in the gradient, its rounding too
            torch.testing.assert_close(found[str(MUON)][3][name], expected, rtol=1e-7, atol=1e-7, msg=name)
            assert torch.equal(found[str(MUON)][3][name], many[0][str(MUON)][3][name]), name
    sgd = alone[str(("SimCLR", 2, torch.float64))][3]
    assert not torch.equal(weights["encoder.layer1.0.conv1.weight"], sgd["encoder.layer1.0.conv1.weight"])


def test_only_first_views_may_be_anchors_in_several_processes_too(many):
    for found in many:
        torch.testing.assert_close(found["one"], SupConLoss(0.3, contrast_mode="one")(six_samples()))


def test_samples_and_views_are_those_of_one_process(alone, many):
    case = str(CASES[0])
    for found in many:
        for step, expected in zip(found[case][4], alone[case][4], strict=True):
            for column, reference in zip(step, expected, strict=True):
                assert torch.equal(column, reference)


def test_an_error_in_one_process_is_an_error_in_all(many):
    names = [found["errors"][0] for found in many]
    assert names == ["NenyaError"] + ["OtherProcessError"] * (len(many) - 1)
    assert many[0]["errors"][1] == f"process 1 of {len(many)}: the file is gone"


def test_work_for_rank_zero_is_done_there_alone_and_fails_in_all(many):
    size = len(many)
    assert many[0]["rank zero"] == ([0, 0], "DataError", "no room")
    for found in many[1:]:
        assert found["rank zero"] == ([], "OtherProcessError", f"process 0 of {size}: no room")


def test_what_processes_exchange(many):
    for found in many:
        assert found["any"] == [True, False]
        assert found["objects"] == [{"rank": rank} for rank in range(len(many))]
        assert found["first"] == "from 0"
        assert found["buffers"].tolist() == [5, 5, 5]


@pytest.mark.parametrize(("rank", "error"), [(0, OptionError), (1, OtherProcessError)])
def test_a_torch_that_is_too_old_is_refused_before_processes_meet(monkeypatch, rank, error):
    monkeypatch.delattr(torch.distributed, "all_gather_single")
    monkeypatch.setattr(torch, "__version__", "2.6.0")
    place = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    wanted = r"several processes need torch 2\.13 or later, and this is torch 2\.6\.0"
    with pytest.raises(error, match=wanted), parallel.join(cuda_use=False):
        pass


def test_a_single_process_exchanges_with_itself():
    z = torch.randn(3, 2)
    assert parallel.current() == parallel.Ranks(0, 1, 0)
    assert parallel.all_gather(z) is z
    assert torch.equal(parallel.all_reduce_sum(z), z)
    assert parallel.all_gather_objects(5) == [5]
    assert parallel.broadcast_object(5) == 5
    assert parallel.all_reduce_any(True, False) == [True, False]
    assert parallel.together(lambda: 5) == 5
    error = DataError("x")
    assert parallel.common(error) is error


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("[x.cc:1] Connection closed by peer [127.0.0.1]:1. Check the logs.", True),
        ("NCCL error: remote process exited or there was a network error", True),
        ("Timed out waiting 1800000ms for recv operation to complete", True),
        ("NCCL error: invalid usage", False),  # a fault of the program keeps its traceback
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_a_lost_process_is_told_from_a_fault_of_the_program(text, lost):
    with (
        pytest.raises(OtherProcessError if lost else RuntimeError) as raised,
        parallel._lost_peers(parallel.Ranks(1, 2)),
    ):
        raise RuntimeError(text)
    if lost:
        assert raised.value.lost
        assert "x.cc" not in str(raised.value)


# ---------------------------------------------------------------- whole runs


def train(rank, opt, resume, signal_at):
    """Train in one of several processes; SIGTERM comes to the second in the step of a given number."""
    steps = 0
    original = torch.optim.SGD.step

    def step(self, *arguments, **named):
        nonlocal steps
        steps += 1
        if rank == 1 and steps == signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments, **named)

    torch.optim.SGD.step = step
    run(opt, resume=resume)


def state_of(opt):
    complete_options(opt)
    return read_checkpoint(Path(opt.model_folder) / "last.pth")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_stopped_in_mid_epoch_and_resumed_end_with_the_same_bits(tiny, accumulate):
    whole, halves = (tiny(epochs=3, trial=trial, accumulate=accumulate) for trial in ("whole", "halves"))
    assert in_processes(2, train, whole, False, None) == [0, 0]
    assert in_processes(2, train, halves, False, 5) == [75, 75]
    stopped = state_of(halves)
    assert (stopped["epoch"], len(stopped["partial_losses"])) == (1, 2)
    assert stopped["num_processes"] == 2
    assert in_processes(2, train, halves, True, None) == [0, 0]
    expected, found = state_of(whole), state_of(halves)
    assert found["epoch"] == 3
    for name, value in expected["model"].items():
        assert torch.equal(found["model"][name], value), name
    for number, state in expected["optimizer"]["state"].items():
        assert torch.equal(found["optimizer"]["state"][number]["momentum_buffer"], state["momentum_buffer"])
    recorded = [load_curves(opt.model_folder, opt.model_name) for opt in (whole, halves)]
    assert recorded[0] == recorded[1]


def test_a_run_goes_on_with_another_number_of_processes(tiny, caplog):
    first = tiny(epochs=1, cosine=False)
    run(first)
    more = tiny(epochs=2, cosine=False)
    assert in_processes(2, train, more, True, None) == [0, 0]
    state = state_of(more)
    assert (state["epoch"], state["num_processes"]) == (2, 2)
    run(tiny(epochs=3, cosine=False), resume=True)
    assert "number of processes: 1, before 2." in caplog.text
    assert state_of(more)["epoch"] == 3


def refused(rank, options, folders):
    """Train with options and in a folder of the process's own; every process learns that the work is not the same."""
    os.chdir(folders[rank])
    with pytest.raises(OptionError if rank == 0 else OtherProcessError, match="same options and data"):
        run(options[rank])


def test_processes_with_other_options_are_refused(tiny, tmp_path):
    assert in_processes(2, refused, [tiny(temp=0.1), tiny(temp=0.2)], 2 * [tmp_path]) == [0, 0]


def test_processes_with_other_data_under_the_same_name_are_refused(tiny, cutouts, tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        with h5py.File(folder / "own.h5", "w") as file:
            file["train"] = cutouts(24, 16, seed)
    assert in_processes(2, refused, 2 * [tiny(images_file="own.h5")], folders) == [0, 0]


def test_a_batch_that_cannot_be_shared_is_refused_in_all(tiny):
    assert in_processes(2, train, tiny(batch_size_train=9), False, None) == [1, 1]


def test_a_group_of_processes_that_the_caller_has_opened_is_refused(monkeypatch):
    """Each process would take itself for the only one."""
    monkeypatch.setattr(parallel.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(parallel.dist, "get_world_size", lambda: 2)
    with pytest.raises(OptionError, match="has opened a group of 2 processes"), parallel.join():
        pass
