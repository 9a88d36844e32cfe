"""Each family's own protocol on the suites: its names, prompts and settings, chosen by the model's family, and the figures of its authors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation import ClassOptions, ReportOptions, open_suite, run_suite
from imagebind_cli.evaluation.captions import Gallery, caption_matches, retrieval_values
from imagebind_cli.evaluation.prompts import Templates, cleaned_text, read_templates
from imagebind_cli.evaluation.suites import Suite, read_suite_recipe, suite_names
from imagebind_cli.evaluation.suites.recipe import RECIPES
from imagebind_cli.model import Model
from imagebind_cli.sources import Failure
from imagebind_cli.space import Space
from imagebind_cli.weights.model_config import packaged_config
from imagebind_cli.weights.rule import checkpoint_by_rule
from tests import trees
from tests.conftest import Run
from tests.evaluation.test_classify import Notes
from tests.stores import store, unit_rows

PLAIN = ClassOptions(templates="plain")
UNDRAWN = ReportOptions(draws=0)
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
# By suite and family, in percent: the figure printed beside a run with the protocol's own options.
PUBLISHED = {
    ("esc50", "languagebind"): {"top1": 94.0},
    ("esc50", "onepeace"): {"top1": 91.8},
    ("vggsound", "languagebind"): {"top1": 38.6},
    ("llvip", "languagebind"): {"top1": 87.2},
    ("nyud", "languagebind"): {"top1": 65.1},
    ("msrvtt", "languagebind"): {"R@1": 42.7},
    ("clotho", "onepeace"): {"R@1": 22.4, "R@1 audio->text": 27.1},
    ("audiocaps", "onepeace"): {"R@1": 42.5, "R@1 audio->text": 51.0},
}
OTHERS = [(name, family) for name in suite_names("zeroshot") for family in read_suite_recipe(name).protocols]


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All datasets, small, to be read only."""
    root = tmp_path_factory.mktemp("datasets")
    for name, make in trees.TREES.items():
        make(root / name)
    return root


def opened(miniatures: Path, name: str, protocol: str | None = None, **options: Any) -> Suite:
    needed = {"names": miniatures / name / "names.txt"} if name == "imagenet" else {}
    return open_suite(name, miniatures / name, needed | options, protocol)


def made_by_rule(family: str, encoders: Mapping[str, Mapping[str, Any]]) -> Model:
    """A small untrained model of a family, whose encoders are those of `tiny` with changes."""
    tiny = packaged_config("tiny")
    configs = {name: replace(tiny.encoders[name], dim=tiny.dim, family=family, **changes) for name, changes in encoders.items()}
    return Model(checkpoint_by_rule(replace(tiny, name=f"small-{family}", encoders=configs)), torch.device("cpu"), None)


@pytest.fixture(scope="module")
def languagebind() -> Model:
    tiny = packaged_config("tiny").encoders
    frames = {"shape": (3, 4, 32, 32), "patch": (16, 16), "stride": (16, 16), "trunk": replace(tiny["vision"].trunk, frames=4)}
    plane = {"shape": (3, 32, 32), **CLIP}
    sound = {"shape": (3, 32, 100), "mean": (-4.27,) * 3, "std": (4.57,) * 3}
    return made_by_rule(
        "languagebind", {"vision": frames, "text": {}, "audio": sound, "depth": {**plane, "max_depth": 10.0}, "thermal": plane}
    )


# What the protocols say


def test_every_protocol_is_of_a_known_family_and_opens(miniatures: Path) -> None:
    from imagebind_cli.registry import FAMILIES

    assert {family for _, family in OTHERS} == {"languagebind", "onepeace"} <= FAMILIES.keys()
    for name, family in OTHERS:
        suite = opened(miniatures, name, family)
        assert suite.protocol == family
        assert suite.published == PUBLISHED.get((name, family), {})
        assert bool(suite.published) == bool(suite.source)
        assert "ImageBind" not in suite.source
        recipe = read_suite_recipe(name)
        assert all(figures.when.keys() <= recipe.options.keys() for figures in recipe.protocols[family].figures)


