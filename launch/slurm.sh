#!/usr/bin/env bash
# GPU nodes under Slurm, one process a GPU; the job saves, and is queued again, before its time ends.
#
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh \
#     pt2tt run --distributed --task sst2 --data_dir /shared/data --model google/flan-t5-xl \
#     --gin.Tune.batch_size=16 --out /shared/runs/sst2
#
# 16 GPUs share a batch of 16. /shared/data holds glue/sst2/{train,validation}.jsonl.gz; without
# --data_dir, run `tfds build glue/sst2` once, before, where all nodes see the home folder.
#
# T5X:  ... launch/slurm.sh python -m t5x.train --multiprocess_gpu --gin_search_paths=gin ...
#
# --out (MODEL_DIR) has to be on a disk that all nodes see; VENV is an environment with the extra
# gpu, by default .venv.
#SBATCH --job-name=pt2tt
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# Slurm tells this script alone, three minutes ahead. SIGTERM lets every process save at one step
# (JAX agrees on it); then the job goes to the end of the queue, and goes on from there.
leave() {
  scancel --signal=TERM "$SLURM_JOB_ID.0"
  sleep 90
  scontrol requeue "$SLURM_JOB_ID"
}
trap leave USR1

source "${VENV:-.venv}/bin/activate"
# JAX takes 0.75 by default, and refuses to be told by both of these names.
export XLA_CLIENT_MEM_FRACTION=${XLA_CLIENT_MEM_FRACTION:-${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}}
unset XLA_PYTHON_CLIENT_MEM_FRACTION
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 "$@" &
wait $!
