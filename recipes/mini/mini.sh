#!/usr/bin/env bash
# imagebind-mini from nothing: packages, data, training, measures, package. Every step leaves what is done alone, so the same command goes on.
#
#   recipes/mini/mini.sh [STEP...]      fetch prepare start image-text audio imu depth thermal evaluate package; all if none is named
#
# MINI_WORK: where everything goes, build/mini if not given (about 3 GB). MINI_ESC10: a folder of ESC-10, its fold-N recordings under one folder a
# class. MINI_ROADSCENE: a folder of RoadScene (visible/, infrared/), to measure thermal pictures with. MINI_SEEDS: how many runs of each, 3.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mkdir -p "${MINI_WORK:-build/mini}" && cd "${MINI_WORK:-build/mini}" && pwd)
seeds=$(seq 0 $((${MINI_SEEDS:-3} - 1)))
python=${PYTHON:-python3}
data=$work/data
runs=$work/runs
vision=$runs/image-text
cd "$here"  # recipes name the model's config relative to this folder

bind() { # bind RUN RECIPE SEED MANIFEST...: one encoder to the pictures, or on with it
    local run=$1 recipe=$2 seed=$3 flags=()
    shift 3
    for manifest in "$@"; do flags+=(--data "$manifest"); done
    imagebind train --recipe "$recipe" "${flags[@]}" --set run.seed="$seed" --set encoders.vision.init="$vision" --out "$runs/$run"
}

fetch() { "$python" fetch.py "$work"; }

prepare() {
    for what in drawings furniture thermal sounds motion; do "$python" "$what.py" "$work"; done
}

start() { "$python" start.py "$work"; }

image-text() {
    imagebind train --recipe image-text.toml --data "$data/drawings/train.jsonl" --data "$data/furniture/image-text.jsonl" \
        --set encoders.text.init="$work/start" --out "$vision"
}

audio() { # a run for each fold held out, and the one that is shipped, which has heard all
    local folds=() all=("$data/sounds/instruments.jsonl" "$data/sounds/effects.jsonl")
    for fold in "$data"/sounds/esc10-?.jsonl; do [ -e "$fold" ] && folds+=("$fold"); done
    for seed in $seeds; do
        for held in ${folds[@]+"${folds[@]}"}; do
            local others=()
            for fold in "${folds[@]}"; do [ "$fold" = "$held" ] || others+=("$fold"); done
            number=$(basename "$held" .jsonl)
            bind "audio-without-$number-$seed" image-audio.toml "$seed" "${all[@]}" "${others[@]}"
        done
    done
    bind audio image-audio.toml 0 "${all[@]}" ${folds[@]+"${folds[@]}"}
    bind audio-shuffled image-audio.toml 0 "$data/sounds/shuffled.jsonl"
}

imu() {
    for seed in $seeds; do bind "imu-$seed" image-imu.toml "$seed" "$data/motion/train.jsonl"; done
    bind imu-shuffled image-imu.toml 0 "$data/motion/shuffled.jsonl"
}

depth() {
    for seed in $seeds; do bind "depth-$seed" image-depth.toml "$seed" "$data/furniture/train.jsonl"; done
    bind depth-shuffled image-depth.toml 0 "$data/furniture/train-shuffled.jsonl"
}

thermal() {
    for seed in $seeds; do bind "thermal-$seed" image-thermal.toml "$seed" "$data/thermal/train.jsonl"; done
}

evaluate() { "$python" evaluate.py "$work"; }

package() { "$python" package.py "$work"; }

for step in "${@:-fetch prepare start image-text audio imu depth thermal evaluate package}"; do
    for one in $step; do
        echo "mini: $one" >&2
        "$one"
    done
done
