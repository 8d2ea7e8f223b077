"""What a run may not do: run code from a file, open a connection, change or remove what is not its own."""

import ast
import hashlib
import json
import os
import shutil
import socket
from pathlib import Path

import pytest

import nenya
from nenya.training.checkpoint import LAST, read_checkpoint
from tests.faults.harness import DONE, PICTURE, USER_MISTAKE, in_child, model_folder

PACKAGE = Path(nenya.__file__).parent
SOURCES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

#: Calls that run what a file says, or that depend on a clock which can be set back.
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler", "torch.jit.load",
    "torch.hub.load", "marshal.load", "marshal.loads", "shelve.open", "yaml.load", "joblib.load", "dill.load",
    "dill.loads", "os.system", "os.popen", "subprocess.run", "subprocess.Popen", "subprocess.call",
    "subprocess.check_output",
    "urllib.request.urlopen", "socket.socket", "socket.create_connection",
    "time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "datetime.utcnow", "datetime.date.today",
}  # fmt: skip

#: What one file may do, and why: the launcher starts this very program, processes look for the first of their run, an
#: index compares the times of the latents' file, which are those of the clock on the wall, with when it was made.
ALLOWED = {
    "launch.py": {"subprocess.Popen"}, "rendezvous.py": {"socket.create_connection"},
    "search/index.py": {"time.time_ns"}, "portal/command.py": {"socket.socket"},  # it listens, as it is asked to
}  # fmt: skip


def calls(source):
    """Dotted name and node of every call."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def offences(source, allowed=frozenset()):
    """Calls that nothing in nenya/ may make."""
    for name, node in calls(source):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in FORBIDDEN - allowed:
            yield f"{name} in line {node.lineno}"
        elif name == "torch.load" and keywords.get("weights_only") != "True":
            yield f"torch.load without weights_only=True in line {node.lineno}"
        elif name in ("np.load", "numpy.load") and keywords.get("allow_pickle", "False") != "False":
            yield f"{name} with pickles in line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES)
def test_nothing_in_the_package_runs_code_from_a_file_or_asks_the_clock_on_the_wall(path):
    assert not list(offences((PACKAGE / path).read_text(), ALLOWED.get(path, frozenset())))


def test_these_would_be_found():
    for line in ("torch.load(f)", "torch.load(f, weights_only=False)", "pickle.loads(b)", "eval(x)", "time.time()"):
        assert list(offences(line)), line
    assert not list(offences("torch.load(f, map_location='cpu', weights_only=True); model.eval()"))


# Connections


def forbid_connections():
    """In a child: whatever touches the network fails."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"a connection was tried: {args}")

    for name in ("connect", "connect_ex", "bind", "listen", "sendto"):
        setattr(socket.socket, name, refuse)
    for name in ("create_connection", "create_server", "getaddrinfo", "gethostbyname", "gethostbyaddr", "getfqdn"):
        setattr(socket, name, refuse)


def test_no_command_opens_a_connection(shop):
    options = shop.options("offline", tensorboard=True)
    for name, *more in (("train",), ("train", "--resume"), ("check",), ("train", "--debug")):
        work = shop.command(name, options, *more, hook=forbid_connections)
        ended = in_child(work, options.with_suffix(".log"))
        assert not ended.complaint(DONE), ended.complaint(DONE)
    ended = in_child(shop.command("plot", model_folder(options), hook=forbid_connections), options.with_suffix(".log"))
    assert not ended.complaint(DONE), ended.complaint(DONE)


def test_a_connection_would_be_noticed(shop):
    def work():
        forbid_connections()
        socket.create_connection(("127.0.0.1", 9))

    assert "a connection was tried" in in_child(work, shop.folder / "connection.log").text


# What is not the run's own


def contents(folder):
    """Hashes of all files below a folder, links not followed, by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture
def precious(tmp_path):
    """A folder of someone else's files, some under names that a run uses for its own."""
    folder = tmp_path / "precious"
    (folder / "sub").mkdir(parents=True)
    names = ["thesis.tex", "model.pth", "ckpt_epoch_1.pth.txt", ".notes-unfinished-1.txt", ".lock.txt", "sub/data.h5",
             "sub/.draft-unfinished-2.tex", "sub/last.pth", ".hidden"]  # fmt: skip
    for name in names:
        (folder / name).write_text(f"the only copy of {name}")
    (folder / ".folder-unfinished-").mkdir()
    return folder


def untouched(before, folder):
    """What has changed of a folder's files, in words."""
    now = contents(folder)
    return {name: now.get(name, "gone") for name, was in before.items() if now.get(name) != was}