def test_languagebinds_prompts_are_clips_with_its_own_word_for_photo(miniatures: Path) -> None:
    clip = read_templates("clip").lines
    for name, word in (("nyud", "depth photo"), ("sunrgbd", "depth photo"), ("kinetics400", "video")):
        templates = opened(miniatures, name, "languagebind").templates
        assert templates == [line.replace("photo", word) for line in clip]
        assert f"a bad {word} of a {{}}." == (templates or [""])[0]
        assert sum(one != other for one, other in zip(templates or (), clip, strict=True)) == 43
    for name in ("llvip", "imagenet"):
        assert opened(miniatures, name, "languagebind").templates is None  # CLIP's as they are
    for name in ("esc50", "esc10", "audioset", "vggsound"):
        assert opened(miniatures, name, "languagebind").templates == ["a sound of {}."]


def test_languagebind_has_names_of_its_own(miniatures: Path) -> None:
    rooms = opened(miniatures, "nyud", "languagebind").classes
    expected = {
        "bathroom", "bedroom", "bookstore", "classroom", "dining room", "home office", "kitchen", "living room", "office", "others",
    }  # fmt: skip
    assert {name for _, (name,) in rooms} == expected
    assert ("other", ["others"]) in rooms
    assert opened(miniatures, "llvip", "languagebind").classes == [("person", ["people"]), ("background", ["background"])]
    same = [[truth for _, truth, _ in opened(miniatures, "nyud", family).items()] for family in ("imagebind", "languagebind")]
    assert same[0] == same[1]


def test_a_protocol_changes_the_defaults_of_options_and_the_user_both(miniatures: Path) -> None:
    suite = opened(miniatures, "msrvtt", "languagebind")
    assert (suite.modality, suite.weights, suite.keeps_lengths) == ("video", {}, True)
    assert any(
        note == "published: R@1 42.7 (LanguageBind_Video_FT); R@1 42.6 (LanguageBind_Video); "
        "R@1 42.8 (LanguageBind_Video_V1.5_FT); R@1 44.8 (LanguageBind_Video_Huge_V1.5_FT)"
        for note in suite.notes
    )
    cosine = opened(miniatures, "msrvtt", "languagebind", similarity="cosine")
    assert (cosine.published, cosine.keeps_lengths) == ({}, False)
    assert "no figure is published for these options" in cosine.notes
    assert not opened(miniatures, "msrvtt").keeps_lengths
    assert opened(miniatures, "msrvtt", similarity="dot", modalities="video").published == {}


def test_the_counts_are_those_of_the_protocols_paper(miniatures: Path) -> None:
    for family in ("imagebind", "languagebind", "onepeace"):
        assert "4 items here; the paper has 2,000" in opened(miniatures, "esc50", family).notes
    assert any("the paper has 653" in note for note in opened(miniatures, "nyud").notes)
    assert not any("the paper has 653" in note for note in opened(miniatures, "nyud", "languagebind").notes)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A Dog BARKS.", "a dog barks."),
        ("  two  spaces  ", "two spaces"),
        ("a\n\tb   c", "a b c"),
        ("..., *odd start~ and end \n", "*odd start~ and end"),  # what stands behind the space stays, as published
        ("#:;~!?one\ttwo", "one two"),
        ("one\nline", "one\nline"),
        (" ", ""),
    ],
)
def test_texts_are_cleaned_as_onepeaces_evaluation_does(text: str, cleaned: str) -> None:
    assert cleaned_text(text) == cleaned


def test_onepeaces_prompts_are_cleaned() -> None:
    templates = Templates("suite esc50", ("This is a sound of {}",), cleaned=True)
    assert templates.fill("Sea  waves") == ["this is a sound of sea waves"]
    assert templates.record()["cleaned"] is True
    assert "cleaned" not in Templates("clip", ("{}",)).record()


