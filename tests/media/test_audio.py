"""The sound reader: streaming, resampling, the filterbank, channels, containers, lengths that headers get wrong."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from torchaudio.compliance.kaldi import fbank
from torchaudio.functional import resample

from imagebind_cli.encoders import audio
from imagebind_cli.engine import open_engine
from imagebind_cli.errors import OptionError, UserError
from imagebind_cli.media import resampling
from imagebind_cli.media.audio.sound import Sound
from imagebind_cli.media.audio.sound_file import SoundFile
from imagebind_cli.media.resampling import Resampled
from imagebind_cli.media.windows import windows
from imagebind_cli.options.audio import AudioOptions
from imagebind_cli.pipeline import decode
from imagebind_cli.sources import Failure, Item, Stretch
from tests import generate
from tests.conftest import Python

RATE = 16_000


def noise(seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal((int(seconds * rate), channels))).astype(np.float32)


def published(waveform: np.ndarray, rate: int, clips: int) -> torch.Tensor:
    """The released code's way, the whole recording in memory: (channels, samples) to (clips, 1, 128, 204)."""
    whole = torch.from_numpy(np.array(waveform))
    if rate != RATE:
        whole = resample(whole, rate, RATE)
    made = []
    for start, end in windows(whole.shape[1] / RATE, 2, clips):
        clip = whole[:, int(start * RATE) : int(end * RATE)]
        clip -= clip.mean()
        mel = kaldi(clip[0].double()).float()
        mel = torch.nn.functional.pad(mel, (0, max(0, 204 - mel.shape[1])))[:, :204]
        made.append((mel + 4.268) / 9.138)
    return torch.stack(made).unsqueeze(1)


def kaldi(waveform: torch.Tensor) -> torch.Tensor:
    floor = np.log(torch.finfo(torch.float32).eps)  # float64 has a lower one of its own
    return fbank(
        waveform[None], htk_compat=True, sample_frequency=RATE, use_energy=False, window_type="hanning", num_mel_bins=128, dither=0.0
    ).T.clamp(min=floor)


def read(model: Any, source: Any, **options: Any) -> tuple[torch.Tensor, list[Any], dict[str, Any]]:
    samples = list(model.read("audio", source, **options))
    assert all(not sample.facts for sample in samples[1:])
    return torch.cat([sample.tensor for sample in samples]), [span for sample in samples for span in sample.spans], dict(samples[0].facts)


# Equal to the published code


@pytest.mark.parametrize("clips", [1, 3, 20])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (8_000, 1), (192_000, 6), (11_025, 3)])
def test_streaming_is_the_published_code_on_the_whole(tiny: Any, tmp_path: Path, rate: int, channels: int, clips: int) -> None:
    """Twenty windows of nine seconds overlap many times over, so that each one's mean reaches the next."""
    samples = noise(9.3, rate, channels) + np.linspace(-0.2, 0.3, channels, dtype=np.float32)
    soundfile.write(tmp_path / "sound.wav", samples, rate, subtype="FLOAT")
    tensor, spans, _ = read(tiny, str(tmp_path / "sound.wav"), clips=clips)
    assert len(spans) == clips
    assert (tensor - published(samples.T, rate, clips)).abs().max() <= 2e-5
    assert torch.equal(tensor, read(tiny, (samples.T, rate), clips=clips)[0])


def test_the_mean_that_one_window_leaves_is_in_the_next(tiny: Any) -> None:
    """Without that, the frame at the seam would differ: the test above could not tell a small one from none."""
    waveform = noise(3)[:, 0] + np.repeat(np.float32([0.5, -0.5]), 1.5 * RATE)
    tensor, _, _ = read(tiny, (waveform, RATE), clips=2)
    alone = published(waveform[None, RATE:], RATE, 1)
    assert (tensor[1:] - alone).abs().max() > 1e-3
    assert (tensor - published(waveform[None], RATE, 2)).abs().max() <= 1e-5


@pytest.mark.parametrize("samples", [400, 559, 560, 31_999, 32_000, 32_641])
def test_the_filterbank_is_kaldis_in_float64(samples: int) -> None:
    waveform = torch.from_numpy(noise(3)[:samples, 0])
    ours, theirs = audio.log_mel(waveform, 128), kaldi(waveform.double())
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5  # in nats: 1e-6 of the normalised input


def test_quiet_bands_are_not_rounding() -> None:
    """A loud tone beside sound 90 dB below it: float32 all the way is wrong by a hundred times more."""
    time = np.arange(2 * RATE) / RATE
    waveform = torch.from_numpy(0.5 * np.sin(2 * np.pi * 300 * time) + 1e-5 * np.random.default_rng(0).standard_normal(len(time))).float()
    exact = kaldi(waveform.double())
    assert (audio.log_mel(waveform, 128) - exact).abs().max() <= 1e-5
    assert (kaldi(waveform) - exact).abs().max() >= 1e-3


