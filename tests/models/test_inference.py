"""Using a model without training it."""

import pytest
import torch
from torch import nn

from nenya.models.inference import evaluating


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
