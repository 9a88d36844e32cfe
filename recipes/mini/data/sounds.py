"""Make recordings of instruments, animals and effects, and pair them with pictures of what makes the sound.

    MINI_ESC10=FOLDER python recipes/mini/data/sounds.py WORK

Instruments are played from one soundfont to learn from and from another to test with; real instruments are for testing; animals and effects
come from two programs for children; where MINI_ESC10 names the folder of ESC-10, its recordings are taken by fold. Writes to WORK/data/sounds:

    instruments.jsonl, effects.jsonl, esc10-N.jsonl   training pairs: image, audio; those of ESC-10 fold by fold
    shuffled.jsonl                                    a control: all but fold 1, every recording with another's pictures
    test-soundfont.jsonl, test-real.jsonl             instruments of the other soundfont; recordings of real ones
    test-esc10-N.jsonl                                a fold as it came, to test a model that did not learn from it
    names-instruments.json, names-esc10.json          the classes' names, fixed before anything was measured
    ceiling-instruments.jsonl, ceiling-esc10.jsonl    drawings of these classes from sets that nothing is trained on
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
from instruments import INSTRUMENTS, RATE, STYLES, Soundfont, add_room, equalise, scale_to_peak, score
from pairing import Row, ceiling_rows, pair_with_pictures, pictures_by_group, pictures_of, shuffle_pictures, stamp_sentence, write_rows
from qt_resources import resources
from scipy.signal import resample_poly

TRAINING_CLIPS, TEST_CLIPS = 216, 20  # clips of each instrument for training and for the test
MOST_SEMITONES = 5  # most semitones by which a training instrument is made larger or smaller
HEARINGS = 6  # variations of each real training recording

TRAINING_FONT = "fluid-soundfont-gm/usr/share/sounds/sf2/FluidR3_GM.sf2"
TEST_FONT = "minuet-data/usr/share/minuet/soundfonts/GeneralUser-v1.47.sf2"
GCOMPRIS = "gcompris-qt-data/usr/share/gcompris-qt/rcc"
STAMPS = "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"

# The codes of the emoji that draw each class.
PICTURES = {
    # instruments
    "accordion": ("1FA97",), "banjo": ("1FA95",), "bell": ("1F514",), "drum": ("1F941",), "flute": ("1FA88",), "guitar": ("1F3B8",),
    "maracas": ("1FA87",), "piano": ("1F3B9",), "saxophone": ("1F3B7",), "trumpet": ("1F3BA",), "violin": ("1F3BB",),
    # ESC-10, by the names that ESC-50 gives its classes
    "chainsaw": ("1FA9A",), "clock tick": ("23F0", "1F570", "23F1", "23F2"), "crackling fire": ("1F525",), "crying baby": ("1F476",),
    "dog": ("1F415", "1F436"), "helicopter": ("1F681",), "rain": ("1F327", "2614"), "rooster": ("1F413",), "sea waves": ("1F30A",),
    "sneezing": ("1F927",),
    # animals and effects
    "applause": ("1F44F",), "car": ("1F697", "1F698"), "cat": ("1F408", "1F431"), "chicken": ("1F414",), "cow": ("1F404", "1F42E"),
    "door": ("1F6AA",), "duck": ("1F986",), "frog": ("1F438",), "heart": ("2764", "1F493"), "horse": ("1F40E", "1F434"), "owl": ("1F989",),
    "pig": ("1F416", "1F437"), "sheep": ("1F411", "1F40F"), "telephone": ("260E", "1F4DE"), "train": ("1F682", "1F686"),
}  # fmt: skip

ESC10 = {
    "001 - Dog bark": "dog", "002 - Rain": "rain", "003 - Sea waves": "sea waves", "004 - Baby cry": "crying baby",
    "005 - Clock tick": "clock tick", "006 - Person sneeze": "sneezing", "007 - Helicopter": "helicopter", "008 - Chainsaw": "chainsaw",
    "009 - Rooster": "rooster", "010 - Fire crackling": "crackling fire",
}  # fmt: skip

# The class of each gcompris recording of an instrument; it has no bell.
REAL_INSTRUMENTS = {
    "accordion": "accordion", "banjo": "banjo", "drum_kit": "drum", "electric_guitar": "guitar", "flute_traversiere": "flute",
    "guitar": "guitar", "maracas": "maracas", "piano": "piano", "saxophone": "saxophone", "snare_drum": "drum", "trumpet": "trumpet",
    "violin": "violin",
}  # fmt: skip

GCOMPRIS_EFFECTS = {
    "cat": "cat", "chickens": "chicken", "cow": "cow", "dog": "dog", "duck": "duck", "horse": "horse", "owl": "owl", "pig": "pig",
    "sheep": "sheep", "helicopter": "helicopter", "LRBark_1_LA_cut": "dog", "LRBark_3_LA_cut": "dog", "LRRain_in_garden_01_LA_cut": "rain",
    "LRFrogsInPondDuringStormLACut": "frog", "LRApplauses_1_LA_cut": "applause", "LRDoor_Open_2_LA": "door", "LRHeart_beat_01_LA": "heart",
    "LRStartAndStopCarEngine1LACut": "car", "LRTrain_slowing_down_01_LA_cut": "train", "LRRing_01_LA": "telephone",
}  # fmt: skip
# Stamps that are paired with all emoji of a class; the others are paired with their own picture.
STAMP_EFFECTS = {
    "dog": "dog", "rooster": "rooster", "cow": "cow", "cow_white": "cow", "pig": "pig", "sheep": "sheep", "sheep_lamb": "sheep", "duck": "duck",
    "drake": "duck", "frog": "frog", "horse": "horse", "owl": "owl", "hen": "chicken", "blackcat": "cat",
}  # fmt: skip


def read_sound(file: Path | io.BytesIO) -> np.ndarray:
    """Read a sound file, its channels averaged, (samples,) at `RATE`."""
    sound, rate = soundfile.read(file, always_2d=True)
    ratio = Fraction(RATE, rate)
    return resample_poly(sound.mean(axis=1), ratio.numerator, ratio.denominator)


def vary(sound: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    """Vary a recording: take a stretch in which something sounds, change its speed a little, its place in time, noise and loudness."""
    speed = Fraction(int(numbers.integers(88, 113)), 100)
    sound = resample_poly(sound, speed.denominator, speed.numerator)
    length = min(len(sound), int(numbers.uniform(2.0, 3.0) * RATE))
    energy = np.concatenate([[0], np.cumsum(sound**2)])
    power = energy[length:] - energy[:-length]  # of the stretch that starts at each sample
    starts = np.flatnonzero(power >= 0.3 * power.max())
    start = int(numbers.choice(starts))
    sound = equalise(sound[start : start + length], numbers)
    quiet = np.zeros(max(0, 2 * RATE - length))
    if len(quiet):  # somewhere in two seconds of silence
        before = int(numbers.integers(len(quiet) + 1))
        sound = np.concatenate([quiet[:before], sound, quiet[before:]])
    if numbers.random() < 0.5:
        noise = equalise(numbers.normal(size=len(sound)), numbers)
        sound = sound + scale_to_peak(noise, np.abs(sound).max() * 10 ** (-numbers.uniform(20, 60) / 20))
    return scale_to_peak(sound, 10 ** (-numbers.uniform(0, 24) / 20))


def play_clips(font: Path, clips: int, folder: Path, seed: str, most_semitones: int = 0) -> Iterator[Row]:
    """Yield the rows of `clips` clips of each instrument of a soundfont, made larger or smaller by up to `most_semitones`."""
    soundfont = Soundfont(font)
    for name, instrument in INSTRUMENTS.items():
        for number in range(clips):
            numbers = np.random.default_rng([*seed.encode(), *name.encode(), number])
            style = STYLES[number % len(STYLES)]
            program = instrument.programs[int(numbers.integers(len(instrument.programs)))]
            notes = score(instrument, style, numbers)
            cents = float(numbers.uniform(-30, 30))
            larger = int(numbers.integers(-most_semitones, most_semitones + 1)) if most_semitones else 0
            sound = add_room(soundfont.play(instrument, notes, program, cents, larger), numbers)
            yield save(sound, folder / f"{name}-{number:03d}.flac", name, font.stem)


def save(sound: np.ndarray, path: Path, label: str, source: str) -> Row:
    """Write a sound and return its row, without a picture. `recording` is what all variations of one recording share."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(sound, -1, 1).astype(np.float32), RATE)
    data = next(parent for parent in path.parents if parent.name == "sounds")
    return {"audio": str(path.relative_to(data)), "label": label, "source": source, "recording": path.stem.rpartition("~")[0] or path.stem}


