#!/usr/bin/env bash
# Preprocess on one machine, which needs no model, and embed on another, which needs no media files:
#
#     two-machines.sh prepare image /data/photos shards/         # here: decode once, into tar shards
#     rsync -a shards/*.tar gpu:shards/
#     two-machines.sh embed image shards/ photos.h5              # there
#
# Both go on where they stopped, so that the three lines may run again as files come in. Each run adds a line to OUT's .log.
# Exit code: 0 all done, 1 some input failed or the run was refused, 2 bad usage.
set -u
[ $# -eq 4 ] || { echo "usage: two-machines.sh prepare MODALITY FOLDER SHARDS | embed MODALITY SHARDS STORE" >&2; exit 2; }
step=$1 modality=$2 from=$3 to=${4%/}

case $step in
  prepare)
    mkdir -p "$to"
    said=$(imagebind preprocess "$modality" "$from" -o "$to/$modality-%06d.tar" 2>&1)
    ;;
  embed)
    said=$(imagebind embed "$modality" "${from%/}/$modality-*.tar" -o "$to" 2>&1)
    ;;
  *)
    echo "two-machines.sh: unknown step '$step'; choose prepare or embed" >&2
    exit 2
    ;;
esac
code=$?
printf '%s %s exit %d: %s\n' "$(date '+%F %T')" "$step" "$code" "$(tail -n 1 <<< "$said")" >> "${to%.*}.log"
exit "$code"
