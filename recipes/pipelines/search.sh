#!/usr/bin/env bash
# Use a search in another program: link the files nearest to some words into a folder, best first.
#
#     search.sh photos.h5 "a dog on a beach" found/        # found/01-img_2041.jpg, found/02-…
#
# Each run adds a line to STORE's .log. Exit code: 0 found, 1 the search was refused or found nothing, 2 bad usage.
set -u
[ $# -eq 3 ] || { echo "usage: search.sh STORE WORDS FOLDER" >&2; exit 2; }
store=$1 words=$2 folder=$3

paths() { # the ids of answers, as NUL-separated bytes: file names may hold anything else
  python3 -c 'import json, os, sys
for line in sys.stdin: sys.stdout.buffer.write(os.fsencode(json.loads(line)["id"]) + b"\0")'
}

said=$(mktemp)
count=0
mkdir -p "$folder"
while IFS= read -r -d '' path; do
  count=$((count + 1))
  ln -sf "$(realpath "$path")" "$folder/$(printf %02d "$count")-$(basename "$path")"
done < <(imagebind retrieve "$store" --text "$words" -k 10 2> "$said" | paths)
code=$((count == 0))
[ "$count" -gt 0 ] && echo "$count found for '$words'" > "$said"
printf '%s exit %d: %s\n' "$(date '+%F %T')" "$code" "$(tail -n 1 "$said")" >> "${store%.*}.log"
rm "$said"
exit "$code"
