"""TensorBoard event files, read back with TensorBoard's own reader."""

import importlib.util

import pytest

from nenya.errors import OptionError
from nenya.evaluation.health import Health
from nenya.training.events import FOLDER, EventWriter, require_tensorboard


@pytest.fixture
def read(tmp_path):
    """Function -> {name: [(epoch, value), ...]} of all event files in the model folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def read():
        events = accumulator.EventAccumulator(str(tmp_path / FOLDER))
        events.Reload()
        names = events.Tags()["scalars"]
        return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}

    return read


def test_losses_and_rates_are_read_back(tmp_path, read):
    writer = EventWriter(tmp_path, first_epoch=1)
    writer.losses(1, 0.5, train=3.5)
    writer.losses(2, 0.25, train=2.5)
    writer.losses(2, 0.25, valid=2.75)
    writer.close()
    # binary fractions: TensorBoard keeps float32
    expected = {
        "loss/train": [(1, 3.5), (2, 2.5)],
        "loss/valid": [(2, 2.75)],
        "learning_rate": [(1, 0.5), (2, 0.25), (2, 0.25)],
    }
    assert read() == expected


def test_the_health_of_the_untrained_network_and_of_later_epochs_is_read_back(tmp_path, read):
    writer = EventWriter(tmp_path, first_epoch=1)
    for epoch in (0, 5):
        writer.health(epoch, Health(12, 0.5, 0.75, 0.125, 0.5 + epoch, -2.0, 5.0, 0.5, 3.0, 0.25))
    writer.close()
    found = read()
    assert found["health/alignment"] == [(0, 0.5), (5, 5.5)]
    assert found["health/num_samples"] == [(0, 12), (5, 12)]
    assert found["health/spread_z"] == [(0, 0.25), (5, 0.25)]
    assert set(found) == {f"health/{name}" for name in Health.__dataclass_fields__}


def test_a_run_that_goes_on_replaces_the_epochs_it_repeats(tmp_path, read):
    for first, losses in ((1, {1: 8.0, 2: 4.0, 3: 2.0}), (3, {3: 1.0, 4: 0.5})):
        writer = EventWriter(tmp_path, first_epoch=first)
        for epoch, loss in losses.items():
            writer.losses(epoch, 0.5, train=loss)
        writer.close()
    assert read()["loss/train"] == [(1, 8.0), (2, 4.0), (3, 1.0), (4, 0.5)]


def test_what_is_written_can_be_watched_before_the_run_ends(tmp_path, read):
    writer = EventWriter(tmp_path, first_epoch=1)
    for epoch in (1, 2):  # TensorBoard writes the first event at once anyway
        writer.losses(epoch, 0.5, train=3.5)
        assert read()["loss/train"][-1] == (epoch, 3.5)
    writer.health(2, Health(12, 0.5, 0.75, 0.125, 0.5, -2.0, 5.0, 0.5, 3.0, 0.25))
    assert read()["health/spread"] == [(2, 0.5)]
    writer.close()


def test_a_missing_package_is_said_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install 'nenya\[tensorboard\]'"):
        require_tensorboard()


def test_a_package_that_is_there_is_no_error(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "tensorboard" or None)
    require_tensorboard()
