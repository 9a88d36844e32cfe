"""Data for training: which rows a step takes, whoever reads them; files of every kind; what is wrong told before the first step; the anchor cache."""

import io
import json
import os
import re
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from imagebind_cli.errors import UserError
from imagebind_cli.media.windows import Moment
from imagebind_cli.readers import read_source
from imagebind_cli.registry import face
from imagebind_cli.training import anchors
from imagebind_cli.training import rows as rows_module
from imagebind_cli.training.augment import draw_view
from imagebind_cli.training.data import PairData
from imagebind_cli.training.plan_lines import data_lines, leak_lines
from imagebind_cli.training.recipe import AugmentRecipe, Recipe
from imagebind_cli.training.rows import PackedRows, read_pair_rows
from imagebind_cli.training.samples import clip_at
from imagebind_cli.weights import model_config
from tests.generate import audio, depth, imu, picture, thermal, video

TINY = model_config.packaged_config("tiny").encoders
SQUARES = {"image": {"crop": 0.3, "flip": 0.5, "erase": 0.5}, "depth": {"crop": 0.3, "flip": 0.5}}


def read_as(modality, source, **options):
    return read_source(face(modality), source, TINY[face(modality).encoder], face(modality).read_options(options))


def manifest(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eleven scenes: picture, depth map, sound, caption; and manifests of them."""
    folder = tmp_path_factory.mktemp("scenes")
    rows = []
    for number in range(11):
        row = {"id": f"scene{number}", "text": f"scene number {number}"}
        row["image"] = picture(folder / f"{number}.png", number, (64, 48)).name
        row["depth"] = depth(folder / f"{number}.npy", number).name
        row["audio"] = audio(folder / f"{number}.wav", 3, number).name
        rows.append(row)
    manifest(folder / "scenes.jsonl", rows)
    manifest(folder / "broken.jsonl", [{**row, "image": "nowhere.png"} if row["id"] == "scene3" else row for row in rows])
    return folder


def recipe(path, modalities=("image", "depth"), *, workers=0, seed=0, **pair):
    given = {"modalities": modalities, "data": [str(path)], "batch": 4, **pair}
    return Recipe.model_validate({"model": "tiny", "pairs": [given], "run": {"workers": workers, "seed": seed}})


def opened(*arguments, split="data", **options):
    return PairData(recipe(*arguments, **options), TINY, split)


def same(one, other):
    return one.ids == other.ids and all(torch.equal(a, b) for a, b in zip(one.inputs, other.inputs, strict=True))


# -- which rows


def test_every_row_comes_once_in_a_pass_and_in_another_order_in_the_next(folder):
    data = opened(folder / "scenes.jsonl", ("image", "text"), batch=2)
    ids = [id for batch in data.batches(0, 11) for id in batch.ids]
    first, second = ids[:11], ids[11:]
    assert set(first) == set(second) == set(data.ids(0))
    assert first != second
    assert first != data.ids(0)
    assert ids != [id for batch in opened(folder / "scenes.jsonl", ("image", "text"), batch=2, seed=1).batches(0, 11) for id in batch.ids]


def test_a_run_may_start_at_any_step(folder):
    data = opened(folder / "scenes.jsonl", augment=SQUARES)
    whole = list(data.batches(0, 6))
    for step in range(6):
        assert same(next(data.batches(step, step + 1)), whole[step])
    assert not torch.equal(whole[0].inputs[0], whole[5].inputs[0])


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_a_batch(folder, world):
    data = opened(folder / "scenes.jsonl", augment=SQUARES, batch=6)
    for step in range(3):
        whole = next(data.batches(step, step + 1))
        parts = [next(data.batches(step, step + 1, rank, world)) for rank in range(world)]
        assert whole.ids == sum((part.ids for part in parts), ())
        assert torch.equal(whole.inputs[1], torch.cat([part.inputs[1] for part in parts]))
        assert torch.equal(whole.groups, torch.cat([part.groups for part in parts]))
    with pytest.raises(UserError, match=r"a batch of 6 for 4 processes; set pairs\.0\.batch to a multiple"):
        data.steps_per_epoch(4)


def test_workers_change_nothing(folder):
    """Pictures, maps, sounds and replaced rows to the bit, from this process and from two others."""
    for modalities, augment in ((("image", "depth"), SQUARES), (("image", "audio"), {"audio": {"frequency_mask": 12}})):
        runs = []
        for workers in (0, 2):
            data = opened(folder / "broken.jsonl", modalities, augment=augment, workers=workers)
            runs.append(list(data.batches(0, 4)))
        assert all(same(one, other) for one, other in zip(*runs, strict=True))
        assert [batch.failures for batch in runs[0]] == [batch.failures for batch in runs[1]]
        assert any(batch.failures for batch in runs[0])


def test_reading_ahead_leaves_the_random_numbers_of_training_alone(folder):
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    got = [torch.rand(1)]
    list(opened(folder / "scenes.jsonl", ("image", "text"), workers=1).batches(0, 2))
    got.append(torch.rand(1))
    assert torch.equal(torch.cat(got), wanted)


def test_replication_is_the_length_of_an_epoch(folder):
    def steps(**pair):
        return opened(folder / "scenes.jsonl", ("image", "text"), **pair).steps_per_epoch()

    assert steps(batch=2) == 6  # 11 pairs
    assert steps(batch=2, replicate=50) == 275
    assert steps(batch=4, replicate=1.25) == 3


def test_pairs_take_turns_by_weight(folder):
    pairs = [
        {"modalities": ["image", "text"], "data": [str(folder / "scenes.jsonl")], "batch": 2, "weight": 3},
        {"modalities": ["audio", "text"], "data": [str(folder / "scenes.jsonl")], "batch": 3, "weight": 1},
    ]
    data = PairData(Recipe.model_validate({"model": "tiny", "pairs": pairs, "run": {"workers": 0}}), TINY)
    turns = [data._pair_of(step) for step in range(4000)]
    assert np.mean(turns) == pytest.approx(0.25, abs=0.03)
    assert data.steps_per_epoch() == round(11 / 2 / 0.75)
    at = 2500  # each pair goes on where it was: a batch there holds what a run from the start would bring
    batch = next(data.batches(at, at + 1))
    first = turns[:at].count(batch.pair) * (2, 3)[batch.pair]
    order = [int(data._order(batch.pair, place // 11)[place % 11]) for place in range(first, first + len(batch.ids))]
    assert [f"scene{row}" for row in order] == list(batch.ids)
    assert {batch.pair for batch in data.batches(0, 12)} == {0, 1}


def test_fixed_views_come_again(folder):
    fixed = opened(folder / "scenes.jsonl", augment=SQUARES, batch=11, views=2)
    fresh = opened(folder / "scenes.jsonl", augment=SQUARES, batch=11)

    def by_id(data, step):
        batch = next(data.batches(step, step + 1))
        return {id: batch.inputs[0][row] for row, id in enumerate(batch.ids)}

    first, second, again = (by_id(fixed, step) for step in range(3))
    other_first, other_second, other_third = (by_id(fresh, step) for step in range(3))
    for id in fixed.ids(0):
        assert torch.equal(first[id], again[id])
        assert torch.equal(first[id], other_first[id])
        assert torch.equal(second[id], other_second[id])
        assert not torch.equal(first[id], second[id])
        assert not torch.equal(first[id], other_third[id])


def test_unaligned_sides_are_drawn_apart(tmp_path):
    """One picture as both sides: the same crop where aligned, another where not."""
    path = str(picture(tmp_path / "a.png", 0, (64, 64)))
    grey = str(thermal(tmp_path / "b.png", 0))
    rows = manifest(tmp_path / "a.jsonl", [{"id": str(number), "depth": grey, "thermal": grey, "image": path} for number in range(4)])
    augment = {"depth": {"crop": 0.2}, "thermal": {"crop": 0.2}}
    options = {"depth": {"depth_format": "relative", "depth_normalise": "none"}, "thermal": {"thermal_range": "auto"}}

    def correlation(**pair):
        batch = next(opened(rows, ("depth", "thermal"), augment=augment, options=options, **pair).batches(0, 1))
        return torch.corrcoef(torch.stack([batch.inputs[0][0].flatten(), batch.inputs[1][0].flatten()]))[0, 1]

    assert correlation() > 0.999
    assert correlation(aligned=False) < 0.9


# -- what is no negative


def test_groups_are_rows_alike_in_id_group_or_caption(python, tmp_path):
    rows = [
        {"id": "a", "text": "a dog", "group": "g"},
        {"id": "b", "text": "A  dog "},
        {"id": "c", "text": "a cat", "group": "g"},
        {"id": "d", "text": "a bird"},
        {"id": "e", "text": "a cow", "group": "h"},
        {"id": "d", "text": "a hen"},
        {"id": "f", "text": "g"},
    ]
    for number, row in enumerate(rows):
        row["image"] = picture(tmp_path / f"{number}.png", number).name
    data = opened(manifest(tmp_path / "a.jsonl", rows), ("image", "text"))
    assert data.groups(0).tolist() == [0, 0, 0, 3, 4, 3, 6]
    told = "4 groups, the largest of 3 pairs: pairs of the same id, group, image or text are not negatives of each other"
    assert f"image-text: {told}" in data_lines(data)
    code = f"""if True:
        from imagebind_cli.weights import model_config
        from imagebind_cli.training.data import PairData
        from imagebind_cli.training.recipe import Recipe
        pair = dict(modalities=["image", "text"], data=[{str(tmp_path / "a.jsonl")!r}], batch=4)
        groups = PairData(Recipe(model="tiny", pairs=[pair]), model_config.packaged_config("tiny").encoders).groups(0).tolist()
        print([hash("a dog"), groups])"""
    fixed = {"PYTHONHASHSEED": "7"} if "PYTHONHASHSEED" in os.environ else {}  # else each interpreter draws its own
    hashed, groups = json.loads(python("-c", code, env=os.environ | fixed).stdout)
    assert hashed != hash("a dog")
    assert groups == data.groups(0).tolist()
    batch = next(data.batches(0, 1))
    assert batch.groups.tolist() == [data.groups(0)[data.ids(0).index(id)] for id in batch.ids]


def captioned(rows, path, modalities=("image", "text")):
    """The groups of rows, each with a caption and an id of its own."""
    rows = [{"id": str(number), "text": f"caption number {number}", **row} for number, row in enumerate(rows)]
    return opened(manifest(path, rows), modalities, batch=2).groups(0).tolist()


def test_one_picture_is_one_group_however_its_path_is_written(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    picture(tmp_path / "sub" / "a b.png")
    picture(tmp_path / "sub" / "c.png", 1)
    (tmp_path / "folder").symlink_to("sub")
    (tmp_path / "file.png").symlink_to("sub/a b.png")
    paths = ["sub/a b.png", "./sub//a b.png", "sub/../sub/a b.png", str(tmp_path / "sub" / "a b.png"), "folder/a b.png", "file.png"]
    rows = [{"image": path} for path in [*paths, "sub/c.png", "nowhere.png", "nul\0.png"]]
    assert captioned(rows, tmp_path / "a.jsonl") == [0, 0, 0, 0, 0, 0, 6, 7, 8]
    monkeypatch.chdir(tmp_path)
    data = opened("a.jsonl", ("image", "text"), batch=2)
    assert data.groups(0).tolist() == [0, 0, 0, 0, 0, 0, 6, 7, 8]
    assert "image-text: 67% of the pairs are in one group: few pairs are negatives, so little can be learnt or measured" in data_lines(data)


@pytest.mark.parametrize("modalities", [("audio", "text"), ("text", "audio")])
def test_a_sound_with_its_stretch_is_one_group(folder, tmp_path, modalities):
    (folder / "other").mkdir(exist_ok=True)
    stretches = [{}, {}, {"end": 1}, {"start": 0, "end": 1.0}, {"start": 1, "end": 2}]
    rows = [{"audio": "../0.wav", **stretch} for stretch in stretches] + [{"audio": "../1.wav"}]
    assert captioned(rows, folder / "other" / "a.jsonl", modalities) == [0, 0, 2, 2, 4, 5]
    unnamed = [{**row, "id": None} for row in rows]  # known by their file, but not one for that
    assert captioned(unnamed, folder / "other" / "a.jsonl", modalities) == [0, 0, 2, 2, 4, 5]


@pytest.mark.parametrize("output", ["pairs.h5", "pairs-%06d.tar"])
def test_one_picture_stays_one_group_when_it_is_prepared(folder, tmp_path, imagebind, output):
    rows = [{"id": str(number), "image": f"{number // 3}.png", "text": f"caption number {number}"} for number in range(6)]
    path = manifest(folder / "shared.jsonl", rows)
    imagebind("preprocess", "image,text", "--manifest", path, "--model", "tiny", "-o", tmp_path / output)
    data = opened(tmp_path / output.replace("%06d", "*"), ("image", "text"))
    assert sorted(data.groups(0).bincount().tolist())[-2:] == [3, 3]


def test_one_file_in_a_tar_is_one_group(tmp_path):
    long = [bytearray(np.random.default_rng(seed).bytes(300_000)) for seed in (0, 0, 0, 1)]
    long[2][200_000:220_000] = bytes(20_000)  # the same size, beginning and end
    small = [(tmp_path / f"{number}.png").read_bytes() for number in range(2) if picture(tmp_path / f"{number}.png", number)]
    for ending, files in (("mp3", long), ("png", [small[0], small[0], small[1]])):
        with tarfile.open(tmp_path / f"{ending}.tar", "w") as tar:
            for number, data in enumerate(files):
                for name, content in ((f"{number}.{ending}", bytes(data)), (f"{number}.txt", b"caption %d" % number)):
                    about = tarfile.TarInfo(name)
                    about.size = len(content)
                    tar.addfile(about, io.BytesIO(content))
    assert read_pair_rows([str(tmp_path / "mp3.tar")], ("audio", "text")).groups.tolist() == [0, 0, 2, 3]
    assert read_pair_rows([str(tmp_path / "png.tar")], ("image", "text")).groups.tolist() == [0, 0, 2]


def test_files_that_are_trained_on_are_counted_in_a_validation(folder, tmp_path):
    data = opened(folder / "scenes.jsonl")
    rows = [{"id": f"val{number}", "image": f"{number}.png", "depth": f"{number + 5}.npy"} for number in range(8)]
    rows[0]["image"] = str(picture(tmp_path / "new.png", 99))
    rows[7]["id"] = rows[6]["id"]
    val = opened(folder / "scenes.jsonl", val=[str(manifest(folder / "val.jsonl", rows))], split="val")
    told = "R@1 counts any pair of the same id, group, image or depth as correct; `retrieve --pairs ids` counts only the same id"
    assert f"image-depth: 7 groups, the largest of 2 pairs: {told}" in data_lines(val)
    assert list(leak_lines(data, val)) == [
        "image-depth: 7 of 8 have the image of a training pair; their scores are too high",
        "image-depth: 6 of 8 have the depth of a training pair; their scores are too high",
    ]


def test_packed_rows_are_what_was_put_in():
    rows = [{"id": "ä", "image": "\udcff.png"}, {}, {"start": 1.5}]
    packed = PackedRows(json.dumps(row).encode() for row in rows)
    assert [packed[number] for number in range(len(packed))] == rows
    assert len(PackedRows([])) == 0


# -- rows held out, and columns of other names


def held_out_rows(path, fraction=0.3, **options):
    """Ids to train on and to validate on."""
    data, val = (opened(path, ("image", "text"), val_fraction=fraction, split=split, **options) for split in ("data", "val"))
    return data, val


def test_a_fraction_is_held_out_by_whole_groups_and_by_the_seed(tmp_path):
    rows = [{"id": f"{number}", "text": f"words {number}", "image": f"{number // 2}.png"} for number in range(40)]
    for number in range(20):
        picture(tmp_path / f"{number}.png", number, (16, 16))
    path = manifest(tmp_path / "a.jsonl", rows)
    data, val = held_out_rows(path)
    assert sorted(data.ids(0) + val.ids(0)) == sorted(row["id"] for row in rows)
    assert len(val.ids(0)) == 12
    assert not {int(id) // 2 for id in data.ids(0)} & {int(id) // 2 for id in val.ids(0)}
    assert data.groups(0).bincount().max() == 2
    assert not list(leak_lines(data, val))
    assert held_out_rows(path)[1].ids(0) == val.ids(0)
    assert held_out_rows(path, seed=1)[1].ids(0) != val.ids(0)
    assert f"image-text: 12 pairs held out of {path}: 0.3 of them, whole groups, by run.seed" in data_lines(val)
    assert f"image-text: 28 pairs from {path}, without those held out for validation" in data_lines(data)
    batch = next(data.batches(0, 1))
    assert set(batch.ids) <= set(data.ids(0))


def test_one_group_is_not_split(tmp_path):
    picture(tmp_path / "0.png", 0, (16, 16))
    path = manifest(tmp_path / "a.jsonl", [{"id": f"{number}", "text": f"words {number}", "image": "0.png"} for number in range(8)])
    with pytest.raises(UserError, match=r"image-text: cannot hold out 0.3 of .*a.jsonl: all rows are one group"):
        held_out_rows(path)


def test_files_and_a_fraction_to_validate_on_exclude_each_other():
    with pytest.raises(ValueError, match="give one of them"):
        recipe("a.jsonl", val=["b.jsonl"], val_fraction=0.2)


def test_columns_may_have_other_names(folder, tmp_path):
    lines = ["file_name,caption,image,key", *(f"{folder / f'{number}.png'},sentence {number},other,k{number}" for number in range(5))]
    table = tmp_path / "a.csv"
    table.write_text("\n".join(lines) + "\n")
    names = {"image": "file_name", "text": "caption", "id": "key"}
    data = opened(table, ("image", "text"), columns=names)
    assert data.ids(0) == [f"k{number}" for number in range(5)]
    assert next(iter(data.samples(0, [1]))).ids == ("k1",)
    objects = manifest(tmp_path / "a.jsonl", [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]])
    assert opened(objects, ("image", "text"), columns=names).ids(0) == data.ids(0)
    with pytest.raises(UserError, match="no column 'path'; it has file_name, caption, image, key"):
        opened(table, ("image", "text"), columns={"image": "path"})
    with pytest.raises(ValueError, match=r"columns\.audio: not a column of this pair's rows"):
        opened(table, ("image", "text"), columns={"audio": "path"})


# -- what cannot be read


def test_a_row_that_cannot_be_read_gives_its_place_to_another(folder):
    data = opened(folder / "broken.jsonl", batch=11)
    for step in range(3):
        batch = next(data.batches(step, step + 1))
        assert len(batch.ids) == len(batch.inputs[0]) == 11
        assert "scene3" not in batch.ids
        assert [(failure.id, failure.reason) for failure in batch.failures] == [("scene3", "image: No such file or directory")]
    assert same(next(data.batches(2, 3)), batch)


def test_when_nothing_can_be_read_it_is_told_in_one_line(folder, tmp_path):
    rows = [{"id": str(number), "image": str(folder / "0.png"), "depth": "gone.npy"} for number in range(20)]
    with pytest.raises(UserError, match=r"none of its first 5 rows can be read; 0: depth: No such file"):
        opened(manifest(tmp_path / "all.jsonl", rows))
    rows[0]["depth"] = str(folder / "0.npy")
    for workers in (0, 1):
        data = opened(manifest(tmp_path / "most.jsonl", rows), workers=workers)
        with pytest.raises(UserError, match=r"^11 samples in a row cannot be read; the last, \d+: depth: No such file or directory$"):
            list(data.batches(0, 20))


def test_evaluation_leaves_out_what_cannot_be_read(folder):
    data = opened(folder / "broken.jsonl", val=[str(folder / "broken.jsonl")], split="val")
    batches = list(data.samples(0, range(11)))
    assert [id for batch in batches for id in batch.ids] == [f"scene{number}" for number in range(11) if number != 3]
    assert [failure.id for batch in batches for failure in batch.failures] == ["scene3"]
    expected = next(read_as("image", str(folder / "5.png"))).tensor[0]
    assert torch.equal(torch.cat([batch.inputs[0] for batch in batches])[4], expected)  # nothing varied
    with pytest.raises(UserError, match="none of 1 samples can be read; the first, scene3: image: No such file"):
        list(data.samples(0, [3]))


def test_a_pair_may_lack_validation_data(folder):
    assert opened(folder / "scenes.jsonl", split="val").counts == [0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data": []}, r"image-depth: no data; give --data, or pairs\.0\.data"),
        ({"data": ["nowhere-*.tar"]}, r"nowhere-\*\.tar: no file matches this pattern"),
        ({"data": ["nowhere.jsonl"]}, "nowhere.jsonl: No such file or directory"),
        ({"batch": 12}, r"11 pairs and a batch of 12; set pairs\.0\.batch to no more"),
        ({"modalities": ["image", "imu"]}, "no row has both image and imu: .*no 'imu' in this row; it has id, text, image, depth, audio"),
        ({"augment": {"audio": {"crop": 0.5}}}, "augment for 'audio'; the pair has image and depth"),
        ({"augment": {"depth": {"frequency_mask": 3}}}, "frequency_mask does not apply to depth; crop, interpolation, flip"),
        ({"augment": {"image": {"turn": 9}}}, "turn does not apply to image; crop, interpolation, flip"),
        ({"modalities": ["image", "text"], "augment": {"text": {"flip": 0.5}}}, "flip does not apply to text; nothing does"),
        ({"augment": {"image": {"crop": 0.5}}}, r"aligned pictures need the same crop; image has 0\.5, depth 1"),
        ({"options": {"depth": {"sensr": "kv1"}}}, "depth has no option 'sensr' in training; it has depth_format, sensor"),
        ({"options": {"depth": {"sensor": "kv9"}}}, "unknown sensor 'kv9'; choose from kv1"),
        ({"options": {"depth": {"view": "x"}}}, "depth has no option 'view'"),
        (
            {"modalities": ["image", "audio"], "options": {"audio": {"clips": 3}}},
            "audio has no option 'clips' in training; it has channels",
        ),
        ({"modalities": ["image", "text"], "options": {"text": {"long_text": "window"}}}, "training takes one: truncate or error"),
    ],
)
def test_what_does_not_fit_is_told_before_the_first_step(folder, change, told):
    with pytest.raises(UserError, match=told):
        opened(folder / "scenes.jsonl", **change)


def test_a_table_without_the_column_says_which_it_has(tmp_path):
    (tmp_path / "a.csv").write_text("id,image,audio\n1,a.png,a.wav\n")
    with pytest.raises(UserError, match="no column 'depth'; it has id, image, audio"):
        opened(tmp_path / "a.csv")


def test_a_row_without_an_id_is_known_by_its_file(folder, tmp_path):
    rows = [{"text": "a caption that two share", "image": str(folder / f"{seed}.png")} for seed in (0, 1)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read_pair_rows([str(tmp_path / "pairs.jsonl")], ("text", "image"))
    assert [data.id(number) for number in (0, 1)] == [row["image"] for row in rows]


def test_rows_without_a_modality_are_counted(folder, tmp_path):
    rows = [json.loads(line) for line in (folder / "scenes.jsonl").read_text().splitlines()]
    rows = [{**row, "image": str(folder / row["image"]), "depth": str(folder / row["depth"])} for row in rows]
    del rows[1]["depth"], rows[2]["depth"]
    lines = data_lines(opened(manifest(tmp_path / "a.jsonl", rows)))
    assert f"image-depth: 9 pairs from {tmp_path}/a.jsonl" in lines
    assert any(line.startswith("image-depth: 2 left out, the first scene1: ") and "no 'depth'" in line for line in lines)
    assert "image-depth: depth: depth read as metres, focal 518.86 px, baseline 0.075 m" in lines


def test_a_row_may_be_a_stretch_of_a_recording(tmp_path):
    path = str(video(tmp_path / "a.mp4", seconds=8, sound=True))
    rows = [{"id": str(number), "video": path, "audio": path, "start": 2 * number, "end": 2 * number + 2.0} for number in range(4)]
    data = opened(manifest(tmp_path / "a.jsonl", rows), ("video", "audio"))
    covered = next(read_as("audio", path, clips=4)).tensor
    for batch in data.batches(0, 2):
        for id, heard in zip(batch.ids, batch.inputs[1], strict=True):
            assert torch.allclose(heard, covered[int(id)], atol=1e-3)
    for wrong in ({"start": "soon"}, {"start": 3, "end": 2}, {"end": float("nan")}):
        with pytest.raises(UserError, match="start and end are seconds"):
            opened(manifest(tmp_path / "b.jsonl", [{**row, **wrong} for row in rows]), ("video", "audio"))


def test_every_pair_of_modalities_gives_batches(tmp_path):
    makers = {"image": picture, "video": video, "audio": audio, "depth": depth, "thermal": thermal, "imu": imu}
    endings = {"image": "png", "video": "mp4", "audio": "wav", "depth": "npy", "thermal": "png", "imu": "csv"}
    row = {name: str(maker(tmp_path / f"{name}.{endings[name]}")) for name, maker in makers.items()} | {"text": "words"}
    rows = manifest(tmp_path / "a.jsonl", [{"id": str(number), **row} for number in range(2)])
    still = {**{name: encoder.shape for name, encoder in TINY.items()}, "image": (3, 224, 224), "video": (3, 2, 224, 224)}
    for one, other in (
        ("image", "text"),
        ("video", "audio"),
        ("image", "thermal"),
        ("video", "imu"),
        ("text", "audio"),
        ("audio", "depth"),
    ):
        batch = next(opened(rows, (one, other), batch=2).batches(0, 1))
        assert (batch.inputs[0].shape[1:], batch.inputs[1].shape[1:]) == (still[one], still[other])


def test_sensors_are_turned_anew_every_time(tmp_path):
    """Both rows are of one recording; the mean and deviation of the normalisation have no part in a length."""
    row = {"text": "words", "imu": str(imu(tmp_path / "a.csv"))}
    rows = manifest(tmp_path / "a.jsonl", [{"id": str(number), **row} for number in range(2)])
    plain, turned = (
        next(opened(rows, ("text", "imu"), batch=2, augment=given).batches(0, 1)).inputs[1] for given in ({}, {"imu": {"turn": 20}})
    )
    assert not torch.allclose(turned[0], turned[1], atol=0.01)
    assert not torch.allclose(turned, plain, atol=0.01)
    torch.testing.assert_close(turned[:, :3].norm(dim=1), plain[:, :3].norm(dim=1), rtol=1e-4, atol=1e-4)


# -- shards


def test_media_in_tar_shards(folder, tmp_path, monkeypatch):
    """WebDataset's naming: the same batches as from the files, with the id in the JSON or the key, whatever the size of the shards."""
    for number, rows in enumerate((range(7), range(7, 11))):
        with tarfile.open(tmp_path / f"s-{number}.tar", "w") as archive:
            for row in rows:
                members = {"png": (folder / f"{row}.png").read_bytes(), "depth.npy": (folder / f"{row}.npy").read_bytes()}
                members |= {"txt": f"scene number {row}".encode(), "json": json.dumps({"id": f"scene{row}", "group": row // 2}).encode()}
                for ending, data in members.items():
                    information = tarfile.TarInfo(f"{row:06d}.{ending}")
                    information.size = len(data)
                    archive.addfile(information, io.BytesIO(data))
    shards = opened(tmp_path / "s-*.tar", augment=SQUARES, workers=1)
    files = opened(folder / "scenes.jsonl", augment=SQUARES)
    assert shards.counts == [11]
    monkeypatch.setattr(rows_module, "MANY_BYTES", 0)  # their headers read by two processes
    assert opened(tmp_path / "s-*.tar", workers=2).reader(0).rows.digest() == shards.reader(0).rows.digest()
    assert all(same(one, other) for one, other in zip(shards.batches(0, 3), files.batches(0, 3), strict=True))
    assert shards.groups(0).tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10]
    texts = opened(tmp_path / "s-*.tar", ("image", "text"))
    assert same(next(texts.batches(0, 1)), next(opened(folder / "scenes.jsonl", ("image", "text")).batches(0, 1)))
    with pytest.raises(
        UserError, match=r"no row has both image and thermal: no thermal in this sample of .*s-0.tar; it has png, depth.npy, txt, json"
    ):
        opened(tmp_path / "s-*.tar", ("image", "thermal"))


@pytest.mark.parametrize("output", ["p-%06d.tar", "p.h5"])
def test_prepared_samples(folder, tmp_path, imagebind, output):
    """What `preprocess` made gives what the files give; crops are taken from the prepared square, windows from the prepared ones."""
    made = ["--manifest", folder / "scenes.jsonl", "-o", tmp_path / output, "--model", "tiny"]
    assert imagebind("preprocess", "image,depth,audio", *made).code == 0
    path = tmp_path / output.replace("%06d", "*")
    prepared, files = opened(path, workers=1), opened(folder / "scenes.jsonl")
    assert all(same(one, other) for one, other in zip(prepared.batches(0, 3), files.batches(0, 3), strict=True))
    with pytest.raises(UserError, match="no text in this sample"):
        opened(path, ("image", "text"))

    sounds = opened(path, ("image", "audio"))
    assert "image-audio: audio: windows are drawn from the prepared ones" in data_lines(sounds)
    windows = [next(read_as("audio", str(folder / f"{number}.wav"))).tensor for number in range(11)]
    drawn = set()
    for batch in sounds.batches(0, 4):
        for id, heard in zip(batch.ids, batch.inputs[1], strict=True):
            alike = [torch.equal(heard, window) for window in windows[int(id.removeprefix("scene"))]]
            assert sum(alike) == 1
            drawn.add(alike.index(True))
    assert drawn == {0, 1}


def test_prepared_squares_are_looked_at_in_views(folder, tmp_path, imagebind):
    made = ["--manifest", folder / "scenes.jsonl", "-o", tmp_path / "p.h5", "--model", "tiny"]
    assert imagebind("preprocess", "image,depth", *made).code == 0
    data = opened(tmp_path / "p.h5", augment=SQUARES)
    assert "image-depth: image: crops are taken from prepared squares of 224 x 224" in data_lines(data)
    batch = next(data.batches(0, 1))
    for number, modality in enumerate(("image", "depth")):
        config = TINY["vision" if number == 0 else "depth"]
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (config.mean, config.std))
        for id, seen in zip(batch.ids, batch.inputs[number], strict=True):
            row = int(id.removeprefix("scene"))
            plain = next(data.samples(0, [row])).inputs[number][0] * std + mean  # (c, 224, 224) in [0, 1]
            view = draw_view(AugmentRecipe(**SQUARES[modality]), 0, 0, row, 0)
            if number == 0:
                square = Image.fromarray((plain * 255).round().byte().permute(1, 2, 0).numpy())
                expected = torch.from_numpy(np.array(view.picture(square, 224))).permute(2, 0, 1).float() / 255
            else:
                expected = torch.from_numpy(view.plane(plain[0].numpy(), 224).copy())[None]
            assert torch.allclose(seen, (expected - mean) / std, atol=1e-4)


def test_shards_prepared_otherwise_are_refused(folder, tmp_path, imagebind):
    made = ["--manifest", folder / "scenes.jsonl", "-o", tmp_path / "p.tar", "--model", "tiny", "--fill", "far"]
    assert imagebind("preprocess", "image,depth", *made).code == 0
    with pytest.raises(UserError, match="depth was prepared with --fill far; none is asked for"):
        opened(tmp_path / "p.tar", options={"depth": {"fill": "none"}})


def test_prepared_tiles_are_not_trained_on(folder, tmp_path, imagebind):
    made = ["--manifest", folder / "scenes.jsonl", "-o", tmp_path / "p.tar", "--model", "tiny", "--tiles", "1"]
    assert imagebind("preprocess", "image,depth", *made).code == 0
    with pytest.raises(UserError, match="prepared as tiles, and training takes whole pictures; prepare it without --tiles"):
        next(opened(tmp_path / "p.tar").batches(0, 1))


def test_of_prepared_clips_the_middle_crop_of_a_window():
    crops = [[0, 2]] * 3 + [[2, 4]] * 3 + [[4, 6]] * 3
    assert [clip_at(crops, Moment(place)) for place in (0.0, 0.32, 0.34, 0.99)] == [1, 1, 4, 7]
    assert clip_at(crops, Moment(0.0, 3.0, 9.0)) == 4
    assert clip_at([None, None], Moment(0.7)) == 0
    with pytest.raises(ValueError, match="no prepared window between 8 and 9 s"):
        clip_at(crops, Moment(0.0, 8.0, 9.0))


# -- the anchor cache


def encode(pictures):
    """A stand-in for an encoder: another vector for every picture."""
    coarse = torch.nn.functional.adaptive_avg_pool2d(pictures, 4).flatten(1)
    return torch.nn.functional.normalize(coarse, dim=-1)


def test_cached_anchors_are_the_live_ones(folder, tmp_path, monkeypatch):
    """View for view, across files of the cache, with a row whose anchor cannot be read."""
    monkeypatch.setattr(anchors, "ROWS", 4)
    data = opened(folder / "broken.jsonl", augment=SQUARES, views=3)
    cache = data.anchor_cache(0, tmp_path / "cache", "weights")
    assert cache.missing() == 33
    told = []
    cache.fill(encode, report=lambda done, total: told.append((done, total)))
    assert told[-1] == (33, 33)
    assert cache.missing() == 0
    live, cached = list(data.batches(0, 12)), list(data.batches(0, 12, anchors={0: cache}))
    for one, other in zip(live, cached, strict=True):
        assert other.embedded
        assert not one.embedded
        assert one.ids == other.ids
        assert torch.allclose(encode(one.inputs[0]), other.inputs[0], atol=1e-6)
        assert torch.equal(one.inputs[1], other.inputs[1])
        assert [failure.id for failure in one.failures] == [failure.id for failure in other.failures]
        assert other.inputs[0].dtype == torch.float32
    assert any(batch.failures for batch in cached)


def test_filling_goes_on_after_a_kill(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(anchors, "ROWS", 4)
    data = opened(folder / "scenes.jsonl", augment=SQUARES, views=2)
    data.anchor_cache(0, tmp_path / "whole", "weights").fill(encode)
    calls = []

    def killed(pictures):
        calls.append(len(pictures))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(pictures)

    with pytest.raises(KeyboardInterrupt):
        data.anchor_cache(0, tmp_path / "part", "weights").fill(killed)
    assert data.anchor_cache(0, tmp_path / "part", "weights").missing() == 22 - 8
    calls = [0] * 3
    cache = data.anchor_cache(0, tmp_path / "part", "weights")
    cache.fill(killed)
    assert sum(calls) == 22 - 8
    whole = {path.name: path.read_bytes() for path in sorted((tmp_path / "whole").rglob("*.npy"))}
    assert {path.name: path.read_bytes() for path in sorted((tmp_path / "part").rglob("*.npy"))} == whole


def test_processes_share_the_filling(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(anchors, "ROWS", 4)
    data = opened(folder / "scenes.jsonl", views=2)
    counts = []
    for rank in range(2):
        cache = data.anchor_cache(0, tmp_path / "cache", "weights")
        before = cache.missing()
        cache.fill(encode, rank=rank, world=2)
        counts.append(before - cache.missing())
    assert cache.missing() == 0
    assert min(counts) > 0


def test_anchors_made_otherwise_are_refused(folder, tmp_path):
    def cache(weights="weights", path="scenes.jsonl", **options):
        data = opened(folder / path, **{"augment": SQUARES, "views": 2, **options})
        return data.anchor_cache(0, tmp_path / "cache", weights)

    cache().fill(encode)
    assert cache(batch=3, replicate=4).missing() == 0  # these have nothing to do with it
    for change, told in (
        ({"weights": "others"}, "weights"),
        ({"seed": 1}, "seed"),
        ({"views": 3}, "views"),
        ({"aligned": False}, "alignment"),
        ({"path": "broken.jsonl"}, "rows"),
        ({"augment": {name: {**given, "crop": 0.5} for name, given in SQUARES.items()}}, "augmentation"),
    ):
        with pytest.raises(
            UserError, match=f"cache: the anchors were computed with other {told}; choose another folder, or delete this one"
        ):
            cache(**change)
    with pytest.raises(UserError, match=r"set pairs\.0\.views to their number"):
        cache(views=0)
    made = tmp_path / "cache" / "made.json"
    made.write_text(re.sub(', "crc32": "[0-9a-f]{8}"', "", made.read_text()).replace('"weights": "weights"', f'"weights": "{"0" * 16}"'))
    with pytest.raises(
        UserError, match="cache: the anchors were computed by an earlier version of imagebind; delete this folder to compute them again"
    ):
        cache()


def test_anchors_of_a_version_that_augments_otherwise_are_refused(folder, tmp_path):
    def cache(**options):
        return opened(folder / "scenes.jsonl", views=2, **options).anchor_cache(0, tmp_path / "cache", "weights")

    made = tmp_path / "cache" / "made.json"
    for options in ({"augment": SQUARES}, {}):
        cache(**options).fill(encode)
        made.write_text(
            json.dumps({key: value for key, value in json.loads(made.read_text()).items() if key not in ("augmentation rules", "crc32")})
        )
        if options:
            with pytest.raises(
                UserError, match="cache: the anchors were computed with other augmentation rules; choose another folder, or delete this one"
            ):
                cache(**options)
            shutil.rmtree(tmp_path / "cache")
        else:
            assert cache().missing() == 0  # nothing was varied, so nothing differs


def test_an_anchor_that_is_not_finite_stops_the_filling(folder, tmp_path):
    data = opened(folder / "scenes.jsonl", views=1)
    with pytest.raises(UserError, match="not finite"):
        data.anchor_cache(0, tmp_path / "cache", "weights").fill(lambda pictures: encode(pictures) / 0)


def test_reading_before_filling_is_told(folder, tmp_path):
    data = opened(folder / "scenes.jsonl", views=1)
    with pytest.raises(UserError, match="fill the cache first"):
        data.anchor_cache(0, tmp_path / "cache", "weights").read([0], [0])


# -- workers

JOB = """if True:
    import os, signal, sys, torch
    from imagebind_cli.weights import model_config
    from imagebind_cli.training.data import PairData
    from imagebind_cli.training.recipe import Recipe
    if __name__ == "__main__":
        os.setpgrp()
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: None)
        pair = dict(modalities=["image", "text"], data=[sys.argv[1]], batch=4)
        data = PairData(Recipe(model="tiny", pairs=[pair], run=dict(workers=2)), model_config.packaged_config("tiny").encoders)
        batches = data.batches(0, 1000)
        next(batches)
        os.killpg(0, signal.SIGINT)
        os.killpg(0, signal.SIGTERM)
        print(len([next(batches) for _ in range(40)]), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_live_as_long_as_the_process_that_trains(python, folder):
    """Ctrl-C and SIGTERM reach every process of a job, and the batches that are still wanted come. Killed outright, it leaves none behind."""
    done = python("-c", JOB, folder / "scenes.jsonl")
    assert (done.stdout, done.returncode) == ("40\n", -9)  # that it returns at all says that nobody holds its stdout any more


def test_no_room_in_shared_memory_is_one_line(python, folder, tmp_path):
    """A file size limit stands for a small /dev/shm: what a worker read finds no room. It used to wait for ever."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))"
    limited = f"{limit}; import runpy; runpy.run_module('imagebind_cli', run_name='__main__')"
    command = ["train", "--pairs", "image-text", "--model", "tiny", "--data", folder / "scenes.jsonl", "--batch", "4", "--device", "cpu"]
    command += ["--set", "run.workers=1", "--set", "run.steps=2", "--out", tmp_path / "run"]
    done = python("-c", limited, *command)
    assert done.returncode == 1
    assert "imagebind: no shared memory for the samples that a worker read (" in done.stderr
    assert done.stderr.rstrip().endswith("give it --shm-size 8g, or set run.workers=0")
    assert "Traceback" not in done.stderr


def test_shared_memory_too_small_for_any_worker_is_one_line(folder, tmp_path, imagebind, monkeypatch):
    monkeypatch.setattr("imagebind_cli.training.workers.SHARED_ROOM", 1 << 50)
    command = ["train", "--pairs", "image-text", "--model", "tiny", "--data", folder / "scenes.jsonl", "--batch", "4", "--device", "cpu"]
    done = imagebind(*command, "--set", "run.workers=1", "--set", "run.steps=2", "--out", tmp_path / "run")
    assert done.code == 1
    assert "too few for 1 workers; where shared memory is small" in done.err.splitlines()[-1]


def test_anchors_of_another_family_are_refused(folder, tmp_path):
    def cache():
        return opened(folder / "scenes.jsonl", views=2).anchor_cache(0, tmp_path / "cache", "weights")

    cache().fill(encode)
    made = tmp_path / "cache" / "made.json"
    record = {key: value for key, value in json.loads(made.read_text()).items() if key != "crc32"}
    assert record["family"] == "imagebind"
    made.write_text(json.dumps(record | {"family": "clip"}))
    with pytest.raises(UserError, match="cache: the anchors were computed with other family; choose another folder, or delete this one"):
        cache()
    del record["family"]  # of anchors from before there were families
    made.write_text(json.dumps(record))
    assert cache().missing() == 0
