"""Miniature datasets in their real layouts: a few files each, with labels that are easily checked by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from tests import generate
from tests.later import Later

matlab = Later("scipy.io")

SUN_SAMPLES = {
    "kv1/NYUdata/NYU0001": "kitchen",
    "kv2/kinect2data/000002_2014-05-26_14-23-37_260595134347_rgbf000103-resize": "living_room",
    "realsense/lg/2014_10_21-18_16_30-1311000073": "idk",
    "xtion/sun3ddata/brown_bm_1/brown_bm_1/0000001-000000020393": "office\n",
}
SUN_FOCAL = 529.5
EGO4D_HERTZ = 200


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def sounds(*paths: Path) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        generate.audio(path, seconds=0.5, seed=number)


def videos(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    generate.video(paths[0], seconds=0.5, sound=True)
    for path in paths[1:]:
        shutil.copy(paths[0], path)


def pictures(*paths: Path) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generate.pixels(number)).save(path, format="JPEG")


def esc50(root: Path) -> None:
    names = ["1-100032-A-0.wav", "2-105270-A-47.wav", "3-144510-A-30.wav", "5-202898-A-10.wav"]
    rows = ["1,0,dog,True", "2,47,airplane,False", "3,30,door_wood_knock,False", "5,10,rain,True"]
    lines = [f"{name},{row},100032,A" for name, row in zip(names, rows, strict=True)]
    write(root / "meta/esc50.csv", "\n".join(["filename,fold,target,category,esc10,src_file,take", *lines]) + "\n")
    sounds(*(root / "audio" / name for name in names))


def esc10(root: Path) -> None:
    folders = ["001 - Dog bark", "002 - Rain", "003 - Sea waves", "004 - Baby cry", "005 - Clock tick"]
    folders += ["006 - Person sneeze", "007 - Helicopter", "008 - Chainsaw", "009 - Rooster", "010 - Fire crackling"]
    sounds(*(root / folder / f"{1 + number % 5}-{17000 + number}-A.ogg" for number, folder in enumerate(folders)))
    write(root / folders[0] / "README.txt", "not a sound")


def audioset(root: Path) -> None:
    write(
        root / "class_labels_indices.csv",
        'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n2,/m/0bt9lr,"Dog"\n3,/m/03k3r,"Horse"\n',
    )
    write(
        root / "eval_segments.csv",
        "# Segments csv created Sun Mar  5 10:54:25 2017\n# num_ytids=4, num_segs=4\n# YTID, start_seconds, end_seconds, positive_labels\n"
        '--4gqARaEJE, 0.000, 10.000, "/m/0bt9lr,/m/09x0r"\n-0RWZT-miFs, 420.000, 430.000, "/m/03k3r"\n'
        'zzbTaK7CXJY, 30.000, 40.000, "/m/05zppz,/m/09x0r"\nGoneGoneGon, 1.500, 11.500, "/m/0bt9lr"\n',
    )
    sounds(root / "data/--4gqARaEJE_0_10000.flac", root / "data/more/Y-0RWZT-miFs.wav", root / "data/zzbTaK7CXJY_30.wav")


def vggsound(root: Path) -> None:
    write(
        root / "vggsound.csv",
        '---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,"waterfall, burbling",train\n--ABCDEFGHI,0,waterfall burbling,test\n'
        "-0BIyqJj9ZU,30,playing theremin,test\n",
    )
    sounds(
        root / "test/---g-f_I2yQ_000001.wav",
        root / "test/-0BIyqJj9ZU_000030_000040.wav",
        root / "test/--ABCDEFGHI.wav",
        root / "train/--0PQM4-hqg_000030.wav",
    )


def kinetics400(root: Path) -> None:
    write(
        root / "annotations/val.csv",
        'label,youtube_id,time_start,time_end,split\n"testifying","---QUuC4vJs",84,94,"val"\n"eating spaghetti","--3ouPhoy2A",20,30,"val"\n'
        '"testifying","--gone-gone",0,10,"val"\n',
    )
    videos(root / "val/---QUuC4vJs_000084_000094.mp4", root / "val/--3ouPhoy2A_000020_000030.mp4")


def clotho(root: Path) -> None:
    write(
        root / "clotho_captions_evaluation.csv",
        "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
        'Santa Motor.wav,A machine whines.,"A motor, far away.",Three.,Four.,Five.\n#1 rain.wav,Rain.,Drops.,It pours.,Wet.,Storm.\n',
    )
    sounds(root / "evaluation/Santa_Motor.wav", root / "evaluation/#1 rain.wav")


def audiocaps(root: Path) -> None:
    header = "audiocap_id,youtube_id,start_time,caption\n"
    rows = "103549,7fmOlUlwoNg,0,Constant rattling\n103548,7fmOlUlwoNg,0,Constant noise\n103541,6BJ455B1aAs,30,A rocket flies\n"
    write(root / "test.csv", header + rows + "103536,GoneGoneGon,30,A woman talks\n")
    sounds(root / "test/7fmOlUlwoNg_0_10000.flac", root / "test/6BJ455B1aAs_30.wav")


def msrvtt(root: Path) -> None:
    rows = 'ret0,msr9770,video9770,a person is connecting something\nret1,msr9771,video9771,"a little girl, playing"\n'
    write(root / "MSRVTT_JSFUSION_test.csv", "key,vid_key,video_id,sentence\n" + rows)
    videos(root / "videos/all/video9770.mp4", root / "videos/all/video9771.mp4")


def nyud(root: Path) -> None:
    """Five pictures of 6 x 4 pixels; picture i (from 1) is i metres away in its first row and i + 0.5 elsewhere. 5, 2 and 4 are of the test."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        depths = np.arange(1, 6, dtype=np.float32)[:, None, None] + np.full((5, 6, 4), 0.5, np.float32)  # MATLAB's axes: width, height
        depths[:, :, 0] -= 0.5
        file["depths"] = depths
        scenes = ["kitchen", "dining_room", "kitchen", "study_room", "home_office"]
        for number, scene in enumerate(scenes):
            file[f"#refs#/{number}"] = np.array([[ord(letter)] for letter in scene], np.uint16)
        references = [[file[f"#refs#/{number}"].ref for number in range(5)]]
        file.create_dataset("sceneTypes", data=np.array(references, dtype=h5py.ref_dtype))
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: PCWIN64".ljust(116))
    matlab.savemat(root / "splits.mat", {"trainNdxs": np.array([[1], [3]]), "testNdxs": np.array([[5], [2], [4]])})