@pytest.mark.parametrize("resume", [False, True], ids=["anew", "resumed"])
@pytest.mark.parametrize("name", ["model_folder", "model_root", "latents_folder"])
def test_a_run_in_a_folder_of_other_files_leaves_them_alone(shop, precious, name, resume):
    before = contents(precious)
    options = shop.options(
        f"foreign_{name}_{resume}", **{"model_folder": None, name: str(precious)}, keep=1, save_freq=1
    )
    for arguments in ([], ["--resume"] if resume else []):
        ended = shop.train(options, *arguments)
        assert not ended.complaint(DONE), ended.complaint(DONE)
    assert not untouched(before, precious)
    shop.forget(options)


def test_files_under_our_own_names_are_moved_aside_and_not_lost(shop, precious):
    for name in (LAST, "options.json", "ckpt_epoch_2.pth"):
        (precious / name).write_text(f"someone's {name}")
    wanted = set(contents(precious).values())
    options = shop.options("own_names", model_folder=str(precious))
    ended = shop.train(options, "--resume")
    assert not ended.complaint(USER_MISTAKE)  # these are no checkpoints to go on from
    assert wanted <= set(contents(precious).values())
    ended = shop.train(options)
    assert not ended.complaint(DONE), ended.complaint(DONE)
    assert wanted <= set(contents(precious).values())


@pytest.mark.parametrize("link", [LAST, "previous.pth", "options.json", "ckpt_epoch_2.pth", ".lock", "learning_curve"])
def test_a_link_to_a_precious_file_is_not_followed(shop, tmp_path, link):
    precious = tmp_path / "precious.txt"
    precious.write_text("1234")  # as the number of a process stands in a lock
    options = shop.options(f"link_{link}", keep=1, save_freq=1)
    folder = model_folder(options)
    folder.mkdir(parents=True)
    (folder / link).symlink_to(precious)
    for arguments in (["--resume"], [], ["--resume"]):
        ended = shop.train(options, *arguments)
        assert not ended.complaint(DONE, USER_MISTAKE), ended.complaint(DONE, USER_MISTAKE)
        assert precious.read_text() == "1234"
    shop.forget(options)


def test_a_link_put_in_place_of_a_checkpoint_is_replaced_and_not_followed(shop, tmp_path):
    options = shop.options("link_later", save_freq=1, keep=1)
    assert shop.train(options).code == DONE
    folder, kept = model_folder(options), tmp_path / "kept.pth"
    shutil.move(folder / LAST, kept)
    (folder / LAST).symlink_to(kept)
    before = kept.read_bytes()
    longer = json.loads(options.read_text()) | {"epochs": 4}
    options.write_text(json.dumps(longer))
    assert shop.train(options, "--resume", "--force").code == DONE
    assert kept.read_bytes() == before
    assert read_checkpoint(folder / LAST)["epoch"] == 4
    shop.forget(options)


def test_a_file_where_the_lock_should_be_keeps_its_contents(shop):
    options = shop.options("lock")
    folder = model_folder(options)
    folder.mkdir(parents=True)
    (folder / ".lock").write_text("another program's lock\n")
    ended = shop.train(options)
    assert not ended.complaint(DONE, USER_MISTAKE), ended.complaint(DONE, USER_MISTAKE)
    assert (folder / ".lock").read_text() == "another program's lock\n"
    shop.forget(options)


@pytest.mark.parametrize("name", ["model_name", "trial"])
@pytest.mark.parametrize("value", ["..", "../../precious/x", "/etc/x", "a/b"])
def test_a_name_leads_to_no_other_folder(shop, precious, name, value):
    before = contents(precious.parent)
    options = shop.options("names", **{name: value}, model_folder=None, model_root=str(precious.parent / "models"))
    ended = shop.train(options)
    assert not ended.complaint(DONE, USER_MISTAKE), ended.complaint(DONE, USER_MISTAKE)
    outside = [path for path in contents(precious.parent) if not path.startswith("models/") and path not in before]
    assert not outside
    assert not untouched(before, precious.parent)


def test_keep_removes_no_checkpoint_that_the_run_has_not_written(shop):
    options = shop.options("keep", save_freq=1, keep=1)
    folder = model_folder(options)
    assert shop.train(options).code == DONE
    (folder / "ckpt_epoch_9.pth").write_text("from elsewhere")
    (folder / "ckpt_epoch_1.pth").write_text("put back by hand")
    before = contents(folder)
    options.write_text(json.dumps(json.loads(options.read_text()) | {"epochs": 5}))
    assert shop.train(options, "--resume", "--force").code == DONE
    changed = untouched(before, folder)
    assert "ckpt_epoch_9.pth" not in changed
    assert "ckpt_epoch_1.pth" not in changed
    assert (folder / "ckpt_epoch_5.pth").exists()
    assert PICTURE in [path.read_bytes() for path in folder.rglob("*.png")]
    shop.forget(options)
