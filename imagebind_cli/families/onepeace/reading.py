"""ONE-PEACE's preprocessing of pictures, sentences and sounds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagebind_cli.encoder import InputConfig, Sample
from imagebind_cli.encoders.audio import open_sound, part_of_sound
from imagebind_cli.encoders.text import sentence_samples
from imagebind_cli.encoders.vision import normalise, stored_picture
from imagebind_cli.errors import UserError
from imagebind_cli.families.onepeace.config import END, EPSILON, RATE
from imagebind_cli.families.onepeace.tokens import sentence_ids
from imagebind_cli.media.audio.sound import Excerpt, Sound, Waveform
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.image import as_rgb, upright
from imagebind_cli.options.audio import AudioOptions
from imagebind_cli.options.text import TextOptions
from imagebind_cli.options.vision import VisionOptions
from imagebind_cli.region_samples import region_samples

BLOCK = 1 << 19  # samples that are decoded at once


def read_squashed(source: Source | np.ndarray | Image.Image, config: InputConfig, options: VisionOptions) -> Iterator[Sample]:
    """Read a picture file, a Pillow image, or an array (h, w, 3) uint8 in RGB: all of it, scaled to the square; or regions of it.

    EXIF does not turn a picture of which all is read. Regions are of the upright one.

    Raises:
        OSError, ValueError: the file cannot be read, or the array has another shape.
    """
    image, facts, taken = stored_picture(source)
    to_clip = partial(_squashed_clip, config=config, options=options)
    if options.has_regions:
        picture = upright(image.copy() if isinstance(source, Image.Image) else image, whole=True)
        yield from region_samples(picture, options, config.mean, to_clip, facts=facts, began=taken)
        return
    notes = (f"EXIF orientation {facts['orientation']} is not applied, as published",) if facts["orientation"] != 1 else ()
    tensor = to_clip(as_rgb(image)).unsqueeze(0)
    del image, source  # a sample may wait to be used; its full-size pixels need not
    yield Sample(tensor, [None], notes, facts=facts, began=taken)


def _squashed_clip(picture: Image.Image, config: InputConfig, options: VisionOptions) -> Tensor:
    """Scale a picture in RGB to the encoder's input (3, h, w), whatever its shape."""
    height, width = config.shape[-2:]
    if options.view is not None:
        picture = options.view.picture(picture, height)
    pixels = np.array(picture.resize((width, height), Image.Resampling.BICUBIC))  # (h, w, 3)
    return normalise(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, config)


def read_sentence(source: str, config: InputConfig, options: TextOptions) -> Iterator[Sample]:
    """Read a sentence.

    Raises:
        ValueError: not a string, not UTF-8, or too long where `long_text` is `error`.
    """
    context = config.shape[0]

    def framed(words: list[int]) -> Tensor:
        return torch.tensor([*words, END] + [config.padding] * (context - 1 - len(words)))

    return sentence_samples(source, options, sentence_ids, framed, context - 1)


def read_waveform(source: Source | np.ndarray | tuple[np.ndarray, int], config: InputConfig, options: AudioOptions) -> Iterator[Sample]:
    """Read a sound file, or (waveform (samples,) or (channels, samples), rate in Hz), or a waveform alone, at 16 kHz.

    As published: the mean of the channels, at 16 kHz, is normalised over the whole of the sound, or of the requested stretch; then its
    first seconds are taken, as many as the encoder hears, and one of less than a second is repeated until it is one.

    Raises:
        OSError, ValueError: the file cannot be read, or holds no sound. UserError: it has another rate, and soxr is not installed.
    """
    most = config.shape[0]
    with open_sound(source, options.track) as whole:
        sound, begin, lacks = part_of_sound(whole, options.stretch)
        duration, first = sound.length / sound.rate, 0
        if options.moment is not None:
            first = int(options.moment.window(duration, most / RATE)[0] * RATE)
        heard, count, total, squares = np.empty(0, np.float32), 0, 0.0, 0.0
        for block in _mono(sound):
            wide = block.astype(np.float64)
            total, squares = total + float(wide.sum()), squares + float(wide @ wide)
            heard = np.concatenate([heard, block[max(first - count, 0) : max(first + most - count, 0)]])
            count += len(block)
        if not len(heard):
            raise ValueError("holds no sound")
        mean = total / count
        variance = max(squares / count - mean**2, 0.0)
        waveform = ((heard - mean) / math.sqrt(variance + EPSILON)).astype(np.float32)
        start = float(begin + Fraction(first, RATE))
        span = start, start + len(heard) / RATE
        warnings = [*sound.warnings, *lacks]
        if count > most and options.moment is None:
            warnings.append(f"{duration:.2f} s of sound, cut to the first {most / RATE:g} s")
        notes = (*sound.notes, "all channels are mixed, as published") if whole.channels > 1 else sound.notes
        if (shortest := config.shortest or 1) > len(waveform):
            waveform = np.tile(waveform, -(-shortest // len(waveform)))[:shortest]
            notes = (*notes, f"sound of less than {shortest / RATE:g} s is repeated until it is as long, as published")
        facts = sound.facts | {"heard": "mix", "windows": 1}
        yield Sample(torch.from_numpy(waveform).unsqueeze(0), [span], notes, facts, tuple(warnings), began=whole.began)


def _mono(sound: Sound | Waveform | Excerpt) -> Iterator[np.ndarray]:
    """Yield the mean of a sound's channels at 16 kHz, block by block, float32.

    Raises:
        UserError: it has another rate, and soxr is not installed.
    """
    stream, left = None, sound.length
    if sound.rate != RATE:
        try:
            from soxr import ResampleStream
        except ImportError:
            needs = f"a sound at {sound.rate} Hz needs soxr for ONE-PEACE, which is not installed"
            raise UserError(f"{needs}: pip install 'imagebind-cli[onepeace]'") from None
        stream, left = ResampleStream(sound.rate, RATE, 1, "float32", "HQ"), math.ceil(sound.length * (RATE / sound.rate))
    for start in range(0, sound.length, BLOCK):
        stop = min(start + BLOCK, sound.length)
        samples = sound.read(start, stop)
        mono = samples[0] if len(samples) == 1 else sum(samples[1:], samples[0]) / np.float32(len(samples))
        block = mono if stream is None else stream.resample_chunk(mono, last=stop == sound.length)
        yield block[:left]
        left -= len(block[:left])
    if left > 0:  # the resampler may make one less
        yield np.zeros(left, np.float32)
