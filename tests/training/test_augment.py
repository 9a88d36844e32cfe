"""Augmentation by known answers: where every pixel goes, what every colour becomes, how often, and that a pair's pictures stay over each other."""

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms import RandomErasing, RandomResizedCrop

from imagebind_cli.media.picture_operations import COLOURS, DISTORTIONS
from imagebind_cli.media.views import Crop, View
from imagebind_cli.media.windows import Moment, windows
from imagebind_cli.options.modalities import OPTIONS, flags
from imagebind_cli.readers import input_record, read_source
from imagebind_cli.registry import face
from imagebind_cli.training.augment import AMOUNTS, draw_place, draw_view, mask_frequencies, turn_sensors
from imagebind_cli.training.inputs import augment_keys
from imagebind_cli.training.recipe import MOVES_PIXELS, AugmentRecipe
from imagebind_cli.weights import model_config
from tests.generate import audio, pixels, video

TINY = model_config.packaged_config("tiny").encoders
STRONG = AugmentRecipe(crop=0.2, flip=0.5, randaugment=(9, 0.5), colour_jitter=0.4, erase=0.25)
PLACES_ONLY = AugmentRecipe(crop=0.2, flip=0.5, randaugment=(9, 0.5))


def picture(values):
    return Image.fromarray(np.ascontiguousarray(values))


def shown(view, values, size=224):
    return np.asarray(view.picture(picture(values), size)).astype(int)


def columns_and_rows(width, height):
    """A picture whose red says the column and whose green says the row, both from 0 to 255."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([across, down, np.zeros_like(across)], axis=-1).round().astype(np.uint8)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """The same scene four times: a picture, and maps of its columns and its rows, as disparity, thermal counts, and half the size."""
    folder = tmp_path_factory.mktemp("scene")
    seen = columns_and_rows(320, 240)
    Image.fromarray(seen).save(folder / "picture.png")
    half = columns_and_rows(160, 120)
    for axis, name in enumerate(("columns", "rows")):
        np.save(folder / f"{name}.npy", 1 + seen[..., axis] / 255 * 70)  # disparity in pixels, none missing and none cut off
        Image.fromarray(seen[..., axis]).save(folder / f"{name}.png")
        np.save(folder / f"half-{name}.npy", 1 + half[..., axis].astype(np.float64) / 255 * 70)
    return folder


def read_as(modality, source, **options):
    return read_source(face(modality), source, TINY[face(modality).encoder], face(modality).read_options(options))


def read(modality, path, view, **options):
    (sample,) = read_as(modality, str(path), **options, view=view)
    return sample.tensor[0]


def colours(tensor):
    config = TINY["vision"]
    return tensor * torch.tensor(config.std).view(3, 1, 1) + torch.tensor(config.mean).view(3, 1, 1)


DISPARITY = {"depth_format": "disparity", "depth_normalise": "none"}


@pytest.mark.parametrize("seed", range(12))
def test_depth_and_thermal_stay_over_the_picture(scene, seed):
    """Crop, mirror, and RandAugment's rotations, shears and shifts: where the picture shows a place, the maps show the same place."""
    view = draw_view(PLACES_ONLY, 5, seed)
    view = View(view.crops, False, view.mirror, tuple((name, amount) for name, amount in view.operations if name in DISTORTIONS))
    if seed >= 6:  # by hand, so that all of them come
        view = View(view.crops, False, bool(seed % 2), (("rotate", 25.0 - 8 * seed), ("shear_x", 0.2), ("translate_y", -0.1)))
    seen = colours(read("image", scene / "picture.png", view))
    inside = seen[2] < 0.002  # blue is 0 in the picture and 128 where there is none
    assert inside.float().mean() > 0.3
    for axis, name in enumerate(("columns", "rows")):
        disparity = read("depth", scene / f"{name}.npy", view, **DISPARITY)[0]
        half = read("depth", scene / f"half-{name}.npy", view, **DISPARITY)[0]
        thermal = read("thermal", scene / f"{name}.png", view)[0]
        expected = seen[axis][inside]
        assert ((disparity * 75 - 1) / 70)[inside].sub(expected).abs().max() < 3 / 255  # each of three steps rounds the picture to 8 bits
        assert thermal[inside].sub(expected).abs().max() < 3 / 255
        assert ((half * 75 - 1) / 70)[inside].sub(expected).abs().max() < 4 / 255  # a pixel of it is two of the picture's


