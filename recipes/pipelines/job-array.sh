#!/usr/bin/env bash
#SBATCH --job-name=embed
#SBATCH --gpus=1
# Divide a folder among the tasks of a Slurm job array, then join what they made:
#
#     job=$(sbatch --parsable --array=1-8 job-array.sh video /data/films films.h5)
#     sbatch --dependency=afterany:$job job-array.sh video /data/films films.h5
#
# Inside an array it embeds the task's share into films-00001-of-00008.h5 and on; outside, it merges these into films.h5.
# Each task and the merge add a line to STORE's .log. Submitted again, both do only what is new.
# Exit code: 0 all done, 1 some input failed or the run was refused, 2 bad usage.
set -u
[ $# -eq 3 ] || { echo "usage: job-array.sh MODALITY FOLDER STORE" >&2; exit 2; }
modality=$1 folder=$2 store=$3

if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  what="task $SLURM_ARRAY_TASK_ID"
  said=$(imagebind embed "$modality" "$folder" -o "$store" --shard auto --errors "${store%.*}.errors.jsonl" 2>&1)
else
  what=merge
  said=$(imagebind store merge "${store%.*}-*-of-*.${store##*.}" -o "$store" 2>&1)
fi
code=$?
printf '%s %s exit %d: %s\n' "$(date '+%F %T')" "$what" "$code" "$(tail -n 1 <<< "$said")" >> "${store%.*}.log"
exit "$code"
