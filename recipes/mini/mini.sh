#!/usr/bin/env bash
# Make imagebind-mini from nothing: packages, data, training, report, package. Every step skips what is done, so the same command continues a run.
#
#   recipes/mini/mini.sh [STEP...]      fetch prepare shard start image-text audio imu depth thermal evaluate package; all of these by default; locate, moments, turns, separate, ablate, blind, quarter
#
# MINI_WORK: where everything goes (about 6 GB); build/mini by default. MINI_ESC10: a folder of ESC-10, with a folder for each class. MINI_ROADSCENE: a
# folder of RoadScene (visible/, infrared/), to measure thermal pictures with. MINI_SEEDS: runs of each kind; 3 by default.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mkdir -p "${MINI_WORK:-build/mini}" && cd "${MINI_WORK:-build/mini}" && pwd)
seeds=$(seq 0 $((${MINI_SEEDS:-3} - 1)))
python=${PYTHON:-python3}
data=$work/data
runs=$work/runs
vision=$runs/image-text
bound_start=$work/start-bound
cd "$here/train"  # recipes name the model's config relative to this folder

bind() { # bind RUN RECIPE SEED DATA... [--set ...]: bind one encoder to the pictures, or continue the run
    local run=$1 recipe=$2 seed=$3 flags=()
    shift 3
    while [ $# -gt 0 ]; do
        case $1 in
            --set) flags+=("$1" "$2"); shift ;;
            *) flags+=(--data "$1") ;;
        esac
        shift
    done
    imagebind train --recipe "$recipe" "${flags[@]}" --set run.seed="$seed" --set encoders.vision.init="$vision" --out "$runs/$run"
}

fetch() { "$python" ../data/fetch.py "$work"; }

prepare() {
    for program in drawings furniture frame_captions thermal sounds motion stereo; do "$python" "../data/$program.py" "$work"; done
    if [ -n "${MINI_ROADSCENE:-}" ]; then "$python" ../data/roadscene.py "$work" "$MINI_ROADSCENE"; fi
}

shard() { # sounds and motion take longer to decode than to learn from
    mkdir -p "$work/prepared"
    for manifest in "$data"/sounds/{instruments,effects,shuffled}.jsonl "$data"/sounds/esc10-?.jsonl; do
        if [ -e "$manifest" ]; then
            imagebind preprocess image,audio --manifest "$manifest" --model mini.json -o "$work/prepared/$(basename "$manifest" .jsonl).h5"
        fi
    done
    for which in train shuffled; do
        imagebind preprocess image,imu --manifest "$data/motion/$which.jsonl" --model mini.json -o "$work/prepared/motion-$which.h5"
    done
}

start() { "$python" distil_text.py "$work"; "$python" distil_image.py "$work"; }

image-text() { # words are bound to the image encoder of distil_image.py's second round; the third keeps the vectors of drawings
    local words=$runs/words images=$work/start-image-concepts
    imagebind train --recipe image-text.toml --data "$data/drawings/train.jsonl" --data "$data/furniture/image-text.jsonl" \
        --set encoders.vision.init="$images" --set encoders.text.init="$work/start" --out "$words-first"
    imagebind train --recipe image-text.toml --data "$data/drawings/framed.jsonl" --data "$data/furniture/framed.jsonl" \
        --set encoders.vision.init="$images" --set encoders.text.init="$words-first" --set pairs.0.temperature=0.1 \
        --set pairs.0.learn_temperature=false --set optimizer.lr=1e-3 --set run.steps=800 --out "$words"
    "$python" join_encoders.py "$vision" vision="$work/start-image" text="$words"
    "$python" start_from_image.py "$vision" "$bound_start"
}

audio() { # a run for each held-out fold, and the shipped one, which learns from all folds
    local folds=() all=("$work/prepared/instruments.h5" "$work/prepared/effects.h5")
    for fold in "$work"/prepared/esc10-?.h5; do [ -e "$fold" ] && folds+=("$fold"); done
    for seed in $seeds; do
        for held in ${folds[@]+"${folds[@]}"}; do
            local others=()
            for fold in "${folds[@]}"; do [ "$fold" = "$held" ] || others+=("$fold"); done
            number=$(basename "$held" .h5)
            bind "audio-without-$number-$seed" image-audio.toml "$seed" "${all[@]}" "${others[@]}" --set encoders.audio.init="$bound_start"
        done
    done
    bind audio image-audio.toml 0 "${all[@]}" ${folds[@]+"${folds[@]}"} --set encoders.audio.init="$bound_start"
    bind audio-shuffled image-audio.toml 0 "$work/prepared/shuffled.h5" --set encoders.audio.init="$bound_start"
}

imu() {
    for seed in $seeds; do bind "imu-$seed" image-imu.toml "$seed" "$work/prepared/motion-train.h5"; done
    bind imu-shuffled image-imu.toml 0 "$work/prepared/motion-shuffled.h5"
}

depth() {
    for seed in $seeds; do bind "depth-$seed" image-depth.toml "$seed" "$data/furniture/train.jsonl" --set encoders.depth.init="$bound_start"; done
    bind depth-shuffled image-depth.toml 0 "$data/furniture/train-shuffled.jsonl" --set encoders.depth.init="$bound_start"
}

thermal() {
    for seed in $seeds; do bind "thermal-$seed" image-thermal.toml "$seed" "$data/thermal/train.jsonl" --set encoders.thermal.init="$bound_start"; done
    for fold in "$data"/roadscene/train-?.jsonl; do # what real pairs add: measured, never shipped
        if [ -e "$fold" ]; then
            number=$(basename "$fold" .jsonl)
            bind "roadscene-${number#train-}" roadscene.toml 0 "$fold" --set encoders.thermal.init="$runs/thermal-0"
        fi
    done
}

