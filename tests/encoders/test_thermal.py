"""Thermal files of every kind to values known beforehand."""

from __future__ import annotations

import base64
import io
import re
import struct
from pathlib import Path
from typing import Any, get_args, get_type_hints

import h5py
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from imagebind_cli.encoder import Sample
from imagebind_cli.encoders import thermal
from imagebind_cli.errors import UserError
from imagebind_cli.media.maps import palettes
from imagebind_cli.options.modalities import OPTIONS
from imagebind_cli.options.thermal import ThermalOptions
from imagebind_cli.pages import preview
from imagebind_cli.registry import face
from imagebind_cli.weights import model_config
from tests.conftest import Run

CONFIG = model_config.packaged_config("tiny").encoders["thermal"]
SIZE = CONFIG.shape[-1]
R1, B, F, O, R2 = 17000.0, 1435.0, 1.0, -5000, 0.0125  # noqa: E741 - the constants' published names
EMISSIVITY, REFLECTED = 0.9, 300.0


def read(source: Any, **options: Any) -> Sample:
    (sample,) = thermal.read_thermal(source, CONFIG, face("thermal").read_options(options))
    return sample


def plane(source: Any, **options: Any) -> np.ndarray:
    """The square (h, w) the encoder takes."""
    return read(source, **options).tensor[0, 0].numpy()


def refused(source: Any, message: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read(source, **options)


def ramp(low: float, high: float, height: int = SIZE) -> np.ndarray:
    """Values (h, SIZE) that grow evenly from left to right."""
    return np.linspace(low, high, SIZE)[None].repeat(height, 0)


RISING = ramp(0, 1)


# Pictures and arrays


def test_eight_bits_are_divided_by_255() -> None:
    values = np.arange(SIZE, dtype=np.uint8)[None].repeat(SIZE, 0)
    sample = read(values)
    np.testing.assert_allclose(sample.tensor[0, 0], values / 255, atol=1e-7)
    assert sample.notes == ()
    assert (sample.facts["unit"], sample.facts["range"]) == ("grey levels", [0, 255])


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.npy", "a.h5"])
def test_sixteen_bits_are_counts_scaled_from_end_to_end(tmp_path: Path, name: str) -> None:
    values = ramp(20000, 30000).round().astype(np.uint16)
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, values)
    elif name == "a.h5":
        with h5py.File(path, "w") as file:
            file["frames"] = np.stack([values[:, ::-1], values])
    else:
        Image.fromarray(values).save(path)
    sample = read(path, **({"frame": 1} if name == "a.h5" else {}))
    np.testing.assert_allclose(sample.tensor[0, 0], RISING, atol=1e-4)
    assert sample.notes[-2:] == ("thermal values read as counts", "thermal values scaled from each picture's own smallest to its largest")
    assert sample.facts == {
        "size": [SIZE, SIZE],
        "bits": 16,
        "unit": "counts",
        "coldest": 20000,
        "warmest": 30000,
        "range": [20000, 30000],
        "inverted": False,
        "missing": 0,
    }


@pytest.mark.parametrize(
    ("unit", "values"),
    [
        ("celsius", ramp(10, 40)),
        ("kelvin", ramp(283.15, 313.15)),
        ("centikelvin", ramp(28315, 31315).round().astype(np.uint16)),
    ],
)
def test_a_range_is_in_degrees_where_the_unit_is_a_temperature(unit: str, values: np.ndarray) -> None:
    sample = read(values, thermal_unit=unit, thermal_range="0:50")
    np.testing.assert_allclose(sample.tensor[0, 0], ramp(0.2, 0.8), atol=2e-4)
    assert (sample.facts["unit"], sample.facts["coldest"], sample.facts["warmest"]) == ("°C", pytest.approx(10), pytest.approx(40))
    assert sample.notes == ()
    square = plane(values, thermal_unit=unit, thermal_range="20:30")
    np.testing.assert_allclose(square, ramp(-1, 2).clip(0, 1), atol=1e-3)
    refused(values, "no value between 60 and 80 °C; they go from 10 to 40", thermal_unit=unit, thermal_range="60:80")


