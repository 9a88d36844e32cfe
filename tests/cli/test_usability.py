"""Tests of what all commands share: JSON, completion, versions, estimates, errors."""

import json
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

import imagebind_cli
from imagebind_cli import corpus
from imagebind_cli.registry import MODALITIES
from imagebind_cli.weights.published import published_models
from tests import generate
from tests.conftest import PROGRAM, Run


@pytest.fixture
def files(tmp_path: Path, here: Run) -> Path:
    """A picture, a store of it and one of a sentence, and files that are nothing of what they are named for."""
    generate.picture(tmp_path / "a.png")
    (tmp_path / "folder").mkdir()
    Path("unfit.toml").write_text('pairs = [{modalities = ["image", "text"], augment = {text = {flip = 1.0}}}]\n')
    for name in ("junk.h5", "junk.pth", "junk.toml", "junk.jsonl"):
        (tmp_path / name).write_bytes(b"a = [junk" * 50)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "pairs.jsonl").write_text('{"image": "a.png", "text": "x"}\n{"image": "a.png", "text": "y"}\n')
    assert here("embed image a.png -o good.h5").code == 0
    assert here("embed text hello -o text.h5").code == 0
    return tmp_path


class TestJSON:
    @pytest.mark.parametrize(
        ("line", "keys"),
        [
            ("weights list --json", None),
            ("weights info --json", {"name", "place", "licence", "dim", "encoders", "parameters"}),
            ("weights verify --json", {"model", "place", "ok", "files", "differences", "encoders"}),
            ("weights convert tiny model --json", {"folder", "encoders", "files", "origin"}),
            ("store info good.h5 --json", {"store", "rows", "items", "replaced", "array", "windows", "bytes", "made"}),
            ("store check good.h5 --json", {"ok", "stores"}),
            ("store merge good.h5 -o merged.h5 --json", {"store", "added", "replaced", "same", "in_several"}),
            ("store export good.h5 -o v.npy --json", {"store", "rows", "array"}),
            ("store compact good.h5 --json", {"store", "dropped", "bytes_before", "bytes"}),
            ("train --pairs image-text --data pairs.jsonl --batch 2 --dry-run --json", {"model", "pairs", "plan"}),
            ("embed image a.png --dry-run --json", {"inputs", "bytes", "done", "remaining", "assumed", "seconds"}),
        ],
    )
    def test_every_read_out_is_one_document(self, files: Path, here: Run, line: str, keys: set[str] | None) -> None:
        done = here(line)
        assert done.code == 0, done.err
        document = json.loads(done.out)
        assert isinstance(document, list) if keys is None else keys <= document.keys()

    def test_findings_and_differences_are_in_it(self, files: Path, here: Run) -> None:
        done = here("store check junk.h5 good.h5 --json")
        assert (done.code, json.loads(done.out)["ok"], json.loads(done.out)["stores"][1]["ok"]) == (1, False, True)
        assert here("weights convert tiny model").code == 0
        with open("model/text.safetensors", "r+b") as file:
            file.truncate(100)
        done = here("weights verify model --json")
        assert done.code == 1
        (difference,) = json.loads(done.out)["differences"]
        assert difference.startswith("text.safetensors: 100 bytes, not ")


class TestCompletion:
    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["embed", "audio", "--model", ""], {"mini", "tiny", "huge", "base", "compact", *published_models()}),
            (["zeroshot", "--suite", "esc"], {"esc10", "esc50"}),
            (["train", "--recipe", "image-"], {"image-audio", "image-depth", "image-text", "image-thermal"}),
            (["train", "--pairs", "image-d"], {"image-depth"}),
            (["zeroshot", "--templates", "cl"], {"clip"}),
            (["preprocess", "image,au"], {"image,audio"}),
            (["embed", "th"], {"thermal"}),
            (["embed", "audio", "--device", "c"], {"cpu", "cuda"}),
            (["embed", "audio", "--dtype", "b"], {"bf16"}),
            (["store", "check", "--js"], {"--json"}),
            (["store", "check", "--verb"], {"--verbose"}),
        ],
    )
    def test_by_the_protocol_of_bash(self, here: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: set[str]) -> None:
        monkeypatch.setenv("_IMAGEBIND_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(["imagebind", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        assert {*here().out.decode().split()} == expected

    def test_in_a_process_of_its_own_without_torch(self, tmp_path: Path) -> None:
        (tmp_path / "torch.py").write_text("raise SystemExit('torch is imported')")
        environment = os.environ | {
            "_IMAGEBIND_COMPLETE": "complete_bash",
            "COMP_WORDS": "imagebind embed audio --model t",
            "COMP_CWORD": "4",
        }
        environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{Path(imagebind_cli.__file__).parent.parent}"
        run = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, timeout=60)
        assert (run.returncode, run.stdout, run.stderr) == (0, "tiny\n", "")