def vary_recordings(recordings: Iterator[tuple[str, str, np.ndarray]], folder: Path, source: str) -> Iterator[Row]:
    """Yield the rows of several variations of each recording, given as name, label and sound."""
    for name, label, sound in recordings:
        for number in range(HEARINGS):
            numbers = np.random.default_rng([*source.encode(), *name.encode(), number])
            yield save(vary(sound, numbers), folder / f"{name}~{number}.flac", label, source)


def gcompris(sources: Path, wanted: dict[str, str]) -> Iterator[tuple[str, str, bytes]]:
    """Yield name, label and content of the wanted recordings, each once."""
    names_seen = set()
    for path in sorted((sources / GCOMPRIS).glob("*.rcc")):
        for name, content in resources(path):
            stem, _, ending = name.rpartition("/")[2].partition(".")
            if ending in ("ogg", "wav") and stem in wanted and stem not in names_seen:
                names_seen.add(stem)
                yield stem, wanted[stem], content


def stamps(sources: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield name, label and sound of the stamps that make one; the label is a known class, or what the stamp shows.

    Spoken words, numbers and letters are left out, and instruments too: no real instrument is in training.
    """
    root = sources / STAMPS
    for path in sorted(root.rglob("*.ogg")):
        place = path.relative_to(root)
        spoken = re.search(r"_desc|_[a-z]{2}(_[A-Za-z]{2})?$", path.stem) or place.parts[0] == "symbols" or "hanukkah" in place.parts
        if spoken or "music" in place.parts or not path.with_suffix(".txt").exists():
            continue
        sentence = stamp_sentence(path.with_suffix(".txt"))
        sound = read_sound(path)
        if len(sound) >= RATE // 4:
            yield path.stem, STAMP_EFFECTS.get(path.stem, f"stamp {sentence}"), sound


def esc10(folder: Path) -> Iterator[tuple[int, str, Path]]:
    """Yield fold, label and file of ESC-10."""
    for name, label in ESC10.items():
        for path in sorted((folder / name).glob("*.ogg")):
            yield int(path.name[0]), label, path


def main(work: Path) -> None:
    """Make all sounds and manifests, unless they are there."""
    data, sources = work / "data" / "sounds", work / "sources"
    if (data / "shuffled.jsonl").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    groups = pictures_by_group(work)
    pictures = {label: pictures_of(codes, groups) for label, codes in PICTURES.items()}
    pictures |= {group: images for group, images in groups.items() if group.startswith("stamp ")}

    training = {"instruments": list(play_clips(sources / TRAINING_FONT, TRAINING_CLIPS, data / "instruments", "training", MOST_SEMITONES))}
    write_rows(data / "test-soundfont.jsonl", test_rows(list(play_clips(sources / TEST_FONT, TEST_CLIPS, data / "test-soundfont", "test"))))
    real = []
    for name, label, content in gcompris(sources, REAL_INSTRUMENTS):
        path = data / "test-real" / f"{name}.ogg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        real.append({"audio": f"test-real/{path.name}", "label": label, "source": "gcompris-qt-data"})
    write_rows(data / "test-real.jsonl", test_rows(real))

    effects = ((name, label, read_sound(io.BytesIO(content))) for name, label, content in gcompris(sources, GCOMPRIS_EFFECTS))
    training["effects"] = list(vary_recordings(effects, data / "effects-gcompris", "gcompris-qt-data"))
    with_pictures = (stamp for stamp in stamps(sources) if stamp[1] in pictures)
    training["effects"] += vary_recordings(with_pictures, data / "effects-stamps", "tuxpaint-stamps-default")

    folder = os.environ.get("MINI_ESC10")
    clips = list(esc10(Path(folder))) if folder else []
    for fold in sorted({fold for fold, _, _ in clips}):
        of_fold = [(label, path) for number, label, path in clips if number == fold]
        recordings = ((path.stem, label, read_sound(path)) for label, path in of_fold)
        training[f"esc10-{fold}"] = list(vary_recordings(recordings, data / f"esc10-{fold}", "ESC-10"))
        write_rows(
            data / f"test-esc10-{fold}.jsonl",
            test_rows(
                [{"audio": os.path.relpath(path.resolve(), data.resolve()), "label": label, "source": "ESC-10"} for label, path in of_fold]
            ),
        )
    if not clips:
        print("sounds: MINI_ESC10 names no folder with ESC-10; its classes are left out", file=sys.stderr)

    names = {"instruments": sorted(INSTRUMENTS), "esc10": sorted(ESC10.values())}
    for kind, labels in names.items():
        (data / f"names-{kind}.json").write_text(json.dumps(labels, indent=1) + "\n")
        write_rows(data / f"ceiling-{kind}.jsonl", ceiling_rows(work, {label: PICTURES[label] for label in labels}, data))
    pairs = {name: pair_with_pictures(rows, pictures, "audio", name) for name, rows in training.items()}
    for name, rows in pairs.items():
        write_rows(data / f"{name}.jsonl", rows)
        print_counts(name, rows)
    control = [row for name, rows in pairs.items() if name != "esc10-1" for row in rows]
    write_rows(data / "shuffled.jsonl", shuffle_pictures(control, "recording", "shuffled"))


def test_rows(rows: list[Row]) -> list[Row]:
    """Make test rows, with the file as id."""
    return [{"id": row["audio"], **{key: row[key] for key in ("audio", "label", "source")}} for row in rows]


def print_counts(name: str, rows: list[Row]) -> None:
    """Report counts by source on stderr."""
    recordings = Counter(source for source, _ in {(row["source"], row["recording"]) for row in rows})
    counts = ", ".join(f"{count} recordings of {source}" for source, count in recordings.items())
    print(f"sounds: {name}: {len(rows)} pairs, {counts}, {len({row['label'] for row in rows})} classes", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
