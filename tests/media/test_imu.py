"""IMU recordings: formats, columns, units, times, rates, windows, known answers for each, and every refusal in one clear line."""

from __future__ import annotations

import importlib
import re
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from imagebind_cli import UserError
from imagebind_cli.media.motion.recordings import read_recording
from imagebind_cli.media.motion.signals import resample, slow_part, to_even_grid, usual_step
from imagebind_cli.media.motion.tables import table as tables
from imagebind_cli.media.motion.tables import zipped
from imagebind_cli.sources import Stretch
from tests import generate
from tests.conftest import Run

NAMES = ["ax", "ay", "az", "gx", "gy", "gz"]
GRAVITY = 9.80665
Read = Callable[..., Any]


class Whole:
    """All samples of a recording as one: tensor, spans, notes, facts."""

    def __init__(self, samples: list[Any]) -> None:
        import torch

        self.tensor = torch.cat([sample.tensor for sample in samples]).numpy()
        self.spans = [span for sample in samples for span in sample.spans]
        self.notes = [note for sample in samples for note in sample.notes]
        self.warnings = [warning for sample in samples for warning in sample.warnings]
        self.facts = samples[0].facts

    def said(self, words: str) -> bool:
        return any(words in note for note in self.notes)


@pytest.fixture
def read(tiny: Any) -> Read:
    """Read a recording as the tiny model would."""

    def run(source: Any, **options: Any) -> Whole:
        return Whole(list(tiny.read("imu", source, **options)))

    return run


