"""Live streams of sound, motion and pictures, embedded window by window as they arrive.

cutting.py   a window, and what cuts a stream into windows
sound.py     raw samples, resampled as they arrive
pictures.py  raw pictures
readings.py  lines of CSV from an IMU
waiting.py   windows between the thread that reads and the one that encodes: dropped or waited for when these fall behind
job.py       `embed_stream`: a stream to a row for each window, and into a store
"""

from imagebind_cli.live.cutting import StreamFormat
from imagebind_cli.live.job import LiveRow, embed_stream

__all__ = ["LiveRow", "StreamFormat", "embed_stream"]