earlier() { # earlier RUN COMMIT: the model that the package held at that commit
    local run=$runs/$1
    if [ -e "$run" ]; then return; fi
    mkdir -p "$run.part"
    git -C "$here/../.." archive "$2" imagebind_cli/models/mini | tar -x --strip-components 3 -C "$run.part"
    mv "$run.part" "$run"
}

ablate() { # one setting changed at a time; for the report alone
    for seed in $seeds; do
        bind "ablation-temperature-$seed" image-imu.toml "$seed" "$work/prepared/motion-train.h5" --set pairs.0.temperature=0.2
        bind "ablation-learnt-$seed" image-imu.toml "$seed" "$work/prepared/motion-train.h5" --set pairs.0.learn_temperature=true
        bind "ablation-batch-$seed" image-imu.toml "$seed" "$work/prepared/motion-train.h5" --set pairs.0.batch=16
        bind "ablation-mlp-$seed" image-imu.toml "$seed" "$work/prepared/motion-train.h5" --set encoders.imu.head=mlp
        bind "ablation-temperature-depth-$seed" image-depth.toml "$seed" "$data/furniture/train.jsonl" --set pairs.0.temperature=0.07 --set encoders.depth.init="$bound_start"
        bind "ablation-apart-$seed" image-depth.toml "$seed" "$data/furniture/train.jsonl" --set pairs.0.aligned=false --set encoders.depth.init="$bound_start"
    done
    earlier image-text-pairs 6e42bab    # pictures and words alone, from random weights
    earlier image-text-imitated 303cbf7 # after imitating the teacher, before concepts were learnt
    earlier image-text-concepts 3b8c34e # after distil_image.py's second round, colours as they are
    for which in pairs imitated concepts; do
        local vision=$runs/image-text-$which
        "$python" start_from_image.py "$vision" "$work/start-bound-$which"
        for seed in $seeds; do
            bind "ablation-$which-imu-$seed" image-imu.toml "$seed" "$work/prepared/motion-train.h5"
            bind "ablation-$which-depth-$seed" image-depth.toml "$seed" "$data/furniture/train.jsonl" \
                --set pairs.0.temperature=0.07 --set run.epochs=20 --set encoders.depth.init="$work/start-bound-$which"
        done
    done
}

blind() { # anchors that know no colours, beside the paper's recipe at equal data and steps: the table of docs/blind-anchor.md
    earlier image-text-concepts 3b8c34e # the image encoder before its third round
    local concepts=$runs/image-text-concepts start=$work/start-bound-concepts set=(--set pairs.0.temperature=0.07 --set pairs.0.views=3 --set run.epochs=4)
    "$python" start_from_image.py "$concepts" "$start"
    imagebind train --recipe blind-image.toml --distil "$concepts" --init "$concepts" --data furniture="$data/furniture/train.jsonl" \
        --data drawings="$data/drawings/train.jsonl" --set run.steps=250 --out "$runs/image-blind"
    set+=(--set encoders.depth.init="$start")
    for seed in $seeds; do
        local vision=$concepts
        bind "blind-none-$seed" image-depth.toml "$seed" "$data/furniture/train.jsonl" "${set[@]}"
        bind "blind-targets-$seed" image-depth.toml "$seed" "$data/furniture/train.jsonl" "${set[@]}" --set 'pairs.0.anchor.blind=["colour"]'
        vision=$runs/image-blind
        bind "blind-encoder-$seed" image-depth.toml "$seed" "$data/furniture/train.jsonl" "${set[@]}"
    done
    "$python" ../report/blind.py "$work" | tee "$work/blind.md"
}

quarter() { # the image encoder in a quarter of its size, from drawings without words, and the names of FxEmoji's drawings by both
    imagebind train --recipe quarter.toml --data "$data/drawings/train.jsonl" --out "$runs/quarter"
    for model in mini "$runs/quarter"; do
        imagebind embed image --manifest "$data/drawings/fxemoji.jsonl" --model "$model" -o "$work/scores/$(basename "$model")-fxemoji.h5"
        imagebind zeroshot image "$work/scores/$(basename "$model")-fxemoji.h5" --labels "$data/drawings/seen.json" \
            --templates ../report/templates.txt --truth label --model "$model"
    done
}

evaluate() { "$python" ../report/report.py "$work"; }

turns() { "$python" ../report/turns.py "$work" "$runs/imu-0" | tee "$work/turns.md"; } # motion of a telephone that is turned: the table of docs/mini-report.md

moments() { "$python" ../report/moments.py "$work" | tee "$work/moments.md"; } # when in recordings of other people: the table of docs/moments.md

locate() { # where in scenes of an unseen set: the table of docs/locate.md; the recordings that ask are of fold 4, which these encoders have not heard
    local encoders=$runs/joined-without-esc10-4
    "$python" join_encoders.py "$encoders" vision="$vision" text="$vision" audio="$runs/audio-without-esc10-4-0"
    "$python" ../report/scenes.py "$work" "$encoders" 4 | tee "$work/locate.md"
}

separate() { # sounds apart, by the vectors of the packaged model: recipes/separate/README.md
    "$python" ../../separate/prepare.py "$work" 4
    "$python" ../../separate/train.py "$work/separate-4"
    "$python" ../../separate/evaluate.py "$work/separate-4" | tee "$work/separate.md"
}

package() { "$python" package.py "$work"; }

for steps in "${@:-fetch prepare shard start image-text audio imu depth thermal evaluate package}"; do
    for step in $steps; do
        echo "mini: $step" >&2
        "$step"
    done
done