def test_windows_together_are_the_same_as_alone(tiny: Any) -> None:
    waveforms = [torch.from_numpy(noise(2, seed=i)[: 32_000 - i, 0]) for i in range(6)] + [torch.from_numpy(noise(1)[:, 0])]
    config = tiny.encoder("audio").config
    apart = torch.cat([audio.spectrograms([waveform], config) for waveform in waveforms])
    assert torch.equal(audio.spectrograms(waveforms, config), apart)
    with ThreadPoolExecutor(3) as threads:
        several = list(threads.map(lambda _: audio.spectrograms(waveforms, config), range(12)))
    assert all(torch.equal(one, apart) for one in several)


def test_decoding_threads_leave_torch_its_own(tiny: Any, tmp_path: Path) -> None:
    """They use one thread each; the encoder, and threads that the caller starts later, as many as before."""
    path, own = generate.audio(tmp_path / "sound.wav"), torch.get_num_threads()
    within: list[int] = []

    def read_one(payload: Any) -> Iterator[Any]:
        within.append(torch.get_num_threads())
        yield from tiny.read("audio", payload)

    torch.set_num_threads(3)
    try:
        assert len(list(decode([Item("a", str(path)), Item("b", str(path))], open_engine(read_one, 2), ahead=2))) == 4
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 3
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(own)
    assert within == [1, 1]


# Resampling


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_resampling_by_stretches_is_torchaudios(rate: int) -> None:
    waveform = torch.from_numpy(noise(20, rate, 2).T.copy())
    resampled = Resampled(lambda start, stop: waveform[:, start:stop], waveform.shape[1], rate, RATE)
    expected = resample(waveform, rate, RATE)
    assert resampled.length == expected.shape[1]
    stops = [0, 1, 777, 131_071, 131_073, 200_000, resampled.length]
    pieces = torch.cat([resampled.read(start, stop) for start, stop in zip(stops, stops[1:], strict=False)], dim=1)
    assert (pieces - expected).abs().max() <= 1e-6


@pytest.mark.parametrize(("rate", "target"), [(1009, 1000), (999, 1000), (4001, 1000)])
def test_rates_without_a_common_divisor(rate: int, target: int) -> None:
    waveform = torch.from_numpy(noise(0.6).T.copy())
    resampled = Resampled(lambda start, stop: waveform[:, start:stop], waveform.shape[1], rate, target)
    assert (resampled.read(0, resampled.length) - resample(waveform, rate, target)).abs().max() <= 1e-6


def test_an_odd_rate_takes_little_memory(tiny: Any) -> None:
    """Laid out over a whole period, the filters for 44,101 Hz are 2.8 GB."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(88_202) / 44_101).astype(np.float32)
    even = np.sin(2 * np.pi * 1000 * np.arange(88_200) / 44_100).astype(np.float32)
    tensor = read(tiny, (tone, 44_101))[0]
    peak = tensor[0, 0].mean(dim=1).argmax()
    assert peak == read(tiny, (even, 44_100))[0][0, 0].mean(dim=1).argmax()
    assert sum(filters.numel() for _, _, filters in resampling.filters_of(44_101, 16_000, 1)) < 3_000_000


# Memory and seeking

GROWTH = """
import json, resource, sys
import imagebind_cli as ib
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
model = ib.load("tiny", device="cpu")
for _ in model.read("audio", sys.argv[1], clips=40): pass
before = peak()
clips = sum(len(sample.tensor) for sample in model.read("audio", sys.argv[1]))
print(json.dumps([clips, peak() - before]))
"""


@pytest.mark.parametrize("ending", ["wav", "mp3", "aac"])
def test_memory_does_not_grow_with_length(tmp_path: Path, python: Python, ending: str) -> None:
    """Six minutes of stereo at 44.1 kHz are 127 MB as float32; the second pass may take 40 MB more than the first."""
    path, minute, minutes = tmp_path / f"long.{ending}", noise(60, 44_100, 2), 6
    if ending == "wav":
        with soundfile.SoundFile(path, "w", 44_100, 2) as file:
            for _ in range(minutes):
                file.write(minute)
    elif ending == "mp3":
        soundfile.write(path, minute, 44_100)
        path.write_bytes(packets_of(path) * minutes)
    else:
        encode(path, [minute.T], 44_100)
        path.write_bytes(path.read_bytes() * minutes)
    run = python("-c", GROWTH, path)
    assert run.returncode == 0, run.stderr
    clips, growth = json.loads(run.stdout)
    assert 0 <= clips - 30 * minutes <= 2
    assert growth < 40


def packets_of(path: Path) -> bytes:
    """The packets of an MP3 but for the first, silent one, which holds their count."""
    with av.open(path) as container:
        return b"".join(bytes(packet) for packet in container.demux(audio=0))


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "m4a", "mkv"])
def test_a_window_far_in_is_the_same_after_seeking(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Three windows of a minute are reached by seeking; with the limit raised, by decoding everything."""
    path, samples = tmp_path / f"sound.{ending}", noise(60, 22_050, 2) * np.linspace(0, 1, 60 * 22_050, dtype=np.float32)[:, None]
    if ending in ("m4a", "mkv"):
        encode(path, [samples.T], 22_050)
    else:
        soundfile.write(path, samples, 22_050)
    sought, spans, _ = read(tiny, str(path), clips=3)
    monkeypatch.setattr("imagebind_cli.media.audio.sound.SKIP_SECONDS", 1e9)
    decoded, same_spans, _ = read(tiny, str(path), clips=3)
    assert spans == same_spans
    difference = (sought - decoded).abs()
    assert difference.mean() < 0.02 if ending == "mkv" else difference.max() <= 1e-4  # Matroska's clock ticks in milliseconds
    assert (sought[0] - sought[1]).abs().mean() > 0.1