def test_other_views_of_the_two_do_not_fit(scene):
    """The test above can fail: a depth map in another view is somewhere else."""
    seen = colours(read("image", scene / "picture.png", draw_view(PLACES_ONLY, 5, 1)))
    other = read("depth", scene / "columns.npy", draw_view(PLACES_ONLY, 5, 2), **DISPARITY)[0]
    assert ((other * 75 - 1) / 70).sub(seen[0]).abs().mean() > 0.05


def test_a_crop_is_the_part_it_says():
    """A quarter of the area, square in pixels of a 320 x 240 picture, at the right and lower edge."""
    crop = Crop(0.25, 1.0, 1.0, 1.0)
    side = (0.25 * 320 * 240) ** 0.5
    assert crop.box(320, 240) == pytest.approx((320 - side, 240 - side, 320, 240))
    assert Crop(1.0, 1.0, 0, 0).box(320, 240) is None
    seen = shown(View((crop,)), columns_and_rows(320, 240), 100)
    assert seen[0, 0, :2] == pytest.approx([255 * (1 - side / 320), 255 * (1 - side / 240)], abs=2)
    assert seen[-1, -1, :2] == pytest.approx([255, 255], abs=2)


def test_without_a_crop_that_fits_the_middle_is_taken():
    seen = shown(View((Crop(1.0, 0.75, 0, 0),)), columns_and_rows(400, 100), 64)  # 4:3 of a 4:1 picture
    assert seen[:, 0, 0].mean() == pytest.approx(255 * (200 - 66.7) / 400, abs=2)
    assert seen[0, :, 1].mean() == pytest.approx(0, abs=2)
    square = shown(View(), columns_and_rows(400, 100), 64)
    assert (square[:, 0, 0].mean(), square[:, -1, 0].mean()) == pytest.approx((255 * 150 / 400, 255 * 250 / 400), abs=2)


