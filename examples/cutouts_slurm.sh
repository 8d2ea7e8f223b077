#!/usr/bin/env bash
# Make cutouts of many granules by an array of jobs, then put the shares together.
#
#     jobs=$(sbatch --parsable examples/cutouts_slurm.sh granules/ cutouts.h5 [more options of `nenya cutouts`])
#     sbatch --dependency=afterok:$jobs --wrap 'nenya cutouts merge cutouts.shard-*-of-16 --out cutouts.h5'
#
# Each job takes every 16th granule: Slurm tells it which it is. Granules and output must lie where every node sees them.
# A job that is queued again goes on where it was. Adapt: number of jobs, cores, memory, time.

#SBATCH --job-name=nenya-cutouts
#SBATCH --array=0-15
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=02:00:00
#SBATCH --output=cutouts_%A_%a.log
#SBATCH --requeue

set -euo pipefail

if (($# < 2)); then
    echo "usage: sbatch cutouts_slurm.sh GRANULES OUT.h5 [OPTIONS of nenya cutouts]" >&2
    exit 2
fi
granules=$1 out=$2
shift 2

code=0
nenya cutouts "$granules" --out "$out" --workers "${SLURM_CPUS_PER_TASK:-1}" --resume "$@" || code=$?
# 3: done, but some granules cannot be read; merging names them again
((code == 0 || code == 3)) || exit "$code"
