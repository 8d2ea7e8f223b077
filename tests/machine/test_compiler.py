"""torch.compile, for those who ask for it."""

import sys

import pytest
import torch
from torch import nn

from nenya.machine.compiler import compile_network

CPU = torch.device("cpu")


def test_compile_is_for_those_who_ask_for_it(monkeypatch):
    calls = []
    model = nn.Linear(2, 2)
    monkeypatch.setattr(model, "compile", lambda: calls.append(True))
    for wanted in (False, "auto"):
        compile_network(model, wanted, CPU)
    assert not calls
    monkeypatch.setattr("nenya.machine.compiler.shutil.which", lambda name: "/usr/bin/" + name)
    compile_network(model, True, CPU)
    assert calls == [True]


def test_without_a_compiler_the_network_runs_uncompiled_and_says_so(monkeypatch, caplog):
    model = nn.Linear(2, 2)
    monkeypatch.setattr(model, "compile", lambda: pytest.fail("compiled"))
    monkeypatch.setattr("nenya.machine.compiler.shutil.which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    compile_network(model, True, CPU)
    assert "there is no C++ compiler (looked for g++)" in caplog.text
    monkeypatch.setenv("CXX", "icpx")
    compile_network(model, True, CPU)
    assert "icpx" in caplog.text
