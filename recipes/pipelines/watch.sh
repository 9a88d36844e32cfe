#!/usr/bin/env bash
# Embed files as they come into a folder, with the model loaded once:
#
#     watch.sh image /data/incoming photos.h5
#
# A file is taken up once it was left alone for 5 seconds, or as many as the variable SETTLE_SECONDS says; move large ones in when they
# are whole. It ends with SIGTERM or Ctrl-C; started again it takes up what came meanwhile. A line goes to STORE's .log when it ends, and
# what failed is in its .errors.jsonl.
# Exit code: 143 as it was ended, 1 the run was refused, or a file failed and the folder is gone; 2 bad usage.
set -u
[ $# -eq 3 ] || { echo "usage: watch.sh MODALITY FOLDER STORE" >&2; exit 2; }
modality=$1 folder=$2 store=$3 settle=${SETTLE_SECONDS:-5}

arrivals() { # names of files that settled since the last look; at first of all that are there
  local since=0 now
  while kill -0 $$ 2> /dev/null && [ -d "$folder" ]; do
    now=$(($(date +%s) - settle))
    find "$folder" -type f ! -name '.*' -newerct "@$since" ! -newerct "@$now" -print0
    since=$now
    sleep 1
  done
}

said=$(mktemp)
exec 3< <(arrivals)
looking=$!
imagebind embed "$modality" -0 -o "$store" --errors "${store%.*}.errors.jsonl" <&3 2> "$said" &
embed=$!
exec 3<&-
trap 'kill -TERM "$embed"' TERM INT
code=0
while kill -0 "$embed" 2> /dev/null; do # a signal ends the waiting, too
  wait "$embed"
  code=$?
done
kill "$looking" 2> /dev/null # who started this may wait for the end of our output, which it holds open
printf '%s exit %d: %s\n' "$(date '+%F %T')" "$code" "$(tail -n 1 "$said")" >> "${store%.*}.log"
rm "$said"
exit "$code"