# Which one is followed


def test_the_models_family_chooses(miniatures: Path, tiny: Any, languagebind: Model) -> None:
    suite = opened(miniatures, "esc50")
    for model, protocol, published in ((tiny, "imagebind", {"top1": 66.9}), (languagebind, "languagebind", {"top1": 94.0})):
        report = run_suite(suite, model=model, report=UNDRAWN).report
        assert report
        document = report.document
        assert (document["protocol"], document["published"]) == (protocol, published)
        assert document["made"][0]["family"] == protocol
        templates = document["prototypes"]["made"]["templates"]
        assert templates["count"] == (1 if protocol == "languagebind" else 80)
    waves = open_suite("esc50", miniatures / "esc50", protocol="languagebind").classes.index(("sea_waves", ["sea waves"]))
    vectors = languagebind.embed("text", ["a sound of sea waves."])
    row = next(iter(run_suite(suite, model=languagebind, report=ReportOptions(top=50, draws=0)).rows))
    sound = languagebind.embed("audio", [str(next(iter(suite.items()))[0].payload)])
    (score,) = [entry.score for entry in row.top if entry.name == suite.classes[waves][0]]  # type: ignore[union-attr]
    assert score == pytest.approx(float(sound[0] @ vectors[0]), abs=1e-5)


def test_the_user_chooses_otherwise(miniatures: Path, tiny: Any) -> None:
    heard = Notes()
    report = run_suite(opened(miniatures, "esc50", "onepeace"), model=tiny, report=UNDRAWN, listener=heard).report
    assert report
    assert (report.document["protocol"], report.document["published"]) == ("onepeace", {})
    assert "published" not in report.summary()  # another system's figure is not printed as if it were this one's
    assert "esc50: published under this protocol, but for onepeace models: top1 91.8" in heard.lines
    assert report.document["prototypes"]["made"]["templates"]["cleaned"] is True
    with pytest.raises(UsageError, match="suite ego4d has no protocol 'onepeace'; it has imagebind"):
        opened(miniatures, "ego4d", "onepeace")


def test_a_family_without_a_protocol_follows_imagebinds_and_says_so(miniatures: Path) -> None:
    clip = made_by_rule("clip", {"vision": {}, "text": {}})
    heard = Notes()
    report = run_suite(opened(miniatures, "places365"), classes=PLAIN, model=clip, report=UNDRAWN, listener=heard).report
    assert report
    assert (report.document["protocol"], report.document["published"]) == ("imagebind", {})
    assert "places365: clip has no protocol of its own here; that of imagebind is followed" in heard.lines
    assert "places365: published under this protocol, but for imagebind models: top1 45.4" in heard.lines


def test_stores_choose_by_the_family_that_made_them_without_a_model(miniatures: Path, tmp_path: Path) -> None:
    suite = opened(miniatures, "esc50")
    ids = [item.id for item, _, _ in suite.items()]
    names = [name for name, _ in suite.classes]
    for family, expected in (("languagebind", 94.0), (None, 66.9)):  # stores of earlier versions do not name one
        made = {} if family is None else {"family": family}
        items = store(tmp_path / f"{family}.h5", "audio", ids, unit_rows(4), scale=20.0, **made)
        classes = store(tmp_path / f"{family}-names.h5", "text", names, unit_rows(50, seed=1), scale=100.0, **made)
        space = Space()
        report = run_suite(suite, stores=[items], classes=ClassOptions(classes=classes), model=space, report=UNDRAWN).report
        assert report
        assert report.document["published"] == {"top1": expected}
        assert "loaded" not in space.__dict__


