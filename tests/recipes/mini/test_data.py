"""The data programs of recipes/mini: what they play, pair, shuffle and read, on made-up input."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "recipes" / "mini" / "data"))

import frame_captions
import instruments
import motion
import pairing
import sounds
from qt_resources import resources


@pytest.mark.parametrize("name", sorted(instruments.INSTRUMENTS))
@pytest.mark.parametrize("style", sorted(set(instruments.STYLES)))
def test_scores_stay_within_what_an_instrument_plays(name: str, style: str) -> None:
    instrument = instruments.INSTRUMENTS[name]
    for seed in range(8):
        notes = instruments.score(instrument, style, np.random.default_rng(seed))
        assert notes
        assert [note.start for note in notes] == sorted(note.start for note in notes)
        assert all(0 <= note.start < instruments.SECONDS and note.duration > 0 and 0 < note.velocity <= 1 for note in notes)
        keys = {note.key for note in notes}
        assert keys <= set(instrument.keys) if instrument.keys else instrument.lowest <= min(keys) <= max(keys) <= instrument.highest
        if not instrument.chords and not instrument.keys and style == "melody":
            starts = Counter(note.start for note in notes)
            assert max(starts.values()) == 1


def test_a_hearing_is_two_seconds_or_more_of_where_something_sounds() -> None:
    rate = instruments.RATE
    recording = np.zeros(5 * rate)
    recording[4 * rate : 4 * rate + rate // 2] = np.sin(np.arange(rate // 2))
    levels = []
    for seed in range(20):
        heard = sounds.vary(recording, np.random.default_rng(seed))
        assert 2 * rate <= len(heard) <= 3 * rate
        assert np.abs(heard).max() <= 1
        levels.append(np.abs(heard).max())
    assert min(levels) > 0.05
    assert max(levels) > 3 * min(levels)


def test_rooms_and_colours_keep_a_sound_s_length_and_bounds() -> None:
    numbers = np.random.default_rng(0)
    sound = numbers.normal(size=8_000) * 0.1
    for _ in range(10):
        heard = instruments.add_room(sound, numbers)
        assert heard.shape == sound.shape
        assert np.isfinite(heard).all()
        assert np.abs(heard).max() <= 1
    assert (instruments.scale_to_peak(np.zeros(10), 0.5) == 0).all()


def rows(labels: str) -> list[pairing.Row]:
    return [
        {"audio": f"{number}~{hearing}", "label": label, "recording": str(number)}
        for number, label in enumerate(labels)
        for hearing in range(2)
    ]


def test_all_pictures_of_a_class_come_before_one_comes_again() -> None:
    pictures = {"a": ["a1", "a2", "a3"], "b": ["b1"]}
    pairs = pairing.pair_with_pictures(rows("aaab"), pictures, "audio", "seed")
    assert pairs == pairing.pair_with_pictures(rows("aaab"), pictures, "audio", "seed")
    assert Counter(row["image"] for row in pairs) == {"a1": 2, "a2": 2, "a3": 2, "b1": 2}
    assert all(row["group"] == row["label"] == row["image"][0] for row in pairs)
    assert len({row["id"] for row in pairs}) == len(pairs)


def test_shuffled_pairs_say_nothing_of_the_class() -> None:
    labels = "abcde" * 40
    pairs = pairing.pair_with_pictures(rows(labels), {label: [f"{label}1", f"{label}2"] for label in "abcde"}, "audio", "seed")
    mixed = pairing.shuffle_pictures(pairs, "recording", "seed")
    assert [row["audio"] for row in mixed] == [row["audio"] for row in pairs]
    assert all(row["group"] == row["label"] == row["image"][0] for row in mixed)
    given = {row["recording"]: row["label"] for row in mixed}
    assert all(given[row["recording"]] == row["label"] for row in mixed)  # whole recordings move
    kept = np.mean([given[str(number)] == label for number, label in enumerate(labels)])
    assert kept == pytest.approx(0.2, abs=0.1)  # one in five, by chance


def resource_file(folder: Path) -> Path:
    """`sound/a.ogg` (stored) in Qt's format, version 2."""
    names = b"".join(struct.pack(">HI", len(name), 0) + name.encode("utf-16-be") for name in ("sound", "a.ogg"))
    second = 6 + 2 * len("sound")
    time = struct.pack(">Q", 0)
    tree = struct.pack(">IHII", 0, 2, 1, 1) + time  # the root has one child, the second node
    tree += struct.pack(">IHII", 0, 2, 1, 2) + time
    tree += struct.pack(">IHHHI", second, 0, 0, 0, 0) + time
    data = struct.pack(">I", 4) + b"OggS"
    start = 20
    header = b"qres" + struct.pack(">4I", 2, start, start + len(tree), start + len(tree) + len(data))
    path = folder / "sounds.rcc"
    path.write_bytes(header + tree + data + names)
    return path


def test_qt_resources_are_read_by_name(tmp_path: Path) -> None:
    assert list(resources(resource_file(tmp_path))) == [("sound/a.ogg", b"OggS")]
    other = tmp_path / "other.rcc"
    other.write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="not a Qt resource file"):
        list(resources(other))


