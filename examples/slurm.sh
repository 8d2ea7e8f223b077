#!/usr/bin/env bash
# Train on 2 nodes with 4 GPUs each, one process a GPU; when the time is up, save and queue again until all is done.
#
#     sbatch examples/slurm.sh opts.json [more arguments of `nenya train`, e.g. --set trial=2]
#
# Data and model_root must lie where every node sees them under the same path.
# Adapt: nodes, GPUs, cores, memory, time, and what your site asks for (account, partition).

#SBATCH --job-name=nenya
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --mem=128G
#SBATCH --time=12:00:00
# One log for all rounds of the job.
#SBATCH --output=nenya_%j.log
#SBATCH --open-mode=append
# Allow `scontrol requeue`, and let Slurm queue the job again itself after the loss of a node or a preemption.
#SBATCH --requeue
# 120 s before the end (Slurm may send it up to a minute earlier) every process of the step gets SIGUSR1: it finishes
# its step, saves and exits with 75. Give more where print_freq steps, or a validation, take longer than that.
# No `B:` in front: that would signal this script instead of the training.
#SBATCH --signal=USR1@120

set -uo pipefail # not -e: the exit code of srun decides what happens

if (($# == 0)); then
    echo "usage: sbatch examples/slurm.sh OPTS [ARGUMENTS of nenya train]" >&2
    exit 2
fi

# Load what nenya needs here, for example:
# module load cuda
# source "$HOME/nenya/.venv/bin/activate"

# Newer versions of Slurm do not hand the script's cores per task on to srun.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
export OMP_NUM_THREADS="$SRUN_CPUS_PER_TASK"

# If the script itself is signalled (`scancel --batch --signal=USR1`, or `--signal=B:USR1@120` above), pass it on: srun
# forwards SIGUSR1 to all its processes. SIGTERM is left alone: Slurm sends it to them directly, and srun would kill.
# Before srun starts, since an untrapped signal would end the script and leave the step without anyone to queue it again.
step=
signalled=
trap 'signalled=1; [[ -z $step ]] || kill -s USR1 "$step"' USR1

# Trusted network only: process 0 listens on all interfaces of its node, and whoever reaches it can run code as you
# (docs/scaling.md). Where the nodes have several networks, name the interface of the internal one:
# export GLOO_SOCKET_IFNAME=ib0 NCCL_SOCKET_IFNAME=ib0

# --resume always: where there is nothing to resume, it starts anew.
# Processes that end by themselves end within seconds of each other. --wait ends those that wait in vain for a lost one;
# --kill-on-bad-exit would end them while they leave, and srun would report that instead of 75.
srun --kill-on-bad-exit=0 --wait=60 nenya train "$@" --resume &
step=$!
[[ -z $signalled ]] || kill -s USR1 "$step"

while :; do
    signalled=
    wait "$step"
    code=$? # the highest exit code of all processes; above 128 also if a signal ended the waiting
    [[ -n $signalled && $code -gt 128 ]] || break
done

case $code in
    0)
        echo "slurm.sh: done"
        ;;
    75) # saved, to be continued
        # Not where the job was cancelled: a person did not want it to go on.
        if [[ $(scontrol --oneliner show job "$SLURM_JOB_ID") == *JobState=RUNNING* ]]; then
            echo "slurm.sh: to be continued, queueing job $SLURM_JOB_ID again"
            scontrol requeue "$SLURM_JOB_ID" || echo "slurm.sh: not queued again; submit it once more to go on" >&2
        else
            echo "slurm.sh: saved; the job is being ended. Submit it once more to go on" >&2
        fi
        ;;
    2)
        echo "slurm.sh: a mistake in what was given, see the message above; not queued again" >&2
        ;;
    *)
        echo "slurm.sh: failed with exit code $code; not queued again. Submit it once more to go on from last.pth" >&2
        ;;
esac
exit "$code"