@pytest.mark.parametrize("name", sorted({name for name, family in OTHERS if family == "languagebind"} - {"imagenet"}))
def test_languagebinds_readers_take_every_input_under_its_protocol(name: str, miniatures: Path, languagebind: Model) -> None:
    suite = opened(miniatures, name).for_family("languagebind")
    from imagebind_cli.registry import face

    items = [item for item, _, _ in suite.items()]
    results = list(languagebind.embed_items(suite.modality, items, workers=2, options=face(suite.modality).read_options(suite.reading)))
    assert len(results) == suite.count
    assert [result.reason for _, result in results if isinstance(result, Failure)] == []


# Dot products


def test_vectors_keep_their_lengths_where_they_are_wanted(languagebind: Model, tiny: Any, miniatures: Path) -> None:
    from imagebind_cli.sources import Item

    paths = [str(path) for path in sorted((miniatures / "esc50/audio").glob("*.wav"))]
    for model, modality, payloads in ((languagebind, "audio", paths), (tiny, "text", ["a dog", "a long sentence of many words", "a dog"])):
        items = [Item(str(number), payload) for number, payload in enumerate(payloads)]
        plain, kept = (list(model.embed_items(modality, items, lengths=lengths)) for lengths in (False, True))
        for payload, (_, one), (_, other) in zip(payloads, plain, kept, strict=True):
            (unit,), (long,) = one.embeddings, other.embeddings
            raw = model.encode(modality, next(iter(model.read(modality, payload))).tensor[:1], unit=False)[0].numpy()
            assert np.abs(long.vector - unit.vector).max() < 1e-6
            assert long.length == pytest.approx(float(np.linalg.norm(raw)), rel=1e-5)
            assert np.abs(long.vector * long.length - raw).max() < 1e-5
            assert abs(long.length - 1) > 1e-3
            assert unit.length == pytest.approx(1, abs=1e-6)


def test_retrieval_by_dot_products_ranks_as_the_plain_product_does(miniatures: Path, languagebind: Model) -> None:
    suite = opened(miniatures, "clotho")
    result = run_suite(suite, model=languagebind, report=ReportOptions(top=2, draws=0))
    assert result.report
    assert (result.report.document["protocol"], result.report.document["options"]["similarity"]) == ("languagebind", "dot")
    sounds = [
        languagebind.encode("audio", next(iter(languagebind.read("audio", item.payload))).tensor, unit=False)[0]
        for item, _, _ in suite.items()
    ]
    texts = [
        languagebind.encode("text", next(iter(languagebind.read("text", text))).tensor, unit=False)[0] for _, text, _ in suite.captions
    ]
    products = (torch.stack(texts) @ torch.stack(sounds).T).double().numpy()
    ids = [item.id for item, _, _ in suite.items()]
    for row, expected in zip(result.rows, products, strict=True):
        assert [id for id, _ in row.top] == [ids[place] for place in np.argsort(-expected)]  # type: ignore[misc]
        assert [score for _, score in row.top] == pytest.approx(sorted(expected, reverse=True), rel=1e-4)  # type: ignore[misc]
    cosines = run_suite(opened(miniatures, "clotho", similarity="cosine"), model=languagebind, report=ReportOptions(top=2, draws=0))
    assert all(abs(score) <= 1 for row in cosines.rows for _, score in row.top)  # type: ignore[misc]


def test_a_long_vector_wins_by_its_length_and_the_scores_are_the_products() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32) * np.geomspace(0.01, 100, 300)[:, None].astype(np.float32)
    ids = [f"{number:03}" for number in range(300)]
    queries, targets = (
        Gallery(ids, vectors, [np.array([number]) for number in range(300)]).shortened() for vectors in (rows[::-1].copy(), rows)
    )
    products = rows[::-1].astype(np.float64) @ rows.T.astype(np.float64)
    for match, product in zip(caption_matches("text->audio", queries, targets, 3), products, strict=True):
        best = np.argsort(-product)[:3]
        assert [id for id, _ in match.top] == [ids[place] for place in best]
        assert [score for _, score in match.top] == pytest.approx(product[best], rel=1e-5)
    ranks = retrieval_values(queries, targets)["rank"]
    assert ranks == pytest.approx([1 + (product > product[number]).sum() for number, product in enumerate(products)])