def test_a_pickle_of_anything_else_is_refused() -> None:
    for content in (b"cos\nsystem\n(S'true'\ntR.", b"cpandas.core.frame\nread_pickle\n.", pickle.dumps(Counter("a"))):
        with pytest.raises(pickle.UnpicklingError, match="not expected"):
            motion.ClosedUnpickler(io.BytesIO(content)).load()


def test_a_table_s_columns_come_by_name_from_what_a_pickle_holds() -> None:
    def remains(state: object, *given: object) -> motion.PandasObject:
        made = motion.PandasObject(*given)
        made.state = state
        return made

    numbers, labels = np.arange(6.0).reshape(2, 3), np.array([[1, 1, 2]])
    blocks = [{"values": numbers, "mgr_locs": np.array([0, 2])}, {"values": labels, "mgr_locs": slice(1, 2, 1)}]
    axes = [remains(None, motion.PandasObject, {"data": ["x", "label", "y"]}), remains(None)]
    frame = remains({"_data": remains((None, None, None, {"0.14.1": {"axes": axes, "blocks": blocks}}))})
    columns = motion.table(frame)
    assert {name: list(values) for name, values in columns.items()} == {"x": [0, 1, 2], "y": [3, 4, 5], "label": [1, 1, 2]}


def test_a_test_has_as_many_of_each_activity() -> None:
    made = [
        {"label": label, "imu": str(number)}
        for number, label in enumerate(["walking"] * 9 + ["standing"] * 4 + ["sitting"] * 3 + ["lying"] * 5)
    ]
    some = motion.balance(made)
    assert Counter(row["label"] for row in some) == {"walking": 3, "standing": 3, "sitting": 3, "lying": 3}
    assert len({row["imu"] for row in some}) == 12


def test_half_of_the_captions_are_framed_and_nothing_else_changes(tmp_path: Path) -> None:
    plain = [{"id": str(number), "image": f"{number}.png", "text": f"thing {number}", "group": str(number)} for number in range(400)]
    for folder, manifest in (("drawings", "train.jsonl"), ("furniture", "image-text.jsonl")):
        (tmp_path / "data" / folder).mkdir(parents=True)
        pairing.write_rows(tmp_path / "data" / folder / manifest, plain)
    frame_captions.main(tmp_path)
    for folder in ("drawings", "furniture"):
        rows = [json.loads(line) for line in (tmp_path / "data" / folder / "framed.jsonl").read_text().splitlines()]
        assert [row | {"text": before["text"]} for row, before in zip(rows, plain, strict=True)] == plain
        frames = Counter(row["text"].replace(before["text"], "{}") for row, before in zip(rows, plain, strict=True))
        assert set(frames) == {"{}", *frame_captions.FRAMES}
        assert 160 < frames["{}"] < 240


class Sine:
    """A synthesiser of one voice: the note's own pitch, and a whistle at 4 kHz, which is what its body adds."""

    def __init__(self, samplerate: int) -> None:
        self.rate, self.at, self.key = samplerate, 0, 0

    def sfload(self, path: str) -> int:
        return 1

    def sounds_off(self, channel: int) -> None:
        self.at = self.key = 0

    def program_select(self, *given: int, is_drums: bool) -> None: ...

    def set_tuning(self, channel: int, semitones: float) -> None: ...

    def noteon(self, channel: int, key: int, velocity: int) -> None:
        self.key = key

    def noteoff(self, channel: int, key: int) -> None:
        self.key = 0

    def generate(self, count: int) -> bytes:
        times = (self.at + np.arange(count)) / self.rate
        self.at += count
        sound = sum(np.sin(2 * np.pi * hertz * times) for hertz in (440 * 2 ** ((self.key - 69) / 12), 4000)) * bool(self.key)
        return np.repeat(sound, 2).astype(np.float32).tobytes()


@pytest.mark.parametrize("larger", [-5, 0, 4])
def test_a_larger_instrument_plays_the_same_notes_with_a_deeper_body(monkeypatch: pytest.MonkeyPatch, larger: int) -> None:
    monkeypatch.setitem(sys.modules, "tinysoundfont", types.SimpleNamespace(Synth=Sine))
    font = instruments.Soundfont(Path("any.sf2"))
    sound = font.play(instruments.INSTRUMENTS["flute"], [instruments.Note(1.0, 2.0, 69, 1.0)], 73, larger=larger)
    assert len(sound) == pytest.approx(instruments.SECONDS * instruments.RATE, abs=2)
    heard = np.abs(sound) > 0.05
    assert (heard.argmax() / instruments.RATE, heard[::-1].argmax() / instruments.RATE) == (
        pytest.approx(1, abs=0.01),
        pytest.approx(1, abs=0.01),
    )
    power = np.abs(np.fft.rfft(sound))
    hertz = np.fft.rfftfreq(len(sound), 1 / instruments.RATE)
    assert hertz[power.argsort()[-40:]].min() == pytest.approx(440, rel=0.02)
    assert hertz[hertz > 1000][power[hertz > 1000].argmax()] == pytest.approx(4000 / 2 ** (larger / 12), rel=0.01)