class TestVersion:
    def test_alone_and_with_what_it_runs_on(self, here: Run) -> None:
        assert here("--version").out.decode() == f"{imagebind_cli.__version__}\n"
        done = here("--version -v")
        assert done.code == 0
        lines = done.out.decode().splitlines()
        assert [line.split()[0] for line in lines] == ["imagebind", "python", "torch", "device", "platform"]
        assert here("-v --version").out == done.out

    def test_needs_no_torch(self, tmp_path: Path) -> None:
        code = "import os, sys; os._exit = lambda code: sys.exit('torch' in sys.modules); from imagebind_cli import cli; cli.run_command_line()"
        assert subprocess.run([sys.executable, "-c", code, "--version"], timeout=60).returncode == 0


class TestEstimate:
    def test_counts_what_is_done_and_writes_nothing(self, here: Run, tmp_path: Path) -> None:
        for number in range(4):
            generate.picture(Path(f"{number}.png"), seed=number)
        assert here("embed image 0.png 1.png gone.png -o v.h5 --errors failed.jsonl").code == 1
        before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        done = here("embed image 0.png 1.png 2.png 3.png -o v.h5 --errors failed.jsonl --dry-run --json")
        assert done.code == 0, done.err
        plan = json.loads(done.out)
        assert (plan["inputs"], plan["done"], plan["remaining"], plan["measured"], plan["first"]) == (4, 2, 2, 2, "2.png")
        assert plan["bytes"] == sum(Path(f"{number}.png").stat().st_size for number in (2, 3))
        assert plan["seconds"] > 0
        assert here("embed image 2.png --dry-run -o w.h5").out.decode().startswith("1 image input: 1 to do, ")
        assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before

    def test_says_what_is_assumed_and_what_cannot_be_read(self, here: Run) -> None:
        Path("bad.png").write_bytes(b"no picture")
        assert "first: bad.png: fails: " in here("embed image bad.png --dry-run").out.decode()
        generate.depth(Path("room.png"))
        done = here("embed depth room.png --dry-run --json")
        told = [line for line in here("embed depth room.png").notices if "assumed: " in line]
        assert [f"imagebind: assumed: {note}" for note in json.loads(done.out)["assumed"]] == told
        assert told

    def test_needs_no_weights_but_for_the_time(self, here: Run) -> None:
        generate.picture(Path("a.png"))
        done = here("embed image a.png --model huge --dry-run --json")
        assert done.code == 0, done.err
        assert "no time is estimated: huge is not on this machine" in done.err
        assert (json.loads(done.out)["seconds"], json.loads(done.out)["first"]) == (None, "a.png")

    def test_refuses_what_the_job_would_refuse(self, files: Path, here: Run) -> None:
        assert "made with modality" in here("embed text hello -o good.h5 --dry-run").err
        assert here("embed image a.png --model nosuch --dry-run").code == 1

    def test_from_python(self, files: Path, tiny: object) -> None:
        plan = corpus.estimate(tiny, "image", ["a.png"], "good.h5")
        assert (plan.inputs, plan.done, plan.remaining, plan.seconds) == (1, 1, 0, None)


