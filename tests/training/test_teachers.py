"""Teachers: a model or vectors by id, their directions, the losses of a student, rows of one modality, rounds."""

import json

import numpy as np
import pytest
import torch

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.training import teachers
from imagebind_cli.training.data import PairData
from imagebind_cli.training.loss import PairLoss
from imagebind_cli.training.plan import make_plan
from imagebind_cli.training.recipe import PairRecipe, Recipe
from imagebind_cli.training.recipe_files import read_recipe, rounds
from imagebind_cli.training.rows import read_pair_rows
from imagebind_cli.weights.model_config import packaged_config
from tests.generate import picture

TINY = packaged_config("tiny").encoders


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of eight pictures, one of them below another folder, and a file of another kind."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for seed in range(8):
        picture(folder / ("more" if seed == 7 else "") / f"{seed}.png", seed, (64, 48))
    (folder / "notes.txt").write_text("not a picture")
    return folder


def recipe_of(data, model="tiny", modality="image", run=None, **pair):
    teacher = {"model": model, **pair.pop("teacher", {})}
    table = {"modalities": (modality, modality), "teacher": teacher, "data": (str(data),), "batch": 4} | pair
    return Recipe.model_validate({"model": "tiny", "pairs": [table], "run": {"workers": 0, **(run or {})}})


def unit_rows(count, dim, seed=0):
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


# -- rows


def test_a_folder_and_a_text_are_rows_of_one_modality(photos, tmp_path):
    rows = read_pair_rows([str(photos)], ("image",))
    assert [rows.id(number) for number in range(len(rows))] == [
        *(f"{photos}/{seed}.png" for seed in range(7)),
        f"{photos}/more/7.png",
    ]
    assert rows.groups.tolist() == list(range(8))
    (tmp_path / "lines.txt").write_text("a dog\n\nA  dog\na cat\n")
    lines = read_pair_rows([str(tmp_path / "lines.txt")], ("text",))
    assert [lines.id(number) for number in range(3)] == ["a dog", "A  dog", "a cat"]
    assert lines.groups.tolist() == [0, 0, 2]
    with pytest.raises(UserError, match="no row has image"):
        read_pair_rows([str(tmp_path)], ("image",))


def test_a_manifest_needs_the_one_column(photos, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"image": str(photos / f"{n}.png"), "group": n // 2}) + "\n" for n in range(4)))
    rows = read_pair_rows([str(tmp_path / "rows.jsonl")], ("image",))
    assert rows.groups.tolist() == [0, 0, 2, 2]


# -- the teacher's vectors


def test_directions_are_those_of_largest_spread():
    """Against the singular vectors of the centred rows; coordinates of whitened vectors have deviation 1."""
    random = np.random.default_rng(0)
    vectors = (random.normal(size=(500, 6)) * [5, 4, 3, 2, 1, 0.5] + 7).astype(np.float32)
    _, values, expected = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    for kind, deviations in (("principal", values[:3] / 500**0.5), ("balanced", (values[:3] / 500**0.5) ** 0.5), ("whitened", np.ones(3))):
        found = teachers.principal_directions(iter(np.split(vectors, 5)), 3, kind)
        assert np.allclose(found[0], vectors.mean(0), atol=1e-4)
        directions = found[1:] / np.linalg.norm(found[1:], axis=1, keepdims=True)
        assert np.allclose(np.abs((directions * expected[:3]).sum(1)), 1, atol=1e-3)
        assert np.allclose(((vectors - found[0]) @ found[1:].T).std(0), deviations, rtol=1e-3)
        assert (np.take_along_axis(found[1:], np.abs(found[1:]).argmax(1, keepdims=True), 1) > 0).all()


def test_rows_that_could_not_be_read_have_no_part_in_the_directions():
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32) + 3
    with_gaps = np.concatenate([vectors, np.zeros((20, 4), np.float32)])
    expected, found = (teachers.principal_directions(iter([rows]), 2, "principal") for rows in (vectors, with_gaps))
    assert np.allclose(expected, found, atol=1e-5)
    with pytest.raises(UserError, match="vectors of 3 rows spread along 2 directions, and 4 are needed; give more data"):
        teachers.principal_directions(iter([vectors[:3]]), 4, "principal")