# Channels


def test_first_or_mixed(tiny: Any, tmp_path: Path) -> None:
    left, right = noise(2, seed=1)[:, 0], noise(2, seed=2)[:, 0]
    both = np.stack([left, right])
    first, _, facts = read(tiny, (both, RATE))
    mixed, _, mixed_facts = read(tiny, (both, RATE), channels="mix")
    assert (facts["heard"], mixed_facts["heard"]) == ("first", "mix")
    assert (mixed - published(both.mean(axis=0, keepdims=True), RATE, 1)).abs().max() <= 1e-5
    assert (first - published(both, RATE, 1)).abs().max() <= 1e-5
    assert (first - mixed).abs().max() > 0.01
    assert torch.equal(read(tiny, (left, RATE))[0], read(tiny, (left, RATE), channels="mix")[0])


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_every_count_of_channels(tiny: Any, tmp_path: Path, channels: int) -> None:
    path = tmp_path / "sound.wav"
    soundfile.write(path, noise(2.5, 48_000, channels), 48_000)
    tensor, _, facts = read(tiny, str(path), channels="mix")
    assert tensor.shape == (2, 1, 128, 204)
    sound = {"rate": 48_000, "channels": channels, "seconds": 2.5, "heard": "mix", "windows": 2}
    assert facts == {"format": "wav", "codec": "pcm_16", **sound}


def test_silence_is_allowed(tiny: Any) -> None:
    tensor = read(tiny, np.zeros(3 * RATE, np.float32))[0]
    assert torch.isfinite(tensor).all()


# Containers and lengths


def encode(path: Path, blocks: list[np.ndarray], rate: int, codec: str = "aac", start: float = 0, video: float = 0) -> None:
    """Write sound (channels, n) float32, from `start` seconds on, beside `video` seconds of pictures at 10 a second."""
    layout = {1: "mono", 2: "stereo"}[len(blocks[0])]
    with av.open(path, "w", format="ipod" if path.suffix == ".m4a" else None) as container:
        pictures = container.add_stream("mpeg4", rate=10) if video else None
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if pictures is not None:
            generate._encode_pictures(container, pictures, round(video * 10), generate.Fraction(1, 10), 0)
        resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate, frame_size=1024)
        at = round(start * rate)
        for block in [*blocks, None]:
            frame = None
            if block is not None:
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, at, generate.Fraction(1, rate)
                at += block.shape[1]
            for piece in resampler.resample(frame):
                container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("ending", "codec", "rate"),
    [("m4a", "aac", 44_100), ("mkv", "pcm_s16le", 8_000), ("mkv", "pcm_s32le", 96_000), ("mka", "libopus", 48_000), ("ts", "aac", 32_000)],
)
def test_containers_of_ffmpeg(tiny: Any, tmp_path: Path, ending: str, codec: str, rate: int) -> None:
    path = tmp_path / f"sound.{ending}"
    samples = generate.tone(5, rate=rate)
    encode(path, [samples[None]], rate, codec)
    tensor, spans, facts = read(tiny, str(path))
    assert facts["seconds"] == pytest.approx(5, abs=0.1)
    assert facts["rate"] == rate
    assert facts["codec"].startswith(codec.removeprefix("lib"))
    expected = read(tiny, (samples, rate), clips=len(spans))[0]
    middle = slice(20, 180)
    difference = (tensor - expected)[:1, :, :, middle].abs().mean()
    assert difference < (0.01 if codec.startswith("pcm") else 0.15)


def test_an_mp3_without_a_length_is_read_to_its_end(tmp_path: Path, tiny: Any) -> None:
    path = tmp_path / "bare.mp3"
    samples = noise(30, 44_100)
    samples[15 * 44_100 :] *= 1e-3
    soundfile.write(path, samples[::-1], 44_100)
    path.write_bytes(packets_of(path))
    assert abs(soundfile.info(path).duration - 30) > 2  # libsndfile guesses from the first packet
    _, spans, facts = read(tiny, str(path))
    assert facts["seconds"] == pytest.approx(30, abs=0.1)
    assert len(spans) in (15, 16)


