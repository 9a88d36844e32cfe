"""Sound files to waveforms: soundfile for what it knows, PyAV for the rest (mp4, m4a, the sound track of a video)."""

from __future__ import annotations

import numpy as np
import soundfile

from imagebind_cli.media.decoding import Source, check_file, decoding


def read_audio(source: Source) -> tuple[np.ndarray, int]:
    """A sound as float32 (channels, samples) in [-1, 1], and its rate in Hz.

    Raises:
        OSError, ValueError: the file cannot be read, or holds no sound.
    """
    check_file(source)
    try:
        samples, rate = soundfile.read(_rewound(source), dtype="float32", always_2d=True)
        samples = samples.T
    except (soundfile.LibsndfileError, TypeError):  # TypeError: a file whose name ends in .raw, whatever it holds
        samples, rate = _read_with_av(_rewound(source))
    if not samples.size:
        raise ValueError("holds no sound")
    if not np.isfinite(samples).all():
        raise ValueError("holds samples that are not numbers (NaN or infinite)")
    return np.ascontiguousarray(samples), rate


def _read_with_av(source: Source) -> tuple[np.ndarray, int]:
    import av

    with decoding("sound"), av.open(source, mode="r") as container:
        if not container.streams.audio:
            raise ValueError("holds no sound track")
        stream = container.streams.audio[0]
        rate = stream.rate
        blocks: list[np.ndarray] = []
        resampler = av.AudioResampler(format="fltp")  # planar float; layout and rate stay the file's own
        for frame in container.decode(stream):
            blocks += [block.to_ndarray() for block in resampler.resample(frame)]
        blocks += [block.to_ndarray() for block in resampler.resample(None)]
    return np.concatenate(blocks, axis=1) if blocks else np.empty((0, 0), np.float32), rate


def _rewound(source: Source) -> Source:
    if hasattr(source, "seek"):
        source.seek(0)
    return source