def stored(photos, folder, dim=64, ids=None):
    ids = [f"{photos}/{seed}.png" for seed in range(7)] + [f"{photos}/more/7.png"] if ids is None else ids
    np.save(folder / "vectors.npy", unit_rows(len(ids), dim).numpy() * 3)
    (folder / "vectors.txt").write_text("".join(f"{id}\n" for id in ids))
    return str(folder / "vectors.npy")


def targets_of(recipe, folder):
    data = PairData(recipe, TINY)
    nothing = lambda *_: None  # noqa: E731
    return teachers.open_targets(recipe.pairs[0], data, 0, 64, folder / "image", recipe.run, torch.device("cpu"), nothing, nothing)


def test_vectors_by_id_are_targets(photos, tmp_path):
    path = stored(photos, tmp_path)
    targets = targets_of(recipe_of(photos, path), tmp_path)
    assert torch.allclose(targets.read([3, 0, 3], [0, 5, 9]), unit_rows(8, 64)[[3, 0, 3]], atol=1e-6)


def test_longer_vectors_are_projected_once_and_kept(photos, tmp_path):
    path = stored(photos, tmp_path, 100)
    recipe = recipe_of(photos, path)
    assert teachers.reduction(recipe.pairs[0], 64) == "principal"
    assert teachers.reduction(recipe.pairs[0], 4) == "principal"
    with pytest.raises(UserError, match="spread along 7 directions, and 64 are needed"):
        targets_of(recipe, tmp_path)
    with pytest.raises(
        UserError, match=r"vectors\.npy: its vectors have 100 numbers, and the student's 128; choose a student of at most 100"
    ):
        teachers.reduction(recipe.pairs[0], 128)


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        (["a", "b"], r"vectors\.npy: no vector for 8 of 8 rows, the first .*0\.png; a teacher's file needs every id"),
        (None, None),
    ],
)
def test_every_row_needs_its_vector(photos, tmp_path, ids, reason):
    recipe = recipe_of(photos, stored(photos, tmp_path, ids=ids))
    if reason is None:
        assert make_plan(recipe).steps > 0
        (tmp_path / "vectors.txt").write_text("a\n")
        reason = r"vectors\.npy: float32 of shape \(8, 64\), and 1 ids in vectors\.txt; \(n, dim\) floats and n ids are needed"
    with pytest.raises(UserError, match=reason):
        make_plan(recipe)


def test_a_teacher_sees_whole_samples_or_the_students_views(photos, tmp_path):
    """Whole: one vector for all views. Views: those of the student, without its own colours."""
    augment = {"image": {"crop": 0.3, "flip": 0.5, "recolour": 1.0}}
    whole = PairData(recipe_of(photos, augment=augment), TINY)
    views = PairData(recipe_of(photos, augment=augment, views=2, teacher={"sees": "views"}), TINY)
    seen = {}
    for name, data in (("whole", whole), ("views", views)):
        seen[name] = []
        cache = data.anchor_cache(0, tmp_path / name, "weights", apart=True)
        cache.fill(lambda pictures, name=name: seen[name].append(pictures) or pictures.flatten(1)[:, :8])
        assert cache.folder.name.startswith(f"{name}-")
        assert len(seen[name]) == cache.views
    middle = torch.stack([whole.reader(0).read(row, None, (0,))[0].tensor[0] for row in range(8)])
    assert torch.equal(seen["whole"][0], middle)
    assert not torch.allclose(seen["views"][0], middle, atol=0.1)
    student = whole.reader(0).read(0, 3, (1,))[0].tensor
    assert not torch.allclose(student, whole.reader(0).read(0, None, (1,))[0].tensor, atol=0.1)


# -- what a student learns


