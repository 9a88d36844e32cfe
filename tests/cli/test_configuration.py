"""Options from variables and from `imagebind.toml`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import generate
from tests.conftest import Run


def test_command_line_wins_over_variables_over_files(here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate.picture(Path("a.png"))
    Path("imagebind.toml").write_text('[embed]\noutput = "file.npy"\n')
    user = tmp_path / "user/imagebind"
    user.mkdir(parents=True)
    (user / "imagebind.toml").write_text('[embed]\noutput = "user.npy"\narray = "float16"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    assert here("embed image a.png").code == 0
    assert json.loads(here("store info file.npy --json").out)["array"] == "float16"
    monkeypatch.setenv("IMAGEBIND_EMBED_OUTPUT", "variable.npy")
    assert here("embed image a.png").code == 0
    assert here("embed image a.png -o typed.npy --array float32").code == 0
    assert json.loads(here("store info typed.npy --json").out)["array"] == "float32"
    assert {path.name for path in tmp_path.glob("*.npy")} == {"file.npy", "variable.npy", "typed.npy"}


@pytest.mark.parametrize("section", ['["store check"]\njson = true', "[store.check]\njson = true", "[store]\njson = true", "json = true"])
def test_sections_of_commands_in_groups(here: Run, section: str) -> None:
    assert here("embed text hello -o t.h5").code == 0
    Path("imagebind.toml").write_text(section)
    assert json.loads(here("store check t.h5").out) == {"ok": True, "stores": [{"store": "t.h5", "ok": True, "findings": []}]}


@pytest.mark.parametrize("name", ["IMAGEBIND_STORE_CHECK_JSON", "IMAGEBIND_STORE_JSON"])
def test_variables_of_commands_in_groups(here: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert here("embed text hello -o t.h5").code == 0
    monkeypatch.setenv(name, "1")
    assert json.loads(here("store check t.h5").out)["ok"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[embed]\nbatchsize = 3", "imagebind.toml: [embed] batchsize: no such option; did you mean batch_size?"),
        ("modell = 'tiny'", "imagebind.toml: modell: no such option; did you mean model?"),
        ("[embd]\nmodel = 'tiny'", "imagebind.toml: [embd]: no such command; did you mean embed?"),
        ("[store.chekc]\njson = true", "imagebind.toml: [store chekc]: no such command; did you mean store check?"),
        ("[embed]\nbatch_size = 'many'", "imagebind.toml: [embed] batch_size: a valid integer is needed"),
        ("[embed]\nbatch_size = '3'", "imagebind.toml: [embed] batch_size: a number is needed, not text: '3'"),
        ("[embed]\nstrict = 'yes'", "imagebind.toml: [embed] strict: true or false is needed, not text: 'yes'"),
        ("[embed]\nmodel = 3", "imagebind.toml: [embed] model: text is needed, not a number: 3"),
        ("[embed]\nmodel = ['a']", "imagebind.toml: [embed] model: one value is needed, not a list"),
        ("dtype = 'fp33'", "imagebind.toml: dtype: 'fp33' is not one of 'auto', 'fp32', 'bf16', 'fp16', 'int8'"),
        ("[embed]\nversion = true", "imagebind.toml: [embed] version: no such option"),
        ("model = ", "imagebind.toml: not TOML: "),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(here: Run, text: str, message: str) -> None:
    Path("imagebind.toml").write_text(text)
    done = here("embed text hello")
    assert (done.code, done.out, len(done.notices)) == (1 if "not TOML" in message else 2, b"", 1)
    assert done.err.startswith(f"imagebind: {message}")
    assert here("embed --help").code == 0
    assert here("--version").code == 0


def test_a_wrong_value_of_a_variable_is_named_by_the_variable(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEBIND_EMBED_BATCH_SIZE", "many")
    done = here("embed text hello")
    assert (done.code, done.notices[0]) == (2, "imagebind: IMAGEBIND_EMBED_BATCH_SIZE: a valid integer is needed")
    assert here("embed text hello --batch-size 2").code == 0
    assert here("weights list").code == 0


def test_options_of_files_count_as_given(here: Run) -> None:
    Path("imagebind.toml").write_text('[embed]\nretry_errors = true\nerrors = "failures.jsonl"\n')
    done = here("embed text", stdin=b"")
    assert done.code == 2
    assert done.notices[0].startswith("imagebind: --retry-errors selects among the inputs")
    assert "imagebind: hint: not from the command line: imagebind.toml: [embed] retry_errors = True" in done.notices[1]


@pytest.mark.parametrize(
    ("setting", "command", "flag"),
    [
        ('[embed]\narray = "float16"', "embed text hello", "--array float16"),
        ("[embed]\nverify = true\nretry_errors = true", "embed text hello", "--verify"),
        ('[embed]\nbehind = "drop"', "embed text hello", "--behind drop"),
        ("[embed]\nshares = 4", "embed text hello", "--shares 4"),
        ('[embed]\ncolumn = ["text=caption"]', "embed text hello", "--column text=caption"),
        ("[zeroshot]\nshots = 2\nepochs = 5", "zeroshot text hello --labels a,b", "--shots 2"),
        ('[zeroshot]\nreport = "report.json"\nstretches = true', "zeroshot text hello --labels a,b", "--report report.json"),
        ("[zeroshot]\nnms = 0.5", "zeroshot text hello --labels a,b", "--nms 0.5"),
        ("[retrieve]\nk = 20", "retrieve t.h5 t.h5 --pairs ids", "-k 20"),
        ('[retrieve]\nweights = "0.5 0.5"', "retrieve t.h5 --queries lines.txt", "--weights 0.5"),
        ("k = 3", "store inspect t.h5 t.h5 --pairs ids", "-k 3"),
    ],
)
def test_an_option_without_use_is_an_error_only_where_it_is_typed(here: Run, setting: str, command: str, flag: str) -> None:
    assert here("embed text hello goodbye dog cat -o t.h5").code == 0
    Path("lines.txt").write_text("a dog\n")
    plain = here(command)
    assert plain.code == 0, plain.err
    typed = here(f"{command} {flag}")
    assert typed.code == 2, typed.err
    Path("imagebind.toml").write_text(setting)
    from_file = here(f"{command} -v")
    assert from_file.code == 0, from_file.err
    assert from_file.out == plain.out
    assert f"{flag.split(maxsplit=1)[0]} is skipped, since it was not typed" in from_file.err
    assert not Path("report.json").exists()


def test_of_a_command_of_many_modalities_only_what_the_modality_has_is_taken(here: Run) -> None:
    generate.picture(Path("a.png"))
    Path("imagebind.toml").write_text("[embed]\nfps = 3\n[preprocess]\nfps = 3\n[zeroshot]\nfps = 3\n[retrieve]\nfps = 3\n")
    done = here("embed text hello -o t.h5 -v")
    assert done.code == 0, done.err
    assert "fps" in done.err
    assert "skipped" in done.err
    assert here("preprocess text hello --inspect").code == 0
    assert here("zeroshot text hello --labels a,b").code == 0
    assert here("retrieve t.h5 --text hello").code == 0
    assert here("embed text hello --fps 3").code == 2


@pytest.mark.parametrize("section", ["[embed.audio]", '["embed audio"]'])
def test_a_section_of_one_modality(here: Run, monkeypatch: pytest.MonkeyPatch, section: str) -> None:
    generate.audio(Path("a.wav"), seconds=9)
    generate.video(Path("a.mp4"), seconds=9)
    Path("imagebind.toml").write_text(f'{section}\nclips = 3\n[embed]\nclips = 2\npool = "none"\n')
    assert [len(here(command).rows) for command in ("embed audio a.wav", "embed video a.mp4", "embed text hello")] == [3, 2, 1]
    monkeypatch.setenv("IMAGEBIND_EMBED_CLIPS", "4")
    monkeypatch.setenv("IMAGEBIND_EMBED_AUDIO_CLIPS", "1")
    assert [len(here(command).rows) for command in ("embed audio a.wav", "embed video a.mp4")] == [1, 4]
    Path("imagebind.toml").write_text("[embed.image]\nclips = 3\n")
    assert here("embed audio a.wav").err.startswith("imagebind: imagebind.toml: [embed image] clips: no such option")


def test_queries_of_a_file_are_asked(here: Run) -> None:
    assert here("embed text hello world -o t.h5").code == 0
    Path("imagebind.toml").write_text('[retrieve]\ntext = ["hello"]\nk = 1\n')
    done = here("retrieve t.h5")
    assert [row["id"] for row in done.rows] == ["hello"], done.err


def test_doctor_says_what_is_in_force(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagebind_cli.cli.doctor.check_installation", list)
    Path("imagebind.toml").write_text("[embed]\nbatch_size = 3\n")
    monkeypatch.setenv("IMAGEBIND_EMBED_BATCHSIZE", "3")
    monkeypatch.setenv("IMAGEBIND_MIRROR", "https://user:secret@host/")
    report = json.loads(here("doctor --json").out)["configuration"]
    assert report["settings"] == [{"file": "imagebind.toml", "section": "embed", "option": "batch_size", "value": "3"}]
    assert report["variables"]["IMAGEBIND_MODEL"] == "tiny"
    assert report["unknown_variables"] == ["IMAGEBIND_EMBED_BATCHSIZE (did you mean IMAGEBIND_EMBED_BATCH_SIZE?)"]
    plain = here("doctor").out.decode()
    assert "imagebind.toml: [embed] batch_size = 3" in plain
    assert "have no effect: IMAGEBIND_EMBED_BATCHSIZE" in plain
    assert "secret" not in plain
    Path("imagebind.toml").write_text("[embed]\nbatch = 3\n")
    done = here("doctor --json")
    assert done.code == 1
    assert "[embed] batch: no such option" in json.loads(done.out)["configuration"]["error"]


def test_a_file_is_data(here: Run) -> None:
    Path("imagebind.toml").write_text("[embed]\nerrors = '$(touch owned)'\n")
    assert here("embed text hello").code == 0
    assert not Path("owned").exists()


def test_the_shape_of_regions_is_skipped_where_there_are_no_boxes(here: Run) -> None:
    generate.picture(Path("a.png"))
    plain = here("embed image a.png")
    assert here("embed image a.png --region-shape square").code == 2
    Path("imagebind.toml").write_text('[embed]\nregion_shape = "square"\n')
    from_file = here("embed image a.png")
    assert (from_file.code, from_file.out) == (0, plain.out), from_file.err
