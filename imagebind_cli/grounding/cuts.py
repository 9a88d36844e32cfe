"""Cut moments out of sounds and videos: samples and packets as they are where that is exact enough, encoded again where it is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile

from imagebind_cli.errors import UserError
from imagebind_cli.events import Listener
from imagebind_cli.files import replacing
from imagebind_cli.media.decoding import check_file, decoding
from imagebind_cli.media.tracks import frames, open_tracks, packets, start_seconds, tick
from imagebind_cli.sources import reason

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

    from imagebind_cli.grounding.moments import MomentAnswer

CUT_MODALITIES = ("audio", "video", "vision")  # of motion, a table's rows are easily cut by its times
EARLY_SECONDS = 1.0  # a copied video may begin this much early, at a key frame; else its pictures are encoded again
SAMPLED = ("WAV", "WAVEX", "FLAC", "AIFF", "AU", "CAF", "W64", "RF64")  # formats of plain samples, which are cut to the sample
EXACT_TYPES = {"FLOAT": "float32", "DOUBLE": "float64"}  # subtype to the numbers that hold its samples exactly; int32 for all others
BLOCK = 1 << 20  # frames of a sound copied at once
ENCODED = ".mkv"  # holds whatever is encoded


def check_clip_folder(folder: Path) -> None:
    """Make a folder for clips unless it is there.

    Raises:
        UserError: it is a file, or its parent does not exist.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; --cut takes a folder for the clips") from None


def cut_clip(source: str, start: float, end: float, stem: Path) -> tuple[Path, float]:
    """Write the part of a sound or a video from `start` to `end`, in seconds from its first picture, or sound where it has none.

    Args:
        stem: the path of the clip without its ending, which is that of the source where its format can be written.
    Returns:
        The clip, and the second of the source at which it begins: earlier than `start` where packets are copied from a key frame on.
    Raises:
        OSError, ValueError: the source cannot be read, or holds nothing there. UserError: the clip cannot be written.
    """
    check_file(source)
    ending = Path(source).suffix
    first, last = (
        Fraction(str(round(time, 6))) for time in (start, end)
    )  # as written: the float 5.2 is just past the frame that starts there
    with suppress(soundfile.LibsndfileError, TypeError), soundfile.SoundFile(source) as sound:
        if sound.format in SAMPLED:
            return _cut_samples(sound, start, end, _named(stem, ending)), start
    with decoding("sound or video"):
        container, pictures = open_tracks(source)
        try:
            tracks: list[Stream] = [*pictures[:1], *container.streams.audio[:1]]
            if not tracks:
                raise ValueError("holds neither sound nor pictures")
            origin = start_seconds(tracks[0])
            key = _key_frame(container, tracks[0], origin + first) if pictures else origin + first
        finally:
            container.close()
        if origin + first - key <= EARLY_SECONDS:
            with suppress(ValueError, OSError):  # a codec or a format that cannot be copied into the same kind of file
                return _cut_packets(source, key, origin + last, _named(stem, ending)), max(0.0, float(key - origin))
        return _cut_frames(source, origin + first, origin + last, _named(stem, ENCODED)), start


