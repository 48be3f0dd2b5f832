#!/bin/bash
# A Slurm array: 8 tasks, each with a part of `pairmill encode`, into one folder of the cluster's shared disk.
#
#     sbatch docker/slurm.sh IMAGES OUTPUT [options of encode]
#
#SBATCH --job-name=pairmill
#SBATCH --array=1-8
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --requeue
set -euo pipefail
images=$1 output=$2
shift 2
exec pairmill encode --images "$images" --output "$output" --direct_num_workers "$SLURM_CPUS_PER_TASK" \
  --part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "$@"