def test_a_range_without_a_unit_is_in_the_files_own_numbers() -> None:
    sample = read(ramp(10, 40), thermal_range="10:70")
    np.testing.assert_allclose(sample.tensor[0, 0], ramp(0, 0.5), atol=1e-6)
    assert sample.notes == ("thermal values read as numbers", "thermal range 10:70 taken in the file's own numbers")
    refused(ramp(283, 313), "no value between 10 and 40 numbers; they go from 283 to 313", thermal_range="10:40")


def test_what_could_be_kelvin_is_said_and_not_assumed() -> None:
    sample = read(ramp(283, 313))
    assert sample.notes[0] == "thermal values read as numbers, though they could be kelvin (--thermal-unit kelvin)"
    np.testing.assert_allclose(sample.tensor[0, 0], RISING, atol=1e-6)


def test_percentiles_leave_out_the_extremes() -> None:
    values = ramp(0, 100)
    values[0, 0], values[0, 1] = -5000, 5000
    square = plane(values, thermal_range="percentile")
    np.testing.assert_allclose(square[1:], ramp(-1 / 98, 99 / 98).clip(0, 1)[1:], atol=2e-3)
    assert (square[0, 0], square[0, 1]) == (0, 1)


def test_black_hot_is_turned_round() -> None:
    np.testing.assert_allclose(plane(ramp(10, 40), thermal_invert=True), 1 - RISING, atol=1e-6)


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_pixels_without_a_value_take_their_neighbours_and_are_counted(hole: float) -> None:
    values = ramp(10, 40)
    values[:, -1] = hole
    for invert in False, True:
        sample = read(values, thermal_unit="celsius", thermal_range="10:40", thermal_invert=invert)
        np.testing.assert_array_equal(sample.tensor[0, 0, :, -1], sample.tensor[0, 0, :, -2])
        assert sample.facts["missing"] == pytest.approx(1 / SIZE)
        assert sample.notes == ("1% of the pixels have no value; each takes the nearest known pixel's",)


def test_one_bit_and_the_whole_range_of_a_type_are_read(tmp_path: Path) -> None:
    bits = ramp(0, 1) > 0.5
    Image.fromarray(bits).save(tmp_path / "bit.png")
    for source in tmp_path / "bit.png", bits:
        np.testing.assert_array_equal(plane(source), bits.astype(np.float32))
    np.testing.assert_allclose(plane(ramp(-32768, 32767).round().astype(np.int16)), RISING, atol=1e-4)


def test_what_shows_nothing_is_refused() -> None:
    refused(np.full((8, 8), 3.0), "all pixels have one value; there is nothing to see")
    refused(np.full((8, 8), np.nan), "no pixel has a value")
    refused(np.ones((2, 3, 4)), "shape (2, 3, 4); (height, width) is needed")
    refused(np.ones((8, 8), np.uint8), "values of 8 bits cannot be centikelvin, which are near 30,000", thermal_unit="centikelvin")


@pytest.mark.parametrize("text", ["40:10", "10", "a:b", "10:10", "nan:5", "0:inf", ":", "1:2:3", "Auto"])
def test_a_range_that_is_none_is_refused_at_once(text: str) -> None:
    with pytest.raises(UserError, match="unknown thermal_range .*; choose auto, percentile or MIN:MAX, as in 10:40"):
        ThermalOptions(thermal_range=text)


# A range that names its unit