WRONG_WORDS = """
nothing
embed
embed smell a.png
embed image a.png --nonsense
embed image a.png --batch-size 0
embed image a.png --batch-size x
embed image a.png --device gpu
embed image a.png --dtype fp8
embed image a.png --pool max
embed image a.png -o a.xyz
embed image a.png -o folder
embed image a.png --manifest empty.jsonl
embed image a.png --retry-errors
embed image a.png --verify
embed image a.png --array float16
embed image a.png --shard 3/2
embed image a.png --shard x
embed image a.png --json
embed audio a.png --fps 3
preprocess smell a.png -o a.tar
preprocess image a.png
preprocess image a.png -o a.xyz
preprocess image a.png -o a.tar --shard-size 3
train
train --pairs image-smell --data pairs.jsonl --out run
train --pairs image-text --data pairs.jsonl
train --pairs image-text --data pairs.jsonl --dry-run --profile
train --pairs image-text --data pairs.jsonl --dry-run --set nonsense
train --pairs image-text --data pairs.jsonl --dry-run --set run.best=nosuch
train --pairs image-text --data pairs.jsonl --dry-run --set run.anchor_cache=true
train --pairs image-text --data pairs.jsonl --dry-run --set encoders.audio.lr=1
train --pairs image-text --data pairs.jsonl --dry-run --set encoders.text.train=none
train --pairs image-text --data pairs.jsonl --dry-run --set pairs.0.augment.text.flip=1
train --pairs image-text --data pairs.jsonl --dry-run --set pairs.0.options.text.long_text=bad
train --pairs image-text --data pairs.jsonl --dry-run --device gpu
train --pairs image-text --data pairs.jsonl --out run --json
zeroshot image a.png
zeroshot image a.png --labels a,b --classes folder
zeroshot image a.png --labels a,b --metric bad
zeroshot image a.png --labels a,b --save-classes a.xyz
zeroshot --suite esc50
retrieve
retrieve good.h5
retrieve good.h5 --text a --pairs ids
retrieve good.h5 --text a --weights x
retrieve good.h5 --text a --weights 1 2
retrieve good.h5 --text a --modality smell
retrieve good.h5 --text a -k 0
retrieve good.h5 --text a --index bad
retrieve good.h5 good.h5 --text a
retrieve good.h5 --pairs ids
moments
moments good.h5
moments good.h5 --text a --min-length -1
moments good.h5 --text a --threshold high
moments good.h5 --text a --report r.json
moments a.png --text a
store nothing
store inspect
store inspect good.h5 good.h5
store inspect good.h5 --pairs ids
store inspect good.h5 --memory much
store inspect good.h5 --threshold copies
store inspect good.h5 --threshold pairs=0.5
store merge good.h5
store merge good.h5 -o a.xyz
store export good.h5 -o a.xyz
store export good.h5 -o e.npy --array int8
weights nothing
weights pull hf://bad
weights pull hf://a/b --sha256 00
"""
CANNOT_BE_DONE = """
embed image gone.png
embed image gone/
embed image gone*.png
embed image a.png -o gone/a.h5
embed image a.png -o junk.h5
embed image a.png --model nosuch
embed image a.png --model huge
embed image a.png --model folder
embed image a.png --model junk.pth
embed image a.png --model junk.pth --config gone.json
embed image --manifest gone.jsonl
embed image --manifest folder
embed image a.png --errors folder
embed image a.png --errors gone/e.jsonl
embed image a.png --errors junk.jsonl
embed text hello -o good.h5
preprocess image a.png -o gone/a.tar
preprocess image a.png -o junk.h5
preprocess image a.png --preview a.png
preprocess image a.png -o b.tar --model nosuch
train --pairs image-text --data gone.jsonl --out run
train --recipe nosuch --data pairs.jsonl --out run
train --recipe junk.toml --data pairs.jsonl --out run
train --recipe unfit.toml --data pairs.jsonl --out run
train --recipe unfit.toml --data pairs.jsonl --out run --set run.seed=1
train --recipe folder --data pairs.jsonl --out run
train --pairs image-text --data pairs.jsonl --dry-run --model nosuch
zeroshot image a.png --labels gone.txt
zeroshot image a.png --labels a,b --templates gone.txt
zeroshot image a.png --labels a,b --truth gone.csv
zeroshot image a.png --classes gone
zeroshot image a.png --labels a,b --report gone/r.json --truth folder
zeroshot --suite nosuch --root folder
zeroshot --suite esc50 --root gone
zeroshot --suite esc50 --root folder
zeroshot image text.h5 --labels a,b
retrieve gone.h5 --text a
retrieve folder --text a
retrieve junk.h5 --text a
retrieve good.h5 --like nosuch
retrieve good.h5 --vector gone.npy
retrieve good.h5 --queries gone.txt
retrieve good.h5 --queries folder
retrieve good.h5 --text a --modality audio
retrieve good.h5 text.h5 --pairs gone.jsonl
retrieve good.h5 --text a --html gone/p.html
retrieve good.h5 --text a --model nosuch
retrieve good.h5 --text a --model mini
moments gone.wav --text a
moments good.h5 --text a
moments good.h5 --truth gone.jsonl
store info gone.h5
store info folder
store info junk.h5
store inspect gone.h5
store inspect good.h5
store inspect good.h5 text.h5 --pairs gone.jsonl
store compact gone.h5
store compact folder
store compact junk.h5
store merge gone.h5 -o m.h5
store merge good.h5 text.h5 -o m.h5
store merge good.h5 -o gone/m.h5
store export gone.h5 -o b.npy
store export good.h5 -o text.h5
store export good.h5 -o gone/b.npy
store export good.h5 -o gone/b.parquet
weights info nosuch
weights info folder
weights info junk.pth
weights verify nosuch
weights verify huge
weights pull nosuch
weights pull mini
weights convert gone.pth d
weights convert junk.pth d
weights convert tiny folder
demo --html folder
"""