@pytest.mark.parametrize("chunk", [2, 100])
def test_the_losses_of_a_student_are_what_their_names_say(chunk):
    teacher, student = unit_rows(6, 5, 0), unit_rows(6, 5, 1).requires_grad_()
    groups = torch.tensor([0, 1, 0, 3, 4, 5])
    scale = 1 / 0.1
    cosine = (1 - (teacher * student).sum(1)).mean()
    relational = (student @ student.T - teacher @ teacher.T).square().mean()
    infonce = 0.0
    for i in range(6):
        peers = torch.nn.functional.normalize(teacher[groups == groups[i]].sum(0), dim=0)
        wanted = (scale * peers @ teacher.T).softmax(0)
        infonce = infonce - (wanted * (scale * student[i] @ teacher.T).log_softmax(0)).sum() / 6
    for weights, expected in (
        ({"cosine": 1.0}, cosine),
        ({"cosine": 0.0, "relational": 2.0}, 2 * relational),
        ({"cosine": 0.5, "relational": 1.0, "infonce": 3.0}, 0.5 * cosine + relational + 3 * infonce),
    ):
        pair = PairRecipe(modalities=("image", "image"), teacher={"model": "tiny", **weights}, temperature=0.1)
        assert PairLoss(pair, chunk)(teacher, student, groups).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (
            {"modalities": ("image", "text"), "teacher": {"model": "tiny"}},
            "a teacher teaches one modality, listed twice, not image and text",
        ),
        ({"modalities": ("image", "image")}, "a pair binds two different modalities, not image twice"),
        ({"modalities": ("image", "image"), "teacher": {"model": "tiny", "cosine": 0.0}}, "all of its losses have weight 0"),
        ({"modalities": ("image", "image"), "teacher": {"model": "tiny", "sees": "views"}}, "teacher.sees = views needs fixed views"),
        ({"modalities": ("image", "image"), "teacher": {"model": "tiny"}, "val_fraction": 0.1}, "validate a distillation by zeroshot"),
    ],
)
def test_recipes_that_cannot_be(table, reason):
    with pytest.raises(ValueError, match=reason):
        PairRecipe.model_validate(table)


# -- rounds


def test_each_round_starts_from_the_one_before(tmp_path):
    recipe = recipe_of("photos", run={"steps": 9}).model_copy(
        update={"rounds": ({"run": {"steps": 5}}, {"optimizer.lr": 1e-4, "pairs": {"0": {"batch": 2}}}, {"encoders.vision.init": "random"})}
    )
    (first, second, third), places = zip(*rounds(recipe, tmp_path / "run"), strict=True)
    assert [place.name for place in places] == ["run.round-1", "run.round-2", "run"]
    assert [each.run.steps for each in (first, second, third)] == [5, 9, 9]
    assert (second.optimizer.lr, second.pairs[0].batch, third.pairs[0].batch) == (1e-4, 2, 4)
    assert first.encoders == {}
    assert second.encoders["vision"].init == str(tmp_path / "run.round-1")
    assert third.encoders["vision"].init == "random"
    assert all(each.rounds == () for each in (first, second, third))
    for change, reason in (
        ({"pairs.7.batch": 2}, "rounds.0: the recipe has no pairs.7.batch"),
        ({"run.stepz": 2}, "unknown key 'run.stepz'"),
    ):
        with pytest.raises(UserError, match=reason):
            list(rounds(recipe.model_copy(update={"rounds": (change,)}), tmp_path))


def test_a_flag_that_a_round_overrides_is_refused(tmp_path):
    place = tmp_path / "rounds.toml"
    place.write_text('[[pairs]]\nmodalities = ["image", "image"]\n[pairs.teacher]\nmodel = "tiny"\n[[rounds]]\nrun.steps = 5\n')
    with pytest.raises(UsageError, match=r"--set run\.steps: a round of the recipe sets it; change rounds\.0\.run\.steps"):
        read_recipe(str(place), ["run.steps=7"])
    recipe = read_recipe(str(place), ["rounds.0.run.steps=7"])
    assert [each.run.steps for each, _ in rounds(recipe, tmp_path)] == [7]
