#!/usr/bin/env bash
# Embed what a motion sensor on a serial line sends, lines of CSV (accelerometer x,y,z, gyroscope x,y,z), a window of 5 seconds each second:
#
#     motion.sh moved.h5 DEVICE RATE
#
# DEVICE is the line (/dev/ttyACM0), a FIFO or a file; set a line's speed first: stty -F /dev/ttyACM0 115200 raw. RATE is in Hz.
# Rows go to stdout without their vectors.
set -u -o pipefail
[ $# -eq 3 ] || { echo "usage: motion.sh STORE DEVICE RATE" >&2; exit 2; }
store=$1 device=$2 rate=$3

imagebind embed imu "$device" --live --rate "$rate" --hop 1 --behind drop --memory "$store" |
  sed -u 's/, "embedding".*/}/'