def test_crops_are_spread_as_torchvisions():
    """Area, ratio, left edge and top edge of RandomResizedCrop, by their quantiles."""
    torch.manual_seed(0)
    blank = Image.new("L", (320, 240))
    theirs = np.array([RandomResizedCrop.get_params(blank, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(3000)], float)  # top, left, h, w
    views = [draw_view(AugmentRecipe(crop=0.08), 0, number) for number in range(3000)]
    ours = np.array([view._box(320, 240) for view in views])
    ours = np.stack([ours[:, 1], ours[:, 0], ours[:, 3] - ours[:, 1], ours[:, 2] - ours[:, 0]], axis=1)
    levels = np.linspace(0.05, 0.95, 10)
    for column in range(4):
        assert np.abs(np.quantile(theirs[:, column], levels) - np.quantile(ours[:, column], levels)).max() < 0.05 * 320


def test_mirror_and_scaling():
    values = pixels(3, (300, 200))
    plain = shown(View(), values)
    assert np.array_equal(shown(View(mirror=True), values), plain[:, ::-1])
    middle = picture(values).crop((50, 0, 250, 200))
    assert np.array_equal(plain, np.asarray(middle.resize((224, 224), Image.Resampling.BILINEAR)))
    cubic = np.asarray(middle.resize((224, 224), Image.Resampling.BICUBIC))
    assert np.array_equal(shown(View(bicubic=True), values)[4:-4, 4:-4], cubic[4:-4, 4:-4])  # at its edges it looks past the crop
    assert not np.array_equal(plain[4:-4, 4:-4], cubic[4:-4, 4:-4])


VALUES = pixels(1, (64, 64))


def after(name, amount, values=VALUES):
    return shown(View(operations=((name, amount),)), values, len(values))


def test_distortions_move_pixels_where_they_should():
    values = VALUES.astype(int)
    assert np.array_equal(after("rotate", 90.0), np.rot90(values))
    moved = after("translate_x", 0.25)
    assert np.array_equal(moved[:, :48], values[:, 16:])
    assert (moved[:, 49:] == 128).all()
    moved = after("translate_y", -0.25)
    assert np.array_equal(moved[16:], values[:-16])
    assert (moved[:15] == 128).all()
    slanted = after("shear_x", 0.5)  # row y shows what lay y / 2 (at its middle) further right
    for row in (10, 31):
        at = np.arange(20) + (row + 0.5) / 2
        left = np.floor(at).astype(int)
        share = (at - left)[:, None]
        expected = values[row, left] * (1 - share) + values[row, left + 1] * share
        assert slanted[row, :20] == pytest.approx(expected, abs=1.5)
    across = after("shear_x", 0.5, VALUES.transpose(1, 0, 2)).transpose(1, 0, 2)
    assert after("shear_y", 0.5) == pytest.approx(across, abs=1)  # torchvision's matrix has a 1 that is a hair less


def test_a_map_is_0_where_it_was_moved_away():
    plane = View(operations=(("translate_x", 0.25),)).plane(np.ones((64, 64)), 64)
    assert (plane[:, :48] == 1).all()
    assert (plane[:, 49:] == 0).all()


def test_colours_leave_maps_alone():
    values = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    for name in COLOURS:
        assert View(operations=((name, 0.3),)).plane(values, 64) == pytest.approx(values, abs=1e-6)


def test_each_augmentation_of_a_picture_is_marked_if_it_moves_pixels():
    strong = {
        "crop": 0.1,
        "interpolation": "bicubic",
        "flip": 1.0,
        "colour_jitter": 0.5,
        "randaugment": (9, 0.5),
        "erase": 1.0,
        "recolour": 1.0,
    }
    assert list(strong) == augment_keys("image")
    plane = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    views = {name: [draw_view(AugmentRecipe(**{name: value}), seed) for seed in range(9)] for name, value in strong.items()}
    changing = {name for name, drawn in views.items() if any(np.abs(view.plane(plane, 64) - plane).max() > 1e-6 for view in drawn)}
    assert changing - {"erase"} == set(AugmentRecipe.marked(MOVES_PIXELS))


def test_colours_become_what_they_should():
    values = VALUES.astype(int)
    tensor = torch.from_numpy(VALUES.copy()).permute(2, 0, 1)

    def torchvisions(result):
        return result.permute(1, 2, 0).numpy().astype(int)

    assert after("brightness", 1.5) == pytest.approx((values * 1.5).clip(0, 255), abs=1)
    for name, function in (("contrast", F.adjust_contrast), ("saturation", F.adjust_saturation), ("sharpness", F.adjust_sharpness)):
        assert after(name, 0.4) == pytest.approx(torchvisions(function(tensor, 0.4)), abs=2), name
        assert after(name, 1.6) == pytest.approx(torchvisions(function(tensor, 1.6)), abs=2), name
    assert np.array_equal(after("posterize", 3), values & 0b11100000)
    assert np.array_equal(after("posterize", 8), values)
    assert np.array_equal(after("solarize", 100), np.where(values < 100, values, 255 - values))
    assert np.array_equal(after("solarize_add", 40), np.where(values < 128, values + 40, values))
    assert np.array_equal(after("invert", 0), 255 - values)
    assert after("autocontrast", 0) == pytest.approx(torchvisions(F.autocontrast(tensor)), abs=1)
    assert after("equalize", 0) == pytest.approx(torchvisions(F.equalize(tensor)), abs=1)


def test_hue_turns_the_circle():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    assert after("hue", 1 / 3, red)[0, 0] == pytest.approx([0, 200, 0], abs=5)
    assert after("hue", -1 / 3, red)[0, 0] == pytest.approx([0, 0, 200], abs=5)
    assert after("hue", 0.5, red)[0, 0] == pytest.approx([0, 200, 200], abs=5)


def test_erased_is_black_before_it_is_normalised(scene):
    view = View(erased=(0.25, 0.5, 0.5, 1.0))
    image, depth = read("image", scene / "picture.png", view), read("depth", scene / "columns.npy", view, depth_format="disparity")
    black = -torch.tensor(TINY["vision"].mean) / torch.tensor(TINY["vision"].std)
    assert torch.allclose(image[:, 112:, 56:112], black.view(3, 1, 1).expand(3, 112, 56))
    assert torch.allclose(depth[0, 112:, 56:112], torch.tensor(-0.0418 / 0.0295))
    plain = read("image", scene / "picture.png", View())
    untouched = torch.ones(224, 224, dtype=torch.bool)
    untouched[112:, 56:112] = False
    assert torch.equal(image[:, untouched], plain[:, untouched])


def test_rectangles_are_spread_as_torchvisions():
    torch.manual_seed(0)
    blank = torch.zeros(1, 224, 224)
    theirs = np.array([RandomErasing.get_params(blank, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(3000)]) / 224  # top, left, h, w
    drawn = [draw_view(AugmentRecipe(erase=1.0), 0, number).erased for number in range(3000)]
    ours = np.array([(top, left, bottom - top, right - left) for left, top, right, bottom in drawn])
    levels = np.linspace(0.05, 0.95, 10)
    for column in range(4):
        assert np.abs(np.quantile(theirs[:, column], levels) - np.quantile(ours[:, column], levels)).max() < 0.05


def test_how_often_and_how_much():
    """Mirror, erasing and RandAugment as the recipe says: two operations, each carried out half of the time, at level 9 with deviation 0.5."""
    views = [draw_view(STRONG, 0, number) for number in range(4000)]
    assert np.mean([view.mirror for view in views]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([view.erased is not None for view in views]) == pytest.approx(0.25, abs=0.03)
    drawn = [view.operations[:-4] for view in views]  # the last four are the colour jitter
    assert np.bincount([len(some) for some in drawn]) / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    names = [name for some in drawn for name, _ in some]
    assert set(names) == set(AMOUNTS)
    assert np.bincount([list(AMOUNTS).index(name) for name in names]) / len(names) == pytest.approx(1 / 15, abs=0.02)
    turns = np.array([amount for some in drawn for name, amount in some if name == "rotate"])
    assert np.mean(turns > 0) == pytest.approx(0.5, abs=0.12)
    assert np.abs(turns).mean() == pytest.approx(27, abs=0.5)  # 30 degrees at level 10
    assert np.abs(turns).std() == pytest.approx(1.5, abs=0.4)
    assert np.abs(turns).max() <= 30
    jitter = [dict(view.operations[-4:]) for view in views]
    for name, middle in (("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0)):
        amounts = np.array([one[name] for one in jitter])
        assert (amounts.min(), amounts.max()) == pytest.approx((middle - 0.4, middle + 0.4), abs=0.01)
    assert len({tuple(name for name, _ in view.operations[-4:]) for view in views}) == 24  # in any order


def test_a_level_is_as_strong_as_published():
    """The fifteen operations at RandAugment's level 10, as its increasing form has them."""
    strongest = {name: (amount(1.0, 1), amount(1.0, -1)) for name, amount in AMOUNTS.items()}
    assert strongest["rotate"] == (30, -30)
    assert strongest["shear_x"] == strongest["shear_y"] == (0.3, -0.3)
    assert strongest["translate_x"] == strongest["translate_y"] == (0.45, -0.45)
    assert (
        strongest["brightness"] == strongest["contrast"] == strongest["saturation"] == strongest["sharpness"] == (1.9, pytest.approx(0.1))
    )
    assert (strongest["posterize"][0], strongest["solarize"][0], strongest["solarize_add"][0]) == (0, 0, 110)
    assert all(AMOUNTS[name](0.0, 1) in (0, 1, 4, 256) for name in AMOUNTS)
    assert set(AMOUNTS) <= {*DISTORTIONS, *COLOURS}


def test_each_part_is_drawn_for_itself():
    full, less = draw_view(STRONG, 0, 3), draw_view(STRONG.model_copy(update={"flip": 0.0, "randaugment": None}), 0, 3)
    assert (full.crops, full.erased, full.operations[-4:]) == (less.crops, less.erased, less.operations)
    assert full == draw_view(STRONG, 0, 3)
    assert full != draw_view(STRONG, 0, 4) != draw_view(STRONG, 1, 4)


def test_frequencies_are_masked_in_one_band():
    spectrogram = torch.randn(1, 128, 6) + 9
    widths = []
    for number in range(600):
        masked = mask_frequencies(spectrogram, 12, 0, number)
        rows = (masked == 0).all(-1)[0].nonzero()[:, 0]
        widths.append(len(rows))
        if len(rows):
            assert rows[-1] - rows[0] == len(rows) - 1
        kept = (masked != 0).any(-1)[0]
        assert torch.equal(masked[:, kept], spectrogram[:, kept])
    assert np.bincount(widths, minlength=13) / 600 == pytest.approx(1 / 13, abs=0.04)


def test_sensors_are_turned_together():
    """Lengths of both vectors and the angle between them stay, at every moment, and nothing else does; the normalisation is undone and done again."""
    mean, std = (8.0, -0.3, 0.4, 0.0, 0.1, 0.0), (5.0, 5.0, 4.0, 0.5, 0.5, 0.3)
    centre, scale = (torch.tensor(values)[:, None] for values in (mean, std))
    readings = torch.randn(1, 6, 50)
    before = readings * scale + centre
    angles = []
    for number in range(400):
        turned = turn_sensors(readings, 10.0, mean, std, 0, number)
        after = turned * scale + centre
        for first, second in ((slice(3), slice(3)), (slice(3, 6), slice(3, 6)), (slice(3), slice(3, 6))):
            torch.testing.assert_close(
                (after[:, first] * after[:, second]).sum(1), (before[:, first] * before[:, second]).sum(1), rtol=1e-4, atol=1e-4
            )
        found, _ = np.linalg.lstsq(before[0, :3].T.numpy(), after[0, :3].T.numpy())[:2]
        assert np.linalg.det(found) == pytest.approx(1, abs=1e-3)  # and not a mirror image
        angles.append(np.degrees(np.arccos(np.clip((np.trace(found) - 1) / 2, -1, 1))))
    assert np.sqrt(np.mean(np.square(angles))) == pytest.approx(10, rel=0.15)
    assert torch.equal(turn_sensors(readings, 10.0, mean, std, 0, 3), turn_sensors(readings, 10.0, mean, std, 0, 3))
    torch.testing.assert_close(turn_sensors(readings, 0.0, mean, std, 0, 3), readings, rtol=1e-5, atol=1e-5)


def test_a_moment_is_a_window_in_the_time_to_spare():
    assert windows(10, 2, moment=Moment(0.0)) == [(0, 2)]
    assert windows(10, 2, moment=Moment(0.5)) == [(4, 6)]
    assert windows(10, 2, moment=Moment(0.5, 3.0, 8.0)) == [(4.5, 6.5)]
    assert windows(10, 2, moment=Moment(0.9, 9.0, 10.0)) == [(9, 11)]  # a stretch shorter than the window
    assert windows(1, 2, moment=Moment(0.9)) == [(0, 2)]
    assert windows(10, 2, moment=Moment(0.5, 8.0, 20.0)) == [(8, 10)]  # no further than the item
    with pytest.raises(ValueError, match="nothing between 12 and 14 s; it lasts 10 s"):
        windows(10, 2, moment=Moment(0.5, 12.0, 14.0))
    places = [draw_place(0, number) for number in range(2000)]
    assert 0 <= min(places) < 0.01
    assert 0.99 < max(places) < 1


def test_sound_and_pictures_of_a_file_get_the_same_times(tmp_path):
    path = str(video(tmp_path / "a.mp4", seconds=6, sound=True))
    for place in (0.0, 0.37, 0.99):
        moment = {"moment": Moment(place)}
        (sound,) = read_as("audio", path, **moment)
        (seen,) = read_as("video", path, **moment, crops="1")
        assert sound.spans == seen.spans
        assert sound.spans[0][0] == pytest.approx(4 * place, abs=0.05)
        assert (sound.tensor.shape, seen.tensor.shape) == ((1, 1, 128, 204), (1, 3, 2, 224, 224))


def test_a_window_is_the_files_own(tmp_path):
    """What is heard at a moment is what the window of those seconds holds, by itself."""
    import soundfile

    path = audio(tmp_path / "a.wav", seconds=6)
    samples, rate = soundfile.read(path, dtype="float32")
    (sample,) = read_as("audio", str(path), moment=Moment(0.25))
    (alone,) = read_as("audio", (samples[rate : 3 * rate], rate))
    assert sample.spans == [(1.0, 3.0)]
    assert torch.allclose(sample.tensor, alone.tensor, atol=1e-4)


def test_a_stretch_of_a_recording_on_its_own_clock(tmp_path):
    times = 100 + np.arange(20 * 400) / 400
    values = np.repeat(np.arange(20), 400)[:, None] + np.zeros((1, 6))  # each second its number
    np.savetxt(tmp_path / "a.csv", np.column_stack([times, values]), "%.6f", delimiter=",", header="time,ax,ay,az,gx,gy,gz", comments="")
    (sample,) = read_as("imu", str(tmp_path / "a.csv"), moment=Moment(0.3, 107.0, 112.0))
    assert sample.spans == [(107.0, 112.0)]
    assert sample.tensor[0, 0].round().tolist() == pytest.approx(np.repeat(np.arange(7, 12), 400).tolist(), abs=1)


def test_frames_of_a_clip_share_their_view(tmp_path):
    path = str(video(tmp_path / "a.mp4", seconds=3))
    view = View((Crop(0.3, 1.0, 0.2, 0.8),), mirror=True, erased=(0.1, 0.1, 0.4, 0.4))
    (sample,) = read_as("video", path, view=view, moment=Moment(0.5))
    assert sample.tensor.shape == (1, 3, 2, 224, 224)
    black = (sample.tensor[0] - (-torch.tensor(TINY["vision"].mean) / torch.tensor(TINY["vision"].std)).view(3, 1, 1, 1)).abs() < 1e-6
    assert black[:, :, 23:89, 23:89].all()


def test_what_training_draws_is_no_option():
    assert not {"view", "moment"} & set(flags())
    for kind in OPTIONS.values():
        assert not {"view", "moment"} & set(kind.names())
    made = input_record(face("depth"), TINY["depth"], face("depth").read_options({"view": View()}))["options"]
    assert "view" not in made
    assert "fill" in made


def pillows(name, amount, picture):
    """An operation as Pillow itself has it, which is what RandAugment was published in."""
    grey = (128, 128, 128) if picture.mode == "RGB" else 0
    matrices = {
        "shear_x": (1, amount, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, amount, 1, 0),
        "translate_x": (1, 0, amount * picture.width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, amount * picture.height),
    }
    if name in matrices:
        return picture.transform(picture.size, Image.Transform.AFFINE, matrices[name], Image.Resampling.BILINEAR, fillcolor=grey)
    enhancers = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}
    enhancers["sharpness"] = ImageEnhance.Sharpness
    if name in enhancers:
        return enhancers[name](picture).enhance(amount)
    others = {
        "rotate": lambda: picture.rotate(amount, Image.Resampling.BILINEAR, fillcolor=grey),
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "invert": lambda: ImageOps.invert(picture),
        "posterize": lambda: picture.point([level & (0xFF00 >> int(amount)) & 0xFF for level in range(256)] * 3),
        "solarize": lambda: ImageOps.solarize(picture, int(amount)),
        "solarize_add": lambda: picture.point([level + int(amount) if level < 128 else level for level in range(256)] * 3),
    }
    return others[name]()


@pytest.mark.parametrize("name", AMOUNTS)
def test_every_operation_at_every_level_is_pillows(name):
    """At levels 0 to 10 both ways, on pictures and, where it moves pixels, on maps, of several sizes: to the bit, shear_y to its rounding."""
    most = {"shear_y": 1}.get(name, 0)
    for number, (width, height) in enumerate(((224, 224), (97, 61), (8, 40))):
        for level in (0.0, 0.1, 0.37, 0.9, 1.0):
            for sign in (1, -1):
                amount = AMOUNTS[name](level, sign)
                seen = picture(pixels(number, (width, height)))
                operation = {**DISTORTIONS, **COLOURS}[name]
                ours, theirs = (np.asarray(result).astype(int) for result in (operation(seen, amount), pillows(name, amount, seen)))
                assert np.abs(ours - theirs).max() <= most, (width, level, sign)
                if name in DISTORTIONS:
                    plane = Image.fromarray(np.random.default_rng(number).random((height, width), np.float32))
                    ours, theirs = (np.asarray(result) for result in (operation(plane, amount), pillows(name, amount, plane)))
                    assert np.abs(ours - theirs).max() <= most * 1e-6, (width, level, sign)


def test_the_strongest_posterize_leaves_black_and_loses_no_row(scene):
    """Level 10 of 10, which one draw in fifty reaches: Pillow 13 refuses 0 bits, and the row would have been replaced by another."""
    seen = colours(read("image", scene / "picture.png", View(operations=(("posterize", AMOUNTS["posterize"](1.0, 1)),))))
    assert seen.abs().max() < 1e-6


def test_masking_leaves_the_random_numbers_of_training_alone():
    spectrogram = torch.randn(1, 128, 6)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = mask_frequencies(spectrogram, 12, 0, 1)
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(mask_frequencies(spectrogram, 12, 0, 1), first)  # and they leave it alone
    assert any(not torch.equal(mask_frequencies(spectrogram, 12, 0, number), first) for number in range(2, 9))


def test_a_mask_as_wide_as_the_spectrogram_fits_into_it():
    spectrogram = torch.ones(1, 4, 6)
    widths = [int((mask_frequencies(spectrogram, 30, 0, number)[0, :, 0] == 0).sum()) for number in range(300)]
    assert set(widths) == {0, 1, 2, 3, 4}
    assert torch.equal(spectrogram, torch.ones(1, 4, 6))