@pytest.mark.parametrize("text", ["20C:40C", "20:40C", "20°C:40°c", "68F:104F", "293.15K:313.15K", "68F:40C"])
def test_a_range_in_degrees(tmp_path: Path, text: str) -> None:
    assert ThermalOptions(thermal_range=text).limits() == (pytest.approx(20), pytest.approx(40), True)
    wanted = ramp(-0.5, 2).clip(0, 1)
    np.testing.assert_allclose(plane(ramp(10, 60), thermal_unit="celsius", thermal_range=text), wanted, atol=1e-6)
    path = radiometric(tmp_path / "a.jpg", container(counts_of(ramp(10, 60))))
    np.testing.assert_allclose(plane(path, thermal_range=text), wanted, atol=2e-3)
    refused(
        ramp(10, 60),
        f"--thermal-range {text} gives temperatures, and the file holds numbers; name their unit with --thermal-unit",
        thermal_range=text,
    )


@pytest.mark.parametrize("text", ["20C:40", "C:F", "40C:20C", "20C", "20X:40X", "0C:infC", "20C:40C:60C"])
def test_a_range_with_a_unit_that_is_none_is_refused_at_once(text: str) -> None:
    with pytest.raises(UserError, match="unknown thermal_range .*; choose auto, percentile or MIN:MAX, as in 10:40 or 20C:40C"):
        ThermalOptions(thermal_range=text)


def test_grey_levels_are_not_taken_for_temperatures(tmp_path: Path) -> None:
    grey = Image.fromarray(ramp(0, 255).astype(np.uint8))
    grey.save(tmp_path / "a.jpg")
    grey.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[271] = "DJI"
    grey.save(tmp_path / "dji.jpg", exif=exif)
    camera = "give the camera's radiometric file"
    dji = "have DJI's Thermal SDK write its temperatures (dji_irp -a measure) and save them as NPY, with --thermal-unit celsius"
    for name, remedy in ("a.jpg", camera), ("a.png", camera), ("dji.jpg", dji):
        path = tmp_path / name
        for unit in "celsius", "kelvin":
            refused(path, f"values of 8 bits are grey levels and not {unit}; leave --thermal-unit out, or {remedy}", thermal_unit=unit)
        refused(
            path,
            f"--thermal-range 20C:40C gives temperatures, and the file holds grey levels; leave the range out, or {remedy}",
            thermal_range="20C:40C",
        )
        refused(
            path,
            "--thermal-range 20:40 may mean degrees, and 8 bits are grey levels; for a range of these add --thermal-unit counts",
            thermal_range="20:40",
        )
        sample = read(path, thermal_range="0:510", thermal_unit="counts")
        assert sample.notes == ("thermal range 0:510 taken in the file's own grey levels",)
        np.testing.assert_allclose(sample.tensor[0, 0], ramp(0, 0.5), atol=0.01)


@pytest.mark.parametrize(("text", "remedy"), [("20:40", "--thermal-unit counts"), ("20C:40C", "radiometric file")])
def test_a_mix_of_degrees_and_grey_levels_is_told_apart(embed: Run, tmp_path: Path, text: str, remedy: str) -> None:
    hot = radiometric(tmp_path / "hot.jpg", container(counts_of(ramp(10, 60))))
    Image.fromarray(ramp(0, 255).astype(np.uint8)).save(tmp_path / "grey.jpg")
    run = embed("thermal", hot, tmp_path / "grey.jpg", "--thermal-range", text)
    assert (run.code, [Path(row["id"]).name for row in run.rows]) == (1, ["hot.jpg"])
    (line,) = [line for line in run.err.splitlines() if "grey.jpg" in line]
    assert remedy in line
    assert ("taken in °C" in run.err) == (text == "20:40")