def _named(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def _cut_samples(sound: soundfile.SoundFile, start: float, end: float, path: Path) -> Path:
    first, last = round(start * sound.samplerate), min(round(end * sound.samplerate), sound.frames)
    if first >= last:
        raise ValueError(f"no sound from {start:g} to {end:g} s")
    sound.seek(first)
    kind = EXACT_TYPES.get(sound.subtype, "int32")
    about: dict[str, Any] = {"samplerate": sound.samplerate, "channels": sound.channels, "format": sound.format, "subtype": sound.subtype}
    with replacing(path) as place, soundfile.SoundFile(place, "w", **about) as clip:
        for at in range(first, last, BLOCK):
            clip.write(sound.read(min(BLOCK, last - at), dtype=kind, always_2d=True))
    return path


def _key_frame(container: InputContainer, track: Stream, time: Fraction) -> Fraction:
    """Return the container's time of the last key frame at or before a time; of the first one where none is."""
    _seek(container, track, time)
    latest: Fraction | None = None
    for packet in packets(container, track):
        at = (packet.dts if packet.pts is None else packet.pts) or 0
        if packet.is_keyframe and (latest is None or at * tick(track) <= time):
            latest = at * tick(track)
        if at * tick(track) > time:
            break
    if latest is None:
        raise ValueError(f"no picture before {float(time):g} s")
    return latest


def _seek(container: InputContainer, track: Stream, time: Fraction) -> None:
    with suppress(OSError):  # a file that cannot seek is read from its beginning
        container.seek(max(0, int(time / tick(track))), stream=track, backward=True)


def _cut_packets(source: str, first: Fraction, end: Fraction, path: Path) -> Path:
    """Copy the packets whose times are in [first, end) to a file of the same format."""
    import av

    container, pictures = open_tracks(source)
    with container:
        tracks: list[Stream] = [*pictures[:1], *container.streams.audio[:1]]
        _seek(container, tracks[0], first)
        with replacing(path) as place, av.open(os.fspath(place), "w") as clip:
            copies = {track.index: clip.add_stream_from_template(track) for track in tracks}  # type: ignore[arg-type]
            ended: set[int] = set()
            written = 0
            for packet in packets(container, *tracks):
                track = packet.stream
                stamp = packet.dts if packet.pts is None else packet.pts
                if stamp is None:
                    raise ValueError("packets without times")
                time = stamp * tick(track)
                if time >= end:
                    # Packets of pictures come in the order of decoding: an earlier picture may follow, but not behind this one's own time.
                    if packet.dts is None or packet.dts * tick(track) >= end:
                        ended.add(track.index)
                    if len(ended) == len(tracks):
                        break
                    continue
                if time < first:
                    continue
                shift = round(first / tick(track))
                packet.pts = None if packet.pts is None else packet.pts - shift
                packet.dts = None if packet.dts is None else packet.dts - shift
                packet.stream = copies[track.index]
                clip.mux(packet)
                written += 1
            if not written:
                raise ValueError(f"nothing from {float(first):g} to {float(end):g} s")
    return path


def _cut_frames(source: str, start: Fraction, end: Fraction, path: Path) -> Path:
    """Encode the pictures and the sound in [start, end) again."""
    import av

    with replacing(path) as place, av.open(os.fspath(place), "w") as clip:
        container, pictures = open_tracks(source)
        with container:
            tracks: list[Any] = [*pictures[:1], *container.streams.audio[:1]]
            encoders = [_encoder(clip, track) for track in tracks]
        for number, encoder in enumerate(encoders):
            for frame in _frames_between(source, number, start, end):
                clip.mux(encoder.encode(frame))
            clip.mux(encoder.encode(None))
    return path


def _encoder(clip: OutputContainer, track: Any) -> Any:
    import av

    if track.type == "audio":
        return clip.add_stream("flac", rate=track.rate, layout=track.layout.name)
    stream: Any = clip.add_stream("libx264" if "libx264" in av.codecs_available else "mpeg4", rate=track.average_rate or 25)
    stream.width, stream.height, stream.pix_fmt = track.width // 2 * 2, track.height // 2 * 2, "yuv420p"
    stream.time_base = stream.codec_context.time_base = tick(track)
    return stream


def _frames_between(source: str, number: int, start: Fraction, end: Fraction) -> Iterator[Any]:
    """Yield the frames of a track whose times are in [start, end), which count from 0 then. number: of the track among those that are cut."""
    from av.audio.resampler import AudioResampler

    container, pictures = open_tracks(source)
    with container:
        track: Any = [*pictures[:1], *container.streams.audio[:1]][number]
        _seek(container, track, start - 1)
        to_flac = AudioResampler("s16") if track.type == "audio" else None
        for frame in frames(container, track):
            time = None if frame.pts is None else frame.pts * tick(track)
            if time is None or time < start:
                continue
            if time >= end:
                break
            frame.pts -= round(start / tick(track))
            if to_flac is None:
                yield frame.reformat(width=track.width // 2 * 2, height=track.height // 2 * 2, format="yuv420p")
            else:
                yield from to_flac.resample(frame)


def cut_moments(answer: MomentAnswer, folder: Path, number: int, root: Path, listener: Listener) -> Iterator[dict[str, Any]]:
    """Write a clip of each moment of an answer, named after its query, rank, recording and seconds.

    Args:
        number: of the query. root: where relative paths among the ids start. listener: receives the moments that cannot be cut.
    Yields:
        For each moment, `clip`, the path, and `clip_start`, the second of the recording at which it begins; nothing where that failed.
    """
    for hit in answer.hits:
        source = os.path.join(root, hit.item.path)
        stem = folder / f"{number:04d}-{hit.rank:03d}-{Path(source).stem[:100]}-{hit.start:.2f}-{hit.end:.2f}"
        try:
            if hit.item.store.modality not in CUT_MODALITIES:
                raise ValueError(f"--cut writes sounds and videos; a moment of {hit.item.store.modality} is its rows by their times")
            clip, begins = cut_clip(source, hit.start, hit.end, stem)
        except (OSError, ValueError) as error:
            listener.failure(hit.item.id, f"{hit.start:.2f} to {hit.end:.2f} s cannot be cut: {reason(error)}")
            yield {}
            continue
        yield {"clip": str(clip), "clip_start": round(begins, 6)}
