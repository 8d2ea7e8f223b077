"""Where a process stands among those of its run, by the environment that torchrun, Slurm and mpirun give it."""

from itertools import islice

import pytest

from nenya.errors import OptionError
from nenya.place import RENDEZVOUS_FILE, Ranks, first_node, node_names, place_from_environment

HERE = {"MASTER_ADDR": "a", "MASTER_PORT": "1"}
TORCHRUN = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", **HERE}
SRUN = {
    "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "123456",
    "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "gpu[007-008]",
}  # fmt: skip
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1"}


def test_the_place_is_read_from_torchrun_and_from_srun():
    assert place_from_environment({}) == (Ranks(), {})
    assert place_from_environment(TORCHRUN) == (Ranks(2, 4, 0), {})
    ranks, more = place_from_environment(SRUN)
    assert ranks == Ranks(5, 8, 1)
    assert more["MASTER_ADDR"] == "gpu007"
    assert 1024 < int(more["MASTER_PORT"]) < 65536


def test_what_the_user_sets_for_srun_counts():
    _, more = place_from_environment(SRUN | {"MASTER_ADDR": "10.0.0.1", "SLURM_STEP_NODELIST": "???"})
    assert more["MASTER_ADDR"] == "10.0.0.1"
    _, more = place_from_environment(SRUN | {"MASTER_PORT": "29500"})
    assert more["MASTER_PORT"] == "29500"


def test_processes_that_meet_in_a_file_need_no_address():
    place = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", RENDEZVOUS_FILE: "/tmp/x"}
    assert place_from_environment(SRUN | place) == (Ranks(1, 2, 1), {})


@pytest.mark.parametrize(
    "environment",
    [
        {
            "SLURM_PROCID": "0",
            "SLURM_NTASKS": "8",
            "SLURM_JOB_ID": "1",
            "SLURM_JOB_NODELIST": "a[1-2]",
        },  # sbatch, salloc
        SRUN | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "PMIX_RANK": "0"},  # srun -n 1
        {"RANK": "3"},  # a variable of the user's
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"WORLD_SIZE": "1"},
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1", "PMIX_RANK": "0"},
        {"PMI_RANK": "0", "PMI_SIZE": "1"},
        {"OMPI_COMM_WORLD_SIZE": "4"},
    ],
)
def test_what_is_one_process_stays_one(environment):
    assert place_from_environment(environment) == (Ranks(), {})


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "RANK and WORLD_SIZE are set, but MASTER_ADDR and MASTER_PORT are not"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": ""},
            "MASTER_ADDR are set, but MASTER_PORT is",
        ),
        ({"WORLD_SIZE": "2", **HERE}, "RANK is not"),
        ({"RANK": "0", **HERE}, "WORLD_SIZE is not"),
        (TORCHRUN | {"RANK": "4"}, "there are 4 .* RANK and WORLD_SIZE"),
        (TORCHRUN | {"RANK": "x"}, "RANK is 'x'; expected a whole number"),
        (TORCHRUN | {"RANK": "-1"}, "RANK is '-1'; expected a whole number from 0"),
        (TORCHRUN | {"LOCAL_RANK": "a"}, "LOCAL_RANK is 'a'"),
        (TORCHRUN | {"WORLD_SIZE": "0", "RANK": "0"}, "WORLD_SIZE is 0; expected a number of processes from 1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is set, but RANK, MASTER_ADDR and MASTER_PORT are not"),
        ({"RANK": "1", "WORLD_SIZE": "1"}, "there are 1"),
        (TORCHRUN | {"MASTER_PORT": "x"}, "MASTER_PORT is 'x'"),
        (TORCHRUN | {"MASTER_PORT": "0"}, "MASTER_PORT is 0; expected a port"),
        (TORCHRUN | {"MASTER_PORT": "65536"}, "MASTER_PORT is 65536"),
        (TORCHRUN | {"MASTER_ADDR": "node1:29500"}, "MASTER_ADDR is 'node1:29500'"),
        (TORCHRUN | {"MASTER_ADDR": "http://node1"}, "MASTER_ADDR"),
        (SRUN | {"SLURM_STEP_NODELIST": ""}, "node list"),
        (SRUN | {"SLURM_STEP_NODELIST": "a[1"}, "node list"),
        (SRUN | {"SLURM_PROCID": "8"}, "SLURM_PROCID"),
        (SRUN | {"MASTER_PORT": "http"}, "MASTER_PORT"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(environment, message):
    with pytest.raises(OptionError, match=message):
        place_from_environment(environment)


@pytest.mark.parametrize("address", ["node_1", "node-1.example.org", "10.0.0.1", "::1", "fe80::1%eth0"])
def test_an_address_may_have_any_form(address):
    assert place_from_environment(TORCHRUN | {"MASTER_ADDR": address})[0].size == 4


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize(
    ("prefix", "number", "count"),
    [
        ("OMPI_COMM_WORLD_", "RANK", "SIZE"),
        ("MV2_COMM_WORLD_", "RANK", "SIZE"),
        ("MVP_COMM_WORLD_", "RANK", "SIZE"),
        ("PMI_", "RANK", "SIZE"),
        ("JSM_NAMESPACE_", "RANK", "SIZE"),
        ("HOROVOD_", "RANK", "SIZE"),
        ("FLUX_", "TASK_RANK", "JOB_SIZE"),
    ],
)
def test_each_process_of_mpirun_is_refused_by_name(prefix, number, count, rank):
    environment = {f"{prefix}{number}": rank, f"{prefix}{count}": "2"}
    with pytest.raises(OptionError, match=f"process {rank} of 2 that mpirun .*{prefix}{number}={rank}.*--nproc"):
        place_from_environment(environment)


@pytest.mark.parametrize("name", ["PMIX_RANK", "ALPS_APP_PE", "PALS_RANKID"])
def test_one_of_an_unknown_number_of_processes_is_refused(name):
    with pytest.raises(OptionError, match=f"an unknown number that mpirun .*{name}=0"):
        place_from_environment({name: "0"})


@pytest.mark.parametrize("mpi", [OPEN_MPI, HYDRA])
def test_mpirun_is_joined_where_the_processes_know_where_to_meet(mpi):
    assert place_from_environment(mpi | HERE) == (Ranks(1, 4, 1), {})
    with pytest.raises(OptionError, match="mpirun"):
        place_from_environment(mpi | {"MASTER_ADDR": "a"})
    with pytest.raises(OptionError, match="MASTER_PORT is '-5'"):
        place_from_environment(mpi | {"MASTER_ADDR": "a", "MASTER_PORT": "-5"})


def test_srun_that_sets_the_variables_of_mpi_is_srun():
    for mpi in ({"PMI_RANK": "5", "PMI_SIZE": "8"}, {"PMIX_RANK": "5"}, {"OMPI_COMM_WORLD_SIZE": "1"}):
        assert place_from_environment(SRUN | mpi)[0] == Ranks(5, 8, 1)
    left_behind = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}
    assert place_from_environment(SRUN | left_behind)[0] == Ranks(5, 8, 1)


