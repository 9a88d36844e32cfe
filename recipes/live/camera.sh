#!/usr/bin/env bash
# Embed what a camera sees, a window of 2 seconds each second, into a store that can be asked meanwhile:
#
#     camera.sh seen.h5 [DEVICE]
#     imagebind retrieve seen.h5 --text "someone at the door" -k 3
#
# DEVICE is a camera (/dev/video0), an RTSP address, or a file. Rows go to stdout without their vectors.
set -u -o pipefail
[ $# -ge 1 ] || { echo "usage: camera.sh STORE [DEVICE]" >&2; exit 2; }
store=$1 device=${2:-/dev/video0}

ffmpeg -nostdin -v error -i "$device" -an -vf 'scale=320:240:force_original_aspect_ratio=increase,crop=320:240,fps=5' \
  -f rawvideo -pix_fmt rgb24 - |
  imagebind embed video - --live --format rawvideo --size 320x240 --fps 5 --hop 1 --behind drop --memory "$store" |
  sed -u 's/, "embedding".*/}/'
