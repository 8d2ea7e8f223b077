"""The examples and docs/scaling.md: what the scripts do on each exit code, and that what is printed there is so."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

import json5
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import typer
import yaml
from torch.distributed.run import get_args_parser

from examples import accumulation, communication, real_imagery, two_scenes
from nenya.cli import app, train
from nenya.launch import GRACE
from nenya.options import table
from nenya.options.reading import parse_assignments
from nenya.params import Params
from nenya.train import TO_BE_CONTINUED
from nenya.training.checkpoint import read_checkpoint


@pytest.fixture
def examples(request):
    return request.config.rootpath / "examples"


@pytest.fixture
def page(request):
    return (request.config.rootpath / "docs" / "scaling.md").read_text()


# ---- communication.py


def test_what_a_gpu_sends_is_what_one_counts_by_hand():
    stages = [
        4 * (64 * 64 * 9) + 4 * 2 * 64,
        64 * 128 * 9 + 3 * (128 * 128 * 9) + 64 * 128 + 5 * 2 * 128,  # with a shortcut, as the next two
        128 * 256 * 9 + 3 * (256 * 256 * 9) + 128 * 256 + 5 * 2 * 256,
        256 * 512 * 9 + 3 * (512 * 512 * 9) + 256 * 512 + 5 * 2 * 512,
    ]
    stem, head = 3 * 64 * 9 + 2 * 64, 512 * 512 + 512 + 512 * 128 + 128
    parameters = stem + sum(stages) + head
    assert parameters == 11_497_152

    model = communication.build("resnet18", feat_dim=128)
    assert communication.num_parameters(model) == parameters
    assert sorted(communication.norm_channels(model)) == 5 * [64] + 5 * [128] + 5 * [256] + 5 * [512]
    sent = communication.traffic(model, gpus=8, batch_size=512, feat_dim=128)
    assert sent.gradients == pytest.approx(2 * 7 / 8 * 4 * 11_497_152)
    assert sent.compressed == pytest.approx(sent.gradients / 2)
    assert sent.embeddings == pytest.approx(2 * 7 / 8 * (512 * 2 * 128 * 4))
    assert sent.batch_norm == pytest.approx(7 * 4 * (2 * 4800 + 20) + 2 * 7 / 8 * 4 * 2 * 4800)
    alone = communication.traffic(model, gpus=1, batch_size=512, feat_dim=128)
    assert alone == communication.Traffic(0, 0, 0, 0)


def test_the_page_shows_what_the_script_prints(page, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["communication.py"])
    communication.main()
    assert capsys.readouterr().out in page
    layers = [len(communication.norm_channels(communication.build(name, 128))) for name in ("resnet18", "resnet50")]
    assert f"{layers[0]} layers of a ResNet-18 and {layers[1]} of a ResNet-50" in page


# ---- slurm.sh

SRUN = """#!/bin/bash
echo "srun $*" >> "$CALLS"
trap 'echo "srun got USR1" >> "$CALLS"; exit 75' USR1
if [[ $SRUN_CODE == wait ]]; then
    echo ready >> "$CALLS"
    for _ in {1..300}; do sleep 0.1; done
fi
exit "$SRUN_CODE"
"""
SCONTROL = """#!/bin/bash
if [[ $* == *show* ]]; then echo "JobId=7 JobName=nenya JobState=$JOB_STATE Reason=None"; exit; fi
echo "scontrol $*" >> "$CALLS"
"""


@pytest.fixture
def sbatch(examples, tmp_path):
    """Function: start the script as Slurm would, with stand-ins for its commands."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls"
    calls.touch()

    def start(code, state="RUNNING", arguments=("opts.json", "--set", "trial=2")):
        environment = os.environ | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls), "SRUN_CODE": str(code), "JOB_STATE": state,
            "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "8",
        }  # fmt: skip
        process = subprocess.Popen(
            ["bash", str(examples / "slurm.sh"), *arguments], env=environment, stderr=subprocess.PIPE, text=True
        )
        return process, lambda: calls.read_text().splitlines()

    return start


def test_the_slurm_script_is_sound_bash(examples):
    subprocess.run(["bash", "-n", str(examples / "slurm.sh")], check=True)


