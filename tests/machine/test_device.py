"""Device, precision and seed."""

import pytest
import torch
from torch import nn

from nenya.machine import device as device_room
from nenya.machine import processor
from nenya.machine.device import (
    arithmetic,
    autocast,
    choose_device,
    choose_precision,
    describe,
    gains_by_bf16,
    seed_everything,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("wanted", "there", "device"), [(True, True, "cuda"), (True, False, "cpu"), (False, True, "cpu")]
)
def test_the_gpu_is_used_where_there_is_one_and_it_is_wanted(monkeypatch, wanted, there, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device(wanted).type == device


@pytest.mark.parametrize(
    ("precision", "native", "dtype"),
    [
        ("fp32", True, torch.float32),
        ("fp32", False, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_auto_takes_bfloat16_only_where_the_processor_has_it(monkeypatch, precision, native, dtype):
    monkeypatch.setattr(device_room, "gains_by_bf16", lambda device: native)
    assert choose_precision(precision, CPU) == dtype
    with autocast(choose_precision(precision, CPU), CPU):
        assert nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3)).dtype == dtype


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_compute_bfloat16_from_capability_8_on(monkeypatch, capability, native):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert gains_by_bf16(torch.device("cuda")) is native


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "vendor", "gains"),
    [
        (True, True, "GenuineIntel", True),
        (True, False, "GenuineIntel", False),  # as slow as a virtual machine that hides AMX
        (True, False, "AuthenticAMD", True),
        (False, False, "AuthenticAMD", False),
        (False, False, "GenuineIntel", False),
    ],
)
def test_processors_gain_by_bfloat16_where_their_units_for_it_are_faster(monkeypatch, avx512_bf16, amx, vendor, gains):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(processor, "_facts", lambda: {"vendor_id": vendor})
    assert gains_by_bf16(CPU) is gains


def test_the_processor_is_named_by_the_system_or_by_python(monkeypatch):
    monkeypatch.setattr(processor, "_facts", lambda: {"model name": "A fast one", "vendor_id": "GenuineIntel"})
    assert (processor.name(), processor.is_intel()) == ("A fast one", True)
    monkeypatch.setattr(processor, "_facts", dict)
    monkeypatch.setattr(processor.platform, "processor", lambda: "Intel64 Family 6, GenuineIntel")
    assert (processor.name(), processor.is_intel()) == ("Intel64 Family 6, GenuineIntel", True)


def test_a_torch_without_onednn_is_never_asked_for_its_operators(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", object())  # as on a Mac: to ask is an AttributeError
    assert choose_precision("auto", CPU) is torch.float32


def test_the_seed_decides_the_initial_weights():
    weights = []
    for seed in (3, 3, 4):
        seed_everything(seed)
        weights.append(nn.Linear(5, 5).weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_device_in_words(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert describe(CPU).endswith("CPU, 4 threads")
    assert describe(CPU, 3).startswith("3 processes on ")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert describe(CPU).endswith("CPU, 1 thread")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    for count, words in ((1, "NVIDIA A100"), (2, "2 x NVIDIA A100")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert describe(torch.device("cuda")) == words


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("auto", True), ("bf16", False)])
def test_on_a_gpu_fp32_means_float32_and_the_settings_before_come_back(monkeypatch, precision, allowed):
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", False)
    monkeypatch.setattr(cudnn, "allow_tf32", not allowed)
    with arithmetic(precision, torch.device("cuda")):
        assert (cudnn.allow_tf32, cudnn.benchmark) == (allowed, True)
    assert (cudnn.allow_tf32, cudnn.benchmark) == (not allowed, False)
    with arithmetic(precision, CPU):
        assert (cudnn.allow_tf32, cudnn.benchmark) == (not allowed, False)
