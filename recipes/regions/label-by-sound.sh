#!/usr/bin/env bash
# Label the boxes of any detector by sounds: each region gets the class whose recordings are nearest to it.
#
#     label-by-sound.sh pictures.json detections.json sounds/ labelled/
#
# pictures.json: COCO's form, its pictures beside it. detections.json: [{"image_id", "bbox", "score"}, …]. sounds/: a folder of recordings for
# each class. Writes labelled/regions.h5, .jsonl and .html; the same command continues. Exit code: 0 done, 1 some input failed, 2 bad usage.
set -u -o pipefail
[ $# -eq 4 ] || { echo "usage: label-by-sound.sh PICTURES DETECTIONS SOUNDS FOLDER" >&2; exit 2; }
pictures=$1 detections=$2 sounds=$3 folder=$4
mkdir -p "$folder" || exit 1

imagebind embed image --boxes "$detections" --pictures "$pictures" -o "$folder/regions.h5"
code=$?
[ "$code" -le 1 ] && [ -e "$folder/regions.h5" ] || exit "$code"
imagebind zeroshot image "$folder/regions.h5" --classes "$sounds" --class-modality audio --nms 0.5 -k 3 \
  --html "$folder/regions.html" > "$folder/regions.jsonl" || code=$?
exit "$code"