def test_mpirun_that_srun_has_brought_to_each_node_is_mpirun():
    """Two nodes with four processes each: Slurm counts two."""
    nodes = SRUN | {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    mpi = {"OMPI_COMM_WORLD_RANK": "6", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "2"}
    with pytest.raises(OptionError, match="process 6 of 8 that mpirun"):
        place_from_environment(nodes | mpi)
    assert place_from_environment(nodes | mpi | HERE)[0] == Ranks(6, 8, 2)


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        ("n1", ["n1"]),
        ("n1,n2", ["n1", "n2"]),
        ("n[03-05,9],m", ["n03", "n04", "n05", "n9", "m"]),
        ("n[7,9]-ib", ["n7-ib", "n9-ib"]),
        ("a.b-c.d_e", ["a.b-c.d_e"]),
        ("rack[1-2]node[3-4]", ["rack1node3", "rack1node4", "rack2node3", "rack2node4"]),
        ("a[1,3]b[05-06]c,d[098-101]", ["a1b05c", "a1b06c", "a3b05c", "a3b06c", "d098", "d099", "d100", "d101"]),
        ("[1-2],5-3", ["1", "2", "5-3"]),
    ],
)
def test_the_nodes_of_a_slurm_list(nodes, names):
    assert list(node_names(nodes)) == names
    assert first_node(nodes) == names[0]


def test_a_long_slurm_list_is_not_written_out_to_know_its_first_nodes():
    assert list(islice(node_names("n[1-999999999]"), 2)) == ["n1", "n2"]


@pytest.mark.parametrize(
    "nodes",
    ["", "a,", ",a", "a,,b", "a[", "a]", "a[]", "a[1", "a[1]]", "a[[1]]", "a[1,]", "a[1-]", "a[-1]", "a[x]", "a b",
     "a[2-1]", "a,b[2-1]", "a" * 10_000 + "!"],
)  # fmt: skip
def test_what_is_no_slurm_list_is_refused(nodes):
    with pytest.raises(OptionError, match="node list"):
        first_node(nodes)
