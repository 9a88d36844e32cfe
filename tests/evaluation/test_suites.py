"""Every suite on a miniature of its dataset in the real layout, with labels, folds, boxes, names and counts known beforehand."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites import LAYOUTS, Suite, open_suite, read_suite_recipe, suite_names
from imagebind_cli.evaluation.suites.payloads import PictureCrop, RecordingClip
from imagebind_cli.evaluation.suites.recipe import RECIPES
from imagebind_cli.registry import face
from imagebind_cli.sources import Failure, Item
from tests import trees

# ImageBind, tables 2 to 4, in percent.
PUBLISHED = {
    "audiocaps": {"R@1": 9.3, "R@10": 42.3},
    "audioset": {"map": 17.6},
    "clotho": {"R@1": 6.0, "R@10": 28.4},
    "ego4d": {"top1": 25.0},
    "esc10": {},
    "esc50": {"top1": 66.9},
    "imagenet": {"top1": 77.7},
    "kinetics400": {"top1": 50.0},
    "llvip": {"top1": 63.4},
    "msrvtt": {"R@1": 36.8, "R@5": 61.8, "R@10": 70.0},
    "nyud": {"top1": 54.0},
    "places365": {"top1": 45.4},
    "sunrgbd": {"top1": 35.1},
    "vggsound": {"top1": 27.8},
}
COUNTS = {  # table 1: classes and items
    "audioset": (527, 19048),
    "esc50": (50, 2000),
    "clotho": (None, 1045),
    "audiocaps": (None, 796),
    "vggsound": (309, 14073),
    "sunrgbd": (19, 4660),
    "nyud": (10, 653),
    "llvip": (2, 15809),
    "ego4d": (108, 68865),
}
LABELS = {  # the files that a suite cannot do without
    "audiocaps": ["test.csv"],
    "audioset": ["eval_segments.csv", "class_labels_indices.csv"],
    "clotho": ["clotho_captions_evaluation.csv", "evaluation"],
    "ego4d": ["ego4d.json", "v2/annotations/narration.json", "v2/imu"],
    "esc10": ["006 - Person sneeze"],
    "esc50": ["meta/esc50.csv", "audio"],
    "imagenet": ["LOC_synset_mapping.txt", "LOC_val_solution.csv", "ILSVRC"],
    "kinetics400": ["annotations/val.csv"],
    "llvip": ["infrared/test", "Annotations"],
    "msrvtt": ["MSRVTT_JSFUSION_test.csv"],
    "nyud": ["nyu_depth_v2_labeled.mat", "splits.mat"],
    "places365": ["categories_places365.txt", "places365_val.txt", "val_256"],
    "sunrgbd": ["SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", "SUNRGBD"],
    "vggsound": ["vggsound.csv"],
}
MEDIA = {  # one file of a dataset that is given out whole
    "clotho": "evaluation/#1 rain.wav",
    "esc50": "audio/3-144510-A-30.wav",
    "imagenet": "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000002.JPEG",
    "llvip": "Annotations/190002.xml",
    "msrvtt": "videos/all/video9771.mp4",
    "places365": "val_256/Places365_val_00000002.jpg",
    "sunrgbd": "SUNRGBD/kv1/NYUdata/NYU0001/scene.txt",
}

Open = Callable[..., Suite]


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them, to be read only."""
    root = tmp_path_factory.mktemp("datasets")
    for name, make in trees.TREES.items():
        make(root / name)
    return root


@pytest.fixture
def opened(miniatures: Path) -> Open:
    """A suite over its miniature."""

    def run(name: str, **options: Any) -> Suite:
        return open_suite(name, miniatures / name, needed(name, miniatures / name) | options)

    return run


def needed(name: str, root: Path) -> dict[str, Any]:
    """Options without which a miniature does not run: OpenCLIP's names are a thousand."""
    return {"names": root / "names.txt"} if name == "imagenet" else {}


def answers(suite: Suite) -> dict[str, tuple[list[str], str | None]]:
    """Each item's classes, by the name that stands first, and its fold."""
    return {item.id: ([suite.classes[number][1][0] for number in truth], fold) for item, truth, fold in suite.items()}


def payloads(suite: Suite) -> dict[str, Any]:
    return {item.id: item.payload for item, _, _ in suite.items()}


def notes(suite: Suite) -> str:
    return "\n".join(suite.notes)


# What the recipes say


def test_every_suite_has_a_recipe_a_layout_and_a_miniature():
    assert suite_names("zeroshot") == sorted(trees.TREES) == sorted(PUBLISHED)
    assert sorted({read_suite_recipe(name).layout for name in suite_names("zeroshot")}) == sorted(LAYOUTS)


