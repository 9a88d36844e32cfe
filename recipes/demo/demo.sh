#!/bin/sh
# Embeds the samples of all seven modalities and prints what is near what.
#
#     recipes/demo/demo.sh [OPTION OF imagebind embed]...
#     recipes/demo/demo.sh --model huge
#
# IMAGEBIND_MODEL names the model as well. IMAGEBIND and PYTHON name the two programs, where the ones found are not meant.
set -eu

here=$(dirname "$0")
samples=$here/samples
IMAGEBIND=${IMAGEBIND:-$(command -v imagebind || echo "$here/../../.venv/bin/imagebind")}
if ! found=$(command -v "$IMAGEBIND"); then
    echo "demo.sh: there is no $IMAGEBIND; install the package first: pip install -e ." >&2
    exit 1
fi
beside=$(dirname "$found")/python # the one that surely has numpy and rich
if [ ! -x "$beside" ]; then beside=python3; fi
PYTHON=${PYTHON:-$beside}

# `imagebind weights info` takes only these of the options, and the model without its name.
model= config= previous=
for argument; do
    case $previous in --model) model=$argument ;; --config) config=$argument ;; esac
    case $argument in --model=*) model=${argument#*=} ;; --config=*) config=${argument#*=} ;; esac
    previous=$argument
done

folder=$(mktemp -d)
running=
trap 'kill $running 2>/dev/null || true; rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM

say() { printf '$ %s\n' "$*"; }

start() { # NAME INPUT COMMAND...: its output and its notices go to files of that name
    name=$1 input=$2 && shift 2
    "$@" <"$input" >"$folder/$name" 2>"$folder/$name.notices" &
    running="$running $!"
}

embed() { # MODALITY [EMBED OPTION]...
    modality=$1 && shift
    say imagebind embed "$modality" "$samples/$modality" "$@" '>> vectors.jsonl'
    start "$modality" /dev/null "$IMAGEBIND" embed "$modality" "$samples/$modality" "$@"
}

tell() { awk '!seen[$0]++' "$folder"/*.notices >&2; } # every notice once

finish() { # waits for what was started, and stops everything where one of it failed
    status=0
    for process in $running; do wait "$process" || status=$?; done
    running=
    if [ "$status" -ne 0 ]; then
        tell
        exit "$status"
    fi
}

# Two at a time: most of a short run is the start.
embed image "$@"
embed video "$@"
finish
embed audio "$@"
embed depth "$@"
finish
embed thermal "$@"
embed imu "$@"
finish
say imagebind embed text "$@" "< $samples/captions.txt >> vectors.jsonl"
start text "$samples/captions.txt" "$IMAGEBIND" embed text "$@"
say imagebind weights info ${model:+"$model"} ${config:+--config "$config"} --json
start info /dev/null "$IMAGEBIND" weights info ${model:+"$model"} ${config:+--config "$config"} --json
finish

(cd "$folder" && cat image video audio depth thermal imu text >vectors.jsonl)
tell
untrained=
case $(cat "$folder/info") in *'"untrained": true'*) untrained=--untrained ;; esac
say python "$here/near.py" $untrained vectors.jsonl
echo
"$PYTHON" "$here/near.py" $untrained "$folder/vectors.jsonl"
