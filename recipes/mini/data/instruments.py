"""Play the instruments of a General MIDI soundfont: notes, melodies, chords, broken chords and rhythms; sounds.py uses it.

Real recordings of an instrument are phrases as often as notes, so both are played: a model that hears only single notes does not know a phrase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.signal import fftconvolve, resample_poly

RATE = 16_000
SECONDS = 4.0
# The synthesiser reads its samples without a low-pass filter, so it plays at twice the rate and the filter comes after.
PLAYED_AT = 2 * RATE


@dataclass(frozen=True)
class Instrument:
    """How an instrument is played: General MIDI programs that sound like it (numbered from 0), its lowest and highest key.

    keys: of a percussion instrument, in place of a range; programs are then drum kits. chords: whether it plays several notes at once.
    plucked: whether notes die away by themselves.
    """

    programs: tuple[int, ...]
    lowest: int = 0
    highest: int = 0
    keys: tuple[int, ...] = ()
    chords: bool = False
    plucked: bool = False


INSTRUMENTS = {
    "accordion": Instrument((21, 21, 23), 48, 88, chords=True),
    "banjo": Instrument((105,), 48, 84, chords=True, plucked=True),
    "bell": Instrument((14, 112, 14), 55, 90, plucked=True),
    "drum": Instrument((0, 8, 16, 32, 40), keys=(35, 36, 38, 38, 40, 41, 43, 45, 47, 48, 50, 42, 46, 49, 51)),
    "flute": Instrument((73, 73, 72, 74), 60, 96),
    "guitar": Instrument((24, 25, 24, 25, 26, 27, 29, 30), 40, 79, chords=True, plucked=True),
    "maracas": Instrument((0, 8, 16), keys=(70, 70, 70, 82)),
    "piano": Instrument((0, 1, 0, 3), 33, 96, chords=True, plucked=True),
    "saxophone": Instrument((64, 65, 66, 67), 44, 84),
    "trumpet": Instrument((56, 56, 59), 54, 86),
    "violin": Instrument((40, 40, 110), 55, 96),
}
STYLES = ("note", "melody", "melody", "chords", "broken chords", "rhythm")
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))
CHORDS = ((0, 4, 7), (0, 3, 7), (0, 4, 7, 10), (0, 5, 7), (0, 7, 12), (0, 4, 7, 12))


class Note(NamedTuple):
    """A note: start and duration in seconds, MIDI key, velocity from 0 to 1."""

    start: float
    duration: float
    key: int
    velocity: float


def score(instrument: Instrument, style: str, numbers: np.random.Generator, seconds: float = SECONDS) -> list[Note]:
    """Compose notes in one of `STYLES`, in the order they begin, within what the instrument can play."""
    beat = 60 / numbers.uniform(60, 180)
    loudness = numbers.uniform(0.45, 1.0)

    def velocity() -> float:
        return float(np.clip(loudness + numbers.normal(0, 0.08), 0.2, 1.0))

    if instrument.keys:
        return _rhythm(instrument.keys, beat, seconds, numbers, velocity)
    scale = SCALES[numbers.integers(len(SCALES))]
    root = int(numbers.integers(instrument.lowest, max(instrument.lowest + 1, instrument.highest - 14)))
    steps = [root + 12 * octave + step for octave in range(3) for step in scale if root + 12 * octave + step <= instrument.highest]
    if style == "note":
        length = float(numbers.choice([0.5, 1.0, 2.0, seconds]))
        return [Note(t, 0.95 * length, int(numbers.choice(steps)), velocity()) for t in np.arange(0, seconds - 0.2, length)]
    if style in ("chords", "broken chords"):
        together = style == "chords" and instrument.chords
        return _chords(steps[0], instrument.highest, together, beat, seconds, numbers, velocity)
    if style == "rhythm":
        key = int(numbers.choice(steps))
        pattern = numbers.choice([0.25, 0.5, 0.5, 1.0], size=8) * beat
        return _repeat_pattern(pattern, lambda: key if numbers.random() < 0.7 else int(numbers.choice(steps)), seconds, 0.7, velocity)
    place = int(numbers.integers(len(steps)))

    def walk() -> int:
        nonlocal place
        place = int(np.clip(place + numbers.integers(-2, 3), 0, len(steps) - 1))
        return steps[place]

    overlap = 1.05 if numbers.random() < 0.5 else 0.8  # bound or separate
    return _repeat_pattern(numbers.choice([0.5, 0.5, 1.0, 1.0, 2.0], size=12) * beat, walk, seconds, overlap, velocity)


def _repeat_pattern(pattern, key, seconds, share, velocity) -> list[Note]:  # type: ignore[no-untyped-def]
    """Play notes one after another, in durations that repeat."""
    notes, start, number = [], 0.0, 0
    while start < seconds - 0.1:
        lasts = max(float(pattern[number % len(pattern)]), 0.08)
        notes.append(Note(start, share * lasts, key(), velocity()))
        start, number = start + lasts, number + 1
    return notes


def _chords(root, highest, together, beat, seconds, numbers, velocity) -> list[Note]:  # type: ignore[no-untyped-def]
    notes, start = [], 0.0
    lasts = beat * float(numbers.choice([1, 2, 4]))
    gap = float(numbers.uniform(0, 0.03)) if together else beat * float(numbers.choice([0.25, 0.5]))
    while start < seconds - 0.1:
        first = root + int(numbers.choice([0, 2, 4, 5, 7, 9]))
        keys = [key for step in CHORDS[numbers.integers(len(CHORDS))] if (key := first + step) <= highest] or [root]
        notes += [Note(start + gap * i, lasts if together else 1.5 * gap, key, velocity()) for i, key in enumerate(keys)]
        start += max(lasts, 0.1) if together else gap * len(keys)
    return sorted(note for note in notes if note.start < seconds)


def _rhythm(keys, beat, seconds, numbers, velocity) -> list[Note]:  # type: ignore[no-untyped-def]
    """Repeat a bar of eight steps of percussion, each with keys of its own; or single strokes far apart."""
    step = beat / float(numbers.choice([1, 2, 2, 4]))
    bar = [[int(key) for key in numbers.choice(keys, size=numbers.choice([0, 1, 1, 2]))] for _ in range(8)]
    bar[0] = bar[0] or [int(numbers.choice(keys))]
    count = int(seconds / max(step, 0.08))
    return [Note(i * max(step, 0.08), 0.3, key, velocity()) for i in range(count) for key in bar[i % 8]]


class Soundfont:
    """A soundfont, played by a software synthesiser."""

    def __init__(self, path: Path) -> None:
        import tinysoundfont  # one of the recipe's requirements; scores can be composed without it

        self._synth = tinysoundfont.Synth(samplerate=PLAYED_AT)
        self._font = self._synth.sfload(str(path))

    def play(self, instrument: Instrument, notes: Sequence[Note], program: int, cents: float = 0.0, larger: int = 0) -> np.ndarray:
        """Play notes: `SECONDS` of sound, (samples,) at `RATE`.

        cents: how far out of tune. larger: semitones by which the instrument is larger, or smaller if negative: its samples are played that
        much higher and faster and the whole then slowed down, so that notes stay as they are and their overtones go down.
        """
        speed = Fraction(2 ** (larger / 12)).limit_denominator(100)
        rate = round(PLAYED_AT / speed)
        synth = self._synth
        synth.sounds_off(0)
        synth.program_select(0, self._font, 0, program, is_drums=bool(instrument.keys))
        synth.set_tuning(0, cents / 100)
        higher = 0 if instrument.keys else larger  # a drum's key is which drum it is
        ends = [(note.start + note.duration, 0, note.key, 0.0) for note in notes]
        events = sorted([(note.start, 1, note.key, note.velocity) for note in notes] + ends)
        parts, now = [], 0
        for at, begins, key, velocity in [*events, (SECONDS, 0, 0, 0.0)]:
            stop = min(round(at * rate), round(SECONDS * rate))
            if stop > now:
                parts.append(np.frombuffer(synth.generate(stop - now), np.float32).copy())
                now = stop
            if begins:
                synth.noteon(0, key + higher, max(1, round(127 * velocity)))
            elif key:
                synth.noteoff(0, key + higher)
        stereo = np.concatenate(parts).reshape(-1, 2)
        return resample_poly(stereo.mean(axis=1), RATE * speed.numerator, PLAYED_AT * speed.denominator)


def add_room(sound: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    """Add a random room and microphone to a sound (samples,): echo, equalisation, noise and loudness."""
    if numbers.random() < 0.6:
        lasts = numbers.uniform(0.1, 0.8)
        times = np.arange(int(lasts * RATE)) / RATE
        echo = numbers.normal(size=len(times)) * np.exp(-6.9 * times / lasts)
        echo *= numbers.uniform(0.1, 0.6) / np.sqrt((echo**2).sum())
        echo[0] = 1
        sound = fftconvolve(sound, echo)[: len(sound)]
    sound = equalise(sound, numbers)
    level = np.sqrt((sound**2).mean()) + 1e-6
    if numbers.random() < 0.7:
        noise = equalise(numbers.normal(size=len(sound)), numbers)
        noise *= level * 10 ** (-numbers.uniform(20, 55) / 20) / (np.sqrt((noise**2).mean()) + 1e-9)
        sound = sound + noise
    return scale_to_peak(sound, 10 ** (-numbers.uniform(1, 24) / 20))


def equalise(sound: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    """Equalise a sound by a random smooth curve of up to 9 dB over the octaves, sometimes cutting highs or lows off."""
    spectrum = np.fft.rfft(sound)
    octave = np.log2(np.maximum(np.fft.rfftfreq(len(sound), 1 / RATE), 20) / 20)  # 0 to 8.6
    gain = np.interp(octave, np.linspace(0, 8.7, 6), numbers.normal(0, 4, size=6).clip(-9, 9))
    if numbers.random() < 0.25:
        gain -= 12 * np.maximum(octave - numbers.uniform(6.5, 8.5), 0) * 2
    if numbers.random() < 0.25:
        gain -= 12 * np.maximum(numbers.uniform(1.5, 3.5) - octave, 0)
    return np.fft.irfft(spectrum * 10 ** (gain / 20), len(sound))


def scale_to_peak(sound: np.ndarray, peak: float) -> np.ndarray:
    """Scale a sound to a peak; silence stays silence."""
    return sound * (peak / max(np.abs(sound).max(), 1e-5))