COMMANDS_BELOW = (
    "info",
    "inspect",
    "merge",
    "export",
    "compact",
    "prune",
    "check",
    "list",
    "pull",
    "convert",
    "verify",
)  # store's and weights'


def by_command(lines: str) -> list[list[str]]:
    """Wrong commands, those of one command together."""
    return [list(group) for _, group in groupby(lines.strip().splitlines(), key=lambda line: line.split()[0])]


class TestErrors:
    @pytest.mark.parametrize("lines", by_command(WRONG_WORDS), ids=lambda lines: lines[0].split()[0])
    def test_wrong_words_exit_2_with_a_hint(self, files: Path, here: Run, lines: list[str]) -> None:
        for line in lines:
            done = here(line)
            assert (line, done.code, done.out) == (line, 2, b"")
            message, hint = done.notices
            assert message.startswith("imagebind: "), line
            assert message[11] not in "ABCDEFGHIJKLMNOPQRSTUVWXYZ", line
            words = line.split()
            below = [*MODALITIES] if words[0] in ("embed", "preprocess", "zeroshot") else COMMANDS_BELOW
            command = " ".join(["imagebind", *words[:1], *(word for word in words[1:2] if word in below)]).removesuffix(" nothing")
            assert hint == f"imagebind: hint: {command} --help"

    @pytest.mark.parametrize("lines", by_command(CANNOT_BE_DONE), ids=lambda lines: lines[0].split()[0])
    def test_what_cannot_be_done_exits_1_with_one_line(self, files: Path, here: Run, lines: list[str]) -> None:
        before = (files / "junk.jsonl").read_bytes()
        for line in lines:
            done = here(line)
            assert (line, done.code, done.out) == (line, 1, b"")
            assert len(done.notices) == 1, (line, done.notices)
            assert done.notices[0].startswith("imagebind: "), line
            assert "Traceback" not in done.err
        assert (files / "junk.jsonl").read_bytes() == before

    def test_names_never_reach_the_terminal_raw(self, files: Path, here: Run) -> None:
        evil = "\x1b[31mred\r"
        for words in (
            ["embed", "image", evil],
            ["embed", "image", "a.png", "--model", evil],
            ["store", "info", evil],
            ["embed", "image", "a.png", "--device", evil],
            ["embed", "image", f"--{evil}"],
            [evil],
        ):
            done = here(*words, "") if len(words) == 1 else here(*words)
            assert done.code in (1, 2)
            assert "\x1b" not in done.err
            assert "\r" not in done.err
        Path("imagebind.toml").write_text('"\\u001b[31m" = 1\n')
        assert "\x1b" not in here("embed image a.png").err

    def test_tables_are_escaped(self, files: Path, here: Run) -> None:
        assert here("weights convert tiny model").code == 0
        config = json.loads(Path("model/config.json").read_text())
        Path("model/config.json").write_text(json.dumps(config | {"about": "\x1b[31mred", "licence": "\x1b]0;title\x07"}))
        Path("model/CARD.md").write_text("# \x1b[31mred\nsecond line\n")
        done = here("weights info model")
        assert done.code == 0, done.err
        assert b"\x1b" not in done.out
        assert b"second line\n" in done.out


