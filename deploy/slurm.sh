#!/bin/bash
# alexnet train on several nodes of a SLURM cluster, a process for each GPU:
#   sbatch deploy/slurm.sh imagenet --data prepared:/shared/imagenet256
# JAX finds the processes by SLURM's variables; no flag says who they are. The folder
# that this is submitted from must be seen by all nodes: runs/ is written there.
#SBATCH --job-name=alexnet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
# Two minutes before the time is over all processes save one step and end with 143.
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

run="runs/slurm-$SLURM_JOB_ID" # the same after a requeue, which goes on in it
source "${ALEXNET_VENV:-.venv}/bin/activate"
code=0
# A dead process ends the others within a minute; srun then ends what is left.
srun --kill-on-bad-exit=1 \
  alexnet train "$@" --run-dir "$run" --resume || code=$?
if [ "$code" = 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
