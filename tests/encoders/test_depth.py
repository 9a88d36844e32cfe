"""Depth files of every kind to disparities known beforehand."""

from __future__ import annotations

import io
import re
import sys
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import OpenEXR
import pytest
from PIL import Image, TiffImagePlugin

from imagebind_cli.encoder import Sample
from imagebind_cli.encoders import depth
from imagebind_cli.errors import UserError
from imagebind_cli.media.maps.exr import read_channel, read_exr
from imagebind_cli.media.maps.formats import read_map
from imagebind_cli.media.maps.holes import REACH, fill_nearest
from imagebind_cli.media.maps.pixel_map import PixelMap
from imagebind_cli.registry import face
from imagebind_cli.weights import model_config

CONFIG = model_config.packaged_config("tiny").encoders["depth"]
SIZE = CONFIG.shape[-1]
SENSORS = {"kv1": 0.075, "kv1_b": 0.075, "kv2": 0.075, "realsense": 0.095, "xtion": 0.095}


def read(source: Any, **options: Any) -> Sample:
    (sample,) = depth.read_depth(source, CONFIG, face("depth").read_options(options))
    return sample


def plane(source: Any, **options: Any) -> np.ndarray:
    """The square (h, w) the encoder takes, before normalisation."""
    return read(source, depth_normalise="none", **options).tensor[0, 0].numpy()