@pytest.mark.parametrize("name", ["nosuch", "empty", "nosuch*.png"])
@pytest.mark.parametrize("output", ["x.h5", "x.store", "x.npy", "x.jsonl"])
def test_no_store_is_made_where_nothing_can_be_read(here: Run, name: str, output: str) -> None:
    Path("empty").mkdir()
    assert here(f"embed image {name} -o {output}").code == 1
    assert [path.name for path in Path().iterdir()] == ["empty"]


def test_a_model_folder_is_named_by_an_option_or_last(here: Run) -> None:
    assert here("weights convert tiny one").code == 0
    assert here("weights convert tiny -o two").code == 0
    assert Path("two/config.json").is_file()
    again = here("weights convert tiny --dtype int8 -o two")
    assert (again.code, again.notices) == (1, ["imagebind: two exists already; choose a new folder"])
    assert here("weights convert tiny").code == 2


def test_a_misspelt_model_is_answered_with_the_nearest(here: Run) -> None:
    done = here("embed text hello --model mimi")
    assert done.notices[-1] == "imagebind: no model 'mimi': not a folder, not a file, not hf://owner/repo; did you mean mini?"
    assert "not one of mini, " in here("embed text hello --model xyzzy").notices[-1]


def test_a_folder_of_photos_may_have_a_models_name(here: Run) -> None:
    Path("tiny/photos").mkdir(parents=True)
    generate.picture(Path("tiny/photos/0.png"))
    done = here("embed text hello --model tiny")
    assert done.code == 0, done.err
    assert here("embed image tiny/photos --model tiny").code == 0
    Path("tiny/config.json").write_text("{}")  # what looks like a model is taken for one
    assert here("embed text hello --model tiny").code == 1


def test_verbose_names_variables_that_mean_nothing(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEBIND_RETREIVE_K", "3")
    assert "IMAGEBIND_RETREIVE_K (did you mean IMAGEBIND_RETRIEVE_K?): no option has this variable" in here("embed text hello -v").err
    assert "IMAGEBIND_RETREIVE_K" not in here("embed text hello").err


def test_a_store_of_merged_tokens_is_measured_by_merge(here: Run) -> None:
    generate.picture(Path("a.png"))
    assert here("embed image a.png -o plain.h5").code == 0
    assert here("embed image a.png -o merged.h5 --merge 4").code == 0
    assert "`imagebind weights verify --merge 4` measures how far" in here("retrieve merged.h5 plain.h5 --text dog").err


def test_a_store_leads_to_the_folder_of_its_model(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    generate.picture(Path("a.png"))
    assert here("weights convert tiny models/one").code == 0
    assert here("embed image a.png -o s.h5 --model models/one").code == 0
    monkeypatch.delenv("IMAGEBIND_MODEL")
    done = here("retrieve s.h5 --text dog")
    assert done.code == 0, done.err
    assert done.ids == ["a.png"]
    assert f"model {Path('models/one').absolute()}, by which s.h5 says that it was made" in done.err
    Path("models/one").rename("models/two")
    assert here("retrieve s.h5 --text dog").code == 1
    assert here("retrieve s.h5 --text dog --model models/two").ids == ["a.png"]
