#!/usr/bin/env bash
# Every night, embed what is new in a folder that grows, and what has changed:
#
#     0 2 * * *  PATH=/opt/imagebind/bin:/usr/bin:/bin /path/to/nightly.sh image /data/photos /data/photos.h5
#
# One line a night goes to STORE's .log; files that fail are listed in its .errors.jsonl and are not tried again until they change.
# Exit code: 0 every file is embedded, 1 some failed tonight or before, or the run was refused (cron mails nothing itself: read the log).
set -u
[ $# -eq 3 ] || { echo "usage: nightly.sh MODALITY FOLDER STORE" >&2; exit 2; }
modality=$1 folder=$2 store=$3

said=$(imagebind embed "$modality" "$folder" -o "$store" --errors "${store%.*}.errors.jsonl" 2>&1)
code=$?
printf '%s exit %d: %s\n' "$(date '+%F %T')" "$code" "$(tail -n 1 <<< "$said")" >> "${store%.*}.log"
exit "$code"
