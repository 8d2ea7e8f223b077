"""The processes of a run find each other, or the user learns which one is missing and why."""

import re
import socket
import threading
import time
from datetime import timedelta

import pytest

from nenya import rendezvous
from nenya.errors import NenyaError, OptionError, OtherProcessError
from nenya.place import RENDEZVOUS_FILE, Ranks
from nenya.rendezvous import describe_numbers, meet


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Nobody is waited for longer than a moment."""
    monkeypatch.setattr(rendezvous, "_FIRST_NEWS", 0.1)
    monkeypatch.setattr(rendezvous, "_NEWS", 0.1)
    monkeypatch.setattr(rendezvous, "PATIENCE", timedelta(seconds=0.5))
    monkeypatch.setattr(rendezvous, "_PATIENCE_WITH_OWN_NAME", timedelta(seconds=0.3))
    monkeypatch.setattr(rendezvous, "_PATIENCE_WITH_ANSWER", timedelta(seconds=0.3))


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def there(port, address="127.0.0.1"):
    return {"MASTER_ADDR": address, "MASTER_PORT": str(port)}


def meet_all(size, environment, monkeypatch):
    """All processes as threads of this one; what each raises."""
    monkeypatch.setattr(rendezvous, "PATIENCE", timedelta(seconds=20))
    stores, errors = {}, {}

    def come(rank):
        try:
            stores[rank] = meet(Ranks(rank, size, rank), environment)
        except Exception as error:
            errors[rank] = error

    threads = [threading.Thread(target=come, args=(rank,)) for rank in reversed(range(size))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    stores[size - 1].set("word", "from the last")
    assert stores[0].get("word") == b"from the last"


def test_processes_meet_in_a_file(tmp_path, monkeypatch):
    meet_all(3, {RENDEZVOUS_FILE: str(tmp_path / "file")}, monkeypatch)


def test_processes_meet_at_a_port(port, monkeypatch):
    meet_all(3, there(port), monkeypatch)


def test_process_0_tells_who_is_missing_and_names_them_when_it_gives_up(tmp_path, caplog, monkeypatch):
    file = str(tmp_path / "file")
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu007.example.org")
    with pytest.raises(OtherProcessError):
        meet(Ranks(2, 4), {RENDEZVOUS_FILE: file})  # comes, and leaves in vain
    with pytest.raises(
        OtherProcessError, match=r"in vain for processes 1 and 3 of 4 \(processes 0 and 2 came"
    ) as raised:
        meet(Ranks(0, 4), {RENDEZVOUS_FILE: file, "SLURM_STEP_NODELIST": "gpu[007-009]"})
    assert raised.value.speaks
    assert raised.value.lost
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) > 1
    assert told[0] == (
        "waiting for processes 1 and 3 of 4 (processes 0 and 2 came, from gpu007.example.org; none from gpu008, gpu009)"
    )


def test_a_node_list_of_unknown_form_ends_nothing_where_it_is_not_needed(tmp_path):
    environment = {RENDEZVOUS_FILE: str(tmp_path / "file"), "SLURM_STEP_NODELIST": "n[1-10:2]"}
    with pytest.raises(OtherProcessError, match="in vain for process 1 of 2"):
        meet(Ranks(0, 2), environment)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([1], "process 1"),
        ([1, 3], "processes 1 and 3"),
        ([0, 1], "processes 0 and 1"),
        ([0, 4, 5, 6], "processes 0 and 4 to 6"),
        ([1, 2, 3, 5, 7], "processes 1 to 3, 5 and 7"),
    ],
)
def test_processes_in_words(numbers, words):
    assert describe_numbers(numbers) == words


def test_the_others_tell_that_process_0_is_missing(port, capsys):
    for place, speaks in ((Ranks(1, 3, 1), True), (Ranks(2, 3, 0), True), (Ranks(2, 3, 2), False)):
        with pytest.raises(OtherProcessError, match=f"in vain for process 0 at 127.0.0.1:{port}: .*refused") as raised:
            meet(place, there(port))
        assert (raised.value.lost, raised.value.speaks) == (True, speaks)
        news = capsys.readouterr().err
        assert (f"process {place.rank} of 3, on {socket.gethostname()}, is waiting for process 0" in news) == speaks


def test_a_name_that_nobody_knows_is_refused(port, monkeypatch):
    def unknown(*arguments, **named):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for rank in (0, 1):
        with pytest.raises(OptionError, match=r"MASTER_ADDR|no name service knows 'node1'") as raised:
            meet(Ranks(rank, 2), there(port, "node1"))
        assert re.search("MASTER_ADDR", str(raised.value))
        assert "no name service knows 'node1'" in str(raised.value)


def test_a_port_that_another_program_uses_is_refused_by_all(port, monkeypatch):
    with socket.socket() as other:
        other.bind(("0.0.0.0", port))
        other.listen()
        with pytest.raises(OptionError, match=rf"cannot listen on port {port} .*address already in use.* MASTER_PORT"):
            meet(Ranks(0, 2), there(port))
        began = time.monotonic()
        with pytest.raises(NenyaError, match=f"what listens at 127.0.0.1:{port} is not process 0.* MASTER_PORT"):
            meet(Ranks(1, 2), there(port))
        assert time.monotonic() - began < 5


def test_process_0_under_torchrun_does_not_keep_the_store(port):
    with pytest.raises(OtherProcessError, match="refused"):  # there is no torchrun
        meet(Ranks(0, 2), there(port) | {"TORCHELASTIC_USE_AGENT_STORE": "True"})