def test_a_suite_reuses_a_layout_or_has_the_one_of_its_name(miniatures, tmp_path, monkeypatch):
    """A copy names `layout = "esc50"`; a file of the layout's own name need not."""
    text = (RECIPES / "esc50.toml").read_text()
    trees.write(tmp_path / "noises.toml", text)
    trees.write(tmp_path / "esc50.toml", text.replace('layout = "esc50"\n', ""))
    trees.write(tmp_path / "sounds.toml", text.replace('layout = "esc50"\n', ""))
    original = open_suite("esc50", miniatures / "esc50")
    for own in (str(tmp_path / "noises.toml"), str(tmp_path / "esc50.toml")):
        assert answers(open_suite(own, miniatures / "esc50")) == answers(original)
    with pytest.raises(UserError, match="unknown layout 'sounds'; choose from audiocaps, "):
        open_suite(str(tmp_path / "sounds.toml"), miniatures / "esc50")
    monkeypatch.setattr("imagebind_cli.evaluation.suites.recipe.RECIPES", tmp_path)  # as suites of the package
    assert suite_names("zeroshot") == ["esc50", "noises", "sounds"]
    assert answers(open_suite("noises", miniatures / "esc50")) == answers(open_suite("esc50", miniatures / "esc50")) == answers(original)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_published_figures_and_counts_are_the_papers(name, opened):
    suite, recipe = opened(name), read_suite_recipe(name)
    assert suite.published == PUBLISHED[name]
    assert ("ImageBind" in suite.source) == bool(PUBLISHED[name])
    assert all(figure.when.keys() <= recipe.options.keys() for figure in recipe.figures)
    if name in COUNTS:
        assert (recipe.paper_classes, recipe.paper_items) == COUNTS[name]
        assert f"the paper has {recipe.paper_items:,}" in notes(suite)  # no miniature has as many


def test_the_figures_depend_on_the_options(opened):
    assert opened("msrvtt", modalities="video").published == {"R@1": 36.1}
    assert opened("msrvtt", modalities="audio").published == {"R@1": 6.8, "R@5": 18.5, "R@10": 27.2}
    train = opened("nyud", split="train")
    assert train.published == {}
    assert "no figure is published for these options" in train.notes


def test_the_recipes_go_out_with_the_package():
    project = Path(__file__).parents[2]
    patterns = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["imagebind_cli"]
    packaged = {path for pattern in patterns for path in (project / "imagebind_cli").glob(pattern)}
    assert set(Path(str(RECIPES)).glob("*.toml")) <= packaged
    assert (project / "recipes/eval").resolve() == Path(str(RECIPES)).resolve()