def test_thumbnails_are_in_the_range_of_the_embedding(imagebind: Run, embed: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ramp(20, 30))
    store = tmp_path / "store.npy"
    flags = ["--thermal-unit", "celsius", "--thermal-range", "20C:60C"]
    assert embed("thermal", tmp_path / "a.npy", "-o", store, *flags).code == 0
    page = tmp_path / "page.html"
    assert imagebind("retrieve", store, "--thermal", tmp_path / "a.npy", "--html", page).code == 0
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page.read_text())
    assert len(pictures) == 2  # the query and its answer
    painted = palettes.ramp("iron")
    for picture in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture)))).astype(np.float32)
        for column, level in (2, 0), (-3, 64):
            np.testing.assert_allclose(pixels[SIZE // 2, column], painted[level], atol=12)


def test_the_preview_shows_what_goes_in() -> None:
    sample = read(ramp(20, 30), thermal_unit="celsius", thermal_range="20C:60C")
    drawn = np.asarray(preview.draw(sample, "thermal", CONFIG).convert("L"))[16:, :SIZE]
    np.testing.assert_allclose(drawn, ramp(0, 64), atol=1)


# Pixels that hold nothing


@pytest.mark.parametrize("code", [-9999, -10000, -32768, -99999, -273.15, 65535, 0, np.finfo(np.float32).max, np.finfo(np.float32).min])
def test_a_code_far_from_all_others_is_missing_and_said(code: float) -> None:
    values = ramp(20, 30).astype(np.float32)
    whole = plane(values)
    values[5:9, 3:8] = code
    sample = read(values)
    assert sample.notes[0] == f"20 pixels hold {float(np.float32(code)):g}, far from all others (20 to 30): taken as missing"
    np.testing.assert_allclose(sample.tensor[0, 0], whole, atol=4 / SIZE)
    assert (sample.facts["coldest"], sample.facts["warmest"]) == (20, 30)


def test_zeros_of_a_16_bit_frame_are_missing_unless_they_are_near() -> None:
    values = ramp(29_000, 31_000).round().astype(np.uint16)
    whole = plane(values)
    values[10, 10] = 0
    for unit in None, "centikelvin":
        sample = read(values, thermal_unit=unit)
        assert sample.notes[0] == "1 pixels hold 0, far from all others (29000 to 31000): taken as missing"
        np.testing.assert_allclose(sample.tensor[0, 0], whole, atol=1 / SIZE)
    near = ramp(0, 60_000).round().astype(np.uint16)
    assert read(near).facts["missing"] == 0
    assert read(np.where(near < 30_000, 0, near).astype(np.uint16)).facts["missing"] == pytest.approx(0.5, abs=0.1)


def test_no_temperature_lies_below_absolute_zero() -> None:
    values = ramp(29_000, 65_000).round().astype(np.uint16)
    values[3, :4] = 7
    sample = read(values, thermal_unit="centikelvin")
    assert sample.notes[0] == "4 pixels lie below absolute zero in centikelvin: taken as missing"
    assert sample.facts["coldest"] == pytest.approx(16.85)


def test_a_tag_for_no_data_is_honoured(tmp_path: Path) -> None:
    """Also one within the others' range, and one that is written with fewer digits than a number has."""
    values = ramp(20, 30).astype(np.float32)
    whole = plane(values)
    for text, code in ("-10000", -10_000), ("25.5", 25.5), ("nan", np.nan), ("-3.40282346639e+38", np.finfo(np.float32).min), ("0 ", 0):
        holed = values.copy()
        holed[5:9, 3:8] = code
        tags: Any = TiffImagePlugin.ImageFileDirectory_v2()
        tags[42113] = text
        tags.tagtype[42113] = 2
        Image.fromarray(holed).save(tmp_path / "a.tif", tiffinfo=tags, compression="tiff_lzw")
        sample = read(tmp_path / "a.tif")
        assert sample.facts["missing"] == pytest.approx(20 / SIZE**2)
        np.testing.assert_allclose(sample.tensor[0, 0], whole, atol=4 / SIZE)
    tags[42113] = "none"
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo=tags)
    assert read(tmp_path / "a.tif").notes[0] == "its code for pixels without a value, 'none', is not a number and is ignored"


@pytest.mark.parametrize("extreme", [(0, 0), (slice(None), 0)])
def test_a_range_that_few_values_set_is_said(extreme: Any) -> None:
    values = ramp(20, 30)
    values[extreme] = 4000
    note = read(values, thermal_unit="celsius").notes[-1]
    low, high = re.fullmatch(
        r"few values set its range, .* to 4000: --thermal-range (.*)C:(.*)C would be that of nearly all", note
    ).groups()  # type: ignore[union-attr]
    assert float(low) == pytest.approx(20, abs=0.3)
    assert float(high) == pytest.approx(30, abs=0.3)


@pytest.mark.parametrize(("height", "width", "rows"), [(120, 160, 2), (60, 80, 3), (256, 320, 2), (256, 336, 1)])
@pytest.mark.parametrize("where", ["first", "last"])
def test_telemetry_is_cut_off_and_said(tmp_path: Path, height: int, width: int, rows: int, where: str) -> None:
    frame = np.linspace(7000, 8000, height * width).reshape(height, width).round().astype(np.uint16)
    telemetry = np.zeros((rows, width), np.uint16)
    telemetry[0, :20] = np.random.default_rng(0).integers(0, 65536, 20)
    Image.fromarray(np.vstack([telemetry, frame] if where == "first" else [frame, telemetry])).save(tmp_path / "a.png")
    sample = read(tmp_path / "a.png")
    np.testing.assert_array_equal(sample.tensor, read(frame).tensor)
    assert sample.notes[0] == f"its {where} {rows} rows hold telemetry, and are cut off"
    assert sample.facts["size"] == [height, width]


def test_what_only_has_the_size_of_a_frame_with_telemetry_stays_whole() -> None:
    frame = np.linspace(7000, 8000, 122 * 160).reshape(122, 160)[::-1].round().astype(np.uint16)
    frame[0], frame[-1] = frame[50], frame[60]
    frame[1], frame[-2] = frame[51], frame[61]
    assert read(frame).facts["size"] == [122, 160]
    assert read(np.zeros((122, 160), np.uint8)).facts["size"] == [122, 160]


def test_a_leptons_packets_are_refused() -> None:
    packets = np.random.default_rng(0).integers(7000, 8000, (60, 82)).astype(np.uint16)
    packets[:, 0] = np.arange(60)
    refused(packets, "82 x 60 numbers are a Lepton's packets, numbers and checksums included; give the pixels alone")


# Text, as cameras' programs export it


DEGREES = np.round(20 + np.random.default_rng(0).random((24, 32)) * 15, 2)


def cells(separator: str, comma: bool = False, quote: str = "") -> str:
    text = "\n".join(separator.join(f"{quote}{value:.2f}{quote}" for value in row) for row in DEGREES)
    return text.replace(".", ",") if comma else text


NUMBERED = "," + ",".join(map(str, range(32))) + "\n" + "\n".join(f"{n},{line}" for n, line in enumerate(cells(",").splitlines()))
COMMAS, NUMBERING = "commas taken for decimal points", "the numbers of its rows and columns left out"


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        (cells(","), []),
        (cells(", ") + "\n\n", []),
        (cells("\t"), []),
        (cells("  "), []),
        (cells(";", comma=True).replace("\n", ";\r\n"), [COMMAS]),
        (cells("\t", comma=True), [COMMAS]),
        (cells(" ", comma=True), [COMMAS]),
        (cells(",", comma=False, quote='"'), []),
        (cells(";", comma=True, quote='"'), [COMMAS]),
        ("File;FLIR0042.jpg\nEmissivity;0,95\n\nFrame 1\n" + cells(";", comma=True), ["3 lines before the numbers left out", COMMAS]),
        ("# made by np.savetxt\n" + cells(" "), ["1 line before the numbers left out"]),
        (NUMBERED, [NUMBERING]),
        ("\n".join(NUMBERED.replace(",", "\t").splitlines()), [NUMBERING]),
        (NUMBERED.partition("\n")[0][1:] + "\n" + cells(","), [NUMBERING]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_of_degrees(tmp_path: Path, text: str, notes: list[str], encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    sample = read(tmp_path / "a.csv", thermal_unit="celsius")
    np.testing.assert_allclose(sample.tensor, read(DEGREES, thermal_unit="celsius").tensor, atol=1e-6)
    assert list(sample.notes[:-1]) == notes


def test_a_table_with_holes_or_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.asc"
    lines = cells(" ").splitlines()
    path.write_text("ncols 32\nnrows 24\nNODATA_value 25.5\n" + "\n".join(lines).replace(lines[3].split()[4], "25.5"))
    assert read(path, thermal_unit="celsius").facts["missing"] == pytest.approx(1 / DEGREES.size)
    path.write_text(cells(",").replace(lines[3].split()[4], "", 1))
    assert read(path, thermal_unit="celsius").facts["missing"] == pytest.approx(1 / DEGREES.size)
    path.write_text(cells(",") + "\nFrame 2\n" + cells(","))
    refused(path, "line 25: 'Frame 2'; a row of 32 numbers is needed, and one map in a file")
    path.write_text(cells(",").rpartition(",")[0])
    refused(path, "line 24: 31 numbers; a row of 32 numbers is needed, and one map in a file")


def test_a_white_of_less_than_255_is_said(tmp_path: Path) -> None:
    values = ramp(0, 90).round().astype(np.uint8)
    (tmp_path / "a.pgm").write_bytes(b"P5 %d %d 100\n" % values.shape[::-1] + values.tobytes())
    sample = read(tmp_path / "a.pgm")
    np.testing.assert_array_equal(sample.tensor, read(values).tensor)
    assert sample.notes == ("grey levels taken as they stand, though the file's white is 100",)


def test_pixels_without_opacity_are_missing(tmp_path: Path) -> None:
    values = np.stack([ramp(40, 200).astype(np.uint8), np.full((SIZE, SIZE), 255, np.uint8)], -1)
    values[:3, :3] = 0
    Image.fromarray(values, "LA").save(tmp_path / "a.png")
    sample = read(tmp_path / "a.png")
    assert (sample.facts["missing"], sample.facts["coldest"]) == (pytest.approx(9 / SIZE**2), 40)


# False colours


@pytest.mark.parametrize("name", palettes.PALETTES)
def test_a_palette_is_undone(tmp_path: Path, name: str) -> None:
    values = ramp(0, 255).round().astype(np.uint8)
    colours = palettes.ramp(name).round().astype(np.uint8)[values]
    Image.fromarray(colours).save(tmp_path / "a.png")
    sample = read(tmp_path / "a.png", palette=name)
    np.testing.assert_allclose(sample.tensor[0, 0], values / 255, atol=1.5 / 255)
    Image.fromarray(colours).save(tmp_path / "a.jpg", quality=95)
    assert np.corrcoef(plane(tmp_path / "a.jpg", palette=name).ravel(), values.ravel())[0, 1] > 0.99
    if name != "grey":
        assert sample.facts["palette"] == name
        message = "a false-colour picture; name its palette with --palette: grey, iron, rainbow, jet, hot"
        refused(tmp_path / "a.png", message)
        with pytest.raises(ValueError, match=r"^its colours are not the palette grey's: \d+ away on average, 30 at most$"):
            read(tmp_path / "a.png", palette="grey")
        refused(tmp_path / "a.png", "a false-colour picture has no unit; leave --thermal-unit out", palette=name, thermal_unit="celsius")


def test_the_flag_and_the_table_name_the_same_palettes() -> None:
    metadata = ThermalOptions.__dataclass_fields__["palette"].metadata
    assert metadata["choices"] == tuple(palettes.PALETTES)
    assert OPTIONS["thermal"] is ThermalOptions
    assert type(None) in get_args(get_type_hints(ThermalOptions)["palette"])


def test_a_grey_picture_needs_no_palette_and_ignores_one(tmp_path: Path) -> None:
    values = ramp(0, 255).round().astype(np.uint8)
    Image.fromarray(values).convert("RGB").save(tmp_path / "a.png")
    np.testing.assert_array_equal(plane(tmp_path / "a.png"), plane(values))
    np.testing.assert_array_equal(plane(tmp_path / "a.png", palette="iron"), plane(values))


# FLIR's radiometric JPEG


def counts_of(celsius: np.ndarray) -> np.ndarray:
    """What a camera with our constants counts at these temperatures: the formula the other way round."""

    def radiated(kelvin: Any) -> Any:
        return R1 / (R2 * (np.exp(B / kelvin) - F)) - O

    return (EMISSIVITY * radiated(celsius + 273.15) + (1 - EMISSIVITY) * radiated(REFLECTED)).round().astype(np.uint16)


def container(counts: np.ndarray, order: str = "<", png: str = "", camera: bytes = b"Made Up", **changed: Any) -> bytes:
    """An FFF container: header, directory, camera record, raw data record. png: byte order of the numbers in a PNG; '' for none."""
    height, width = counts.shape
    if png:
        file = io.BytesIO()
        Image.fromarray(counts.byteswap() if png == "swapped" else counts).save(file, "PNG")
        body = file.getvalue()
    else:
        body = counts.astype(order + "u2").tobytes()
    raw = struct.pack(order + "HHH26x", 2, changed.get("width", width), height) + body
    info = bytearray(0x400)
    struct.pack_into(order + "H", info, 0, 2)
    struct.pack_into(order + "fff", info, 0x20, changed.get("emissivity", EMISSIVITY), 1.0, REFLECTED)
    struct.pack_into(order + "fff", info, 0x58, R1, changed.get("b", B), F)
    info[0xD4 : 0xD4 + len(camera)] = camera
    struct.pack_into(order + "if", info, 0x308, O, R2)
    records = [(0x20, bytes(info)), (1, raw)]
    records = [record for record in records if record[0] != changed.get("without")]
    directory, at = b"", 64 + 32 * len(records)
    for kind, data in records:
        directory += struct.pack(">HHIIII12x", kind, 1, 100, 1, at, changed.get("length", len(data)))
        at += len(data)
    head = b"FFF\0" + bytes(16) + struct.pack(">III", changed.get("version", 100), 64, len(records))
    return head.ljust(64, b"\0") + directory + b"".join(data for _, data in records)


def radiometric(path: Path, content: bytes, part: int = 60_000, leave_out: int | None = None) -> Path:
    """A JPEG of colours with the container in numbered APP1 segments."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)).save(path, "JPEG")
    parts = [content[at : at + part] for at in range(0, len(content), part)]
    segments = b""
    for number, data in enumerate(parts):
        if number != leave_out:
            segments += b"\xff\xe1" + struct.pack(">H", len(data) + 10) + b"FLIR\0\x01" + bytes([number, len(parts) - 1]) + data
    jpeg = path.read_bytes()
    path.write_bytes(jpeg[:2] + segments + jpeg[2:])
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("png", ["", "right", "swapped"])
def test_a_ramp_of_known_temperatures(tmp_path: Path, order: str, png: str) -> None:
    path = radiometric(tmp_path / "a.jpg", container(counts_of(ramp(-10, 60)), order, png))
    sample = read(path, thermal_range="-10:90")
    np.testing.assert_allclose(sample.tensor[0, 0] * 100 - 10, ramp(-10, 60), atol=0.02)
    assert (sample.facts["unit"], sample.facts["camera"]) == ("°C", "Made Up")
    assert (sample.facts["coldest"], sample.facts["warmest"]) == pytest.approx((-10, 60), abs=0.02)
    assert (sample.facts["emissivity"], sample.facts["reflected"]) == pytest.approx((EMISSIVITY, REFLECTED - 273.15))
    assert any("the air taken as transparent" in note for note in sample.notes)
    np.testing.assert_allclose(plane(path), RISING, atol=1e-3)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(plane(file), plane(path))


def test_raw_counts_can_be_asked_for(tmp_path: Path) -> None:
    counts = counts_of(ramp(10, 60))
    path = radiometric(tmp_path / "a.jpg", container(counts, emissivity=2.0))
    refused(path, "its FLIR record has no usable calibration; --thermal-unit counts takes the raw counts")
    sample = read(path, thermal_unit="counts")
    assert (sample.facts["unit"], sample.facts["warmest"]) == ("counts", counts.max())
    np.testing.assert_array_equal(plane(path, thermal_unit="counts"), plane(counts))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"without": 1}, "broken FLIR record: holds no raw thermal data"),
        ({"without": 0x20}, "its FLIR record has no usable calibration; --thermal-unit counts takes the raw counts"),
        ({"b": float("nan")}, "its FLIR record has no usable calibration; --thermal-unit counts takes the raw counts"),
        ({"b": 1e9}, "its FLIR record has no usable calibration; --thermal-unit counts takes the raw counts"),
        ({"emissivity": 0.0}, "its FLIR record has no usable calibration; --thermal-unit counts takes the raw counts"),
        ({"version": 7}, "broken FLIR record: an FFF container of an unknown version"),
        ({"width": 60000}, "broken FLIR record: 1,536 bytes for 60000 x 24 pixels of two"),
        ({"width": 0}, "broken FLIR record: 0 x 24 pixels"),
        ({"length": 4_000_000_000}, "broken FLIR record: record 0 ends at byte 4,000,000,128 of 2,720"),
        ({"length": 1}, "broken FLIR record: it ends too early"),
        ({"png": "right", "width": 31}, "broken FLIR record: a picture of 32 x 24 (mode I;16); 31 x 24 of 16 bits is needed"),
    ],
)
def test_a_broken_record_is_told_in_one_line(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    counts = counts_of(np.linspace(10, 60, 24 * 32).reshape(24, 32))
    refused(radiometric(tmp_path / "a.jpg", container(counts, **changed)), message)


def test_parts_are_put_together_and_none_may_be_missing(tmp_path: Path) -> None:
    content = container(counts_of(ramp(10, 60)))
    whole = radiometric(tmp_path / "a.jpg", content)
    np.testing.assert_array_equal(plane(whole), plane(radiometric(tmp_path / "b.jpg", content, part=1000)))
    refused(radiometric(tmp_path / "c.jpg", content, part=1000, leave_out=3), "broken FLIR record: part 4 of 102 is missing")
    refused(radiometric(tmp_path / "d.jpg", b"nothing of the kind"), "broken FLIR record: no FFF container")


def test_mangled_records_end_in_words(tmp_path: Path) -> None:
    """Whatever stands in the headers, the answer is a picture or a reason, and no other error or warning."""
    content = container(counts_of(np.linspace(10, 60, 24 * 32).reshape(24, 32)))
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        mangled = bytearray(content)
        for at in random.choice([*range(128), *range(0x80, 0xB0), *range(0x380, 0x390), *range(0x480, 0x4A0)], 3):
            mangled[at] = random.integers(256)
        try:
            assert np.isfinite(plane(radiometric(tmp_path / "a.jpg", bytes(mangled)))).all()
            outcomes.add("read")
        except ValueError as error:
            outcomes.add(str(error).partition(":")[0])
    assert {"read", "broken FLIR record"} <= outcomes


def test_a_jpeg_without_a_record_is_a_picture(tmp_path: Path) -> None:
    Image.fromarray(ramp(0, 255).astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(plane(tmp_path / "a.jpg"), RISING, atol=0.02)
    assert "camera" not in read(tmp_path / "a.jpg").facts