@pytest.mark.parametrize(
    ("code", "state", "requeued", "said"),
    [
        (0, "RUNNING", False, ""),
        (2, "RUNNING", False, "a mistake"),
        (TO_BE_CONTINUED, "RUNNING", True, ""),
        (TO_BE_CONTINUED, "CANCELLED", False, "being ended"),
        (1, "RUNNING", False, "failed with exit code 1"),
        (137, "RUNNING", False, "failed with exit code 137"),
    ],
)
def test_the_slurm_script_queues_again_only_what_is_to_be_continued(sbatch, code, state, requeued, said):
    process, calls = sbatch(code, state)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert said in errors
    step, *more = calls()
    assert step.endswith("nenya train opts.json --set trial=2 --resume")
    assert more == (["scontrol requeue 7"] if requeued else [])


def test_the_slurm_script_passes_a_signal_on_and_waits_for_the_end(sbatch):
    process, calls = sbatch("wait")
    for _ in range(200):
        if "ready" in calls():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    assert process.returncode == TO_BE_CONTINUED
    assert calls()[-2:] == ["srun got USR1", "scontrol requeue 7"]


def test_the_slurm_script_asks_for_an_options_file(sbatch):
    process, calls = sbatch(0, arguments=())
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, calls()) == (2, [])
    assert "usage" in errors


def test_the_slurm_script_asks_slurm_for_what_the_page_says(examples):
    lines = (examples / "slurm.sh").read_text().splitlines()
    asked = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH ")]
    assert {"nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "requeue", "signal=USR1@120"} <= set(asked)
    first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first_command:])  # Slurm reads no further


# ---- kubernetes.yaml


@pytest.fixture
def job(examples):
    return yaml.safe_load((examples / "kubernetes.yaml").read_text())