def test_what_has_no_lengths_is_refused(miniatures: Path, tmp_path: Path, tiny: Any) -> None:
    suite = opened(miniatures, "clotho", similarity="dot")
    kept = store(tmp_path / "kept.h5", "audio", [item.id for item, _, _ in suite.items()], unit_rows(2), scale=20.0)
    with pytest.raises(UserError, match=r"kept\.h5: a store holds unit vectors, .* --suite-option similarity=cosine"):
        run_suite(suite, stores=[kept], report=UNDRAWN)
    with pytest.raises(UserError, match="a weighted sum of modalities is one of unit vectors"):
        run_suite(opened(miniatures, "msrvtt", similarity="dot"), model=tiny, report=UNDRAWN)


def test_cleaned_captions_find_in_both_directions(miniatures: Path, tiny: Any) -> None:
    result = run_suite(opened(miniatures, "clotho", "onepeace"), model=tiny, report=UNDRAWN)
    assert result.report
    assert {"R@1", "R@1 audio->text"} <= result.report.scores.keys() == result.outcomes().keys()
    assert result.report.document["captions"]["cleaned"] is True


# The command and recipes of one's own


def test_the_command_follows_a_protocol(imagebind: Run, miniatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("zeroshot", "--suite", "esc50", "--root", miniatures / "esc50", "--device", "cpu", "--report", "scores.json")
    run = imagebind(*given, "--protocol", "languagebind")
    assert (run.code, len(run.rows)) == (0, 4)
    document = json.loads(Path("scores.json").read_text())
    assert (document["protocol"], document["prototypes"]["made"]["templates"]["count"]) == ("languagebind", 1)
    assert sum("one template, as in the released code" in line for line in run.notices) == 1
    refused = imagebind(*given, "--protocol", "clap")
    assert (refused.code, refused.out) == (2, b"")
    assert "suite esc50 has no protocol 'clap'; it has imagebind, languagebind, onepeace" in refused.err
    alone = imagebind("zeroshot", "audio", "x.wav", "--labels", "a,b", "--protocol", "onepeace")
    assert "only a --suite takes it" in alone.err


def test_a_wrong_key_of_a_protocol_is_named(miniatures: Path, tmp_path: Path) -> None:
    text = (Path(str(RECIPES)) / "esc50.toml").read_text()
    own = tmp_path / "mine.toml"
    for old, new, words in [
        ("cleaned = true", "cleande = true", "unknown key 'protocols.onepeace.cleande'; the nearest known one is 'cleaned'"),
        (
            'model = "LanguageBind_Audio"',
            'modle = "x"',
            "unknown key 'protocols.languagebind.figures.1.modle'; the nearest known one is 'model'",
        ),
        ("cleaned = true", 'names = { dgo = ["dog"] }', "the protocol has names for 'dgo', which is not a class; the nearest is 'dog'"),
    ]:
        own.write_text(text.replace(old, new, 1))
        with pytest.raises(UserError, match="mine.toml") as caught:
            open_suite(str(own), miniatures / "esc50", protocol="onepeace")
        assert words in str(caught.value)


def test_the_page_has_every_protocol_and_figure() -> None:
    page = (Path(__file__).parents[2] / "docs/suites.md").read_text()
    section = page.split("## Protocols of other families\n")[1].split("\n## ")[0]
    for name, family in OTHERS:
        rows = [line for line in section.splitlines() if line.startswith(f"| {family} |") and f"`{name}`" in line]
        assert len(rows) == 1, (name, family)
        for figures in read_suite_recipe(name).protocols[family].figures:
            assert all(f"{value:.1f}" in rows[0] for value in figures.values.values())
