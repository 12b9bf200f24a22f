"""Settings as YAML: every one printed with what it is, read again as it was, and mistakes told with their place."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from napari_hyperst.cli import main
from napari_hyperst.errors import ConfigError
from napari_hyperst.nouns.ablations import ABLATIONS, ablation
from napari_hyperst.nouns.hierarchy import AlignmentConfig
from napari_hyperst.nouns.methods import DELSTConfig, HyperSTConfig
from napari_hyperst.nouns.settings import REQUIRED, Setting, as_yaml, describe_settings, settings_as_yaml
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.training.settings import OPTIONS, read_config, settings_text
from napari_hyperst.training.settings_file import read_settings_file, read_value


def config(**changes: object) -> TrainConfig:
    return TrainConfig(slides=(Path("a"),), out=Path("o"), **changes)


def read(tmp_path: Path, text: str, *words: str) -> TrainConfig:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    return read_config([Path("a")], [], Path("o"), tmp_path / "c.yaml", words)


PAPER = AlignmentConfig.preset("paper")
CONFIGS = {
    **{name: config(method=ablation(name)) for name in ABLATIONS},
    "delst": config(method=DELSTConfig(parent="image", quantile=0.5)),
    "paper": config(method=HyperSTConfig(alignment=PAPER)),
    "odd values": TrainConfig(
        slides=(Path("slides/no"), Path("a: b # c"), Path("1e-3")), validation=(Path("ключ\nline"),), out=Path("~"),
        name="off", init_from="null", device="0o17", learning_rate=1e-5, clip=1e22, cache="off", micro_batch=7,
        tiles=TileSpec(niche_um=250), trackers=("wandb", "mlflow"), balance_slides=True, processes=2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("comments", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_is_read_again(tmp_path: Path, name: str, comments: bool) -> None:
    """By our reader, and by one of YAML 1.1."""
    text = settings_as_yaml(CONFIGS[name], heading="two\nlines", comments=comments)
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    assert read_config([], [], None, tmp_path / "c.yaml", []) == CONFIGS[name]
    assert TrainConfig.model_validate(yaml.safe_load(text)) == CONFIGS[name]
    assert text.startswith("# two\n# lines\n")
    assert text.endswith("\n")
    assert not any(line != line.rstrip() for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 120


@given(st.text() | st.floats(allow_nan=False) | st.integers() | st.booleans() | st.none())
def test_one_value_is_written_in_a_line_that_both_versions_read(value: object) -> None:
    for text in (as_yaml(value), as_yaml([value])):
        assert len(text.splitlines()) == 1
    assert read_value(as_yaml(value)) == value
    assert yaml.safe_load(as_yaml([value])) == [value]


def every_setting(model: type[BaseModel]) -> Iterator[Setting]:
    for setting in describe_settings(model):
        yield setting
        for inner in setting.models:
            yield from every_setting(inner)


def test_every_setting_is_described() -> None:
    settings = list(every_setting(TrainConfig))
    assert {"slides", "cache", "encoder", "geometry", "eta", "quantile", "niche_um"} <= {one.name for one in settings}
    assert [one.name for one in settings if not one.description] == []
    assert not any("``" in one.description or "METHODS" in one.description for one in settings)


def test_a_setting_tells_its_default_and_what_it_takes() -> None:
    settings = {one.name: one for one in describe_settings(TrainConfig)}
    assert list(settings) == list(TrainConfig.model_fields)
    assert settings["slides"].default is REQUIRED
    assert settings["epochs"].default == 30
    assert settings["method"].models == (HyperSTConfig, DELSTConfig)
    assert settings["learning_rate"].description == settings["lora_learning_rate"].description
    assert settings["learning_rate"].description.startswith("AdamW's, for the heads and for LoRA")
    allowed = {
        name: settings[name].allowed for name in ("cache", "average", "micro_batch", "trackers", "seed", "tiles")
    }
    assert allowed == {
        "cache": "disk, memory or off",
        "average": "number >= 0 and < 1",
        "micro_batch": "whole number > 0 or null",
        "trackers": "any of tensorboard, wandb, mlflow",
        "seed": "whole number >= 0",
        "tiles": "",
    }
    aligned = {one.name: one for one in describe_settings(AlignmentConfig)}
    assert aligned["contrastive"].allowed == "pairs of spot_image, niche_image, spot_gene or niche_gene"
    assert {one.name: one.allowed for one in describe_settings(TileSpec)}["niche_um"] == "number > 0 or ring"


def test_printed_settings_say_what_each_is_and_what_differs() -> None:
    lines = settings_text(None, ["epochs=7", "method.dim=64"]).splitlines()
    assert lines[0] == "# Settings of a training run: napari-hyperst train --config FILE"
    at = lines.index("epochs: 7  # whole number > 0; default 30")
    assert lines[at - 2 : at] == ["", "# How long, and the most spots a step, over all processes."]
    assert lines[at + 1] == "batch_size: 128  # whole number >= 2"
    assert "  dim: 64  # whole number > 0 and <= 8192; default 128" in lines
    assert "  kind: hyperst" in lines
    assert any("; null for all of them." in line for line in lines)
    given_elsewhere = [line for line in lines if "given with" in line]
    assert given_elsewhere == [f"# {name}: given with {how}" for name, how in OPTIONS.items()]
    assert set(yaml.safe_load("\n".join(lines))) == set(TrainConfig.model_fields) - set(OPTIONS)


def test_printed_settings_keep_what_the_file_names(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("slides: [x, y]\nepochs: 3\n")
    content = yaml.safe_load(settings_text(tmp_path / "c.yaml", []))
    assert content["slides"] == ["x", "y"]
    assert content["epochs"] == 3
    assert not {"out", "validation"} & set(content)


def test_the_command_prints_what_train_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, suffix in (((), "yaml"), (("--json",), "json")):
        with pytest.raises(SystemExit) as left:
            main(["settings", "--set", "method.ablation=clip", "--set", "cache=off", *words])
        assert left.value.code == 0
        file = tmp_path / f"c.{suffix}"
        file.write_text(capsys.readouterr().out)
        found = read_config([Path("a")], [], Path("o"), file, [])
        assert found == config(method=ablation("clip"), cache="off")
    assert json.loads((tmp_path / "c.json").read_text())["cache"] == "off"


def test_settings_are_printed_without_torch() -> None:
    code = "import sys; from napari_hyperst.training.settings import settings_text; settings_text(None, []); "
    code += "print(sorted({'torch', 'timm', 'peft', 'spatialdata', 'anndata', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_settings_of_the_bundled_checkpoint_are_those_it_was_trained_with() -> None:
    root = Path(__file__).parents[2]
    found = read_config([Path("a")], [], Path("o"), root / "scripts" / "her2st-dinov2s.yaml", [])
    card = json.loads((root / "src/napari_hyperst/assets/checkpoints/her2st-dinov2s/card.json").read_text())
    assert found.name == card["name"]
    assert found.method == HyperSTConfig.model_validate(card["method"])
    named = ("genes", "epochs", "batch_size", "learning_rate", "lora_learning_rate", "weight_decay", "symmetries")
    assert {name: getattr(found, name) for name in named} == {name: card["training"][name] for name in named}


def test_words_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    """In 1.1, ``off`` and ``no`` are false, ``1e-3`` a word, ``010`` eight, ``1:30`` ninety and a date a date."""
    found = read(
        tmp_path,
        "cache: off\nname: no\nlearning_rate: 1e-3\nlora_learning_rate: 5E-4\nseed: 010\ninit_from: 2024-01-01\n"
        "device: 1:30\nbalance_slides: true\nmicro_batch: ~\nclip: 2.\n",
    )
    assert found == config(
        cache="off", name="no", learning_rate=1e-3, lora_learning_rate=5e-4, seed=10, init_from="2024-01-01",
        device="1:30", balance_slides=True, clip=2.0,
    )  # fmt: skip
    assert [read_value(word) for word in ("yes", "0o17", "0x1F", "+12", "1_000", "3: [x", "")] == [
        "yes", 15, 31, 12, "1_000", "3: [x", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["cache=off", "learning_rate=1e-3"], {"cache": "off", "learning_rate": 1e-3}),
        (["trackers=[wandb, mlflow]", "micro_batch=null"], {"trackers": ("wandb", "mlflow")}),
        (["micro_batch=8", "tiles.niche_um=300"], {"micro_batch": 8, "tiles": TileSpec(niche_um=300)}),
        (["method.kind=delst", "method.parent=image"], {"method": DELSTConfig(parent="image")}),
        (["method.ablation=meru", "method.dim=8"], {"method": ablation("meru", HyperSTConfig(dim=8))}),
        (["method={dim: 8, alignment: paper}"], {"method": HyperSTConfig(dim=8, alignment=PAPER)}),
        (["name='12'", "init_from=a=b"], {"name": "12", "init_from": "a=b"}),
    ],
)  # fmt: skip
def test_words_of_the_command_line_are_yaml(words: list[str], changes: dict[str, object]) -> None:
    assert read_config([Path("a")], [], Path("o"), None, words) == config(**changes)


def test_the_method_is_shortened_in_a_file_too(tmp_path: Path) -> None:
    found = read(tmp_path, "method:\n  ablation: euclidean\n  alignment: paper\n", "method.dim=32")
    assert found.method == ablation("euclidean", HyperSTConfig(dim=32, alignment=PAPER))


def test_options_override_the_file_and_leave_what_they_do_not_give(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("slides: [x, y]\nvalidation: [z]\nout: there\n")
    found = read_config([], [], None, tmp_path / "c.yaml", ["validation=[w]"])
    assert (found.slides, found.validation, found.out) == ((Path("x"), Path("y")), (Path("w"),), Path("there"))
    found = read_config([Path("a")], [Path("v")], Path("o"), tmp_path / "c.yaml", [])
    assert (found.slides, found.validation, found.out) == ((Path("a"),), (Path("v"),), Path("o"))
    with pytest.raises(ConfigError, match="slides is missing; give --slides A B"):
        read_config([], [], Path("o"), None, [])


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_sets_nothing(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == config()


UNKNOWN = {
    "epoch: 3": ("1: there is no setting 'epoch'", "did you mean epochs?"),
    "genes: 3\ntiles:\n  spt_um: 3": ("3: there is no setting 'tiles.spt_um'", "did you mean tiles.spot_um?"),
    "method:\n  ablaton: meru": ("2: there is no setting 'method.ablaton'", "did you mean method.ablation?"),
    "method:\n  alignment:\n    weigth: 1": (
        "3: there is no setting 'method.alignment.weigth'", "did you mean method.alignment.weight?",
    ),
    "method: {kind: delst, cross_wait: 1}": (
        "1: there is no setting 'method.cross_wait'", "did you mean method.cross_weight?",
    ),
    "method:\n  alignment:\n    relations:\n    - {parent: spot_image,\n       chld: spot_gene}": (
        "5: there is no setting 'method.alignment.relations.0.chld'", "mean method.alignment.relations.0.child?",
    ),
    "method:\n  kind: delst\n  linear_path: true": (
        "3: there is no setting 'method.linear_path'", "delst has none, but another method has",
    ),
    "zzz: 1": ("1: there is no setting 'zzz'", "known are slides, validation, opened, out, name"),
}  # fmt: skip


@pytest.mark.parametrize("text", UNKNOWN)
def test_an_unknown_setting_is_told_with_its_line_and_the_nearest(tmp_path: Path, text: str) -> None:
    place, do = UNKNOWN[text]
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'c.yaml'}:{place}")
    assert do in str(caught.value)


WRONG = {
    "genes: 3\nepochs: [1\nseed: 2\n": (3, "expected ',' or ']'"),
    "genes: 3\n\tepochs: 1\n": (2, "cannot start any token"),
    "genes: 3\nepochs: !!python/name:os.system\n": (2, "could not determine a constructor"),
    "genes: 3\nseed: 1\n\ngenes: 4\n": (4, "genes is set twice, first in line 1"),
    "tiles:\n  pixels: 224\n  pixels: 256\n": (3, "tiles.pixels is set twice, first in line 2"),
    "genes: 3\n1: 2\n": (2, "'1' is no name of a setting"),
    "genes: 3\nname: a\x07b\n": (2, "special characters are not allowed"),
    "genes: 3\n---\nseed: 1\n": (2, "another document"),
    "genes: 3\nepochs: many\n": (2, "epochs: Input should be a valid integer"),
    "genes: 3\nname: 12\n": (2, "put it in quotes"),
    "genes: 3\ntiles:\n  pixels: 7\n": (3, "tiles.pixels: Input should be greater than or equal to 14"),
    "genes: 3\nmethod: {kind: delts}\n": (2, "there are hyperst and delst"),
    "genes: 3\nmethod:\n  ablation: merru\n": (3, "there is no ablation 'merru'; did you mean meru?"),
    "method:\n  kind: delst\n  ablation: meru\n": (3, "'meru' is an ablation of hyperst, not of delst"),
    "method:\n  alignment: publisher\n": (2, "there is no alignment preset 'publisher'"),
    "seed: 1\nslides: &a [*a]\n": (2, "slides"),
    "seed: !!int x\n": (None, "invalid literal"),
    "- genes\n": (None, "holds no settings by name"),
    "just words\n": (None, "holds no settings by name"),
    "a: " + "[" * 5000: (None, "nested too deeply"),
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: repr(text[:40]))
def test_a_mistake_in_a_file_is_told_with_its_line(tmp_path: Path, text: str) -> None:
    line, told = WRONG[text]
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_config([], [], Path("o"), tmp_path / "c.yaml", ["slides=[a]"] if "slides" not in text else [])
    where = f"{tmp_path / 'c.yaml'}" + ("" if line is None else f":{line}")
    assert caught.value.where == where
    assert told in str(caught.value)


def test_a_mistake_in_a_word_is_told_as_that_word_not_as_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "epochs: 3\n", "seed=1", "epochs=0")
    assert caught.value.where == "--set epochs=0"
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "epochs: 0\n", "seed=1")
    assert caught.value.where == f"{tmp_path / 'c.yaml'}:1"


def test_json_is_read_with_tabs_and_all(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{\n\t"epochs": 5,\n\t"name": "\\ud83d\\ude00"\n}')
    found = read_config([Path("a")], [], Path("o"), tmp_path / "c.json", [])
    assert (found.epochs, found.name) == (5, "😀")
    (tmp_path / "c.json").write_text('{\n"epochs": 5,\n}')
    with pytest.raises(ConfigError, match=r"c\.json:2|c\.json:3"):
        read_settings_file(tmp_path / "c.json")


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings_file(tmp_path / "none.yaml")
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings_file(tmp_path / "c.yaml")