def table(
    path: Path, rows: Any, names: Sequence[str] | None = NAMES, separator: str = ",", comments: str = "", encoding: str = "utf-8"
) -> Path:
    """Write a text table."""
    lines = [comments] if comments else []
    lines += [separator.join(names)] if names else []
    lines += [separator.join(cell if isinstance(cell, str) else repr(float(cell)) for cell in row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def ramp(count: int = 2000, channels: int = 6) -> np.ndarray:
    """Readings that tell their channel and row: channel + row / 1000."""
    return np.arange(channels) + np.arange(count)[:, None] / 1000


NANOSECONDS = 1_690_000_000_370_000_123 + np.arange(900) * 10_000_000


def motion(times: np.ndarray) -> np.ndarray:
    """Walking at times (t,), (t, 6): gravity along z, swings of 1 to 4 Hz, a little noise."""
    random = np.random.default_rng(0)
    swing = np.sin(2 * np.pi * np.array([1.7, 1.9, 1.8, 0.9, 1.3, 1.1]) * times[:, None] + random.uniform(0, 6, 6))
    return swing * [1.5, 1, 2.5, 0.6, 0.4, 0.5] + 0.3 * swing**2 + [0, 0, GRAVITY, 0, 0, 0] + random.normal(0, 0.01, (len(times), 6))


def amplitude(signal: np.ndarray, frequency: float, rate: float = 400) -> float:
    """Of a tone in a signal (t,)."""
    window = np.blackman(len(signal))
    turns = np.exp(-2j * np.pi * frequency * np.arange(len(signal)) / rate)
    return float(2 * abs((signal * window * turns).sum()) / window.sum())


def tone(frequency: float, times: np.ndarray) -> np.ndarray:
    """The same tone on six channels (t, 6)."""
    return np.repeat(np.sin(2 * np.pi * frequency * times)[:, None], 6, axis=1)


def refusal(read: Read, source: Any, **options: Any) -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        read(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 250
    return message


# Formats


@pytest.mark.parametrize("separator", [",", "\t", ";", " "])
@pytest.mark.parametrize("names", [NAMES, None])
def test_text_tables(read: Read, tmp_path: Path, separator: str, names: list[str] | None) -> None:
    found = read(table(tmp_path / "a.txt", ramp(), names, separator))
    np.testing.assert_allclose(found.tensor[0], ramp().T, atol=1e-6)
    assert found.spans == [(0.0, 5.0)]
    assert found.facts["columns"] == (names or [f"column {i}" for i in range(1, 7)])
    assert found.said("taken to be at 400 Hz")


def test_latin1_comments_blank_lines_and_a_byte_order_mark(read: Read, tmp_path: Path) -> None:
    names = ["Größe", *NAMES]
    rows = np.concatenate([np.zeros((2000, 1)), ramp()], axis=1)
    for encoding in ("latin-1", "utf-8-sig"):
        found = read(table(tmp_path / "a.csv", rows, names, ";", "# Messung für heute\n\n#x;y", encoding))
        np.testing.assert_allclose(found.tensor[0], ramp().T, atol=1e-6)


@pytest.mark.parametrize("end", ["", '100,1,2,3,4,5,6,"run"\n'])
def test_a_quotation_mark_that_takes_in_other_lines_is_told_with_its_line(read: Read, tmp_path: Path, end: str) -> None:
    rows = [f"{number / 100},1,2,3,4,5,6,walk\n" for number in range(1000)]
    rows[500] = '5.0,1,2,3,4,5,6,"walk\n'
    (tmp_path / "a.csv").write_text("t," + ",".join(NAMES) + ",label\n" + "".join(rows) + end)
    assert "line 502: a quotation mark opens here" in refusal(read, tmp_path / "a.csv")


def test_decimal_commas(read: Read, tmp_path: Path) -> None:
    lines = ["; ".join(f"{value:.4f}".replace(".", ",") for value in row) for row in ramp()]
    (tmp_path / "a.csv").write_text("ax;ay;az;gx;gy;gz\n" + "\n".join(lines))
    found = read(tmp_path / "a.csv")
    np.testing.assert_allclose(found.tensor[0], ramp().T, atol=1e-4)
    assert found.said("decimal points")


def test_names_in_a_comment_as_numpy_writes_them_and_units_in_a_second_line(read: Read, tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.txt", ramp()[:, ::-1], header="gz gy gx az ay ax")
    np.testing.assert_allclose(read(tmp_path / "a.txt").tensor[0], ramp().T, atol=1e-6)
    (tmp_path / "b.csv").write_text("sep=,\n" + ",".join(NAMES) + "\n(g),(g),(g),(deg/s),(deg/s),(deg/s)\n" + "1,1,1,180,180,180\n" * 9)
    assert read(tmp_path / "b.csv").facts["units"] == {"accelerometer": "g", "gyroscope": "deg/s"}


def test_arrays_either_way_round_and_npy(read: Read, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ramp().T.astype(np.float32))
    for source in (ramp(), ramp().T, tmp_path / "a.npy", open(tmp_path / "a.npy", "rb")):  # noqa: SIM115
        np.testing.assert_allclose(read(source).tensor[0], ramp().T, atol=1e-6)
        getattr(source, "close", int)()


def test_hdf5_as_columns_as_one_table_and_as_vectors_of_three(read: Read, tmp_path: Path) -> None:
    times = np.arange(2000) / 400
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i, name in enumerate(NAMES):
            file[f"columns/{name}"] = ramp()[:, i]
        file["columns/ax"].attrs["units"] = "g"
        file["whole"] = ramp().T
        file["short"] = np.zeros(3)
        group = file.create_group("three")
        group["accelerometer"], group["gyro"], group["time_s"] = ramp()[:, :3], ramp()[:, 3:], times
        file["records"] = np.array(list(map(tuple, ramp())), dtype=[(name, "f8") for name in NAMES])
    for dataset in ("columns", "whole", "three", "records", "/three/"):
        found = read(tmp_path / "a.h5", dataset=dataset)
        np.testing.assert_allclose(found.tensor[0], ramp().T, atol=1e-6)
    assert read(tmp_path / "a.h5", dataset="three").facts["rate"] == pytest.approx(400)
    assert "no dataset 'other'; it has columns/ax" in refusal(read, tmp_path / "a.h5", dataset="other")
    assert "among the columns short" in refusal(read, tmp_path / "a.h5", dataset="short")


def test_matlab_7_3_is_hdf5_behind_a_header(read: Read, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["data"] = ramp().T
        file["#refs#/a"] = np.zeros((5, 9000))
        file["t"] = np.arange(2000)[None] / 200
    with open(tmp_path / "a.mat", "r+b") as block:
        block.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    assert read(tmp_path / "a.mat", time_unit="s").facts["rate"] == pytest.approx(200)


def test_matlab_5_is_read_without_scipy(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scipy = pytest.importorskip("scipy.io")
    scipy.savemat(tmp_path / "a.mat", {"acc": ramp()[:, :3], "gyr": ramp()[:, 3:], "name": "walk", "fs": 400})
    scipy.savemat(
        tmp_path / "b.mat",
        {"acc": ramp()[:, :3], "gyr": ramp()[:, 3:], "z": 1j, "cell": np.array([[1], ["a"]], object)},
        do_compression=True,
    )
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    for name in "a.mat", "b.mat":
        np.testing.assert_allclose(read(tmp_path / name).tensor[0], ramp().T, atol=1e-6)
    data = (tmp_path / "b.mat").read_bytes()
    for stop in range(0, len(data), 997):
        (tmp_path / "c.mat").write_bytes(data[:stop])
        refusal(read, tmp_path / "c.mat")


def test_parquet_needs_pyarrow(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(100))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "pip install pyarrow" in refusal(read, tmp_path / "a.parquet")


def test_parquet(read: Read, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns: dict[str, Any] = {name: ramp()[:, i] for i, name in enumerate(NAMES)}
    columns["time"] = pyarrow.array((np.arange(2000) * 5_000_000).astype("datetime64[ns]"))
    columns["label"] = ["walk"] * 2000
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert found.facts["rate"] == pytest.approx(200)
    assert found.facts["columns"] == NAMES


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("separator", [",", "\t"])
def test_utf16_with_and_without_its_mark(read: Read, tmp_path: Path, encoding: str, separator: str) -> None:
    path = table(tmp_path / "a.csv", ramp(), NAMES, separator, encoding=encoding)
    np.testing.assert_allclose(read(path).tensor[0], ramp().T, atol=1e-6)
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(read, path) == f"not {encoding.upper()} throughout; save it as UTF-8"


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
@pytest.mark.parametrize("first", ["", "sep={}\n"])
def test_quoted_decimal_commas_below_excels_first_line(read: Read, tmp_path: Path, separator: str, first: str) -> None:
    quote = '"' * (separator != " ")
    lines = [separator.join(quote + f"{value:.4f}".replace(".", ",") + quote for value in row) for row in ramp()]
    (tmp_path / "a.csv").write_text(first.format(separator) + separator.join(NAMES) + "\n" + "\n".join(lines))
    found = read(tmp_path / "a.csv")
    np.testing.assert_allclose(found.tensor[0], ramp().T, atol=1e-4)
    assert found.said("decimal points")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('"1,234",1,2,3,4,5,6', "line 2: '1,234' may have a thousands separator; write numbers without"),
        ('"1,690,000,000,123",1,2,3,4,5,6', "'1,690,000,000,123' may have a thousands separator"),
        ("10;1,234;2,345;9,812;1,111;1,222;1,333", "'1,111' may have a thousands separator"),
        ("10;1.234,5;2,3;9,8;1,1;1,2;1,3", "'1.234,5' may have a thousands separator"),
        ("0,010,1,493,9,842,0,007,0,494,0,024,0,1", "decimal commas between commas cannot be told apart; put semicolons"),
    ],
)
def test_commas_that_may_be_something_else_are_refused(read: Read, tmp_path: Path, row: str, words: str) -> None:
    separator = ";" if ";" in row else ","
    (tmp_path / "a.csv").write_text(separator.join(["time", *NAMES]) + "\n" + f"{row}\n" * 9)
    assert words in refusal(read, tmp_path / "a.csv")


def test_thousands_in_a_column_that_is_not_used_do_not_matter(read: Read, tmp_path: Path) -> None:
    rows = [['"1,234"', *row] for row in ramp()]
    np.testing.assert_allclose(read(table(tmp_path / "a.csv", rows, ["pressure", *NAMES])).tensor[0], ramp().T, atol=1e-6)


def test_a_line_of_units(read: Read, tmp_path: Path) -> None:
    rows = np.column_stack([np.arange(900) * 10, np.ones((900, 6))]).tolist()
    path = table(tmp_path / "a.csv", [["ms", "g", "g", "g", "deg/s", "deg/s", "deg/s"], *rows], ["time", *NAMES])
    assert read(path).facts["units"] == {"accelerometer": "g", "gyroscope": "deg/s"}
    assert read(path).facts["rate"] == pytest.approx(100)


def test_columns_that_pandas_numbered(read: Read, tmp_path: Path) -> None:
    found = read(table(tmp_path / "a.csv", ramp(), list("012345")))
    np.testing.assert_allclose(found.tensor[0], ramp().T, atol=1e-6)
    assert found.said("taken for names of columns")


def test_npz_as_columns_and_never_unpickled(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = np.arange(2000) / 200
    objects = np.array([{"a": 1}], dtype=object)
    np.savez_compressed(
        tmp_path / "a.npz", acc=ramp()[:, :3], gyro=ramp()[:, 3:].T, time_s=times, who=objects, label=np.array(["walk"] * 2000)
    )
    np.savez(tmp_path / "b.npz", data=ramp(), other=np.zeros((2000, 9)))
    np.savez(tmp_path / "c.npz", objects)
    found = read(tmp_path / "a.npz")
    assert found.facts["rate"] == pytest.approx(200)
    np.testing.assert_allclose(read(tmp_path / "a.npz", rate=400).tensor[0], ramp().T, atol=1e-6)
    np.testing.assert_allclose(read(tmp_path / "b.npz", dataset="data").tensor[0], ramp().T, atol=1e-6)
    assert "no dataset 'x'; it has data, other" in refusal(read, tmp_path / "b.npz", dataset="x")
    assert refusal(read, tmp_path / "c.npz") == "holds no arrays of numbers; objects are never unpickled"
    monkeypatch.setattr(tables, "MAX_VALUES", 5000)
    assert refusal(read, tmp_path / "b.npz") == "more than 5,000 values; --dataset names a part"


def phone(
    path: Path, accelerometer: str = "Accelerometer", shift: float = 0.0037, rate: float = 100, separator: str = ",", nano: bool = False
) -> Path:
    """A zip file as phyphox (or, with nanoseconds, Sensor Logger) writes one: a table and a clock for each sensor."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta/device.csv", "property,value\nversion,1\n")
        for file, channels, times in (
            (accelerometer, slice(0, 3), np.arange(2000) / 100),
            ("Gyroscope", slice(3, 6), shift + np.arange(int(20 * rate)) / rate),
        ):
            unit, names = ("m/s^2", "Acceleration") if file != "Gyroscope" else ("rad/s", "Gyroscope")
            heading = ["time", "z", "y", "x"] if nano else ["Time (s)", *(f"{names} {axis} ({unit})" for axis in "xyz")]
            rows = [
                [str(1_690_000_000_000_000_000 + round(time * 1e9)), *map(str, row[::-1])] if nano else [f"{time:.6f}", *map(str, row)]
                for time, row in zip(times, swings(times)[:, channels], strict=True)
            ]
            lines = [separator.join(f'"{cell}"'.replace(".", ",") if separator == ";" else cell for cell in row) for row in rows]
            archive.writestr(f"{file}.csv", "\n".join([separator.join(heading), *lines]))
        if nano:
            archive.writestr("Accelerometer.csv", "time,z,y,x\n1,0,0,0\n2,0,0,0\n")  # without gravity
    return path


def swings(times: np.ndarray) -> np.ndarray:
    return np.sin(np.pi * np.arange(1, 7) * times[:, None]) + np.array([0, 0, GRAVITY, 0, 0, 0])


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"rate": 50},
        {"rate": 200},
        {"shift": 0},
        {"separator": ";"},
        {"separator": "\t"},
        {"accelerometer": "TotalAcceleration", "nano": True},
    ],
)
def test_a_phones_zip_of_a_table_for_each_sensor(read: Read, tmp_path: Path, kind: dict[str, Any]) -> None:
    found = read(phone(tmp_path / "a.zip", **kind), clips=1)
    times = found.spans[0][0] + np.arange(2000) / 400
    np.testing.assert_allclose(found.tensor[0, :, 100:-100], swings(times)[100:-100].T, atol=0.02)
    assert found.facts["rate"] == pytest.approx(max(100, kind.get("rate", 100)))
    assert found.said("put on one clock") == (kind != {"shift": 0})


def test_a_phones_zip_whose_sensors_never_ran_together(read: Read, tmp_path: Path) -> None:
    assert "no time in common: 0.000 to 19.990 s and 60.000 to" in refusal(read, phone(tmp_path / "a.zip", shift=60))


def test_other_zip_files(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def archive(name: str, **files: str) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as file:
            for path, text in files.items():
                file.writestr(path, text)
        return tmp_path / name

    text = table(tmp_path / "a.csv", ramp()).read_text()
    np.testing.assert_allclose(read(archive("one.zip", **{"../walk.csv": text, "__MACOSX/._walk.csv": "x"})).tensor[0], ramp().T, atol=1e-6)
    two = archive("two.zip", **{"walk.csv": text, "run.csv": text})
    assert refusal(read, two) == "is a zip file of several tables, walk.csv, run.csv; --dataset names one"
    np.testing.assert_allclose(read(two, dataset="run.csv").tensor[0], ramp().T, atol=1e-6)
    assert refusal(read, archive("c.zip", **{"xl/workbook.xml": "x"})) == "is an Excel workbook; save the sheet as CSV"
    assert "no table that ends in .csv" in refusal(read, archive("d.zip", **{"a.json": "{}"}))
    monkeypatch.setattr(zipped, "MAX_BYTES", 1000)
    assert "walk.csv unpacks to" in refusal(read, two, dataset="walk.csv")
    (tmp_path / "e.zip").write_bytes(b"PK\x03\x04" + bytes(99))
    assert "not a readable zip file" in refusal(read, tmp_path / "e.zip")
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "one.zip", "two.zip", "c.zip", "d.zip", "e.zip"}


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b'[{"t": 0, "ax": 1}]', "is JSON; write its readings as CSV"),
        (b'{"t": 0, "ax": 1}\n', "is JSON; write its readings as CSV"),
        (b"#ROSBAG V2.0\n", "is a ROS bag; write its imu topic as CSV"),
        (b"\x89MCAP0\r\n" + bytes(20), "is an MCAP file; write its imu topic as CSV"),
        (bytes(8) + b".FIT" + bytes(20), "is a FIT file; write its accelerometer and gyroscope messages as CSV"),
        (b"\xd0\xcf\x11\xe0" + bytes(20), "is an old Excel workbook; save the sheet as CSV"),
        (b"SQLite format 3\0" + bytes(20), "is an SQLite database"),
        (b"\x1f\x8b\x08" + bytes(20), "is compressed; unpack it first"),
        (b"\x80\x04\x95" + bytes(20), "is a pickle, which is never loaded"),
        (b"<gpx>", "is XML or HTML"),
        (b"1 " * (1 << 20), "a line of more than 1,048,576 letters"),
    ],
)
def test_files_of_another_kind_are_named_with_a_remedy(read: Read, tmp_path: Path, start: bytes, words: str) -> None:
    (tmp_path / "a.csv").write_bytes(start)
    assert words in refusal(read, tmp_path / "a.csv")


# Columns and units


@pytest.mark.parametrize(
    ("names", "accelerometer", "gyroscope"),
    [
        (["accel_x", "accel_y", "accel_z", "gyro_x", "gyro_y", "gyro_z"], None, None),
        (["acc_x_g", "acc_y_g", "acc_z_g", "gyr_x_dps", "gyr_y_dps", "gyr_z_dps"], "g", "deg/s"),
        ([*(f"Accelerometer {a} (g)" for a in "XYZ"), *(f"Gyroscope {a} [deg/s]" for a in "XYZ")], "g", "deg/s"),
        ([*(f"Acceleration {a} (m/s^2)" for a in "xyz"), *(f"Gyroscope {a} (rad/s)" for a in "xyz")], "m/s2", "rad/s"),
        ([*(f"TotalAcc{a}" for a in "XYZ"), *(f"GyroscopeRotationRate{a}" for a in "XYZ")], None, None),
        ([*(f"accelerometerAcceleration{a}(G)" for a in "XYZ"), *(f"gyroRotation{a}(rad/s)" for a in "XYZ")], "g", "rad/s"),
        ([*(f"linear_acceleration.{a}" for a in "xyz"), *(f"angular_velocity.{a}" for a in "xyz")], None, None),
        ([*(f"a_RS_S_{a} [m s^-2]" for a in "xyz"), *(f"w_RS_S_{a} [rad s^-1]" for a in "xyz")], "m/s2", "rad/s"),
        ([*(f"gF{a}" for a in "xyz"), *(f"w{a}" for a in "xyz")], None, None),
        ([*(f"Accel_LN_{a}_CAL (mg)" for a in "XYZ"), *(f"Gyro_{a}_CAL (mdps)" for a in "XYZ")], "mg", "mdeg/s"),
        ([*(f"accel_msec2_{a}" for a in "xyz"), *(f"gyro_radsec_{a}" for a in "xyz")], "m/s2", "rad/s"),
    ],
)
def test_columns_and_units_by_name(read: Read, tmp_path: Path, names: list[str], accelerometer: str | None, gyroscope: str | None) -> None:
    order = [5, 1, 3, 0, 4, 2]
    extra = ["label", *(names[i] for i in order), "mag_x"]
    rows = [["walk", *row[order], 9] for row in ramp()]
    found = read(table(tmp_path / "a.csv", rows, extra))
    assert found.facts["columns"] == names
    assert found.facts["units"] == {"accelerometer": accelerometer, "gyroscope": gyroscope}
    factor = {"g": GRAVITY, "mg": GRAVITY / 1000, "deg/s": np.pi / 180, "mdeg/s": np.pi / 180_000}
    scale = np.repeat([factor.get(accelerometer or "", 1), factor.get(gyroscope or "", 1)], 3)[:, None]
    np.testing.assert_allclose(found.tensor[0], ramp().T * scale, rtol=1e-5, atol=1e-6)
    assert found.said("accelerometer of unknown unit") == (accelerometer is None)
    assert found.said("accelerometer converted from g to m/s2") == (accelerometer == "g")


def test_units_that_are_told_come_before_names(read: Read, tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", np.ones((9, 6)), [*(f"acc_{a} (m/s2)" for a in "xyz"), "gx", "gy", "gz"])
    found = read(path, accel="g", gyro="deg/s")
    np.testing.assert_allclose(found.tensor[0, :, 0], [GRAVITY] * 3 + [np.pi / 180] * 3, rtol=1e-6)
    assert not found.said("unknown unit")


def test_plain_accelerometer_comes_before_derived_ones(read: Read, tmp_path: Path) -> None:
    names = [f"{sensor}_{axis}" for sensor in ("linear_acc", "total_acc", "gyro") for axis in "xyz"]
    found = read(table(tmp_path / "a.csv", np.ones((9, 9)), names))
    assert found.facts["columns"] == names[3:]


def test_columns_by_choice(read: Read, tmp_path: Path) -> None:
    rows = np.concatenate([ramp()[:, ::-1], ramp(channels=1)], axis=1)
    path = table(tmp_path / "a.csv", rows, ["u", "v", "w", "p", "q", "r", "other"])
    for columns in ("6,5,4,3,2,1", "r, q,p,w,v,u"):
        np.testing.assert_allclose(read(path, columns=columns).tensor[0], ramp().T, atol=1e-6)
    with pytest.raises(UserError, match="columns names 2; six are needed"):
        read(path, columns="u,v")
    assert refusal(read, path, columns="u,v,w,p,q,nose") == "no column 'nose'; it has u, v, w, p, q, r, other"


def test_columns_that_are_not_there_are_told_with_those_that_are(read: Read, tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", ramp(9), ["time", "ax", "ay", "az", "b", "c"])
    assert refusal(read, path) == "no gyroscope x, y, z among the columns time, ax, ay, az, b, c; --columns names six"
    path = table(tmp_path / "b.csv", ramp(9), ["a", "b", "c", "d", "e", "f"])
    assert "no accelerometer or gyroscope" in refusal(read, path)
    path = table(tmp_path / "c.csv", ramp(9, 9), [f"{name}_{axis}" for name in ("hand_acc", "chest_acc", "gyro") for axis in "xyz"])
    assert refusal(read, path) == "accelerometer x may be hand_acc_x or chest_acc_x; name six with --columns"
    path = table(tmp_path / "d.csv", ramp(9, 7), None)
    assert "7 columns without names" in refusal(read, path)


HEADERLESS: dict[str, Callable[[np.ndarray, np.ndarray], Sequence[np.ndarray]]] = {
    "7: time first": lambda t, x: [t, x],
    "7: time last": lambda t, x: [x, t],
    "7: seconds since 1970, cut": lambda t, x: [np.floor(1690000000.37 + t), x],
    "7: nanoseconds": lambda t, x: [t * 1e9, x],
    "7: time, gyroscope, accelerometer": lambda t, x: [t, x[:, 3:], x[:, :3]],
    "7: number of row": lambda t, x: [np.arange(len(t)), x],
    "7: label": lambda t, x: [x, np.arange(len(t)) // 500],
    "8: time and label": lambda t, x: [t, x, np.arange(len(t)) // 500],
    "8: number of row and time": lambda t, x: [np.arange(len(t)), t, x],
    "9: magnetometer": lambda t, x: [x, 20 + x[:, :3]],
    "10: time and magnetometer": lambda t, x: [t, x, 20 + x[:, :3]],
    "10: time and two accelerometers": lambda t, x: [t, x[:, :3], x[:, :3] + 0.1, x[:, 3:]],
    "13: time, magnetometer and angles": lambda t, x: [t, x, 20 + x],
}


@pytest.mark.parametrize("separator", [",", " "])
@pytest.mark.parametrize("kind", HEADERLESS)
def test_the_hint_for_columns_without_names_is_right(embed: Run, tiny: Any, tmp_path: Path, kind: str, separator: str) -> None:
    """The flags of the message, given as they stand, make the vector of the same readings with names."""
    times = np.arange(2000) / 100
    table(tmp_path / "a.csv", np.column_stack([times, motion(times)]), ["time_s", *NAMES])
    np.savetxt(tmp_path / "b.csv", np.column_stack(list(HEADERLESS[kind](times, motion(times)))), "%.9f", separator)
    run = embed("imu", tmp_path / "b.csv")
    assert run.code == 1
    flags = re.search(r"(--time-column \d+ )?--columns [\d,]+( --rate HZ)?", run.err)
    assert flags is not None
    run = embed("imu", tmp_path / "b.csv", *flags[0].replace("HZ", "100").split())
    assert run.code == 0
    (named,) = tiny.embed("imu", [tmp_path / "a.csv"])
    np.testing.assert_allclose(run.rows[0]["embedding"], named, atol=1e-3)


def test_a_clock_without_a_name_is_not_passed_over(read: Read, tmp_path: Path) -> None:
    times = np.arange(900) / 100
    rows = np.column_stack([times, motion(times)])
    bare, named = table(tmp_path / "a.csv", rows, None), table(tmp_path / "b.csv", rows, ["Zeit", *NAMES])
    words = "column 1 looks like a clock and is not used; --time-column 1 or --rate is needed"
    assert refusal(read, bare, columns="2,3,4,5,6,7") == words
    assert refusal(read, bare, columns="1,2,3,4,5,6") == words.replace("not used", "taken for a channel")
    assert refusal(read, named) == "Zeit looks like a clock and is not used; --time-column Zeit or --rate is needed"
    assert read(named, time_column="Zeit").facts["rate"] == read(named, rate=100).facts["rate"] == 100
    assert "column 1 looks like a clock" in refusal(read, table(tmp_path / "c.csv", rows[:, :6], None))
    stamps = [[str(1690000000 + i // 100), str(i % 100 * 10_000_000), *row] for i, row in enumerate(motion(times))]
    assert "columns 1 and 2 look like seconds and the rest of them" in refusal(read, table(tmp_path / "d.csv", stamps, None))


# Times


@pytest.mark.parametrize(
    ("name", "scale", "options"),
    [
        ("time", 1, {"time_unit": "s"}),
        ("timestamp_ms", 1e3, {}),
        ("t [us]", 1e6, {}),
        ("Timestamp (ns)", 1e9, {}),
        ("seconds_elapsed", 1, {}),
        ("ts", 1e3, {}),
        ("time", 1e9, {}),
        ("clockwork", 1e6, {"time_column": "clockwork"}),
        ("sample", 1, {"time_column": "1", "time_unit": "s"}),
    ],
)
def test_units_of_time(read: Read, tmp_path: Path, name: str, scale: float, options: dict[str, str]) -> None:
    rows = np.concatenate([np.arange(1000)[:, None] / 100 * scale, ramp(1000)], axis=1)
    found = read(table(tmp_path / "a.csv", rows, [name, *NAMES]), **options)
    assert found.facts["rate"] == pytest.approx(100)
    assert found.facts["duration"] == 10
    assert found.facts["columns"] == NAMES
    assert found.spans == [(0.0, 5.0), (5.0, 10.0)]
    assert found.said("from its steps") == (name in ("ts", "clockwork") or (name == "time" and not options))


def test_iso_times(read: Read, tmp_path: Path) -> None:
    rows = [
        [f"2026-03-01T23:59:{50 + i / 50:09.6f}Z" if i < 500 else f"2026-03-02 00:00:{i / 50 - 10:09.6f}+00:00", *row]
        for i, row in enumerate(ramp(1000))
    ]
    path = table(tmp_path / "a.csv", rows, ["time", *NAMES])
    found = read(path)
    assert (found.facts["rate"], found.facts["duration"]) == (pytest.approx(50), 20)
    assert found.spans[0] == (0.0, 5.0)
    assert found.facts["start"] == 1772409590
    rows[7][0] = "yesterday"
    assert "line 9: 'yesterday' is not an ISO 8601 time" in refusal(read, table(path, rows, ["time", *NAMES]))
    assert "not ISO 8601" in refusal(read, table(path, ramp(9, 7), ["time", *NAMES]), time_unit="iso")


def test_a_unit_of_time_that_nothing_tells_is_not_guessed(read: Read, tmp_path: Path) -> None:
    for step in (1, 0.00001, 0.22):
        rows = np.concatenate([np.arange(99)[:, None] * step, ramp(99)], axis=1)
        path = table(tmp_path / "a.csv", rows, ["time", *NAMES])
        assert f"step by {step:g} of an unknown unit; --time-unit or --rate is needed" in refusal(read, path)
    assert read(path, rate=99).said("timestamps not used")


def test_time_that_goes_back_is_an_error_with_its_line(read: Read, tmp_path: Path) -> None:
    times = np.arange(100) / 100 - 0.5  # negative ones are fine
    rows = np.concatenate([times[:, None], ramp(100)], axis=1)
    path = table(tmp_path / "a.csv", rows, ["time", *NAMES])
    assert read(path, time_unit="s").spans == [(-0.5, 4.5)]
    rows[40, 0] = -0.4
    path = table(tmp_path / "a.csv", rows, ["time", *NAMES])
    assert refusal(read, path, time_unit="s") == "line 42: time goes back from -0.110000 s to -0.400000 s"


def test_rows_of_the_same_time_are_averaged(read: Read, tmp_path: Path) -> None:
    times = np.repeat(np.arange(1000) / 200, 2)
    rows = np.column_stack([times, *np.tile([1.0, 3.0], (6, 1000))])
    rows[5, 1] = np.nan
    found = read(table(tmp_path / "a.csv", rows, ["time_s", *NAMES]))
    assert found.facts["rate"] == pytest.approx(200)
    assert found.said("rows of the same time averaged")
    assert found.warnings == ["2,000 rows share 1,000 stamps in time_s: averaged to one each"]
    np.testing.assert_allclose(found.tensor[0, 1], 2, atol=1e-6)


def test_repeated_rows_and_sensors_in_turn_are_averaged_too(read: Read, tmp_path: Path) -> None:
    times = np.arange(1000) / 100
    twice = np.sort(np.concatenate([np.arange(1000), np.arange(7, 1000, 50)]))
    clean = read(table(tmp_path / "a.csv", np.column_stack([times, motion(times)]), ["time_s", *NAMES])).tensor
    found = read(table(tmp_path / "b.csv", np.column_stack([times, motion(times)])[twice], ["time_s", *NAMES]))
    np.testing.assert_array_equal(found.tensor, clean)
    assert found.warnings == ["40 rows share 20 stamps in time_s: averaged to one each"]
    rows: Any = np.column_stack([times, motion(times)]).repeat(2, axis=0)
    rows[::2, 1:4] = rows[1::2, 4:] = np.nan
    found = read(table(tmp_path / "c.csv", rows, ["time_s", *NAMES]))
    np.testing.assert_array_equal(found.tensor, clean)


COARSE: dict[str, tuple[str, float, Callable[[np.ndarray], list[str]]]] = {
    "whole seconds since 1970": ("timestamp", 100, lambda t: [str(int(time)) for time in 1690000000.37 + t]),
    "whole seconds, elapsed": ("time", 50, lambda t: [str(int(time)) for time in t]),
    "ISO 8601 in seconds": ("time", 100, lambda t: [str(np.datetime64(int(time), "s")) for time in 1690000000.95 + t]),
    "tenths": ("timestamp", 104, lambda t: [f"{np.floor(time * 10) / 10:.1f}" for time in t + 0.03]),
    "hundredths": ("time_s", 200, lambda t: [f"{np.floor(time * 100) / 100:.2f}" for time in t + 1e-6]),
    "milliseconds": ("ms", 1125, lambda t: [str(int(time * 1000)) for time in t]),
    "%.10g of seconds": ("time", 100, lambda t: [f"{1690000000.37 + time:.10g}" for time in t]),
    "%.10g of milliseconds": ("time", 128, lambda t: [f"{1690000000370 + time * 1000:.10g}" for time in t]),
    "%.6g of seconds since start": ("time_s", 100, lambda t: [f"{time:.6g}" for time in t + 20_000]),
    "float32 of seconds since start": ("time", 150, lambda t: [repr(float(np.float32(time))) for time in t + 131_072]),
}


@pytest.mark.parametrize("kind", COARSE)
def test_readings_of_one_stamp_are_spread_over_the_step(read: Read, tmp_path: Path, kind: str) -> None:
    name, rate, stamps = COARSE[kind]
    times = np.arange(int(20 * rate)) / rate
    clean = read(table(tmp_path / "a.csv", np.column_stack([times, motion(times)]), ["time_s", *NAMES])).tensor
    rows = [[stamp, *reading] for stamp, reading in zip(stamps(times), motion(times), strict=True)]
    found = read(table(tmp_path / "b.csv", rows, [name, *NAMES]))
    assert found.said("readings of the same time spread evenly")
    assert f"{len(times):,} readings share {len({row[0] for row in rows}):,} stamps in {name}" in found.warnings[0]
    assert found.facts["rate"] == pytest.approx(rate, rel=0.005)
    for channel in range(6):
        assert np.corrcoef(found.tensor[0, channel], clean[0, channel])[0, 1] > 0.99


def test_a_gap_in_a_coarse_clock_stays_a_gap(read: Read, tmp_path: Path) -> None:
    times = np.arange(4000) / 100
    kept = (times < 8.2) | (times >= 13.6)
    rows = np.column_stack([np.floor(times), np.tile(times[:, None], 6)])[kept]
    found = read(table(tmp_path / "a.csv", rows, ["time_s", *NAMES]))
    assert found.spans == [(0, 5), (15, 20), (20, 25), (25, 30), (30, 35), (35, 40)]
    np.testing.assert_allclose(found.tensor[1:, 0, 0], [15, 20, 25, 30, 35], atol=0.01)


@pytest.mark.parametrize(
    ("stamps", "words"),
    [
        (np.float32(1690000000 + np.arange(400) / 100), "400 readings share one stamp in time_s; --rate is needed"),
        (np.arange(150) // 100, "150 readings share 2 stamps in time_s, too few to tell their rate; --rate is needed"),
        (
            np.repeat(np.arange(20), np.tile([3, 90, 7, 50], 5)),
            "from 3 to 90 readings share a stamp in time_s, not at a steady rate; --rate",
        ),
    ],
)
def test_stamps_that_do_not_tell_a_rate_are_refused(read: Read, tmp_path: Path, stamps: np.ndarray, words: str) -> None:
    path = table(tmp_path / "a.csv", np.column_stack([stamps, motion(np.arange(len(stamps)) / 100)]), ["time_s", *NAMES])
    assert words in refusal(read, path)
    assert read(path, rate=100).facts["rate"] == 100


@pytest.mark.parametrize(
    "names",
    [("secs", "nsecs"), ("sec", "nanosec"), ("header.stamp.secs", "header.stamp.nsecs"), ("stamp_s", "stamp_ns"), ("tv_sec", "tv_usec")],
)
def test_seconds_and_the_rest_of_them_are_one_clock(read: Read, tmp_path: Path, names: tuple[str, str]) -> None:
    unit = 1_000_000 if "usec" in names[1] else 1_000_000_000
    rows = [
        [str(1690000000 + (i + 37) // 100), str((i + 37) % 100 * (unit // 100)), *reading]
        for i, reading in enumerate(motion(np.arange(900) / 100))
    ]
    found = read_recording(table(tmp_path / "a.csv", rows, [*names, *NAMES]))
    assert found.times is not None
    np.testing.assert_allclose(found.times, np.arange(900) / 100, atol=1e-9)
    assert found.start == 1690000000.37
    assert not found.warnings


def test_the_stamps_of_rostopic(tmp_path: Path) -> None:
    """`rostopic echo -p`: when the bag got a message and when its sensor made it, in nanoseconds; the second may not be set."""
    names = ["%time", "field.header.seq", "field.header.stamp", "field.header.frame_id"]
    names += [f"field.{what}.{axis}" for what in ("linear_acceleration", "angular_velocity") for axis in "xyz"]
    for stamp, jitter in ((1, 54_321), (0, 0)):
        rows = [
            [str(NANOSECONDS[i] + jitter * (i % 3)), str(i), str(NANOSECONDS[i] * stamp), "imu", *reading]
            for i, reading in enumerate(motion(np.arange(900) / 100))
        ]
        found = read_recording(table(tmp_path / "a.csv", rows, names))
        np.testing.assert_allclose(found.times, np.arange(900) / 100, atol=1e-12)


@pytest.mark.parametrize("kind", ["csv", "csv as decimals", "npy", "npz", "hdf5", "parquet", "parquet with gaps", "parquet timestamps"])
def test_nanoseconds_since_1970_are_subtracted_to_the_digit(tmp_path: Path, kind: str) -> None:
    """As float64 they are multiples of 256."""
    readings, path, options = motion(np.arange(900) / 100), tmp_path / f"a.{kind.partition(' ')[0]}", dict[str, Any]()
    if kind.startswith("csv"):
        digits = ".0" if "decimals" in kind else ""
        rows = [[f"{stamp}{digits}", *reading] for stamp, reading in zip(NANOSECONDS, readings, strict=True)]
        table(path, rows, ["timestamp", *NAMES])
    elif kind == "npy":
        np.save(path, np.column_stack([NANOSECONDS, (readings * 1000).astype(np.int64)]))
        options = {"time_column": "1", "columns": tuple("234567")}
    elif kind == "npz":
        np.savez(path, acc=readings[:, :3], gyro=readings[:, 3:], t=NANOSECONDS.view("M8[ns]"))
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            file["acc"], file["gyro"], file["timestamp"] = readings[:, :3], readings[:, 3:], NANOSECONDS
    else:
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        stamps = pyarrow.array([None, *NANOSECONDS[1:].tolist()] if "gaps" in kind else NANOSECONDS, pyarrow.int64())
        stamps = stamps.cast(pyarrow.timestamp("ns")) if "timestamps" in kind else stamps
        parquet.write_table(pyarrow.table({"time": stamps, **{name: readings[:, i] for i, name in enumerate(NAMES)}}), path)
    found = read_recording(path, **options)
    np.testing.assert_allclose(found.times, np.arange(899 if "gaps" in kind else 900) / 100, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "step", "words"),
    [
        ("time_s", 10, "time_s steps by 10: 0.1 Hz in s, as its name has it, but 100 Hz in ms; --time-unit is needed"),
        ("time_ms", 0.01, "1e+05 Hz in ms, as its name has it, but 100 Hz in s"),
        ("time_us", 1e7, "0.1 Hz in us, as its name has it, but 100 Hz in ns"),
        ("time_ns", 1e4, "1e+05 Hz in ns, as its name has it, but 100 Hz in us"),
        ("time", 0.4, "times in time step by 0.4 of an unknown unit"),
    ],
)
def test_a_unit_that_the_steps_contradict_is_refused(read: Read, tmp_path: Path, name: str, step: float, words: str) -> None:
    path = table(tmp_path / "a.csv", np.column_stack([np.arange(900) * step, motion(np.arange(900) / 100)]), [name, *NAMES])
    assert words in refusal(read, path)
    for unit, scale in (("s", 1), ("ms", 1e-3)):
        if step * scale == 0.01:
            assert read(path, time_unit=unit).facts["rate"] == pytest.approx(100)


def test_a_unit_is_told_by_the_date_too(read: Read, tmp_path: Path) -> None:
    rows = np.column_stack([1.05e15 + np.arange(900) * 1e7, motion(np.arange(900) / 100)])  # a phone that has been on for twelve days
    assert read(table(tmp_path / "a.csv", rows, ["timestamp", *NAMES])).facts["rate"] == pytest.approx(100)
    rows[:, 0] = 1.69e15 + np.arange(900) * 1e6
    assert "1000 Hz in ns, or 1 Hz in us since 1970" in refusal(read, table(tmp_path / "b.csv", rows, ["timestamp", *NAMES]))


def test_the_usual_step_of_a_coarse_clock() -> None:
    times = np.floor(np.arange(4000) * 2.5) / 1000  # 400 Hz in whole milliseconds
    times = np.delete(times, np.arange(100, 140))
    assert 1 / usual_step(times) == pytest.approx(400, rel=1e-3)


@pytest.mark.parametrize(("frequency", "within"), [(7, 0.02), (20, 0.02), (40, 0.02)])
def test_a_tone_in_an_uneven_recording_keeps_its_pitch_and_height(read: Read, tmp_path: Path, frequency: float, within: float) -> None:
    random = np.random.default_rng(1)
    times = (np.arange(3460) + random.uniform(-0.2, 0.2, 3460)) / 173  # 20 s
    rows = np.column_stack([times, tone(frequency, times)])
    found = read(table(tmp_path / "a.csv", rows, ["time_s", *NAMES]))
    assert found.facts["rate"] == pytest.approx(173, rel=0.005)
    assert found.said("uneven timestamps")
    signal = found.tensor[1, 2]
    spectrum = np.abs(np.fft.rfft(signal * np.blackman(2000)))
    assert spectrum.argmax() / 5 == pytest.approx(frequency, abs=0.2)
    assert amplitude(signal, frequency) == pytest.approx(1, abs=within)


@pytest.mark.parametrize("frequency", [205, 250, 300, 390, 410, 600, 790])
def test_what_lies_above_half_the_rate_does_not_come_back_as_something_else(frequency: float) -> None:
    times = np.arange(16_000) / 1600
    made = resample(tone(frequency, times).T, 1600, 400)
    assert made.shape == (6, 4000)
    assert 20 * np.log10(np.abs(made[:, 100:-100]).max()) < -60


@pytest.mark.parametrize("rate", [50, 173.1, 200, 399.5, 1000, 1600, 1125.7])
def test_what_lies_below_passes_and_gravity_stays_level_to_the_ends(rate: float) -> None:
    times = np.arange(int(10 * rate)) / rate
    made = resample(GRAVITY + tone(15, times).T, rate, 400)
    expected = GRAVITY + np.sin(2 * np.pi * 15 * np.arange(made.shape[1]) / 400)
    assert np.abs(made - expected)[:, 400:-400].max() < 1e-3
    np.testing.assert_allclose(resample(np.full((6, 100), GRAVITY), rate, 400), GRAVITY, rtol=1e-12)


def test_missing_cells_are_bridged_by_a_line_up_to_the_limit(read: Read, tmp_path: Path) -> None:
    rows: Any = ramp(1000).tolist()
    for i in range(100, 139):
        rows[i][4] = ("nan", "", "NULL")[i % 3]
    path = table(tmp_path / "a.csv", rows)
    found = read(path)  # 39 at 400 Hz: 0.1 s from reading to reading
    np.testing.assert_allclose(found.tensor[0, :, :1000], ramp(1000).T, atol=1e-5)
    assert found.facts["missing"] == pytest.approx(39 / 6000, abs=1e-6)
    assert found.said("missing readings interpolated")
    rows[139][4] = "nan"
    path = table(tmp_path / "a.csv", rows)
    assert refusal(read, path) == "gyroscope y: no readings for 0.1025 s from 0.247 s on; --max-gap is 0.1 s"
    np.testing.assert_allclose(read(path, max_gap=0.2).tensor[0, :, :1000], ramp(1000).T, atol=1e-5)


def with_a_gap(path: Path, seconds: int = 20, start: float = 8, length: float = 0.5) -> Path:
    """Readings at 100 Hz, none of them for a while: channel + seconds / 10."""
    times = np.arange(100 * seconds) / 100
    rows = np.column_stack([times, np.arange(6) + times[:, None] / 10])
    return table(path, rows[(times < start) | (times >= start + length)], ["time_s", *NAMES])


def test_missing_rows_are_a_gap_too(read: Read, tmp_path: Path) -> None:
    path = with_a_gap(tmp_path / "a.csv", 10, 3)
    found = read(path, max_gap=1)
    assert found.facts["missing"] == pytest.approx(0.05)
    np.testing.assert_allclose(found.tensor[0, 1, ::4], 1 + np.arange(500) / 1000, atol=1e-3)
    assert not found.warnings
    path = with_a_gap(tmp_path / "a.csv", 5, 3)
    assert refusal(read, path) == "no readings for 0.51 s from 2.990 s on; --max-gap is 0.1 s"


@pytest.mark.parametrize("channels", [slice(1, 7), slice(5, 6)])
def test_only_windows_that_touch_a_gap_are_left_out(read: Read, tmp_path: Path, channels: slice) -> None:
    times = np.arange(2000) / 100
    rows = np.column_stack([times, np.arange(6) + times[:, None] / 10])
    rows[(times >= 8) & (times < 8.5), channels] = np.nan
    path = table(tmp_path / "a.csv", rows, ["time_s", *NAMES])
    what = "gyroscope y" if channels == slice(5, 6) else "accelerometer x"
    found = read(path)
    assert found.spans == [(0, 5), (10, 15), (15, 20)]
    why = f"{what}: no readings for 0.51 s from 7.990 s on; --max-gap is 0.1 s"
    assert found.warnings == [f"1 of 4 windows left out, 5 to 10 s: {why}"]
    assert (found.facts["windows"], found.facts["coverage"]) == (3, 0.75)
    np.testing.assert_allclose(found.tensor[1, :, 400], np.arange(6) + 1.1, atol=1e-3)
    around = read(path, centres="5.4,9,11.1,17")  # 2.9 to 7.9 s ends before the gap, 8.6 to 13.6 s begins behind it
    assert around.spans == [(2.9, 7.9), (8.6, 13.6), (14.5, 19.5)]
    assert around.warnings == [f"1 of 4 windows left out, 6.5 to 11.5 s: {why}"]
    many = read(path, hop=0.5)
    assert len(many.spans) == 31 - 10
    assert (
        "10 of 31 windows left out, 3.5 to 8.5 s, 4 to 9 s, 4.5 to 9.5 s, 5 to 10 s, 5.5 to 10.5 s, 6 to 11 s and 4 more: "
        in many.warnings[0]
    )
    assert refusal(read, path, centres="9,9.5") == why


def test_several_gaps_and_the_longest_is_named(read: Read, tmp_path: Path) -> None:
    times = np.arange(4000) / 100
    rows = np.column_stack([times, ramp(4000)])
    for start, end in ((1, 1.3), (21, 24), (22, 22.5), (39.5, 40)):
        rows[(times >= start) & (times < end), 1 if start != 22 else 6] = np.nan
    found = read(table(tmp_path / "a.csv", rows, ["time_s", *NAMES]))
    assert found.spans == [(5, 10), (10, 15), (15, 20), (25, 30), (30, 35)]
    assert found.warnings == [
        "3 of 8 windows left out, 0 to 5 s, 20 to 25 s, 35 to 40 s: "
        "accelerometer x: no readings for 3.01 s from 20.990 s on; --max-gap is 0.1 s"
    ]


def test_a_gap_says_nothing_about_mean_and_deviation(read: Read, tmp_path: Path) -> None:
    """Laid over a long gap, a straight line would make the deviation of the rest too small."""
    random = np.random.default_rng(0).normal(9, 3, (4000, 6))
    rows = np.column_stack([np.concatenate([np.arange(2000), np.arange(12_000, 14_000)]) / 100, random])
    found = read(table(tmp_path / "a.csv", rows, ["time_s", *NAMES]), standardise=True)
    assert found.spans == [(begin, begin + 5) for begin in (0, 5, 10, 15, 120, 125, 130, 135)]
    np.testing.assert_allclose(found.tensor.mean(axis=(0, 2)), 0, atol=0.05)
    np.testing.assert_allclose(found.tensor.std(axis=(0, 2)), 1, atol=0.05)


def test_a_warning_names_the_windows_on_stderr(embed: Run, tmp_path: Path) -> None:
    path = with_a_gap(tmp_path / "walk.csv")
    run = embed("imu", path, "--pool", "none", "--accel", "m/s2", "--gyro", "rad/s")
    assert run.code == 0
    assert [row["start"] for row in run.rows] == [0, 10, 15]
    assert any("walk.csv" in line and "1 of 4 windows left out, 5 to 10 s: no readings for 0.51 s" in line for line in run.notices)


def test_noise_does_not_swing_out_over_a_gap() -> None:
    times = np.delete(np.arange(400) / 400, np.arange(100, 130))
    noise = np.random.default_rng(0).uniform(-1, 1, (len(times), 6))
    made, rate, even = to_even_grid(times, noise, 0.1, NAMES)
    assert (made.shape, rate, even) == ((400, 6), pytest.approx(400), False)
    assert np.abs(made[100:130]).max() <= 1


# Windows


def test_evenly_spaced_windows_cover_all(read: Read, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.tile(np.arange(4800.0)[:, None], 6))
    found = read(tmp_path / "a.npy")
    assert found.spans == [(0.0, 5.0), (3.5, 8.5), (7.0, 12.0)]
    assert found.tensor[:, 0, 0].tolist() == [0, 1400, 2800]
    assert (found.facts["windows"], found.facts["coverage"]) == (3, 1.0)
    assert read(tmp_path / "a.npy", clips=2).facts["coverage"] == pytest.approx(10 / 12)


def test_windows_at_a_fixed_hop(read: Read, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.tile(np.arange(4800.0)[:, None], 6))
    found = read(tmp_path / "a.npy", hop=0.7)
    assert found.spans == [(pytest.approx(0.7 * i), pytest.approx(0.7 * i + 5)) for i in range(11)]
    assert found.tensor[:, 0, 0].tolist() == [280 * i for i in range(11)]
    assert read(tmp_path / "a.npy", hop=7).spans == [(0.0, 5.0), (7.0, 12.0)]
    assert read(tmp_path / "a.npy", hop=9).spans == [(0.0, 5.0)]


def test_windows_at_a_hop_are_readings_cut_by_hand_to_the_bit(read: Read) -> None:
    readings = np.random.default_rng(0).standard_normal((6, 12 * 400)) + 3
    found = read(readings, hop=0.7)
    for number in range(11):
        alone = read(readings[:, 280 * number : 280 * number + 2000])
        assert alone.spans == [(0.0, 5.0)]
        np.testing.assert_array_equal(found.tensor[number], alone.tensor[0])


def test_more_windows_than_go_at_once(read: Read) -> None:
    found = read(np.tile(np.arange(40_000.0)[:, None], 6), hop=1)
    assert len(found.spans) == len(found.tensor) == 96
    assert found.tensor[:, 0, 0].tolist() == [400 * i for i in range(96)]
    assert len(found.notes) == len(set(found.notes))


def test_windows_around_given_times(read: Read, tmp_path: Path) -> None:
    rows = np.column_stack([np.arange(4000) / 400 + 100, np.tile(np.arange(1.0, 4001)[:, None], 6)])
    path = table(tmp_path / "a.csv", rows, ["time_s", *NAMES])
    found = read(path, centres="105, 101,109.5")
    assert found.spans == [(102.5, 107.5), (98.5, 103.5), (107.0, 112.0)]
    np.testing.assert_allclose(found.tensor[0, 0], np.arange(1001, 3001), atol=1e-6)
    assert not found.tensor[1, :, :600].any()  # 1.5 s before the recording
    assert found.tensor[1, 0, 600] == 1
    assert found.tensor[2, 0, 1199] == 4000
    assert not found.tensor[2, :, 1200:].any()
    assert found.said("reach past the recording padded")
    (tmp_path / "times.txt").write_text("# narrations\n105\n\n101\n109.5\n")
    np.testing.assert_array_equal(read(path, centres=str(tmp_path / "times.txt")).tensor, found.tensor)
    assert refusal(read, path, centres="105,90") == "nothing within 2.5 s of 90 s; the recording lasts from 100.000 to 110.000 s"


def test_windows_that_are_asked_for_wrongly(read: Read, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("one\n")
    (tmp_path / "empty.txt").write_text("# none\n")
    with pytest.raises(UserError, match="neither seconds, T,T,…, nor a file: No such file"):
        read(ramp(), centres="1,two")
    with pytest.raises(UserError, match="one time in seconds a line is needed"):
        read(ramp(), centres=str(tmp_path / "words.txt"))
    with pytest.raises(UserError, match="holds no times"):
        read(ramp(), centres=str(tmp_path / "empty.txt"))
    with pytest.raises(UserError, match="clips and hop exclude each other"):
        read(ramp(), clips=2, hop=1.0)
    with pytest.raises(UserError, match="rate replaces timestamps; leave out time_column"):
        read(ramp(), rate=100.0, time_column="t")


def test_a_short_recording_is_padded(read: Read) -> None:
    found = read(ramp(100) + 1)
    assert found.spans == [(0.0, 5.0)]
    assert not found.tensor[:, :, 100:].any()
    assert found.tensor[:, :, :100].all()
    assert found.said("shorter than 5 s padded with zeros")


# Treatments


def test_gravity_is_removed_and_movement_stays(read: Read) -> None:
    times = np.arange(8000) / 400
    readings = tone(2, times) + np.array([0, 0, GRAVITY, 5, 5, 5])
    found = read(readings, remove_gravity=True, clips=4)
    assert np.abs(found.tensor[1:3, :3].mean(axis=2)).max() < 0.01
    assert amplitude(found.tensor[1, 2], 2) == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(found.tensor[1, 3:].mean(axis=1), 5, atol=0.01)
    tilt = np.cos(2 * np.pi * 0.3 * times)[None]
    assert slow_part(tilt, 400, 0.3)[0, 4000] == pytest.approx(tilt[0, 4000] / np.sqrt(2), rel=0.01)


def test_standardising(read: Read) -> None:
    random = np.random.default_rng(0).normal(9, 3, (4000, 6))
    random[:, 5] = 4
    found = read(random, standardise=True).tensor
    np.testing.assert_allclose(found.mean(axis=(0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=(0, 2))[:5], 1, atol=1e-5)
    assert not found[:, 5].any()


# Layouts


def ego4d(path: Path, count: int = 2000) -> tuple[Path, list[list[Any]]]:
    moments = np.arange(count) * 5.0 + 40
    rows: list[list[Any]] = [[0, t - 40, t, *row[3:], *row[:3]] for t, row in zip(moments, ramp(count), strict=True)]
    names = ["component_idx", "component_timestamp_ms", "canonical_timestamp_ms", *(f"{s}_{a}" for s in ("gyro", "accl") for a in "xyz")]
    return table(path, rows, names), rows


def test_ego4d(read: Read, tmp_path: Path) -> None:
    path, rows = ego4d(tmp_path / "a.csv")
    header = path.read_text().splitlines()[0].split(",")
    found = read(path)
    assert found.facts["layout"] == "ego4d"
    assert found.facts["rate"] == pytest.approx(200)
    assert found.facts["units"] == {"accelerometer": "m/s2", "gyroscope": "rad/s"}
    np.testing.assert_allclose(found.spans, [(0.04, 5.04), (5.04, 10.04)])
    np.testing.assert_allclose(found.tensor[0, :, 0], range(6), atol=1e-4)
    rows[10], rows[11] = rows[11], rows[10]
    rows.append([0, 9999.0, "", *range(6)])
    again = read(table(path, rows, header))
    np.testing.assert_allclose(again.tensor, found.tensor, atol=1e-6)
    assert again.said("sorted by time")
    assert again.said("without a time left out")
    assert read(path, centres="5.04").spans == [(2.54, 7.54)]
    for row in rows:
        row[2] = "NULL"
    assert "holds no times" in refusal(read, table(path, rows, header))


def test_pamap2(read: Read, tmp_path: Path) -> None:
    rows = np.tile(np.arange(1.0, 55), (1000, 1))
    rows[:, 0] = 5.64 + np.arange(1000) / 100
    rows[1:, 2] = np.nan  # heart rate
    rows[50:53, 4:20] = np.nan
    np.savetxt(tmp_path / "subject101.dat", rows, "%.6g")
    found = read(tmp_path / "subject101.dat")
    assert found.said("read as pamap2, the sensor on the hand: m/s2 and rad/s")
    assert found.facts["rate"] == pytest.approx(100)
    np.testing.assert_allclose(found.tensor[0, :, 500], [5, 6, 7, 11, 12, 13], rtol=1e-6)
    found = read(tmp_path / "subject101.dat", placement="ankle")
    np.testing.assert_allclose(found.tensor[0, :, 500], [39, 40, 41, 45, 46, 47], rtol=1e-6)
    assert read(tmp_path / "subject101.dat", placement="chest").facts["columns"][0] == "column 22"


def test_hapt(read: Read, tmp_path: Path) -> None:
    acc = table(tmp_path / "acc_exp01_user01.txt", np.ones((500, 3)), None, " ")
    gyro = table(tmp_path / "gyro_exp01_user01.txt", np.full((500, 3), 0.5), None, " ")
    found = read(acc)
    assert (found.facts["layout"], found.facts["rate"], found.facts["duration"]) == ("hapt", 50, 10)
    np.testing.assert_allclose(found.tensor[0, :, 1000], [GRAVITY] * 3 + [0.5] * 3, rtol=1e-6)
    assert "give the acc_exp" in refusal(read, gyro)
    table(gyro, np.ones((499, 3)), None, " ")
    assert "two equal ones" in refusal(read, acc)
    gyro.unlink()
    assert refusal(read, acc) == "gyro_exp01_user01.txt beside it: No such file or directory"


def test_ucihar(read: Read, tmp_path: Path) -> None:
    for sensor, value in (("total_acc", 1.0), ("body_acc", 0.25), ("body_gyro", 0.5)):
        for axis in "xyz":
            table(tmp_path / f"{sensor}_{axis}_test.txt", value * np.arange(1, 4)[:, None] * np.ones((3, 128)), None, "  ")
    found = read(tmp_path / "total_acc_x_test.txt", row=1)
    assert (found.facts["layout"], found.facts["duration"], found.facts["readings"]) == ("ucihar", 2.56, 128)
    np.testing.assert_allclose(found.tensor[0, :, 512], [2 * GRAVITY] * 3 + [1.0] * 3, rtol=1e-6)
    np.testing.assert_allclose(read(tmp_path / "body_acc_x_test.txt").tensor[0, 0, 512], GRAVITY / 4, rtol=1e-6)
    assert refusal(read, tmp_path / "total_acc_x_test.txt", row=3) == "no row 3; it has 3, counted from 0"
    assert "the others are read with it" in refusal(read, tmp_path / "body_gyro_z_test.txt")
    assert "the others are read with it" in refusal(read, ramp(), imu_layout="ucihar")


def test_a_layout_is_left_alone_when_told_so(read: Read, tmp_path: Path) -> None:
    path, _ = ego4d(tmp_path / "a.csv")
    assert read(path, imu_layout="plain", rate=200.0).facts["layout"] == "plain"


# Refusals


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("ax,ay,az,gx,gy,gz\n", "holds no rows of numbers"),
        ("ax,ay,az,gx,gy,gz\n1,2,3,4,5,6\n1,2,3\n", "line 3: 3 columns, 6 before"),
        ("ax,ay,az,gx,gy,gz\n1,2,3,4,5,6\n\n# x\n1,2,three,4,5,6\n", "line 5: could not convert string to float: 'three'"),
        ("ax,ay,az,gx,gy,gz\n1,2,3,4,5,6\n", "1 reading; at least 2 are needed"),
        ("ax,ay,az,gx,gy,gz\n1,2,3,4,5,6\n1,2,inf,4,5,6\n", "line 3: an infinite reading"),
        ("ax,ay,az,gx,gy,gz\n" + "1,2,nan,4,5,6\n" * 9, "accelerometer z holds nothing but NaN"),
        ("ax,ay,az,gx,gy,gz,time_s\n" + "1,2,3,4,5,6,7\n" * 9, "1 reading; at least 2 are needed"),
        ("ax,ay,az,gx,gy,gz\n" + "1,2,3,4,5\n" * 9, "6 column names and 5 columns"),
        ("1,2,3\n" * 9, "six channels are needed"),
        ("time_s,ax,ay,az,gx,gy,gz\n" + "".join(f"{10**9 * i},1,2,3,4,5,6\n" for i in range(9)), "lasts 8e+09 s"),
    ],
)
def test_tables_that_are_refused(read: Read, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert words in refusal(read, tmp_path / "a.csv")


def test_arrays_and_files_that_are_refused(read: Read, tmp_path: Path) -> None:
    assert "shape (9,)" in refusal(read, np.zeros(9))
    assert "shape (0, 6)" in refusal(read, np.zeros((0, 6)))
    assert "1 reading" in refusal(read, np.zeros((1, 6)))
    assert "an infinite reading" in refusal(read, np.full((9, 6), np.inf))
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    assert "not a readable HDF5 file" in refusal(read, tmp_path / "a.h5")
    (tmp_path / "a.csv").write_bytes(bytes(99))
    assert "not a text file" in refusal(read, tmp_path / "a.csv")
    assert "--dataset is for HDF5" in refusal(read, table(tmp_path / "b.csv", ramp(9)), dataset="x")
    assert "is a folder" in refusal(read, tmp_path)


@pytest.mark.usefixtures("in_place")
def test_tables_of_too_many_values_are_refused_before_they_are_read(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 million zeros are a small file."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("imu", (33_400_000, 6), "f4", chunks=(100_000, 6), compression="gzip")
        file["walk"] = ramp()
    assert refusal(read, tmp_path / "a.h5") == "more than 50,000,000 values; --dataset names a part"
    np.testing.assert_allclose(read(tmp_path / "a.h5", dataset="walk").tensor[0], ramp().T, atol=1e-6)
    monkeypatch.setattr(tables, "MAX_VALUES", 5000)
    np.save(tmp_path / "a.npy", ramp())
    scipy, pyarrow = pytest.importorskip("scipy.io"), pytest.importorskip("pyarrow")
    scipy.savemat(tmp_path / "a.mat", {"data": ramp()})
    importlib.import_module("pyarrow.parquet").write_table(pyarrow.table(dict(zip(NAMES, ramp().T, strict=True))), tmp_path / "a.parquet")
    assert "promises (2000, 6) values; at most 5,000" in refusal(read, tmp_path / "a.npy")
    for path in table(tmp_path / "a.csv", ramp()), tmp_path / "a.parquet":
        assert refusal(read, path) == "more than 5,000 values"
    assert refusal(read, tmp_path / "a.mat") == "more than 5,000 values; --dataset names a part"


def test_the_command_line(embed: Run, tmp_path: Path) -> None:
    path = generate.imu(tmp_path / "a.csv", seconds=12)
    run = embed("imu", path, "--pool", "none", "--hop", "3.5", "--accel", "m/s2", "--gyro", "deg/s", "--remove-gravity", "--rate", "399.5")
    assert run.code == 0
    assert [row["start"] for row in run.rows] == [0, 3.5, 7]
    assert "gyroscope converted from deg/s to rad/s" in run.err
    run = embed("imu", path, "--columns", "ax,ay")
    assert run.code == 2
    assert "six are needed" in run.err


# A stretch


@pytest.mark.parametrize("times", [(10, 15), (10, 20), (None, 7), (22.5, None), (20, 22), (3.3, 8.1)])
@pytest.mark.parametrize(
    ("clock", "scale", "name"), [(0, 1, "time (s)"), (100, 1, "time (s)"), (0, 1000, "time (ms)"), (1.7e9, 1, "time (s)"), (0, 0, "")]
)
def test_a_stretch_is_the_recording_cut_by_hand(tiny: Any, tmp_path: Path, times: Any, clock: float, scale: float, name: str) -> None:
    count, rate = 3000, 100
    at = np.arange(count) / rate
    values = np.column_stack([tone(0.3 + 0.2 * axis, at)[:, 0] * (1 + at / 10) for axis in range(6)])
    first, stop = (
        (default if time is None else int(np.searchsorted(at, time - 1e-6))) for time, default in zip(times, (0, count), strict=True)
    )
    columns = np.column_stack([(at + clock) * scale, values]) if name else values
    heads = [
        *([name] if name else []),
        *(f"{sensor}{axis} ({unit})" for sensor, unit in (("acc", "m/s2"), ("gyro", "rad/s")) for axis in "xyz"),
    ]
    for path, some in (("whole", slice(None)), ("cut", slice(first, stop))):
        np.savetxt(tmp_path / f"{path}.csv", columns[some], "%.6f", delimiter=",", header=",".join(heads), comments="")
    options = {} if name else {"rate": float(rate)}
    offset = clock if clock < 1e8 else 0  # one that counts from 1970 starts at its first reading
    asked = Stretch(str(tmp_path / "whole.csv"), *(None if time is None else time + offset for time in times))
    found, wanted = (list(tiny.read("imu", source, **options)) for source in (asked, str(tmp_path / "cut.csv")))
    assert [sample.tensor.shape for sample in found] == [sample.tensor.shape for sample in wanted]
    assert max(float((a.tensor - b.tensor).abs().max()) for a, b in zip(found, wanted, strict=True)) <= 1e-3
    ours, theirs = (np.array([span for sample in samples for span in sample.spans]) for samples in (found, wanted))
    assert np.allclose(ours, theirs + (0 if name and clock < 1e8 else at[first]), atol=1e-5)
    assert tiny.embed("imu", [asked], **options)[0] @ tiny.embed("imu", [str(tmp_path / "cut.csv")], **options)[0] >= 0.9999


def test_a_stretch_that_holds_nothing_says_so(tiny: Any, tmp_path: Path) -> None:
    np.savetxt(
        tmp_path / "a.csv", np.column_stack([np.arange(2000) / 100, ramp()]), delimiter=",", header="time,ax,ay,az,gx,gy,gz", comments=""
    )
    path = str(tmp_path / "a.csv")
    for times, why in (
        ((20, 25), "nothing between 20 and 25 s; it lasts from 0 to 20 s"),
        ((3, 3.001), "fewer than 2 readings from 3 to 3.001 s"),
    ):
        with pytest.raises(ValueError, match=why):
            next(tiny.read("imu", Stretch(path, *times)))
    assert next(tiny.read("imu", Stretch(path, 18, 25))).warnings == ("only 18 to 20 s of 18 to 25 s are there",)


def test_hop_centres_and_gravity_are_of_the_stretch(tiny: Any, tmp_path: Path) -> None:
    at = np.arange(3000) / 100
    np.savetxt(tmp_path / "a.csv", np.column_stack([at, ramp(3000)]), delimiter=",", header="time,ax,ay,az,gx,gy,gz", comments="")
    np.savetxt(
        tmp_path / "b.csv", np.column_stack([at, ramp(3000)])[1000:2000], delimiter=",", header="time,ax,ay,az,gx,gy,gz", comments=""
    )
    for options in ({"hop": 2.5}, {"centres": "13,16"}, {"clips": 4}, {"remove_gravity": True}, {"standardise": True}):
        (found,), (wanted,) = (
            tiny.read("imu", source, **options) for source in (Stretch(str(tmp_path / "a.csv"), 10, 20), str(tmp_path / "b.csv"))
        )
        assert np.allclose(found.spans, wanted.spans)
        assert np.allclose(found.tensor, wanted.tensor, atol=1e-3)