def scene(height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """Metres (h, w), another at every pixel, that no turning leaves as it is."""
    return (1 + np.arange(height * width, dtype=np.float32).reshape(height, width) / (height * width)).astype(np.float32)


def refused(source: Any, message: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read(source, **options)


# Known answers


@pytest.mark.parametrize(("sensor", "baseline"), SENSORS.items())
@pytest.mark.parametrize("focal", [518.86, 365.0])
def test_a_plane_at_two_metres(sensor: str, baseline: float, focal: float) -> None:
    answer = baseline * focal / 2 / 75
    for values in np.full((30, 40), 2000, np.uint16), np.full((30, 40), 2.0):
        np.testing.assert_allclose(plane(values, sensor=sensor, focal=focal), answer, atol=1e-6)


def test_both_published_normalisations() -> None:
    answer = 0.075 * 518.86 / 2 / 75
    assert read(np.full((8, 8), 2.0)).tensor[0, 0, 0, 0].item() == pytest.approx((answer - 0.0418) / 0.0295, abs=1e-5)
    assert read(np.full((8, 8), 2.0), depth_normalise="none").tensor[0, 0, 0, 0].item() == pytest.approx(answer, abs=1e-6)


def test_the_largest_disparity_cuts_off_and_divides() -> None:
    values = np.full((8, 8), 2.0)
    assert plane(values, depth_clamp=40.0)[0, 0] == pytest.approx(0.075 * 518.86 / 2 / 40)
    assert plane(values, depth_clamp=10.0)[0, 0] == 1


def test_a_baseline_given_goes_before_the_sensors() -> None:
    assert plane(np.full((8, 8), 2.0), sensor="xtion", baseline=0.05)[0, 0] == pytest.approx(0.05 * 518.86 / 2 / 75)


def test_sunrgbd_rotation_is_undone() -> None:
    for millimetres in 1, 7, 8, 2000, 8191, 8192, 65535:
        rotated = (millimetres << 3 | millimetres >> 13) & 0xFFFF
        facts = read(np.full((8, 8), rotated, np.uint16), depth_format="sunrgbd").facts
        assert facts["nearest"] == facts["farthest"] == millimetres / 1000
    refused(np.ones((8, 8)), "sunrgbd depth is whole numbers of 16 bits; this file holds float64", depth_format="sunrgbd")


def test_disparity_is_taken_as_it_is() -> None:
    values = np.array([[15, 30], [0, 150]], np.float32).repeat(112, 0).repeat(112, 1)
    square = plane(values, depth_format="disparity", fill="none")
    np.testing.assert_allclose(square[[0, 0, -1, -1], [0, -1, 0, -1]], [0.2, 0.4, 0, 1], atol=1e-6)


def test_relative_depth_is_scaled_and_said_aloud(tmp_path: Path) -> None:
    ramp = np.linspace(-3, 5, SIZE)[None].repeat(SIZE, 0)
    sample = read(ramp, depth_format="relative", depth_normalise="none")
    np.testing.assert_allclose(sample.tensor[0, 0], np.linspace(0, 1, SIZE)[None].repeat(SIZE, 0), atol=1e-6)
    assert sample.notes == ("relative depth has no scale: taken from the picture's own smallest value (far) to its largest (near)",)
    assert "focal" not in sample.facts
    grey = np.arange(SIZE, dtype=np.uint8)[None].repeat(SIZE, 0)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([grey, grey // 2, grey // 4], axis=-1)).save(tmp_path / "colour.png")
    for name in "grey.png", "colour.png":
        square = plane(tmp_path / name, depth_format="relative")
        assert (square[0, 0], square[0, -1]) == (0, 1)
        assert (np.diff(square, axis=1) >= 0).all()
    assert any("brightness" in note for note in read(tmp_path / "colour.png", depth_format="relative").notes)


# Files


def save(path: Path, values: np.ndarray) -> Path:
    """Metres in a file of the kind its name says."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["depth"] = values
    elif path.suffix == ".pfm":
        order = "<" if "little" in path.name else ">"
        header = f"Pf\n{values.shape[1]} {values.shape[0]}\n{'-' if order == '<' else ''}1.0\n".encode()
        path.write_bytes(header + values[::-1].astype(order + "f4").tobytes())
    elif "metres" in path.name:
        Image.fromarray(values).save(path)
    else:
        Image.fromarray((values * 1000).round().astype(np.uint16)).save(path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "metres.tiff", "a.npy", "a.h5", "little.pfm", "big.pfm"])
def test_every_kind_of_file_holds_the_same(tmp_path: Path, name: str) -> None:
    values = scene(240, 320)
    path = save(tmp_path / name, values)
    tolerance = 3e-4 if name in ("a.png", "a.tiff") else 1e-6  # half a millimetre
    wanted = plane(values)
    np.testing.assert_allclose(plane(path), wanted, atol=tolerance)
    with open(path, "rb") as file:
        np.testing.assert_allclose(plane(file), wanted, atol=tolerance)
    facts = read(path).facts
    assert facts["size"] == [240, 320]
    assert facts["bits"] == (16 if tolerance == 3e-4 else 32)
    assert (facts["nearest"], facts["farthest"]) == pytest.approx((1, 2), abs=1e-3)


def test_the_scale_of_a_pfm_is_not_applied_and_that_is_said(tmp_path: Path) -> None:
    path = save(tmp_path / "little.pfm", scene(6, 8))
    path.write_bytes(path.read_bytes().replace(b"-1.0\n", b"-0.003922\n"))
    found = read_map(path)
    np.testing.assert_array_equal(found.values, scene(6, 8))
    assert found.notes == ("the scale of a PFM file is not applied",)


@pytest.mark.parametrize("mark", ["header", "attribute"])
def test_matlab_files_are_turned_back(tmp_path: Path, mark: str) -> None:
    """As NYU Depth v2's labelled file: depths (frames, width, height)."""
    path = tmp_path / "nyu.mat"
    frames = np.stack([scene(6, 8), scene(6, 8) + 1, scene(6, 8) + 2])  # (n, h, w)
    with h5py.File(path, "w", userblock_size=512) as file:
        file["depths"] = frames.swapaxes(1, 2)
        file["images"] = np.zeros((3, 3, 8, 6), np.uint8)
        if mark == "attribute":
            file["depths"].attrs["MATLAB_class"] = np.bytes_("single")
    if mark == "header":
        content = path.read_bytes()
        path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + content[512:])
    for number in range(3):
        np.testing.assert_array_equal(read_map(path, frame=number).values, frames[number])
    np.testing.assert_array_equal(plane(path, frame=1), plane(frames[1]))
    assert read(path, frame=1).notes[0] == "frame 1 of 3"
    refused(path, "no frame 3; dataset depths has 3, counted from 0", frame=3)


def test_datasets_are_found_by_name_and_plain_hdf5_is_not_turned(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["sensor/range"] = scene(6, 8)
        file["other"] = np.ones((3, 4), np.float32)
        file["words"] = "none"
    np.testing.assert_array_equal(read_map(tmp_path / "a.h5", dataset="sensor/range").values, scene(6, 8))
    refused(tmp_path / "a.h5", "holds other, sensor, words; choose one with --dataset")
    refused(tmp_path / "a.h5", "no dataset range; it holds other, sensor, words", dataset="range")
    refused(tmp_path / "a.h5", "sensor is not a dataset; name one with --dataset", dataset="sensor")
    refused(
        tmp_path / "a.h5",
        "dataset words holds object of shape (); numbers (height, width) or (frames, height, width) are needed",
        dataset="words",
    )


def test_hdf5_files_reach_into_no_other_file(tmp_path: Path) -> None:
    save(tmp_path / "other.h5", scene(6, 8))
    (tmp_path / "raw").write_bytes(scene(6, 8).tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["link"] = h5py.ExternalLink("other.h5", "depth")
        file["group/soft"] = h5py.SoftLink("/link")
        file.create_dataset("outside", (6, 8), np.float32, external=[(tmp_path / "raw", 0, h5py.h5f.UNLIMITED)])
        layout = h5py.VirtualLayout((6, 8), np.float32)
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "depth", (6, 8))
        file.create_virtual_dataset("virtual", layout)
    for name in "link", "group/soft":
        refused(tmp_path / "a.h5", f"dataset {name} is a link; the numbers themselves are needed", dataset=name)
    for name in "outside", "virtual":
        refused(tmp_path / "a.h5", f"dataset {name} lies in other files; the numbers themselves are needed", dataset=name)


def test_a_dataset_that_promises_too_much_is_not_unpacked(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("depth", (1_000_000, 1_000_000), np.float32, chunks=(100, 100))
    refused(tmp_path / "a.h5", "dataset depth promises (1000000, 1000000) values; at most 32,000,000 are unpacked")


def test_broken_hdf5_is_told_in_words(tmp_path: Path) -> None:
    path = save(tmp_path / "a.h5", scene())
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="^not a readable HDF5 file: "):
        read(path)


# The numbers that stand in a file, whatever its reader makes of them


MILLIMETRES = (500 + np.arange(SIZE * SIZE).reshape(SIZE, SIZE) % 3000).astype(np.uint16)


def pixels(path: Path, codec: str, layout: str, values: np.ndarray) -> Path:
    """A picture written by FFmpeg in a layout that Pillow does not write: values (h, w) or (h, w, channels) of 16 bits."""
    order = ">" if layout.endswith("be") else "<"
    frame = av.VideoFrame(values.shape[1], values.shape[0], layout)
    rows = np.ascontiguousarray(values.reshape(len(values), -1).astype(order + "u2")).view(np.uint8)
    frame.planes[0].update(np.pad(rows, ((0, 0), (0, frame.planes[0].line_size - rows.shape[1]))).tobytes())
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = values.shape[1], values.shape[0], layout, Fraction(1, 25)
    encoder.options = {"pred": "1"} if codec == "jpeg2000" else {}  # without loss
    path.write_bytes(b"".join(bytes(packet) for packet in encoder.encode(frame) + encoder.encode(None)))
    return path


def test_a_grey_maps_largest_value_changes_no_number(tmp_path: Path) -> None:
    """P5, P2 and PAM, by any maxval, with comments where they may stand."""
    raw, plain = MILLIMETRES.astype(">u2").tobytes(), b"\n".join(b" ".join(b"%d" % number for number in row) for row in MILLIMETRES)
    size = b"%d %d" % (SIZE, SIZE)
    files = {
        "a.pgm": b"P5 " + size + b" 65535\n" + raw,
        "b.pgm": b"P5\n# a camera's\n" + size + b" # pixels\n#\n10000\n" + raw,
        "c.pgm": b"P5\n" + size + b"\n1000\n" + raw,  # less than it holds
        "d.pgm": b"P2\n" + size + b"\n4095\n" + plain,
        "e.pgm": b"P2\r\n# c\r\n" + size + b"\r\n65535\r\n" + plain.replace(b"\n", b" # row\r\n"),
        "f.pam": b"P7\nWIDTH %d\nHEIGHT %d\nDEPTH 1\nMAXVAL 9999\nTUPLTYPE GRAYSCALE\nENDHDR\n" % (SIZE, SIZE) + raw,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(read_map(tmp_path / name).values, MILLIMETRES)
        with open(tmp_path / name, "rb") as file:
            np.testing.assert_array_equal(plane(file), plane(MILLIMETRES))
    for content, message in (
        (files["a.pgm"][:-3], f"ends after {SIZE * SIZE - 2:,} of {SIZE * SIZE:,} pixels"),
        (b"P5 99999 99999 65535\n", "99999 x 99999 pixels; at most 32,000,000 are unpacked"),
        (b"P2 2 2 65535\n1 2 3 x", "holds something other than numbers after its header"),
        (b"P2 2 2 200\n1 2 3 700", "holds numbers from 1 to 700; its header says at most 200"),
        (b"P5 2 2 70000\n" + bytes(9), "a largest value of 70000; 1 to 65535 is needed"),
        (b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 3\nMAXVAL 255\nENDHDR\n" + bytes(12), "a PAM file of 3 channels; one value per pixel is needed"),
    ):
        (tmp_path / "x.pgm").write_bytes(content)
        refused(tmp_path / "x.pgm", message)


@pytest.mark.parametrize(
    ("codec", "layout"),
    [("jpeg2000", "gray10le"), ("jpeg2000", "gray12le"), ("jpeg2000", "gray16le"), ("png", "gray16be"), ("tiff", "gray16le")],
)
def test_numbers_of_fewer_bits_are_not_shifted_up(tmp_path: Path, codec: str, layout: str) -> None:
    values = MILLIMETRES >> 2 if "10" in layout else MILLIMETRES
    np.testing.assert_array_equal(read_map(pixels(tmp_path / "a", codec, layout, values)).values, values)


@pytest.mark.parametrize(
    ("codec", "layout", "channels"),
    [("png", "rgb48be", 3), ("png", "rgba64be", 4), ("png", "ya16be", 2), ("tiff", "rgb48le", 3), ("ppm", "rgb48be", 3)],
)
def test_colours_of_16_bits_are_named_so(tmp_path: Path, codec: str, layout: str, channels: int) -> None:
    """Pillow gives 8 bits of them, which would pass for grey where the channels are alike."""
    path = pixels(tmp_path / "a", codec, layout, MILLIMETRES[..., None].repeat(channels, -1))
    for unit in None, "relative":
        refused(path, f"16-bit, {channels} channels; a map has one: save the channel that holds it as 16-bit grey", depth_format=unit)


def test_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    refused(
        pixels(tmp_path / "a", "jpegls", "gray16le", MILLIMETRES),
        "JPEG-LS is not supported; convert it to PNG (ffmpeg -i IN -pix_fmt gray16be OUT.png)",
    )
    refused(
        pixels(tmp_path / "a", "tiff", "ya16le", MILLIMETRES[..., None].repeat(2, -1)),
        "a TIFF with channels or bits that are not supported; save one channel of 16 bits or 32-bit floats",
    )


def test_matlab_5_is_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("scipy.io").savemat(tmp_path / "a.mat", {"depth": MILLIMETRES})
    refused(tmp_path / "a.mat", "a MATLAB 5 file is not supported; save it with -v7.3, or as NPY")


def test_pages_of_a_tiff_are_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    Image.fromarray(MILLIMETRES).save(path, save_all=True, append_images=[Image.fromarray(MILLIMETRES + 1000)])
    for page in 0, 1:
        found = read_map(path, frame=page)
        np.testing.assert_array_equal(found.values, MILLIMETRES + 1000 * page)
        assert found.notes == (f"page {page} of 2",)
    refused(path, "no page 2; it has 2, counted from 0", frame=2)


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_holds_a_named_or_a_single_array(tmp_path: Path, compressed: bool) -> None:
    write = np.savez_compressed if compressed else np.savez
    write(tmp_path / "a.npz", colour=np.zeros((2, 3, 4)), depth=MILLIMETRES)
    write(tmp_path / "b.npz", MILLIMETRES[None])
    write(tmp_path / "c.npz", near=MILLIMETRES, far=MILLIMETRES + 1)
    write(tmp_path / "d.npz", np.array([{}]))
    for name, dataset, more in ("a", None, 0), ("b", None, 0), ("c", "near", 0), ("c", "far", 1):
        np.testing.assert_array_equal(plane(tmp_path / f"{name}.npz", dataset=dataset), plane(MILLIMETRES + more))
    refused(tmp_path / "c.npz", "holds near, far; choose one with --dataset")
    refused(tmp_path / "c.npz", "no dataset depth; it holds near, far", dataset="depth")
    refused(tmp_path / "d.npz", "holds object; numbers are needed")
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("a.txt", "1 2")
    refused(tmp_path / "e.zip", "a ZIP archive without arrays; unpack it, or save the numbers as NPY")


def test_whole_numbers_in_text_are_millimetres_and_others_metres(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "mm.csv", MILLIMETRES, "%d", delimiter=",")
    np.savetxt(tmp_path / "m.txt", MILLIMETRES / 1000, "%.3f")
    for name in "mm.csv", "m.txt":
        np.testing.assert_allclose(plane(tmp_path / name), plane(MILLIMETRES), atol=1e-6)
    for text, why in [
        ("hello there", "not a readable picture: of no known kind"),
        ('{"a": [1, 2]}', "not a readable picture: of no known kind"),
        ("<svg viewBox='0 0 9 9'/>", "SVG is not supported; draw it first: rsvg-convert in.svg -o out.png"),
    ]:
        (tmp_path / "a.txt").write_text(text)
        refused(tmp_path / "a.txt", why)


# Pixels that a file, or a camera, marks as having none


def tagged(path: Path, values: np.ndarray, **tags: str) -> Path:
    """A TIFF with GDAL's tags."""
    entries: Any = TiffImagePlugin.ImageFileDirectory_v2()
    for name, number in ("metadata", 42112), ("no_data", 42113):
        if name in tags:
            entries[number] = tags[name]
            entries.tagtype[number] = 2  # ASCII
    Image.fromarray(values).save(path, tiffinfo=entries)
    return path


def test_what_a_file_marks_as_missing_is_a_hole(tmp_path: Path) -> None:
    hole = np.zeros(MILLIMETRES.shape, bool)
    hole[10:20, 5:15] = True
    depths = np.where(MILLIMETRES == 1234, 1235, MILLIMETRES)
    wanted = plane(np.where(hole, 0, depths))
    marked = np.where(hole, np.uint16(1234), depths)
    tagged(tmp_path / "a.tif", marked, no_data="1234")
    Image.fromarray(marked).save(tmp_path / "a.png", transparency=1234)
    for key in "_FillValue", "missing_value", "nodata":
        with h5py.File(tmp_path / f"{key}.h5", "w") as file:
            file["depth"] = marked
            file["depth"].attrs[key] = np.array([1234], np.uint16)
    with h5py.File(tmp_path / "fill.h5", "w") as file:
        file.create_dataset("depth", data=marked, fillvalue=1234)
    for name in "a.tif", "a.png", "_FillValue.h5", "missing_value.h5", "nodata.h5", "fill.h5":
        np.testing.assert_array_equal(plane(tmp_path / name), wanted)
        assert read(tmp_path / name).facts["missing"] == pytest.approx(hole.mean())


def test_a_scale_in_a_file_is_applied(tmp_path: Path) -> None:
    metres = plane(MILLIMETRES / 1000)
    items = '<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.001</Item><Item name="a">b</Item></GDALMetadata>'
    path = tagged(tmp_path / "a.tif", MILLIMETRES, metadata=items)
    np.testing.assert_allclose(plane(path), metres, atol=1e-6)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["depth"] = MILLIMETRES.astype(np.int32) - 500
        file["depth"].attrs.update({"scale_factor": 0.001, "add_offset": 0.5, "_FillValue": -9999})
    np.testing.assert_allclose(plane(tmp_path / "a.h5"), metres, atol=1e-6)
    assert "numbers times 0.001 plus 0.5, as the file says" in read(tmp_path / "a.h5").notes


def test_65535_far_from_all_others_is_a_hole_and_said() -> None:
    values = MILLIMETRES.copy()
    values[10:20, 5:15] = 65535
    sample = read(values)
    assert sample.notes[0] == "100 pixels hold 65535, far from all others (500 to 3499): taken as missing"
    assert sample.facts["missing"] == pytest.approx(100 / SIZE**2)
    values = (MILLIMETRES.astype(np.int32) * 18).astype(np.uint16)
    values[10:20, 5:15] = 65535
    assert "1% of the pixels lie beyond 50 m, up to 65.535 m: taken as 50 m away" not in read(MILLIMETRES).notes
    assert any("of the pixels lie beyond 50 m, up to 65.535 m: taken as 50 m away" in note for note in read(values).notes)


def test_a_code_or_an_outlier_does_not_set_the_range_of_relative_depth_in_silence() -> None:
    ramp = np.linspace(1, 2, SIZE)[None].repeat(SIZE, 0)
    coded = ramp.copy()
    coded[:, 0] = -9999
    np.testing.assert_allclose(plane(coded, depth_format="relative")[:, 2:], plane(ramp, depth_format="relative")[:, 2:], atol=0.01)
    ramp[0, 0] = 500
    assert "few values set its range, 1 to 500, where nearly all lie from 1" in " ".join(read(ramp, depth_format="relative").notes)


# A SUN RGB-D tree


@pytest.mark.parametrize("folder", ["depth", "depth_bfx"])
@pytest.mark.parametrize("sensor", ["kv1", "kv2", "realsense", "xtion"])
def test_a_sunrgbd_folder_gives_focal_length_and_sensor(tmp_path: Path, folder: str, sensor: str) -> None:
    sample = tmp_path / sensor / "set" / "0001"
    (sample / folder).mkdir(parents=True)
    (sample / "intrinsics.txt").write_text("529.5 0 365\n0 530.1 265\n0 0 1\n")
    Image.fromarray(np.full((8, 8), 2000 << 3, np.uint16)).save(path := sample / folder / "a.png")
    found = read(path, depth_format="sunrgbd", depth_normalise="none")
    assert found.tensor[0, 0, 0, 0].item() == pytest.approx(SENSORS[sensor] * 529.5 / 2 / 75, abs=1e-6)
    assert found.notes == (f"focal 529.5 px from intrinsics.txt, baseline {SENSORS[sensor]:g} m ({sensor}, from the path)",)
    assert (found.facts["sensor"], found.facts["focal"], found.facts["baseline"]) == (sensor, 529.5, SENSORS[sensor])
    assert "the folders are SUN RGB-D's, whose own files need --depth-format sunrgbd" in read(path).notes
    assert read(path, focal=500.0, sensor="kv2", depth_format="sunrgbd").notes == ()


def test_broken_intrinsics_are_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "depth").mkdir()
    np.save(path := tmp_path / "depth" / "a.npy", np.full((8, 8), 2.0))
    assert read(path).notes == ("depth read as metres, focal 518.86 px, baseline 0.075 m",)
    for text in "", "529.5 0 365", "a b c d e f g h i", "-1 0 365 0 530 265 0 0 1", "nan 0 365 0 530 265 0 0 1":
        (tmp_path / "intrinsics.txt").write_text(text)
        refused(path, "intrinsics.txt beside its folder holds no 3 x 3 camera matrix; give --focal")
    assert read(path, focal=500.0).facts["focal"] == 500


# Holes


@pytest.mark.parametrize("hole", [0.0, -1.0, np.nan, np.inf, -np.inf])
def test_holes_are_filled_from_the_nearest_pixel(hole: float) -> None:
    values = np.full((SIZE, SIZE), 2.0)
    values[:, SIZE // 2 :] = 4.0
    holed = values.copy()
    holed[10:20, 5:15] = hole
    holed[:8, -3:] = hole
    sample = read(holed)
    np.testing.assert_allclose(sample.tensor, read(values).tensor, atol=1e-6)
    share = (100 + 24) / SIZE**2
    assert sample.facts["missing"] == pytest.approx(share)
    assert sample.notes[-1] == "1% of the pixels have no depth; each takes the nearest known pixel's"
    assert sample.facts["farthest"] == 4
    assert plane(holed, fill="none")[12, 10] == 0
    assert plane(holed, fill="far")[12, 10] == pytest.approx(0.075 * 518.86 / 4 / 75)
    assert np.isfinite(read(holed).tensor.numpy()).all()


def test_a_map_without_holes_says_nothing_of_them() -> None:
    sample = read(scene())
    assert sample.facts["missing"] == 0
    assert sample.notes == ("depth read as metres, focal 518.86 px, baseline 0.075 m",)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.995])
def test_the_nearest_known_pixel_is_the_nearest(share: float) -> None:
    random = np.random.default_rng(int(share * 1000))
    known = random.random((37, 53)) > share
    places = np.arange(known.size).reshape(known.shape)
    filled = fill_nearest(places, known)
    ys, xs = np.nonzero(known)
    rows, columns = np.indices(known.shape)
    true = np.hypot(rows[..., None] - ys, columns[..., None] - xs).min(-1)
    taken = np.hypot(rows - filled // 53, columns - filled % 53)
    assert known.ravel()[filled].all()
    np.testing.assert_allclose(taken, true, atol=0.5)
    assert (taken == true).mean() > 0.99
    np.testing.assert_array_equal(filled[known], places[known])


@pytest.mark.parametrize("count", [1, 3, 20])
def test_the_nearest_known_pixel_is_near_where_all_are_far(count: int) -> None:
    random = np.random.default_rng(count)
    known = np.zeros((700, 1100), bool)
    known.ravel()[random.choice(known.size, count, replace=False)] = True
    filled = fill_nearest(np.arange(known.size).reshape(known.shape), known)
    ys, xs = np.nonzero(known)
    rows, columns = np.indices(known.shape)
    true = np.min([np.hypot(rows - y, columns - x) for y, x in zip(ys, xs, strict=True)], axis=0)
    taken = np.hypot(rows - filled // 1100, columns - filled % 1100)
    assert known.ravel()[filled].all()
    assert (taken <= 1.1 * true).all()
    assert (taken == true)[true <= REACH].all()


# OpenEXR


def exr(path: Path, channels: dict[str, np.ndarray], **header: Any) -> Path:
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage} | header, channels).write(str(path))
    return path


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.uint32])
@pytest.mark.parametrize("channels", [["Z"], ["Y"], ["V"], ["A", "B", "G", "R", "Z"], ["View.Combined.R", "View.Depth.Z"]])
def test_the_depth_of_an_exr_is_found(tmp_path: Path, channels: list[str], kind: type) -> None:
    """A step from 2 m to 4 m: disparities of 0.075 * 518.86 / depth / 75."""
    values = np.array([[2, 4]]).repeat(SIZE, 0).repeat(SIZE // 2, 1)
    if kind == np.uint32:
        values = values * 1000  # whole numbers are millimetres
    made = {name: (values if number == len(channels) - 1 else values * 0 + 7).astype(kind) for number, name in enumerate(channels)}
    path = exr(tmp_path / "a.exr", made)
    answers = [0.075 * 518.86 / metres / 75 for metres in (2, 4)]
    np.testing.assert_allclose(plane(path)[[0, -1], [0, -1]], answers, atol=1e-6)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(plane(file), plane(path))
    assert read(path).facts["bits"] == 8 * np.dtype(kind).itemsize


def test_a_channel_of_an_exr_by_name(tmp_path: Path) -> None:
    path = exr(tmp_path / "a.exr", {"Z": np.full((8, 8), 2, np.float32), "near.Z": np.full((8, 8), 1, np.float32)})
    assert [read(path, dataset=name).facts["nearest"] for name in (None, "Z", "near.Z")] == [2, 2, 1]
    refused(path, "no channel depth; it holds Z, near.Z; choose one with --dataset", dataset="depth")
    colours = exr(tmp_path / "colours.exr", {name: np.ones((8, 8), np.float32) for name in "RGB"})
    refused(colours, "holds channels B, G, R; choose one with --dataset")


@pytest.mark.parametrize("kind", [np.float32, np.uint32])
def test_an_exr_that_holds_a_part_of_the_picture(tmp_path: Path, kind: type) -> None:
    """A rendered region: 4 x 3 values at (1, 2) of a picture 8 x 6; a region that reaches past the picture is cut."""
    values = 1 + np.arange(12).reshape(3, 4).astype(kind)
    path = exr(tmp_path / "a.exr", {"Z": values}, dataWindow=((1, 2), (4, 4)), displayWindow=((0, 0), (7, 5)))
    picture = read_map(path).values
    assert picture.shape == (6, 8)
    np.testing.assert_array_equal(picture[2:5, 1:5], values)
    picture[2:5, 1:5] = 0
    assert not np.nan_to_num(picture).any()
    assert np.isnan(picture).sum() == (36 if kind == np.float32 else 0)
    wide = exr(tmp_path / "wide.exr", {"Z": values}, dataWindow=((-1, -1), (2, 1)), displayWindow=((0, 0), (1, 0)))
    np.testing.assert_array_equal(read_map(wide).values, values[1:2, 1:3])


def test_an_exr_that_cannot_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = exr(tmp_path / "a.exr", {"Z": scene()})
    for name, data in (
        ("cut.exr", whole.read_bytes()[:-900]),
        ("head.exr", whole.read_bytes()[:90]),
        ("zeros.exr", b"\x76\x2f\x31\x01" + bytes(99)),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="^not a readable OpenEXR file: "):
            read(tmp_path / name)
    huge = bytearray(whole.read_bytes())
    at = huge.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    huge[at + 8 : at + 16] = np.array([99_999, 99_999], "<i4").tobytes()
    (tmp_path / "huge.exr").write_bytes(huge)
    with pytest.raises(ValueError, match="100000 x 100000 pixels; at most 32,000,000 are unpacked|not a readable OpenEXR file: "):
        read(tmp_path / "huge.exr")
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    refused(whole, "an OpenEXR file, which needs another library: pip install 'imagebind-cli[exr]'")


# Refusals


def test_what_is_no_depth_is_refused_in_one_line(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([grey, grey, 255 - grey], axis=-1)).save(tmp_path / "colour.png")
    (tmp_path / "colour.pfm").write_bytes(b"PF\n1 1\n-1.0\n" + bytes(12))
    eight = "an 8-bit picture is not metric depth; 16-bit millimetres or floating-point metres are needed"
    for unit in None, "metres", "mm", "sunrgbd", "disparity":
        refused(tmp_path / "grey.png", eight, depth_format=unit)
        refused(tmp_path / "colour.png", "a colour picture (mode RGB); one value per pixel is needed", depth_format=unit)
    refused(tmp_path / "colour.pfm", "a colour picture (PFM); one value per pixel is needed")
    refused(np.ones((2, 3, 4)), "shape (2, 3, 4); (height, width) is needed")
    refused(np.zeros((8, 8)), "no pixel has a depth")
    refused(np.full((8, 8), np.nan), "no pixel has a depth", depth_format="relative")
    refused(np.full((8, 8), 3.0), "all pixels have one value; there is nothing to see", depth_format="relative")
    with pytest.raises(ValueError, match="^not a readable picture: "):
        read(io.BytesIO(b"nothing at all"))


def test_a_unit_that_is_probably_wrong_is_doubted() -> None:
    assert "most pixels lie beyond 50 m, where depth is cut off: is it really metres?" in read(np.full((8, 8), 2000.0)).notes


def test_unknown_choices_are_named() -> None:
    with pytest.raises(UserError, match="unknown depth_format 'inches'; choose from metres, mm, sunrgbd, disparity, relative"):
        read(np.ones((8, 8)), depth_format="inches")
    with pytest.raises(UserError, match="unknown sensor 'kv3'; choose from kv1, kv1_b, kv2, realsense, xtion"):
        read(np.ones((8, 8)), sensor="kv3")


def test_facts_are_plain_numbers() -> None:
    facts = read(scene(6, 8)).facts
    assert facts == {
        "size": [6, 8],
        "bits": 32,
        "unit": "metres",
        "sensor": None,
        "focal": 518.86,
        "baseline": 0.075,
        "nearest": 1.0,
        "farthest": pytest.approx(1 + 47 / 48),
        "missing": 0.0,
    }
    assert all(type(value) in (list, int, float, str, type(None)) for value in facts.values())


def test_transparency_beside_grey_is_dropped(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(np.stack([grey, 255 - grey], axis=-1), "LA").save(tmp_path / "a.png")
    found = read_map(tmp_path / "a.png")
    assert isinstance(found, PixelMap)
    np.testing.assert_array_equal(found.values, grey)


def test_a_file_that_crashes_its_library_costs_one_file(embed: Any, tmp_path: Path) -> None:
    good = [exr(tmp_path / name, {"Z": scene()}) for name in ("a.exr", "c.exr")]
    crash = Path(__file__).parents[1] / "data" / "damaged" / "crash.exr"
    run = embed("depth", good[0], crash, good[1])
    assert (run.code, run.ids) == (1, [str(path) for path in good]), run.err
    assert f"imagebind: {crash}: its library crashed on it (signal 11)" in run.notices


def test_what_is_read_in_a_process_apart_is_what_is_read_here(tmp_path: Path) -> None:
    path = exr(tmp_path / "a.exr", {"Z": scene(), "A": scene()})
    for source in (path, io.BytesIO(path.read_bytes())):
        apart, here = read_exr(source, "Z", 10**6), read_channel(source, "Z", 10**6)
        assert apart.dtype == here.dtype
        assert np.array_equal(apart, here)
    with pytest.raises(ValueError, match="no channel B; it holds"):
        read_exr(path, "B", 10**6)
    with pytest.raises(FileNotFoundError):
        read_exr(tmp_path / "missing.exr", None, 10**6)