@pytest.mark.parametrize(("rate", "channels", "kind"), [(16_000, 1, "PCM_16"), (44_100, 2, "PCM_24")])
def test_a_flipped_bit_of_a_flac_is_a_failure(tmp_path: Path, rate: int, channels: int, kind: str) -> None:
    """In any frame, the last included, and in the header's rate, channels, bits, count and MD5."""
    path, draw = tmp_path / "a.flac", random.Random(0)
    noise = np.random.default_rng(0).standard_normal((rate, channels))
    soundfile.write(path, 0.1 * noise, rate, subtype=kind)
    whole = path.read_bytes()

    def samples() -> bytes:
        with Sound(path) as sound:
            return sound.read(0, sound.length).tobytes() + f"{sound.rate} {sound.warnings}".encode()

    before = samples()
    places = [*range(18, 42), *(draw.randrange(len(whole)) for _ in range(30)), *(len(whole) - draw.randrange(1, 2000) for _ in range(10))]
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        with suppress(OSError, ValueError):  # what a failure is
            after = samples()
            assert after == before or b"cut short: " in after, place


def test_a_damaged_frame_of_flac_in_another_container_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    song(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged: a frame does not match its checksum"), Sound(path) as sound:
        sound.read(0, sound.length)


def test_a_flac_whose_header_promises_a_year(tmp_path: Path, tiny: Any) -> None:
    path = tmp_path / "sound.flac"
    soundfile.write(path, noise(5), RATE)
    expected = read(tiny, str(path))[0]
    header = bytearray(path.read_bytes())
    header[21] |= 0x0F  # the count of samples: 36 bits from here on
    header[22:26] = b"\xff" * 4
    path.write_bytes(header)
    assert torch.equal(read(tiny, str(path))[0], expected)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_that_was_never_finished(tmp_path: Path, tiny: Any, size: int) -> None:
    """Recorders write the size of the data last; 0 or the largest number until then."""
    path = tmp_path / "sound.wav"
    soundfile.write(path, noise(5), RATE)
    expected = read(tiny, str(path))[0]
    header = bytearray(path.read_bytes())
    header[40:44] = size.to_bytes(4, "little")
    path.write_bytes(header)
    assert torch.equal(read(tiny, str(path))[0], expected)


def test_half_an_mp3_is_half_as_long(tmp_path: Path, tiny: Any) -> None:
    path = tmp_path / "sound.mp3"
    soundfile.write(path, noise(20), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert read(tiny, str(path))[2]["seconds"] == pytest.approx(10, abs=0.5)


def test_an_open_file_is_read_like_its_path(tmp_path: Path, tiny: Any) -> None:
    for name in ("sound.wav", "sound.mp3", "sound.m4a"):
        path = generate.audio(tmp_path / name)
        with open(path, "rb") as file:
            assert torch.equal(read(tiny, file)[0], read(tiny, str(path))[0])


# Beside pictures


@pytest.mark.parametrize(("sound", "pictures"), [(5, 5), (4.2, 5), (5.9, 5), (1, 7)])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_sound_and_pictures_of_a_file_have_the_same_windows(tiny: Any, tmp_path: Path, ending: str, sound: float, pictures: float) -> None:
    path = tmp_path / f"film.{ending}"
    encode(path, [generate.tone(sound)[None]], RATE, video=pictures)
    heard, spans, _ = read(tiny, str(path))
    seen = [span for sample in tiny.read("video", str(path), crops="1") for span in sample.spans]
    assert spans == seen
    assert len(heard) == len(spans)


def test_sound_that_starts_late_is_heard_late(tiny: Any, tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    encode(path, [noise(2).T], RATE, codec="pcm_s16le", start=2, video=4)
    heard, spans, _ = read(tiny, str(path))
    assert spans == [(0, 2), (2, 4)]
    assert heard[0, 0, :, :190].max() < heard[1].mean()
    with Sound(str(path)) as opened:
        samples = opened.read(0, opened.length)[0]
    assert np.abs(samples[: 2 * RATE - 20]).max() == 0
    assert np.abs(samples[2 * RATE + 20 :]).mean() > 0.05


def test_a_cover_is_no_picture_track(tiny: Any, tmp_path: Path) -> None:
    path, cover = tmp_path / "song.mp4", generate.picture(tmp_path / "cover.png")
    with av.open(cover) as picture, av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        art = container.add_stream_from_template(picture.streams.video[0])
        art.disposition = av.stream.Disposition.attached_pic.value
        packet = next(picture.demux(video=0))
        packet.stream = art
        container.start_encoding()
        container.mux(packet)
        generate._encode_sound(container, stream, generate.tone(5))
    assert read(tiny, str(path))[2]["seconds"] == pytest.approx(5, abs=0.1)
    with pytest.raises(ValueError, match="^has a cover and no video$"):
        list(tiny.read("video", str(path)))


COVERS = [
    ("mp4", "mjpeg"),
    ("mp4", "png"),
    ("mp4", "mpeg4"),
    ("mov", "gif"),
    ("mkv", "mjpeg"),
    ("mkv", "mpeg4"),
    ("avi", "png"),
    ("ts", "mpeg4"),
]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("ending", "codec"), COVERS)
def test_a_single_picture_beside_sound_is_a_cover(tiny: Any, tmp_path: Path, ending: str, codec: str, first: bool) -> None:
    """Music programs write covers as ordinary video tracks; Matroska and transport streams do not say that they have one picture."""
    plain, path = song(tmp_path / f"plain.{ending}"), song(tmp_path / f"song.{ending}", covers=[codec], first=first)
    with av.open(path) as container:
        assert len(container.streams.video) == 1
    tensor, spans, facts = read(tiny, str(path))
    expected, expected_spans, _ = read(tiny, str(plain))
    assert spans == expected_spans
    assert torch.equal(tensor, expected)
    assert "track" not in facts
    with pytest.raises(ValueError, match="^has a cover and no video$"):
        list(tiny.read("video", str(path)))


def song(
    path: Path,
    tones: list[np.ndarray] | None = None,
    flags: list[av.stream.Disposition] | None = None,
    covers: list[str] | None = None,
    first: bool = True,
) -> Path:
    """Sound tracks with their dispositions, and covers of one frame each before or behind them."""
    tones, covers = tones or [generate.tone(5)], covers or []
    layouts = {"mjpeg": "yuvj420p", "png": "rgb24", "gif": "rgb8", "mpeg4": "yuv420p"}
    with av.open(path, "w") as container:
        pictures = [container.add_stream(codec, rate=25) for codec in covers] if first else []
        codec = {".mkv": "flac", ".avi": "pcm_s16le"}.get(path.suffix, "aac")
        sounds = [container.add_stream(codec, rate=RATE, layout="mono") for _ in tones]
        pictures = pictures or [container.add_stream(codec, rate=25) for codec in covers]
        for picture in pictures:
            picture.width, picture.height, picture.pix_fmt = 64, 64, layouts[picture.codec_context.name]
        for sound, flag in zip(sounds, flags or [], strict=False):
            sound.disposition = flag
        container.start_encoding()
        for picture in pictures:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
            container.mux(picture.encode(None))
        for sound, samples in zip(sounds, tones, strict=True):
            generate._encode_sound(container, sound, samples)
    return path


def test_sound_outside_the_pictures_is_told(tiny: Any, tmp_path: Path) -> None:
    encode(tmp_path / "film.mp4", [generate.tone(5)[None]], RATE, video=3)
    (sample,) = list(tiny.read("audio", str(tmp_path / "film.mp4")))
    assert re.match(r"2\.0\d s of sound outside the pictures, which last 3\.00 s, are left out; ", sample.warnings[0])


# Tracks

Flag = av.stream.Disposition
NONE, DEFAULT, COMMENT, IMPAIRED = Flag(0), Flag.default, Flag.comment, Flag.visual_impaired


@pytest.mark.parametrize(
    ("ending", "flags", "taken", "reason"),
    [
        ("mkv", [NONE, DEFAULT], 2, "flagged default"),
        ("mkv", [NONE, NONE], 1, "the first"),
        ("mkv", [DEFAULT, DEFAULT], 1, "the first"),
        ("mkv", [NONE, DEFAULT, DEFAULT], 2, "flagged default"),
        ("mkv", [COMMENT | DEFAULT, NONE], 2, "the first of the main ones"),
        ("ts", [IMPAIRED, NONE], 2, "the first of the main ones"),
        ("mp4", [NONE, DEFAULT], 2, "flagged default"),
        ("avi", [NONE, NONE], 1, "the first"),
    ],
)
def test_of_several_tracks_the_default_one_is_heard(
    tiny: Any, tmp_path: Path, ending: str, flags: list[Flag], taken: int, reason: str
) -> None:
    tones = [generate.tone(3, seed) for seed in range(len(flags))]
    path = str(song(tmp_path / f"film.{ending}", tones, flags))
    (chosen,), several = tiny.read("audio", path), [read(tiny, path, track=number + 1) for number in range(len(flags))]
    assert chosen.notes == (f"sound track {taken} of {len(flags)}, {reason}; --track takes another",)
    assert (chosen.facts["track"], chosen.facts["tracks"]) == (taken, len(flags))
    assert torch.equal(chosen.tensor, several[taken - 1][0])
    assert not torch.equal(several[0][0], several[1][0])
    with pytest.raises(ValueError, match=f"^has no sound track 9; it has {len(flags)}: choose with --track$"):
        read(tiny, path, track=9)


def test_a_file_of_one_track_has_no_second(tiny: Any, tmp_path: Path) -> None:
    path = str(generate.audio(tmp_path / "sound.wav"))
    assert torch.equal(read(tiny, path, track=1)[0], read(tiny, path)[0])
    with pytest.raises(ValueError, match="^has no sound track 2; it has 1: choose with --track$"):
        read(tiny, path, track=2)


def test_what_an_encoder_filled_its_last_packet_with_is_no_window(tiny: Any, tmp_path: Path) -> None:
    """4 seconds in packets of 1,024 samples are 4.032, and a third window would be there for the filling alone."""
    encode(tmp_path / "sound.m4a", [noise(4.03).T], RATE)
    _, spans, facts = read(tiny, str(tmp_path / "sound.m4a"))
    assert facts["seconds"] > 4.02
    assert spans == [(0, 2), (2, 4)]
    encode(tmp_path / "sound.mkv", [noise(4.03).T], RATE, codec="pcm_s16le")  # here it is sound
    assert len(read(tiny, str(tmp_path / "sound.mkv"))[0]) == 3
    encode(tmp_path / "longer.m4a", [noise(4.1).T], RATE)
    assert len(read(tiny, str(tmp_path / "longer.m4a"))[0]) == 3


# Levels


@pytest.mark.parametrize(("ending", "subtype"), [("wav", "FLOAT"), ("wav", "DOUBLE"), ("w64", "FLOAT"), ("aiff", "FLOAT")])
def test_numbers_of_16_bits_as_floats_are_told(tiny: Any, tmp_path: Path, ending: str, subtype: str) -> None:
    """The samples stay as they are: nothing says how loud the sound should be."""
    loud, path = noise(3) * 10_000, tmp_path / f"loud.{ending}"
    soundfile.write(path, loud, RATE, subtype)
    (sample,) = tiny.read("audio", str(path))
    (warning,) = sample.warnings
    assert warning.startswith(f"samples reach {np.abs(loud).max():,.6g}, and full scale is 1")
    assert warning.endswith("ffmpeg -i IN -af volume=1/32768 OUT.wav")
    assert torch.equal(sample.tensor, read(tiny, (loud[:, 0], RATE))[0])


@pytest.mark.parametrize("factor", [1.0, 1.9])
def test_a_little_past_full_scale_is_usual(tiny: Any, tmp_path: Path, factor: float) -> None:
    soundfile.write(tmp_path / "hot.wav", factor * np.sign(noise(3)), RATE, "FLOAT")
    assert all(sample.warnings == () for sample in tiny.read("audio", str(tmp_path / "hot.wav")))


@pytest.mark.parametrize(
    ("levels", "channels", "words"),
    [
        ([0, 0, 1, 0, 0, 0], "first", "channel 1 of 6, the one used, is silent, and channel 3 is not: --channels mix uses all of them"),
        ([0, 1], "first", "channel 1 of 2, the one used, is silent, and channel 2 is not: --channels mix uses all of them"),
        ([1e-4, 0.1], "first", "channel 1 of 2, the one used, is silent, and channel 2 is not: --channels mix uses all of them"),
        ([1, -1], "mix", "its 2 channels cancel each other out when mixed: --channels first uses the first"),
        ([1, -1], "first", None),
        ([0, 1], "mix", None),
        ([0, 0], "first", None),
        ([1, 0], "first", None),
        ([1e-2, 1], "first", None),
        ([0], "first", None),
    ],
)
@pytest.mark.parametrize("seconds", [3, 40])
def test_a_silent_channel_is_told(tiny: Any, tmp_path: Path, levels: list[float], channels: str, words: str | None, seconds: float) -> None:
    soundfile.write(tmp_path / "sound.wav", noise(seconds) * np.array(levels), RATE, "FLOAT")
    warnings = [warning for sample in tiny.read("audio", str(tmp_path / "sound.wav"), channels=channels) for warning in sample.warnings]
    assert warnings == ([words] if words else [])


def test_a_channel_that_speaks_late_is_not_silent(tiny: Any, tmp_path: Path) -> None:
    """A recording of more than one stretch is judged as a whole."""
    sound = noise(40, channels=2)
    sound[: 36 * RATE, 0] = 0
    soundfile.write(tmp_path / "sound.wav", sound, RATE, "FLOAT")
    assert all(sample.warnings == () for sample in tiny.read("audio", str(tmp_path / "sound.wav")))


@pytest.mark.parametrize("channels", AudioOptions.__dataclass_fields__["channels"].metadata["choices"])
def test_every_value_of_channels_is_heeded_and_another_raises(channels: str) -> None:
    samples = noise(1, channels=2).T
    heard = audio.heard_rows(samples, channels)[0]
    assert np.array_equal(heard, samples[0] if channels == "first" else samples.mean(axis=0))
    with pytest.raises(OptionError, match="channels is 'loudest', which no reader heeds"):
        audio.heard_rows(samples, "loudest")


# Refused


@pytest.mark.parametrize("rate", [0, 999, 44_100.5, 40_000_003, float("nan")])
def test_absurd_rates_are_refused(tiny: Any, rate: float) -> None:
    with pytest.raises(ValueError, match="Hz"):
        read(tiny, (noise(1)[:, 0], rate))


def test_a_file_of_an_absurd_rate_fails_alone(tiny: Any, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "fast.wav", np.zeros(2_000_000, np.float32), 40_000_003)
    generate.audio(tmp_path / "good.wav")
    (_, first), (_, second) = tiny.embed_items("audio", [Item(name, str(tmp_path / name)) for name in ("fast.wav", "good.wav")])
    assert isinstance(first, Failure)
    assert "40,000,003 Hz" in first.reason
    assert len(second.embeddings) == 1


@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        (np.zeros(399, np.float32), "24.9 ms of sound"),
        (np.zeros((2, 0), np.float32), "shape"),
        (np.zeros((2, 2, 9), np.float32), "shape"),
        (np.full(RATE, np.inf, np.float32), "not numbers"),
    ],
)
def test_bad_waveforms_are_refused(tiny: Any, waveform: np.ndarray, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read(tiny, waveform)


def test_a_number_gone_bad_late_in_a_file_is_told(tiny: Any, tmp_path: Path) -> None:
    samples = noise(60)
    samples[-10] = np.nan
    soundfile.write(tmp_path / "sound.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(ValueError, match="not numbers"):
        read(tiny, str(tmp_path / "sound.wav"))


def test_more_windows_than_anyone_has_are_refused() -> None:
    with pytest.raises(ValueError, match="said to last 1e\\+12 s"):
        windows(1e12, 2)
    with pytest.raises(ValueError, match="said to last nan s"):
        windows(float("nan"), 2)


# Files cut short


@pytest.mark.parametrize(("kind", "ending"), [("WAV", "wav"), ("WAVEX", "wav"), ("AIFF", "aiff"), ("AU", "au"), ("FLAC", "flac")])
def test_a_file_that_ends_before_it_says_is_embedded_and_told(tiny: Any, tmp_path: Path, kind: str, ending: str) -> None:
    whole = tmp_path / f"whole.{ending}"
    soundfile.write(whole, noise(3), RATE, format=kind)
    (tmp_path / f"cut.{ending}").write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    assert [sample.warnings for sample in tiny.read("audio", whole)] == [()]
    warnings = [sample.warnings for sample in tiny.read("audio", tmp_path / f"cut.{ending}", clips=20)]
    assert warnings[1:] == [()]
    assert len(warnings[0]) == 1
    assert warnings[0][0].startswith("cut short: ")
    assert warnings[0][0].endswith(" s of 3.00 s are there")


@pytest.mark.parametrize("promised", [0xFFFFFFFF, 0x7FFFFFFF, 0])
def test_a_count_that_its_writer_could_not_know_is_no_cut(tiny: Any, tmp_path: Path, promised: int) -> None:
    path = tmp_path / "piped.wav"
    soundfile.write(path, noise(1), RATE)
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = promised.to_bytes(4, "little")
    path.write_bytes(data)
    (sample,) = tiny.read("audio", path, clips=1)
    assert sample.warnings == ()
    assert sample.facts["seconds"] == 1


def test_an_mp3_in_a_wav_file_is_whole(tiny: Any, tmp_path: Path) -> None:
    """Its header counts samples as it pleases, so the packets are counted."""
    path = tmp_path / "mp3.wav"
    with av.open(path, "w") as container:
        stream = container.add_stream("mp3", rate=RATE, layout="mono")
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=RATE, frame_size=576)
        frame = av.AudioFrame.from_ndarray(noise(4).T.copy(), format="fltp", layout="mono")
        frame.sample_rate = RATE
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    samples = list(tiny.read("audio", str(path)))
    assert all(sample.warnings == () for sample in samples)
    assert samples[0].facts["seconds"] == pytest.approx(4.1, abs=0.06)
    (tmp_path / "half.wav").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (warning,) = list(tiny.read("audio", str(tmp_path / "half.wav"), clips=1))[0].warnings
    assert warning.startswith("cut short: ")


# A stretch


@pytest.mark.parametrize(("rate", "channels", "kind"), [(44_100, 2, "wav"), (48_000, 1, "flac"), (16_000, 1, "wav"), (11_025, 2, "flac")])
@pytest.mark.parametrize("times", [(10, 15), (0, 2), (10.1, 14.77), (20, 20.5), (33.3, None), (None, 3.5), ("12.4", " 14.4")])
def test_a_stretch_is_the_file_cut_by_hand(tiny: Any, tmp_path: Path, rate: int, channels: int, kind: str, times: Any) -> None:
    path, cut = tmp_path / f"whole.{kind}", tmp_path / "cut.wav"
    soundfile.write(path, noise(40, rate, channels), rate, subtype="PCM_16")
    start, end = (None if time is None else float(time) for time in times)
    samples = soundfile.read(path, dtype="int16", start=round((start or 0) * rate), stop=None if end is None else round(end * rate))[0]
    soundfile.write(cut, samples, rate, subtype="PCM_16")
    found, spans, _ = read(tiny, Stretch(str(path), *times))
    wanted, theirs, _ = read(tiny, str(cut))
    assert (found - wanted).abs().max() <= 1e-4
    assert np.allclose(np.array(spans) - (start or 0), theirs)
    assert tiny.embed("audio", [Stretch(str(path), *times)])[0] @ tiny.embed("audio", [str(cut)])[0] >= 0.9999


def test_a_stretch_of_a_video_is_heard_at_the_times_at_which_it_is_seen(tiny: Any, tmp_path: Path) -> None:
    path = generate.video(tmp_path / "a.mp4", seconds=12, sound=True)
    _, heard, _ = read(tiny, Stretch(str(path), 3, 8))
    seen = [span for sample in tiny.read("video", Stretch(str(path), 3, 8), crops="1") for span in sample.spans]
    assert heard == seen == [(3, 5), (4.5, 6.5), (6, 8)]


@pytest.mark.parametrize(
    ("times", "why"),
    [
        ((40, 45), "nothing between 40 and 45 s; it lasts from 0 to 5 s"),
        ((5, None), "nothing from 5 s on"),
        ((1, 1.01), "10.0 ms of sound"),
    ],
)
def test_a_stretch_that_holds_nothing_says_so(tiny: Any, tmp_path: Path, times: Any, why: str) -> None:
    path = generate.audio(tmp_path / "a.wav", seconds=5)
    with pytest.raises(ValueError, match=why):
        read(tiny, Stretch(str(path), *times))


def test_a_stretch_past_the_end_is_told(tiny: Any, tmp_path: Path) -> None:
    path = generate.audio(tmp_path / "a.wav", seconds=5)
    (sample,) = tiny.read("audio", Stretch(str(path), 3, 9))
    assert (sample.spans, sample.warnings) == ([(3, 5)], ("only 3 to 5 s of 3 to 9 s are there",))


def test_a_stretch_late_in_a_long_file_is_not_read_from_its_beginning(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "night.wav"
    soundfile.write(path, np.zeros(1000 * RATE, np.int16), RATE)
    taken: list[int] = []
    more = SoundFile.more
    monkeypatch.setattr(SoundFile, "more", lambda self, count: taken.append(count) or more(self, count))
    read(tiny, Stretch(str(path), 900, 905))
    assert sum(taken) <= 6 * RATE


# Windows at a hop


@pytest.mark.parametrize("channels", ["first", "mix"])
@pytest.mark.parametrize(
    ("seconds", "hop", "count"), [(9.5, 0.5, 16), (9.5, 0.7, 11), (9.5, 2, 4), (9.5, 3.3, 3), (2.7, 0.01, 71), (9.5, 20, 1)]
)
def test_windows_at_a_hop_are_arrays_cut_by_hand_to_the_bit(
    tiny: Any, tmp_path: Path, seconds: float, hop: float, count: int, channels: str
) -> None:
    """Two channels with an offset of their own, so that a mean that reached the next window would show."""
    samples = (noise(seconds, channels=2) + np.array([0.3, -0.1], np.float32)).T.copy()
    soundfile.write(tmp_path / "a.wav", samples.T, RATE, subtype="FLOAT")
    for source in ((samples, RATE), str(tmp_path / "a.wav")):
        tensor, spans, facts = read(tiny, source, hop=hop, channels=channels)
        assert (len(tensor), facts["windows"]) == (count, count)
        np.testing.assert_allclose(spans, [(hop * i, hop * i + 2) for i in range(count)], atol=1e-9)
        assert spans[-1][1] <= seconds < hop * count + 2
        for i in {0, 1 % count, count // 2, count - 1}:
            start = round(hop * i * RATE)
            cut, theirs, _ = read(tiny, (samples[:, start : start + 2 * RATE], RATE), channels=channels)
            assert theirs == [(0, 2)]
            assert torch.equal(tensor[i], cut[0])
            alone = tiny.encode("audio", cut)
            assert torch.equal(tiny.encode("audio", tensor[i][None]), alone)


def test_a_sound_shorter_than_a_window_has_one_at_any_hop(tiny: Any) -> None:
    tensor, spans, _ = read(tiny, noise(1.5)[:, 0], hop=0.25)
    whole, _, _ = read(tiny, noise(1.5)[:, 0])
    assert spans == [(0, 2)]
    assert torch.equal(tensor, whole)


def test_a_hop_is_in_the_stretch_and_excludes_a_count(tiny: Any, tmp_path: Path) -> None:
    path = generate.audio(tmp_path / "a.wav", seconds=9)
    assert read(tiny, Stretch(str(path), 2, 6.9), hop=1)[1] == [(2, 4), (3, 5), (4, 6)]
    with pytest.raises(UserError, match="clips and hop exclude each other"):
        tiny.read("audio", str(path), clips=2, hop=1)


def test_more_windows_at_a_hop_than_are_read_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1,199,801 windows in 12000 s at a hop of 0\.01 s; at most 1,000,000 are read"):
        windows(12_000, 2, hop=0.01)