def action_for(job, exit_code):
    """What the Job does when its container ends with a code; None where only `backoffLimit` counts."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        condition = rule.get("onExitCodes")
        if condition and condition["containerName"] == container["name"] and exit_code in condition["values"]:
            assert condition["operator"] == "In"
            return rule["action"]
    return None


def test_kubernetes_goes_on_after_75_gives_up_after_2_and_counts_the_rest(job):
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert action_for(job, TO_BE_CONTINUED) == "Ignore"
    assert action_for(job, 2) == "FailJob"
    assert action_for(job, 1) is None
    assert action_for(job, 137) is None
    assert job["spec"]["podReplacementPolicy"] == "Failed"
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # what podFailurePolicy asks for
    assert pod["terminationGracePeriodSeconds"] > GRACE


def test_the_container_s_command_is_one_of_nenya_s(job):
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    program, *arguments = container["command"] + container["args"]
    assert program == "nenya"
    parsed = parse(arguments)
    assert parsed["resume"]
    assert parsed["nproc"] == "auto"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
    assert {"/data", "/models", "/dev/shm"} == set(mounts)
    assert parse_assignments(parsed["settings"]) == {"data_folder": "/data", "model_root": "/models"}


def parse(arguments):
    """What the command line makes of the arguments after ``nenya``; fails at a wrong one."""
    command, *rest = arguments
    found = typer.main.get_command(app).commands[command].make_context(command, rest).params
    assert set(parse_assignments(found["settings"] or ())) <= set(table())
    return found


# ---- docs/scaling.md


def test_the_commands_of_the_page_exist(page):
    blocks = re.findall(r"```\n(.*?)```", page, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    seen = set()
    for line in lines:
        program, *arguments = shlex.split(line, comments=True)
        seen.add(program)
        if program == "torchrun":
            launched = get_args_parser().parse_args(arguments)
            assert (launched.module, launched.training_script) == (True, "nenya")
            arguments = launched.training_script_args
        elif program == "sbatch":
            assert arguments[0] == "examples/slurm.sh"
            arguments = ["train", *arguments[1:]]
        assert parse(arguments)
    assert seen == {"nenya", "torchrun", "sbatch"}


def test_the_network_must_be_trusted_is_said_where_the_commands_stand(page, examples):
    sections = {text.splitlines()[0]: text for text in re.split(r"^##+ ", page, flags=re.MULTILINE)}
    for title in ("Several machines with torchrun", "Slurm", "Starting by mpirun, or by hand"):
        assert "network that you trust](#trusted-networks-only)" in sections[title]
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "firewall", "NetworkPolicy", "MASTER_PORT"):
        assert name in sections["Trusted networks only"]
    for file in ("slurm.sh", "kubernetes.yaml"):
        text = (examples / file).read_text().replace("\n# ", " ")
        assert "trusted network" in text.lower()
        assert re.search("SOCKET_IFNAME|NetworkPolicy", text)
    assert "network that you trust" in " ".join((train.__doc__ or "").split())


def test_the_options_of_the_page_exist(page):
    for block in re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL):
        Params.from_dict(json5.loads(block))
    for text in re.findall(r'`("\w+": [^`]+)`', page):
        Params.from_dict(json5.loads("{" + text + "}"))
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", page))
    assert {"batch_size_train", "save_every_minutes"} <= named
    assert named <= set(table())


def test_two_nodes_under_torchrun_train_one_model(tiny_file, page):
    (command,) = re.findall(r"^torchrun --nnodes=2.*?\n(?=```)", page, flags=re.DOTALL | re.MULTILINE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = tiny_file(epochs=1)
    for there, here in (
        ("node1:29500", f"localhost:{port}"),
        ("per-node=4", "per-node=1"),
        ("opts.json", str(options)),
    ):
        assert there in command
        command = command.replace(there, here)
    arguments = shlex.split(command.replace("\\\n", " "))[1:]
    nodes = [
        subprocess.Popen([sys.executable, "-m", "torch.distributed.run", *arguments], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [node.communicate(timeout=120)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert sum(text.count("epoch 1/1: loss") for text in said) == 1  # one process of the two speaks
    (last,) = (options.parent / "models").glob("*/last.pth")
    assert read_checkpoint(last)["epoch"] == 1
    saved = json.loads((last.parent / "options.json").read_text())
    assert saved["batch_size_train"] == 8


def test_the_accumulation_example_shows_what_it_says(monkeypatch):
    monkeypatch.setattr(accumulation, "BATCH", 32)
    monkeypatch.setattr(accumulation, "PARTS", 2)
    rows = [line.split("|")[1:-1] for line in accumulation.table().splitlines()[2:]]
    losses = [float(row[1]) for row in rows]
    angles = [float(row[2].split()[0]) for row in rows]
    assert losses[1] == pytest.approx(losses[0], abs=2e-4)
    assert losses[2] < losses[0] - 0.5  # fewer negatives: about log 2
    assert angles[:2] == [0, 0]
    assert angles[2] > 1


# ---- real_imagery.py


def test_the_experiments_on_real_imagery_run_and_are_not_repeated(tiny_file, image_file, tmp_path, monkeypatch, capsys):
    options = json.loads(tiny_file().read_text())
    mine = {key: value for key, value in options.items() if key not in ("images_file", "model_root")}
    monkeypatch.setattr(real_imagery, "COMMON", mine)
    monkeypatch.setattr(real_imagery, "EXPERIMENTS", {"made": {"images_file": image_file.name, "epochs": 1}})
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["real_imagery.py", str(image_file.parent), "--out", str(tmp_path / "o")])
        real_imagery.main()
    (line,) = (tmp_path / "o" / "results.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row["precision"] in ("torch.float32", "torch.bfloat16")
    assert all(0 <= row[name] <= 1 for name in ("retrieval", "knn", "knn_untrained", "knn_pixels"))
    assert row["knn_evaluate"] == row["knn"]
    assert (tmp_path / "o" / "made_0_evaluation.html").is_file()
    assert "| made | 0 |" in capsys.readouterr().out


# ---- two_scenes.py


def test_what_a_map_shows_is_what_one_counts_by_hand(tmp_path):
    rng = np.random.default_rng(0)
    count = 60
    columns = {
        "US0": rng.uniform(0, 10, count),
        "US1": rng.uniform(0, 10, count),
        "DT": rng.uniform(0, 3, count),
        "filename": [("one.nc", "two.nc")[i % 5 == 0] for i in range(count)],
        "row": rng.integers(0, 300, count),
        "col": rng.integers(0, 300, count),
        "field_size": np.full(count, 64),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "map.parquet")
    errors, of_rarer, shared = [], [], []
    for i in range(count):
        distance = np.hypot(columns["US0"] - columns["US0"][i], columns["US1"] - columns["US1"][i])
        near = [j for j in np.argsort(distance) if j != i][:15]
        errors.append(columns["DT"][i] - np.mean([columns["DT"][j] for j in near]))
        for j in near:
            same = columns["filename"][i] == columns["filename"][j]
            apart = [abs(int(columns[axis][i]) - int(columns[axis][j])) for axis in ("row", "col")]
            shared.append(same and max(apart) < 64)
            if columns["filename"][i] == "two.nc":
                of_rarer.append(same)
    shown = two_scenes.shown(tmp_path / "map.parquet")
    assert shown["DT from the neighbours, R2"] == pytest.approx(1 - np.var(errors) / np.var(columns["DT"]), abs=0.006)
    assert shown["share of the rarer scene"] == 0.2
    assert shown["its share among its cutouts' neighbours"] == pytest.approx(np.mean(of_rarer), abs=0.006)
    assert shown["neighbours that share pixels"] == pytest.approx(np.mean(shared), abs=0.0006)
