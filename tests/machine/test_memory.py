"""Memory that is kept, free and held."""

import platform
import re
import subprocess
import sys

import pytest
import torch

from nenya.machine import memory
from nenya.machine.memory import free_memory, keeping_memory, peak_memory

CPU = torch.device("cpu")


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
    monkeypatch.setattr(memory, "_CONTROL_GROUPS", tmp_path)
    group = tmp_path / "job_7" / "step_0"
    group.mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("1:cpu:/other\n0::/job_7/step_0\n")
    monkeypatch.setattr(memory, "_OWN_GROUPS", own)
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
from nenya.machine.memory import keeping_memory

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


@pytest.mark.slow
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
    monkeypatch.setattr("nenya.machine.memory.ctypes.CDLL", lambda name: pytest.fail("touched"))
    with keeping_memory(torch.device("cuda")):
        pass


@glibc
@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")]
)
def test_what_the_user_has_set_of_the_allocator_stays(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with keeping_memory(CPU):
        assert memory._keepers.count == 0