def sunrgbd(root: Path) -> None:
    """Maps of 20 x 10 pixels, all 2000 mm away but for a corner at 1000 mm."""
    millimetres = np.full((10, 20), 2000, np.uint16)
    millimetres[0, 0] = 1000
    for name, scene in SUN_SAMPLES.items():
        folder = root / "SUNRGBD" / name
        write(folder / "scene.txt", scene)
        write(folder / "intrinsics.txt", f"{SUN_FOCAL} 0 365 0 {SUN_FOCAL} 265 0 0 1 ")
        (folder / "depth_bfx").mkdir()
        Image.fromarray(millimetres << 3 | millimetres >> 13).save(folder / "depth_bfx/0000103.png")
    stored = [f"/n/fs/sun3d/data/SUNRGBD/{name}" for name in SUN_SAMPLES]
    stored[1] += "/"  # as some of them are
    split = root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
    split.parent.mkdir(parents=True)
    cells = {"alltest": np.array([stored], object), "alltrain": np.array([stored[:1]], object)}
    matlab.savemat(split, cells)


def llvip(root: Path) -> None:
    """Two pictures of 100 x 80 pixels: one with two people, one that a person fills."""
    people = {"190001": [(10, 20, 30, 60), (50, 20, 70, 60)], "190002": [(5, 2, 100, 80)]}
    (root / "infrared/test").mkdir(parents=True)
    for number, (name, boxes) in enumerate(people.items()):
        Image.fromarray(generate.pixels(number, (100, 80))[..., 0]).convert("RGB").save(root / "infrared/test" / f"{name}.jpg")
        objects = "".join(
            f"<object><name>person</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
            for a, b, c, d in boxes
        )
        size = "<size><width>100</width><height>80</height><depth>3</depth></size>"
        write(root / f"Annotations/{name}.xml", f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>")


def motion(seconds: np.ndarray) -> np.ndarray:
    """What the sensor of every Ego4D video here reads at these times (t,), as (t, 6): slow waves, each channel another."""
    return np.stack([np.sin(2 * np.pi * 0.3 * (channel + 1) * seconds + channel) for channel in range(6)], axis=1)


def ego4d(root: Path) -> None:
    """Videos `cook` and `walk` count, with 15 and 2 narrated times; the others have two scenarios, no sensor, or no narration."""
    about = {"cook": (["Cooking"], True), "walk": (["Walking the dog / pet"], True), "both": (["Cooking", "Eating"], True)}
    about |= {"still": (["Eating"], False), "silent": (["Eating"], True)}
    entries = [{"video_uid": uid, "scenarios": scenarios, "has_imu": imu} for uid, (scenarios, imu) in about.items()]
    write(root / "ego4d.json", json.dumps({"version": "2.0", "videos": entries, "clips": []}))
    first = [{"timestamp_sec": 3.0 + second, "narration_text": "#C C cuts an onion"} for second in range(14)]
    second = [{"timestamp_sec": 3.0, "narration_text": "#C C moves"}, {"timestamp_sec": 1.25, "narration_text": "#C C looks around"}]
    cook = {"narration_pass_1": {"narrations": first}, "narration_pass_2": {"narrations": second}}
    walk = {"narration_pass_1": {"narrations": [{"timestamp_sec": 5}, {"timestamp_sec": 9}]}}
    write(root / "v2/annotations/narration.json", json.dumps({"cook": cook, "walk": walk, "both": cook, "still": cook}))
    times = np.arange(20 * EGO4D_HERTZ) / EGO4D_HERTZ
    columns = "component_idx,component_timestamp_ms,canonical_timestamp_ms,gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z"
    table = np.column_stack([np.zeros(len(times)), times * 1000, times * 1000, motion(times)[:, [3, 4, 5, 0, 1, 2]]])
    (root / "v2/imu").mkdir(parents=True)
    for video in ("cook", "walk", "both", "still", "silent"):
        np.savetxt(root / f"v2/imu/{video}.csv", table, "%.9g", delimiter=",", header=columns, comments="")


def imagenet(root: Path) -> None:
    """As on Kaggle; beside it a file of names, `names.txt`."""
    write(
        root / "LOC_synset_mapping.txt",
        "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\nn01484850 great white shark, white shark\n",
    )
    rows = "ILSVRC2012_val_00000001,n01484850 85 1 499 272 \nILSVRC2012_val_00000002,n01440764 1 2 3 4 n01440764 5 6 7 8 \n"
    write(root / "LOC_val_solution.csv", "ImageId,PredictionString\n" + rows)
    pictures(*(root / f"ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_0000000{number}.JPEG" for number in (1, 2)))
    write(root / "names.txt", "tench\ngoldfish\ngreat white shark\n")


def places365(root: Path) -> None:
    write(root / "categories_places365.txt", "/a/airfield 0\n/a/apartment_building/outdoor 1\n/z/zen_garden 2\n")
    write(root / "places365_val.txt", "Places365_val_00000001.jpg 2\nPlaces365_val_00000002.jpg 1\n")
    pictures(root / "val_256/Places365_val_00000001.jpg", root / "val_256/Places365_val_00000002.jpg")


TREES = {
    maker.__name__: maker
    for maker in (
        esc50,
        esc10,
        audioset,
        vggsound,
        kinetics400,
        clotho,
        audiocaps,
        msrvtt,
        nyud,
        sunrgbd,
        llvip,
        ego4d,
        imagenet,
        places365,
    )
}


# Localisation


def vggss(root: Path) -> None:
    """Three pictures of 40 x 30 pixels: two of one class, one of another; the third has two boxes. Of a fourth entry nothing is there."""
    entries = [
        {"file": "---g-f_I2yQ_000001", "class": "people marching", "bbox": [[0.0, 0.0, 0.5, 0.5]]},
        {"file": "-0BIyqJj9ZU_000030", "class": "people marching", "bbox": [[0.5, 0.5, 1.2, 1.0]]},
        {"file": "--ABCDEFGHI_000000", "class": "playing theremin", "bbox": [[0.0, 0.0, 0.25, 1.0], [0.25, 0.0, 0.5, 1.0]]},
        {"file": "GoneGoneGon_000007", "class": "sea waves", "bbox": [[0.1, 0.1, 0.2, 0.2]]},
    ]
    write(root / "vggss.json", json.dumps(entries))
    for number, entry in enumerate(entries[:3]):
        small_picture(root / "frames" / f"{entry['file']}.jpg", number)
    sounds(*(root / "audio" / f"{entry['file']}.wav" for entry in entries[:3]))


def small_picture(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(generate.pixels(seed, size)).save(path)


def flickr_soundnet(root: Path) -> None:
    """Two listed pictures with the boxes of three annotators each, of which two agree on the left half; one picture is not listed."""
    boxes = {"10000130166": [(0, 0, 128, 256), (0, 0, 128, 256), (128, 0, 256, 128)], "10000176364": [(64, 64, 192, 192)] * 3}
    for number, (name, of_annotators) in enumerate({**boxes, "10000199999": [(0, 0, 9, 9)]}.items()):
        parts = "".join(
            f"<annotator><bbox><id>{who}</id><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bbox></annotator>"
            for who, (a, b, c, d) in enumerate(of_annotators)
        )
        write(root / f"Annotations/{name}.xml", f"<annotation>{parts}</annotation>")
        small_picture(root / f"frames/{name}.jpg", number)
    sounds(*(root / f"audio/{name}.wav" for name in (*boxes, "10000199999")))
    write(root / "flickr_test.csv", "".join(f"{name}\n" for name in boxes))


def is3(root: Path) -> None:
    """One picture of two things, the left and the right half of it, each with a sound; masks beside the boxes are their upper halves."""
    rows, place = [], "/mnt/of/the/authors/"
    for number, thing in enumerate(("dog", "banjo")):
        name = f"dog_banjo_2689_{thing}"
        small_picture(root / f"images/{name}.jpg", 0)
        box = [112.0 * number, 0.0, 112.0 * (number + 1), 224.0]
        rows.append({"image": f"{place}images/{name}.jpg", "audio": f"{place}audio_wav/{name}.wav", "gt_box": box})
        mask = np.zeros((56, 56), np.uint8)
        mask[:28, number * 28 : (number + 1) * 28] = 255
        (root / "gt_segmentation").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / f"gt_segmentation/{name}.png")
    sounds(root / "audio_wav/dog_banjo_2689_dog.wav", root / "audio_wav/dog_banjo_2689_banjo.wav")
    write(root / "IS3_annotation.json", json.dumps(rows))


def avsbench(root: Path) -> None:
    """A test video of one source, whose masks are the left half, and one of several, nothing of which is heard in its last frame."""
    write(
        root / "Single-source/s4_meta_data.csv",
        "name,split,category\n--KCIeMcDOY_7000_12000,test,dog_barking\n-0aIJ_ABCDE_0_5000,train,dog_barking\n",
    )
    write(root / "Multi-sources/ms3_meta_data.csv", "video_id,split\n-1qpQZkRsXs,test\n")
    single, several = root / "Single-source/s4_data", root / "Multi-sources/ms3_data"
    left = np.zeros((24, 24), np.uint8)
    left[:, :12] = 255
    for number in range(1, 6):
        name = "--KCIeMcDOY_7000_12000"
        small_picture(single / f"visual_frames/test/dog_barking/{name}/{name}_{number}.png", number, (24, 24))
        small_picture(several / f"visual_frames/-1qpQZkRsXs/-1qpQZkRsXs.mp4_{number}.png", number, (24, 24))
        for place, mask in (
            (single / f"gt_masks/test/dog_barking/{name}/{name}_{number}.png", Image.fromarray(left).convert("1")),
            (several / f"gt_masks/test/-1qpQZkRsXs/-1qpQZkRsXs_{number}.png", Image.fromarray(left * (number < 5))),
        ):
            place.parent.mkdir(parents=True, exist_ok=True)
            mask.save(place)
    sounds(single / "audio_wav/test/dog_barking/--KCIeMcDOY_7000_12000.wav", several / "audio_wav/test/-1qpQZkRsXs.wav")


def imagenet_seg(root: Path) -> None:
    """Two pictures of 40 x 30 pixels in a MATLAB 7.3 file, whose foreground is the left and the lower half; beside it names, `names.txt`."""
    root.mkdir(parents=True, exist_ok=True)
    masks = np.zeros((2, 30, 40), np.uint8)
    masks[0, :, :20] = masks[1, 15:] = 1
    with h5py.File(root / "gtsegs_ijcv.mat", "w", userblock_size=512) as file:
        for number, mask in enumerate(masks):
            file[f"#refs#/img{number}"] = generate.pixels(number, (40, 30)).T
            file[f"#refs#/mask{number}"] = mask.T
            file.create_dataset(f"#refs#/gt{number}", data=np.array([[file[f"#refs#/mask{number}"].ref]], dtype=h5py.ref_dtype))
        for kind in ("img", "gt"):
            references = [[file[f"#refs#/{kind}{number}"].ref] for number in range(2)]
            file.create_dataset(f"value/{kind}", data=np.array(references, dtype=h5py.ref_dtype))
    with open(root / "gtsegs_ijcv.mat", "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116))
    write(root / "names.txt", "tench\ngoldfish\ngreat white shark\n")


LOCATED = {
    "avsbench": avsbench,
    "flickr-soundnet": flickr_soundnet,
    "imagenet-seg": imagenet_seg,
    "is3": is3,
    "vggss": vggss,
}

# Moments


def qvhighlights(root: Path) -> None:
    """Three queries on two videos of 4 s, one of which has ratings; the video of a fourth is missing. The test split has one query."""
    rows = [
        {"qid": 8737, "query": "A family plays", "duration": 4, "vid": "bP5KfdFJzC4_660.0_810.0", "relevant_windows": [[0, 2]]},
        {"qid": 12, "query": "A dog runs", "duration": 4, "vid": "bP5KfdFJzC4_660.0_810.0", "relevant_windows": [[0, 1], [3, 4]]},
        {"qid": 13, "query": "Rain", "duration": 4, "vid": "RoripwjYFp8_60.0_210.0", "relevant_windows": [[1, 3]]},
        {"qid": 14, "query": "Snow", "duration": 4, "vid": "GoneGoneGon_0.0_150.0", "relevant_windows": [[0, 4]]},
    ]
    rows[0] |= {"relevant_clip_ids": [0], "saliency_scores": [[4, 2, 1]]}
    write(root / "highlight_val_release.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write(root / "highlight_test_with_gt.jsonl", json.dumps(rows[2]) + "\n")
    for number, vid in enumerate(("bP5KfdFJzC4_660.0_810.0", "RoripwjYFp8_60.0_210.0")):
        (root / "videos").mkdir(exist_ok=True)
        generate.video(root / f"videos/{vid}.mp4", seconds=4, seed=number)


def charades(root: Path) -> None:
    write(root / "charades_sta_test.txt", "3MSZA 0.0 2.5##person turns a light on.\n3MSZA 2.0 4.0##a person opens the door.\n")
    (root / "Charades_v1_480").mkdir()
    generate.video(root / "Charades_v1_480/3MSZA.mp4", seconds=4)


def castella(root: Path) -> None:
    """Two recordings of 6 s, one of them called as `Y` and its id; the second caption has two moments."""
    moments = [
        {"local_caption": "A man uses the turn signal", "timestamps": [[1, 3]]},
        {"local_caption": "A door shuts", "timestamps": [[4, 6], [0, 1]]},
    ]
    entries = [
        {"yid": "-0awng26xQ8", "global_caption": "A man drives", "duration": 6, "num_moments": 2, "moments": moments},
        {"yid": "0aBcDeFgHiJ", "global_caption": "Rain", "duration": 6, "num_moments": 1, "moments": moments[:1]},
    ]
    write(root / "json/en/test.json", json.dumps(entries))
    (root / "audio").mkdir()
    generate.audio(root / "audio/-0awng26xQ8.wav", seconds=6)
    generate.audio(root / "audio/Y0aBcDeFgHiJ.wav", seconds=6, seed=1)


def unav100(root: Path) -> None:
    """A test video with two classes, one of them twice, and one of the training split."""
    events = [([0.5, 2.0], "dog barking "), ([3.0, 5.0], "dog barking"), ([1.0, 2.0], "people laughing")]
    annotations = [{"segment": segment, "label": label, "label_id": 3} for segment, label in events]
    videos = {"a_b-c": {"duration": 6.0, "subset": "test"}, "train0": {"duration": 6.0, "subset": "train"}}
    write(
        root / "unav100_annotations.json",
        json.dumps({"database": {vid: about | {"annotations": annotations} for vid, about in videos.items()}}),
    )
    (root / "raw").mkdir()
    generate.audio(root / "raw/a_b-c.wav", seconds=6)


def ave(root: Path) -> None:
    """Two test videos: an event of the whole, and one of half of it; a third event has no length."""
    write(
        root / "testSet.txt",
        "Church bell&RUhOCu3LNXM&good&0&4\nMale speech, man speaking&-5zANFBYzwQ&good&2&4\nBark&-5zANFBYzwQ&good&3&3\n",
    )
    write(root / "Annotations.txt", "Category&VideoID&Quality&StartTime&EndTime\nChurch bell&RUhOCu3LNXM&good&0&4\n")
    (root / "AVE").mkdir()
    for number, vid in enumerate(("RUhOCu3LNXM", "-5zANFBYzwQ")):
        generate.video(root / f"AVE/{vid}.mp4", seconds=4, seed=number, sound=True)


RECORDED = {maker.__name__: maker for maker in (ave, castella, charades, qvhighlights, unav100)}
