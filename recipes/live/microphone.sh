#!/usr/bin/env bash
# Embed what a microphone hears, a window of 2 seconds each half second, into a store that can be asked meanwhile:
#
#     microphone.sh heard.h5 [DEVICE]
#     imagebind retrieve heard.h5 --text "glass breaks" -k 3
#
# DEVICE is ALSA's (`arecord -L`); an RTSP address or any other name with :// is read with ffmpeg. Rows go to stdout without their vectors.
set -u -o pipefail
[ $# -ge 1 ] || { echo "usage: microphone.sh STORE [DEVICE]" >&2; exit 2; }
store=$1 device=${2:-default}

case $device in
  *://*) ffmpeg -nostdin -v error -i "$device" -vn -ac 1 -ar 16000 -f s16le - ;;
  *) arecord -q -D "$device" -t raw -f S16_LE -r 16000 -c 1 ;;
esac |
  imagebind embed audio - --live --format s16le --rate 16000 --hop 0.5 --behind drop --memory "$store" |
  sed -u 's/, "embedding".*/}/'