def test_opening_suites_imports_no_torch(miniatures):
    code = (
        "import sys; from imagebind_cli.evaluation.suites import open_suite, suite_names\n"
        "for name in suite_names('zeroshot'):\n"
        f"    root = {str(miniatures)!r} + '/' + name\n"
        "    list(open_suite(name, root, {'names': root + '/names.txt'} if name == 'imagenet' else {}).items())\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_input_is_embedded(name, opened, tiny):
    suite = opened(name)
    items = [item for item, _, _ in suite.items()]
    assert len(items) == suite.count
    assert len({item.id for item in items}) == suite.count
    for modality in suite.weights or [suite.modality]:
        own = (Item(item.id, item.payload[modality] if suite.weights else item.payload) for item in items)
        results = list(tiny.embed_items(modality, own, workers=2, options=face(modality).read_options(suite.reading)))
        assert [result.reason for _, result in results if isinstance(result, Failure)] == []
        assert np.abs([np.linalg.norm(result.embeddings[0].vector) - 1 for _, result in results]).max() < 1e-5
    again = [item for item, _, _ in suite.items()]
    assert again == items


# Names in label files

OUTSIDE = ("../../secret", "/secret", "sub\\..\\..\\secret", "C:\\secret")
NAMED = {  # a dataset whose label file names media: the file, a name that it has, and the ending that the reader adds
    "clotho": ("clotho_captions_evaluation.csv", "Santa Motor.wav", ""),
    "esc10": ("meta/esc50.csv", "1-100032-A-0.wav", ""),
    "esc50": ("meta/esc50.csv", "1-100032-A-0.wav", ""),
    "imagenet": ("LOC_val_solution.csv", "ILSVRC2012_val_00000001", ".JPEG"),
    "msrvtt": ("MSRVTT_JSFUSION_test.csv", "video9770", ".mp4"),
    "places365": ("places365_val.txt", "Places365_val_00000001.jpg", ""),
}


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("name", NAMED)
def test_names_that_lead_outside_the_dataset_are_refused(name, outside, miniatures, tmp_path):
    labels, named, ending = NAMED[name]
    root = tmp_path / "data" / "set"
    shutil.copytree(miniatures / ("esc50" if name == "esc10" else name), root)
    (root / labels).write_text((root / labels).read_text().replace(named, outside, 1))
    (tmp_path / f"secret{ending}").write_bytes(b"of somebody else")
    with pytest.raises(UserError, match=f"{Path(labels).name}: names .*secret{ending}', which is outside .*, and is refused"):
        open_suite(name, root, needed(name, root))


@pytest.mark.parametrize("outside", ["SUNRGBD/../../../secret", "C:secret"])
def test_samples_of_sun_rgbd_outside_the_dataset_are_refused(outside, miniatures, tmp_path):
    root = tmp_path / "data" / "set"
    shutil.copytree(miniatures / "sunrgbd", root)
    trees.matlab.savemat(root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", {"alltest": np.array([[outside]], object)})
    trees.write(tmp_path / "secret/scene.txt", "bathroom")
    with pytest.raises(UserError, match=r"allsplit.mat: names '.*secret', which is outside .*SUNRGBD, and is refused"):
        open_suite("sunrgbd", root)


@pytest.mark.parametrize("name", ["audiocaps", "audioset", "kinetics400", "vggsound"])
def test_clips_are_looked_up_among_the_files_of_the_dataset(name, miniatures, tmp_path):
    """Their names are keys of what is there, and never paths."""
    root = tmp_path / "set"
    shutil.copytree(miniatures / name, root)
    (table,) = (root / labels for labels in LABELS[name] if "indices" not in labels)
    item = next(item for item, _, _ in open_suite(name, root).items())
    table.write_text(table.read_text().replace(item.id.rpartition("_")[0], "../secret"))
    shutil.copy(item.payload, tmp_path / f"secret{Path(item.payload).suffix}")
    assert all(Path(item.payload).is_relative_to(root) for item, _, _ in open_suite(name, root).items())
    assert "clips are missing, as ../secret" in notes(open_suite(name, root))


# Sounds


def test_esc50_numbers_classes_as_the_dataset_does(opened, miniatures):
    suite = opened("esc50")
    assert answers(suite) == {
        "1-100032-A-0.wav": (["dog"], "1"),
        "2-105270-A-47.wav": (["airplane"], "2"),
        "3-144510-A-30.wav": (["door wood knock"], "3"),
        "5-202898-A-10.wav": (["rain"], "5"),
    }
    with open(miniatures / "esc50/meta/esc50.csv") as file:
        assert [truth for _, truth, _ in suite.items()] == [(int(row["target"]),) for row in csv.DictReader(file)]
    assert len(suite.classes) == 50
    assert (suite.modality, suite.metric) == ("audio", "top1")
    assert suite.templates is None
    assert suite.files == [miniatures / "esc50/meta/esc50.csv"]


def test_esc50_writes_classes_as_words_or_as_the_dataset(opened):
    assert opened("esc50").classes[11] == ("sea_waves", ["sea waves"])
    assert opened("esc50", names="dataset").classes[11] == ("sea_waves", ["sea_waves"])


def test_esc10_in_its_own_folders(opened):
    suite = opened("esc10")
    assert answers(suite) == {
        "1-17000-A.ogg": (["dog"], "1"),
        "2-17001-A.ogg": (["rain"], "2"),
        "3-17002-A.ogg": (["sea waves"], "3"),
        "4-17003-A.ogg": (["crying baby"], "4"),
        "5-17004-A.ogg": (["clock tick"], "5"),
        "1-17005-A.ogg": (["sneezing"], "1"),
        "2-17006-A.ogg": (["helicopter"], "2"),
        "3-17007-A.ogg": (["chainsaw"], "3"),
        "4-17008-A.ogg": (["rooster"], "4"),
        "5-17009-A.ogg": (["crackling fire"], "5"),
    }
    assert "NOT FOUND: a figure" in notes(suite)


def test_esc10_as_a_part_of_esc50(miniatures):
    suite = open_suite("esc10", miniatures / "esc50")
    assert answers(suite) == {"1-100032-A-0.wav": (["dog"], "1"), "5-202898-A-10.wav": (["rain"], "5")}
    assert len(suite.classes) == 10


def test_audioset_has_several_classes_a_sound(opened, miniatures):
    suite = opened("audioset")
    assert answers(suite) == {
        "--4gqARaEJE_0": (["Speech", "Dog"], None),
        "-0RWZT-miFs_420": (["Horse"], None),
        "zzbTaK7CXJY_30": (["Speech", "Male speech, man speaking"], None),
    }
    data = miniatures / "audioset/data"
    expected = ["--4gqARaEJE_0_10000.flac", "more/Y-0RWZT-miFs.wav", "zzbTaK7CXJY_30.wav"]
    assert list(payloads(suite).values()) == [str(data / name) for name in expected]
    assert "1 of 4 clips are missing, as GoneGoneGon_1.5" in suite.notes
    assert suite.metric == "map"
    assert opened("audioset", synonyms="split").classes[1] == ("Male speech, man speaking", ["Male speech", "man speaking"])
    assert opened("audioset", clips="data/more").count == 1


def test_vggsound_takes_test_rows_and_classes_of_all(opened):
    suite = opened("vggsound")
    assert [name for name, _ in suite.classes] == ["people marching", "playing theremin", "waterfall burbling", "waterfall, burbling"]
    assert answers(suite) == {
        "---g-f_I2yQ_1": (["people marching"], None),
        "--ABCDEFGHI_0": (["waterfall burbling"], None),
        "-0BIyqJj9ZU_30": (["playing theremin"], None),
    }


def test_clotho_has_five_captions_a_sound(opened, miniatures):
    suite = opened("clotho")
    folder = miniatures / "clotho/evaluation"
    assert payloads(suite) == {"Santa Motor.wav": str(folder / "Santa_Motor.wav"), "#1 rain.wav": str(folder / "#1 rain.wav")}
    assert len(suite.captions) == 10
    assert suite.captions[1] == ("Santa Motor.wav#2", "A motor, far away.", "Santa Motor.wav")
    assert suite.captions[9] == ("#1 rain.wav#5", "Storm.", "#1 rain.wav")
    assert (suite.directions, suite.metric) == (["text->audio"], "recall")
    assert answers(suite) == {"Santa Motor.wav": ([], None), "#1 rain.wav": ([], None)}


def test_audiocaps_groups_captions_by_clip(opened):
    suite = opened("audiocaps")
    assert list(payloads(suite)) == ["7fmOlUlwoNg_0", "6BJ455B1aAs_30"]
    assert suite.captions == [
        ("7fmOlUlwoNg_0#1", "Constant rattling", "7fmOlUlwoNg_0"),
        ("7fmOlUlwoNg_0#2", "Constant noise", "7fmOlUlwoNg_0"),
        ("6BJ455B1aAs_30#1", "A rocket flies", "6BJ455B1aAs_30"),
    ]
    assert "captions of test.csv" in suite.notes
    assert "1 of 3 clips are missing, as GoneGoneGon_30" in suite.notes


def test_audiocaps_prefers_the_list_of_the_retrieval_benchmark(tmp_path):
    trees.audiocaps(tmp_path)
    trees.write(tmp_path / "retrieval_test.csv", "youtube_id,start_time,caption\n6BJ455B1aAs,30,A rocket\n")
    assert list(payloads(open_suite("audiocaps", tmp_path))) == ["6BJ455B1aAs_30"]
    assert open_suite("audiocaps", tmp_path, {"list": "test.csv"}).count == 2


# Pictures and videos


def test_kinetics400(opened, miniatures):
    suite = opened("kinetics400")
    assert answers(suite) == {"---QUuC4vJs_84": (["testifying"], None), "--3ouPhoy2A_20": (["eating spaghetti"], None)}
    assert suite.classes == [("eating spaghetti", ["eating spaghetti"]), ("testifying", ["testifying"])]
    assert "1 of 3 clips are missing, as --gone-gone_0" in suite.notes
    assert suite.reading == {"clips": 5, "crops": "3"}


def test_msrvtt_weighs_pictures_and_sound(opened, miniatures):
    suite = opened("msrvtt")
    path = str(miniatures / "msrvtt/videos/all/video9771.mp4")
    assert suite.weights == {"video": 0.95, "audio": 0.05}
    assert payloads(suite)["video9771"] == {"video": path, "audio": path}
    assert suite.captions[1] == ("video9771#1", "a little girl, playing", "video9771")
    sound = opened("msrvtt", modalities="audio", clips="videos")
    assert (sound.modality, sound.weights, payloads(sound)["video9771"]) == ("audio", {}, path)


def test_imagenet_in_one_folder(opened):
    suite = opened("imagenet")
    assert answers(suite) == {
        "ILSVRC2012_val_00000001.JPEG": (["great white shark"], None),
        "ILSVRC2012_val_00000002.JPEG": (["tench"], None),
    }
    assert [name for name, _ in suite.classes] == ["n01440764", "n01443537", "n01484850"]


def test_imagenet_in_a_folder_per_synset(tmp_path):
    trees.pictures(tmp_path / "val/n01484850/b.JPEG", tmp_path / "val/n01440764/a.JPEG")
    trees.write(tmp_path / "names.json", json.dumps(["tench", "great white shark"]))
    suite = open_suite("imagenet", tmp_path, {"names": tmp_path / "names.json"})
    assert answers(suite) == {"a.JPEG": (["tench"], None), "b.JPEG": (["great white shark"], None)}
    with pytest.raises(UserError, match=r"no LOC_synset_mapping\.txt"):
        open_suite("imagenet", tmp_path, {"names": "first"})


def test_imagenet_names_of_the_synsets(opened):
    assert opened("imagenet", names="first").classes[2] == ("n01484850", ["great white shark"])
    assert opened("imagenet", names="synonyms").classes[0] == ("n01440764", ["tench", "Tinca tinca"])


def test_imagenet_names_of_openclip(tmp_path):
    trees.imagenet(tmp_path)
    with pytest.raises(UserError, match="openclip: 1,000 of them; this ImageNet has 3 classes"):
        open_suite("imagenet", tmp_path)
    synsets = ["n01440764", "n01443537", "n01484850", *(f"n9{number:07d}" for number in range(997))]
    trees.write(tmp_path / "LOC_synset_mapping.txt", "".join(f"{synset} a name, another\n" for synset in synsets))
    classes = open_suite("imagenet", tmp_path).classes
    assert len(classes) == 1000
    assert [classes[number][1] for number in (0, 1, 2, 999)] == [["tench"], ["goldfish"], ["great white shark"], ["toilet paper"]]


def test_places365_reads_its_own_names(opened):
    suite = opened("places365")
    assert suite.classes == [
        ("/a/airfield", ["airfield"]),
        ("/a/apartment_building/outdoor", ["apartment building outdoor"]),
        ("/z/zen_garden", ["zen garden"]),
    ]
    assert answers(suite) == {
        "Places365_val_00000001.jpg": (["zen garden"], None),
        "Places365_val_00000002.jpg": (["apartment building outdoor"], None),
    }


# Depth


def test_nyud_makes_ten_classes_of_27_scenes(opened):
    suite = opened("nyud")
    assert [(item.id, suite.classes[truth[0]][0]) for item, truth, _ in suite.items()] == [
        ("0002", "dining room"),
        ("0004", "other"),
        ("0005", "home office"),
    ]
    other = dict(suite.classes)["other"]
    assert (len(suite.classes), len(other), sum(len(names) for _, names in suite.classes)) == (10, 18, 27)
    assert suite.names_rule == "max"
    assert opened("nyud", names_rule="mean").names_rule == "mean"
    assert list(payloads(opened("nyud", split="train"))) == ["0001", "0003"]


def test_nyud_reads_its_own_picture_the_right_way_up(opened, tiny):
    suite = opened("nyud")
    values = payloads(suite)["0004"]()
    assert values.shape == (4, 6)
    assert (values[0] == 4).all()
    assert (values[1:] == 4.5).all()
    (sample,) = tiny.read("depth", payloads(suite)["0004"], **suite.reading)
    assert (sample.facts["nearest"], sample.facts["farthest"], sample.facts["unit"]) == (4, 4.5, "metres")
    assert (sample.facts["sensor"], sample.facts["focal"], sample.facts["baseline"]) == ("kv1", 518.86, 0.075)


def test_sunrgbd_reads_scenes_sensors_and_true_metres(opened, tiny):
    suite = opened("sunrgbd")
    names = [name for name, scene in trees.SUN_SAMPLES.items() if scene != "idk"]
    assert answers(suite) == dict(zip(names, ((["kitchen"], None), (["living room"], None), (["office"], None)), strict=True))
    assert "1 of 4 samples are of none of the 19 scenes and left out" in suite.notes
    assert len(suite.classes) == 19
    assert opened("sunrgbd", names="dataset").classes[15] == ("living_room", ["living_room"])
    assert list(payloads(opened("sunrgbd", split="train"))) == names[:1]
    found = [next(iter(tiny.read("depth", path, **suite.reading))).facts for path in payloads(suite).values()]
    assert [(facts["nearest"], facts["farthest"], facts["focal"]) for facts in found] == [(1, 2, trees.SUN_FOCAL)] * 3
    assert [(facts["sensor"], facts["baseline"]) for facts in found] == [("kv1", 0.075), ("kv2", 0.075), ("xtion", 0.095)]


# Thermal


def boxes(suite: Suite) -> dict[str, tuple[int, int, int, int]]:
    return {id: payload.box for id, payload in payloads(suite).items()}


def apart(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    pixels = [{(x, y) for x in range(left, right) for y in range(top, bottom)} for left, top, right, bottom in (a, b)]
    return not pixels[0] & pixels[1]


def test_llvip_crops_people_and_as_much_background(opened, miniatures):
    suite = opened("llvip")
    found = boxes(suite)
    people = {"190001/person/0": (10, 20, 30, 60), "190001/person/1": (50, 20, 70, 60), "190002/person/0": (5, 2, 100, 80)}
    assert {id: box for id, box in found.items() if "person" in id} == people
    assert sorted(found.keys() - people.keys()) == ["190001/background/0", "190001/background/1"]  # nothing fits beside the third
    for left, top, right, bottom in (found["190001/background/0"], found["190001/background/1"]):
        assert (right - left, bottom - top) == (20, 40)
        assert 0 <= left < right <= 100
        assert 0 <= top < bottom <= 80
        assert all(apart((left, top, right, bottom), people[f"190001/person/{number}"]) for number in (0, 1))
    assert "3 people and 2 boxes of background; the paper has 7,931 and 7,878" in suite.notes
    assert "people without a box of background: 1;" in notes(suite)
    assert suite.classes == [("person", ["person", "man", "woman", "people"]), ("background", ["street", "road", "car", "light", "tree"])]
    assert all(suite.classes[truth[0]][0] == item.id.split("/")[1] for item, truth, _ in suite.items())
    whole = np.asarray(Image.open(miniatures / "llvip/infrared/test/190001.jpg"))[..., 0]
    assert np.array_equal(payloads(suite)["190001/person/1"](), whole[20:60, 50:70])
    with pytest.raises(ValueError, match=r"has 100 x 80 pixels; box \(90, 0, 101, 5\) reaches outside"):
        PictureCrop(miniatures / "llvip/infrared/test/190001.jpg", (90, 0, 101, 5))()


def test_llvip_draws_the_same_boxes_for_a_seed(opened):
    first = boxes(opened("llvip"))
    assert boxes(opened("llvip", seed="0")) == first
    assert boxes(opened("llvip", seed=1)) != first


def test_llvip_says_what_the_paper_leaves_open(opened):
    padded = boxes(opened("llvip", padding=0.1))
    assert padded["190001/person/0"] == (8, 16, 32, 64)
    assert padded["190002/person/0"] == (0, 0, 100, 80)
    overlapping = opened("llvip", overlap="yes")
    assert "190002/background/0" in boxes(overlapping)
    for option in ("seed", "overlap", "padding", "names_rule"):
        assert any("NOT STATED" in note and f"option {option}" in note for note in overlapping.notes)


# Motion


def clips(suite: Suite) -> set[str]:
    return set(payloads(suite))


def test_ego4d_keeps_single_scenarios_with_motion_and_narration(opened):
    suites = [opened("ego4d", split=split) for split in ("test", "train")]
    cook = {f"cook@{second:.3f}" for second in [1.25, *range(3, 17)]}
    assert clips(suites[0]) | clips(suites[1]) == cook | {"walk@5.000", "walk@9.000"}
    assert not clips(suites[0]) & clips(suites[1])
    assert suites[0].count == 2  # 17 times 68,865 / 579,007 is 2.02
    assert suites[0].classes == [("Cooking", ["Cooking"]), ("Walking the dog / pet", ["Walking the dog / pet"])]
    for item, truth, _ in suites[1].items():
        assert truth == (0 if item.id.startswith("cook") else 1,)
    assert "2 videos of one scenario; the paper has 7,485" in suites[0].notes
    assert clips(opened("ego4d")) == clips(suites[0])
    assert any(clips(opened("ego4d", seed=seed)) != clips(suites[0]) for seed in range(1, 5))


def test_ego4d_splits_by_video_and_takes_one_annotator(opened, tmp_path):
    first = opened("ego4d", passes="1", split="train")
    assert "cook@1.250" not in clips(first) | clips(opened("ego4d", passes="1"))
    trees.ego4d(tmp_path)
    about = {"videos": [{"video_uid": f"v{n}", "scenarios": ["Eating"], "has_imu": True} for n in range(10)]}
    trees.write(tmp_path / "ego4d.json", json.dumps(about))
    narrated = {f"v{n}": {"narration_pass_1": {"narrations": [{"timestamp_sec": t} for t in (3, 4, 5)]}} for n in range(10)}
    trees.write(tmp_path / "v2/annotations/narration.json", json.dumps(narrated))
    for n in range(10):
        shutil.copy(tmp_path / "v2/imu/cook.csv", tmp_path / f"v2/imu/v{n}.csv")
    test, train = (clips(open_suite("ego4d", tmp_path, {"split_by": "videos", "split": split})) for split in ("test", "train"))
    assert (len(test), len(train)) == (3, 27)
    assert not {clip.partition("@")[0] for clip in test} & {clip.partition("@")[0] for clip in train}


def test_ego4d_reads_the_seconds_around_the_time(opened, tiny):
    suite = opened("ego4d", split="train")
    assert suite.reading == {"rate": 400.0, "columns": "1,2,3,4,5,6", "accel": "m/s2", "gyro": "rad/s"}
    for id in ("cook@8.000", "cook@9.000"):
        payload = payloads(suite).get(id) or payloads(opened("ego4d"))[id]
        clip = payload()
        assert clip.shape == (6, 2000)
        expected = trees.motion(payload.centre - 2.5 + np.arange(2000) / 400).T
        assert np.abs(clip - expected).max() < 1e-4
        (sample,) = tiny.read("imu", payload, **suite.reading)
        assert sample.tensor.shape == (1, 6, 2000)
        assert sample.notes == ()  # nothing had to be assumed


def test_ego4d_fills_up_where_the_recording_ends(opened):
    path = next(iter(payloads(opened("ego4d")).values())).path
    early = RecordingClip(path, 1.25)()  # reaches 1.25 s before the first reading
    assert not early[:, :500].any()
    assert np.abs(early[:, 520:] - trees.motion(np.arange(20, 1500) / 400).T).max() < 1e-2
    late = RecordingClip(path, 19.0)()  # and 1.5 s past the last
    assert late[:, 1390].any()
    assert not late[:, 1401:].any()
    with pytest.raises(ValueError, match=r"no readings within 2\.5 s of 40 s"):
        RecordingClip(path, 40.0)()


# What is wrong with a tree


@pytest.fixture
def copied(miniatures: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A miniature to be spoiled."""

    def copy(name: str) -> Path:
        return shutil.copytree(miniatures / name, tmp_path / name)

    return copy


def reason(name: str, root: Path, **options: Any) -> str:
    """The one line a spoiled tree ends in."""
    with pytest.raises(UserError) as caught:
        open_suite(name, root, needed(name, root) | options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("name", "path"), [(name, path) for name, paths in LABELS.items() for path in paths])
def test_a_missing_label_file_or_folder_is_named(name, path, copied):
    root = copied(name)
    shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()
    told = reason(name, root)
    assert path in told
    assert str(root) in told


@pytest.mark.parametrize(("name", "path"), list(MEDIA.items()))
def test_a_missing_file_is_named(name, path, copied):
    root = copied(name)
    (root / path).unlink()
    told = reason(name, root)
    assert str(root / path) in told or (name == "msrvtt" and "video9771.mp4" in told)
    assert "1 of" in told


@pytest.mark.parametrize("name", ["audioset", "vggsound", "kinetics400", "audiocaps"])
def test_a_tree_without_any_clip_says_what_they_would_be_called(name, copied):
    root = copied(name)
    for path in [path for path in root.rglob("*") if path.suffix in (".wav", ".flac", ".mp4")]:
        path.unlink()
    assert "none of its" in reason(name, root)
    assert "would be called" in reason(name, root)
    assert "no folder nowhere" in reason(name, root, clips="nowhere")


@pytest.mark.parametrize(
    ("name", "path", "column"),
    [
        ("esc50", "meta/esc50.csv", "category"),
        ("clotho", "clotho_captions_evaluation.csv", "caption_4"),
        ("audiocaps", "test.csv", "youtube_id"),
        ("audioset", "class_labels_indices.csv", "mid"),
        ("kinetics400", "annotations/val.csv", "time_start"),
        ("msrvtt", "MSRVTT_JSFUSION_test.csv", "sentence"),
        ("imagenet", "LOC_val_solution.csv", "PredictionString"),
    ],
)
def test_a_wrong_column_is_named_with_those_there_are(name, path, column, copied):
    root = copied(name)
    text = (root / path).read_text()
    (root / path).write_text(text.replace(column, "unheard_of", 1))
    told = reason(name, root)
    assert f"no column {column!r}; it has " in told
    assert "unheard_of" in told


@pytest.mark.parametrize(
    ("name", "path", "old", "new", "words"),
    [
        ("esc50", "meta/esc50.csv", "airplane", "zeppelin", "row 2: unknown category 'zeppelin'"),
        ("esc50", "meta/esc50.csv", ",airplane,False,100032,A", "", "row 2 has no category"),
        ("audioset", "eval_segments.csv", "/m/03k3r", "/m/none", "row 2: label '/m/none' is not in class_labels_indices.csv"),
        ("audioset", "eval_segments.csv", "420.000", "soon", "row 2: start is 'soon', which is not a number"),
        ("audiocaps", "test.csv", "7fmOlUlwoNg,0", "7fmOlUlwoNg,x", "row 1: start_time is 'x', which is not a number"),
        ("ego4d", "ego4d.json", "has_imu", "has_eyes", "video_uid, scenarios and has_imu"),
        ("ego4d", "ego4d.json", "{", "", "not JSON"),
        ("ego4d", "v2/annotations/narration.json", "timestamp_sec", "time", "a narration without timestamp_sec"),
        ("llvip", "Annotations/190001.xml", "<xmin>10", "<xmin>ten", "not an annotation of PASCAL VOC"),
        ("llvip", "Annotations/190001.xml", "</annotation>", "", "not an annotation of PASCAL VOC"),
        ("llvip", "Annotations/190002.xml", "<width>100</width>", "", "no size/width"),
        ("places365", "places365_val.txt", " 2", " 7", "is of class 7; there are 3"),
        ("places365", "places365_val.txt", " 2", "", "places365_val.txt:1: a name and a number are needed"),
        ("imagenet", "LOC_val_solution.csv", "n01484850", "n00000000", "synset n00000000 is not in LOC_synset_mapping.txt"),
        ("imagenet", "names.txt", "goldfish\n", "", "2 of them; this ImageNet has 3 classes"),
    ],
)
def test_a_wrong_label_is_named(name, path, old, new, words, copied):
    root = copied(name)
    text = (root / path).read_text()
    assert old in text
    (root / path).write_text(text.replace(old, new, 1))
    assert words in reason(name, root)


def test_a_row_with_a_comma_too_many_is_refused(copied):
    root = copied("audiocaps")
    text = (root / "test.csv").read_text()
    (root / "test.csv").write_text(text.rstrip() + ", and more\n")
    assert "columns; put a cell that holds a comma between quotation marks" in reason("audiocaps", root)
    (root / "test.csv").write_text(text + '"9,x')
    assert "a quotation mark opens here and is never closed" in reason("audiocaps", root)


def test_files_of_another_kind_are_refused(copied):
    root = copied("nyud")
    (root / "splits.mat").write_bytes(b"not MATLAB" * 20)
    assert "splits.mat: not a readable MATLAB 5 file" in reason("nyud", root)
    trees.matlab.savemat(root / "splits.mat", {"elsewhere": [1]})
    assert "no testNdxs; it has elsewhere" in reason("nyud", root)
    trees.matlab.savemat(root / "splits.mat", {"testNdxs": [[9]]})
    assert "picture 9; nyu_depth_v2_labeled.mat has 5" in reason("nyud", root)
    (root / "nyu_depth_v2_labeled.mat").write_bytes(b"")
    assert "not a MATLAB 7.3 file" in reason("nyud", root)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = [1]
    assert "no sceneTypes or depths; it has images" in reason("nyud", root)
    root = copied("esc50")
    (root / "meta/esc50.csv").write_bytes(b"\xff\xfe\x00")
    assert "not a text file in UTF-8" in reason("esc50", root)


def test_an_empty_list_is_nothing_to_run(copied):
    root = copied("esc50")
    trees.write(root / "meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take\n")
    assert "nothing to run" in reason("esc50", root)
    trees.write(root / "meta/esc50.csv", "")
    assert "no column 'filename'; it has none" in reason("esc50", root)


def test_an_item_counts_once(copied):
    root = copied("vggsound")
    (root / "vggsound.csv").write_text((root / "vggsound.csv").read_text() + "---g-f_I2yQ,1,playing theremin,test\n")
    suite = open_suite("vggsound", root)
    assert answers(suite)["---g-f_I2yQ_1"] == (["people marching"], None)
    assert [suite.count, list(answers(suite))[0]] == [3, "---g-f_I2yQ_1"]
    assert "rows with an item that came before, left out: 1" in suite.notes


def test_a_root_one_folder_too_high_is_told(miniatures, tmp_path):
    shutil.copytree(miniatures / "esc50", tmp_path / "ESC-50-master")
    assert f"is the root {tmp_path / 'ESC-50-master'}?" in reason("esc50", tmp_path)
    assert "no such folder" in reason("esc50", tmp_path / "nowhere")


def test_a_broken_picture_fails_alone(copied, tiny):
    root = copied("llvip")
    (root / "infrared/test/190002.jpg").write_bytes(b"torn")
    suite = open_suite("llvip", root)
    results = list(tiny.embed_items("thermal", (item for item, _, _ in suite.items())))
    assert [isinstance(result, Failure) for _, result in results] == [item.id.startswith("190002") for item, _, _ in suite.items()]


# Names, options and recipes of one's own


def test_unknown_suites_and_options_are_told_with_the_choices(miniatures):
    assert "unknown suite 'esc51'; choose from audiocaps, audioset" in reason("esc51", miniatures)
    assert "suite esc50 has no option 'fold'; it has names" in reason("esc50", miniatures / "esc50", fold=1)
    assert "unknown names 'short'; choose from words, dataset" in reason("esc50", miniatures / "esc50", names="short")
    assert "seed is 'x'; a whole number is needed" in reason("llvip", miniatures / "llvip", seed="x")
    assert "seed is -1; at least 0 is needed" in reason("llvip", miniatures / "llvip", seed="-1")
    assert "padding is nan; at least 0 is needed" in reason("llvip", miniatures / "llvip", padding="nan")
    assert "names 'none.txt': no such file, and not one of openclip" in reason("imagenet", miniatures / "imagenet", names="none.txt")


def test_a_recipe_of_ones_own(miniatures, tmp_path):
    text = (Path(str(RECIPES)) / "esc50.toml").read_text()
    own = trees.write(tmp_path / "mine.toml", text.replace('dog = ["dog"]', 'dog = ["dog", "hound"]'))
    suite = open_suite(str(own), miniatures / "esc50")
    assert suite.classes[0] == ("dog", ["dog", "hound"])
    for old, new, words in [
        ("paper_items", "papers_items", "unknown key 'papers_items'; the nearest known one is 'paper_items'"),
        ("help", "halp", "unknown key 'options.names.halp'; the nearest known one is 'help'"),
        ("2000", '"many"', "paper_items: "),
        ('layout = "esc50"', 'layout = "esc5"', "unknown layout 'esc5'; choose from"),
        ("[classes]", "[classes", "Expected"),
    ]:
        trees.write(own, text.replace(old, new, 1))
        assert words in reason(str(own), miniatures / "esc50")
    assert "No such file" in reason(str(tmp_path / "none.toml"), miniatures / "esc50")


def test_the_page_names_every_suite_and_option():
    page = (Path(__file__).parents[2] / "docs/suites.md").read_text()
    for name in suite_names("zeroshot"):
        assert f"`{name}`" in page
        assert all(f"`{option}`" in page for option in read_suite_recipe(name).options)
        assert all(str(value) in page for value in PUBLISHED[name].values())
