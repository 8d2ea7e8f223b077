"""Device, precision, seeds, and how Ctrl-C stops a run."""

import os
import platform
import re
import signal
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

from nenya.params import Params
from nenya.training import runtime
from nenya.training.runtime import (
    Interruption,
    autocast,
    choose_device,
    choose_precision,
    compile_network,
    describe,
    evaluating,
    free_memory,
    keeping_memory,
    peak_memory,
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
    monkeypatch.setattr(runtime, "computes_bf16", lambda device: native)
    assert choose_precision(precision, CPU) == dtype
    with autocast(Params.from_dict({"precision": precision}), CPU):
        assert nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3)).dtype == dtype


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_compute_bfloat16_from_capability_8_on(monkeypatch, capability, native):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert runtime.computes_bf16(torch.device("cuda")) is native


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


def test_evaluating_restores_every_part_even_after_an_error():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[1].eval()

    def fail():
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert [module.training for module in model.modules()] == [True, True, False]
    assert torch.is_grad_enabled()


def test_the_first_ctrl_c_is_a_request_and_a_second_one_later_stops_at_once(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    now = [100.0]
    monkeypatch.setattr("nenya.training.runtime.time.monotonic", lambda: now[0])

    def press_twice():
        with Interruption() as interruption:
            assert not interruption.requested
            os.kill(os.getpid(), signal.SIGINT)
            assert interruption.requested
            os.kill(os.getpid(), signal.SIGINT)  # the launcher passes on what the terminal has sent already
            now[0] += 2
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_what_job_systems_and_closing_terminals_send_is_a_request_however_often(number):
    before = signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may ignore it
    try:
        with Interruption() as interruption:
            for _ in range(3):
                os.kill(os.getpid(), number)
            assert interruption.signal is number
    finally:
        signal.signal(number, before)


def test_outside_the_main_thread_nothing_is_changed():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def run():
        with Interruption() as interruption:
            seen.append((interruption.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_compile_is_for_those_who_ask_for_it(monkeypatch):
    calls = []
    model = nn.Linear(2, 2)
    monkeypatch.setattr(model, "compile", lambda: calls.append(True))
    for wanted in (False, "auto"):
        compile_network(model, wanted, CPU)
    assert not calls
    monkeypatch.setattr("nenya.training.runtime.shutil.which", lambda name: "/usr/bin/" + name)
    compile_network(model, True, CPU)
    assert calls == [True]


def test_without_a_compiler_the_network_runs_uncompiled_and_says_so(monkeypatch, caplog):
    model = nn.Linear(2, 2)
    monkeypatch.setattr(model, "compile", lambda: pytest.fail("compiled"))
    monkeypatch.setattr("nenya.training.runtime.shutil.which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    compile_network(model, True, CPU)
    assert "there is no C++ compiler (looked for g++)" in caplog.text
    monkeypatch.setenv("CXX", "icpx")
    compile_network(model, True, CPU)
    assert "icpx" in caplog.text


def test_the_peak_memory_is_at_least_what_was_just_held():
    before = int(re.match(r"(\d+) MB in main memory", peak_memory(CPU))[1])
    held = torch.ones(100 * 2**18)  # 100 MB
    after = int(re.match(r"(\d+) MB in main memory", peak_memory(CPU))[1])
    assert after >= before
    assert after >= held.numel() * 4 / 2**20


def test_free_memory_is_known_here_and_below_all_there_is():
    free = free_memory(CPU)
    if free is None:
        pytest.skip("this system does not tell its free memory")
    assert 0 < free < 2**50


def test_a_limit_on_the_job_counts_whichever_group_has_it(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "_CONTROL_GROUPS", tmp_path)
    group = tmp_path / "job_7" / "step_0"
    group.mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("1:cpu:/other\n0::/job_7/step_0\n")
    monkeypatch.setattr(runtime, "_OWN_GROUPS", own)
    meminfo = free_memory(CPU)
    if meminfo is None:
        pytest.skip("this system does not tell its free memory")
    for folder, limit in ((group, "max"), (group.parent, str(5 * 2**20))):
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text(f"{3 * 2**20}\n")
        (folder / "memory.stat").write_text(f"anon 7\nactive_file {2**19}\ninactive_file {2**19}\n")
    assert free_memory(CPU) == 3 * 2**20
    (group / "memory.max").write_text(f"{2**20}\n")
    assert free_memory(CPU) == 0
    own.write_text("0::/\n")  # as in a container, whose own group is the outermost that it sees
    assert free_memory(CPU) > 3 * 2**20
    for file in group.parent.glob("memory.*"):
        file.rename(tmp_path / file.name)
    assert free_memory(CPU) == 3 * 2**20


glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")


PAGES = """
import resource, torch
from nenya.training.runtime import keeping_memory

def pages(megabytes):
    torch.ones(megabytes * 2**18)  # whatever the C library adapts itself to
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(megabytes * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

cpu = torch.device("cpu")
before = pages(16)
with keeping_memory(cpu):
    kept = pages(64)
    with keeping_memory(cpu):
        pass
    still_kept = pages(64)
print(before, kept, still_kept, pages(64), pages(16))
"""


@glibc
def test_freed_memory_is_kept_until_the_last_keeper_ends_and_a_process_is_no_slower_after():
    """Pages that the system hands out for ten tensors, in a new process, whose heap has no holes yet."""
    said = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True).stdout
    before, kept, still_kept, large_after, after = map(int, said.split())
    # of 160,000, which are fetched where nothing is kept; a tensor may find another place than the one before it
    assert max(kept, still_kept) < 50_000
    assert large_after > 100_000
    assert after < before + 10_000  # of 40,000


def test_on_a_gpu_the_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("nenya.training.runtime.ctypes.CDLL", lambda name: pytest.fail("touched"))
    with keeping_memory(torch.device("cuda")):
        pass


@glibc
@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")]
)
def test_what_the_user_has_set_of_the_allocator_stays(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with keeping_memory(CPU):
        assert runtime._keepers.count == 0
