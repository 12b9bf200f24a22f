"""What is told and read again where somebody who means harm had a hand in it: errors, events, logs and runs."""

from __future__ import annotations

import copy
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_hyperst.errors import HyperSTError, StoreError, plain, scrub, unmarked
from napari_hyperst.jobs.job import CONFIG, EVENTS, REQUEST, STATUS, Job
from napari_hyperst.jobs.worker import run
from napari_hyperst.models.hyperst import HyperST
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.tasks import PredictTask, SlideRef
from napari_hyperst.received import parse_json, read_received
from napari_hyperst.training.folder import resumable
from napari_hyperst.training.state import NUMBERS, TENSORS, Progress, read_state, write_state

TOKEN = "hf_" + "aB3" * 11

SECRETS = {
    f"token {TOKEN} was refused": "token *** was refused",
    "hf_oauth_eyJ0.abc-def_9 and hf_hub_download": "*** and hf_hub_download",
    "https://a:b@host/x?sig=AbC%3D&se=1": "https://***@host/x?sig=***&se=1",
    "{'authorization': 'Bearer abc.def'}": "{'authorization': 'Bearer ***'}",
    "Authorization: Basic dXNlcjpw": "Authorization: Basic ***",
    "https://s3/x?X-Amz-Credential=AK/1&X-Amz-Security-Token=zz&X-Amz-Signature=ff": (
        "https://s3/x?X-Amz-Credential=***&X-Amz-Security-Token=***&X-Amz-Signature=***"
    ),
    "basic settings, a token and a signature; see https://host/a@b": "basic settings, a token and a signature; see https://host/a@b",
}  # fmt: skip


@pytest.mark.parametrize("said", SECRETS)
def test_secrets_are_scrubbed_and_words_are_not(said: str) -> None:
    assert scrub(said) == SECRETS[said]
    assert str(HyperSTError(said)) == SECRETS[said]


def test_an_error_is_a_line_that_cannot_move_the_cursor() -> None:
    error = HyperSTError("a\x1b[2J\x9b1m\u202eb\ud800", where="/x\ny", do="mend\u2028it\0")
    assert str(error) == "/x y: a\ufffd[2J\ufffd1m\ufffdb\ufffd; mend it\ufffd"
    assert plain("Größe in µm, 肝臓") == "Größe in µm, 肝臓"
    assert "<" not in unmarked("<img src='file:///etc/passwd'>")


def make_job(folder: Path) -> Job:
    return Job.create(folder, PredictTask(slide=SlideRef(path=folder), checkpoint="x"))


def test_a_token_gets_into_no_file_of_a_job(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of an error that is expected, nor of one that is not, whose traceback goes to the log."""
    monkeypatch.setenv("HF_TOKEN", "not-the-hubs-own-form")

    def fail(error: Exception) -> Callable[..., None]:
        def work(task: object, folder: Path, report: Callable[[str, dict[str, Any]], None]) -> None:
            report("warning", {"message": f"Bearer {TOKEN}"})
            raise error from RuntimeError(f"GET https://host/?token={TOKEN} as not-the-hubs-own-form")

        return work

    for number, error in enumerate((HyperSTError(f"with {TOKEN}"), RuntimeError(f"of {TOKEN}"))):
        job = make_job(tmp_path / str(number))
        assert run(job, perform=fail(error)).kind == "error"
    printed = "".join(capfd.readouterr())
    assert "RuntimeError: of ***" in printed
    assert "GET https://host/?token=***" in printed
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "with ***" in written
    for text in (printed, written):
        assert TOKEN not in text
        assert "not-the-hubs-own-form" not in text


def harmed(name: str, harm: Callable[[Path], object]) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        harm(folder / name)

    return do


ODD: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo if hasattr(os, "mkfifo") else Path.mkdir,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link out": lambda path: path.symlink_to("/etc/passwd"),
    "1 TiB": lambda path: (path.touch(), os.truncate(path, 2**40)),
    "nested deep": lambda path: path.write_text("[" * 10**5),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe\0"),
    "another type": lambda path: path.write_text("[1, 2]"),
    "an infinity": lambda path: path.write_text('{"pid": 1e999, "beat": NaN, "running": true, "request": NaN}'),
}  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="links, pipes and devices are those of Unix")
@pytest.mark.parametrize("name", ODD)
def test_odd_files_in_a_job_that_was_sent(tmp_path: Path, name: str) -> None:
    job = make_job(tmp_path / "job")
    for file in (STATUS, REQUEST, CONFIG):
        harmed(file, ODD[name])(job.folder)
    assert job.status() is None
    assert not job.asked("stop")
    with pytest.raises(StoreError, match="is no job's folder"):
        job.task  # noqa: B018
    with pytest.raises(StoreError, match="is no training run"):
        resumable(job.folder)
    if name not in ("1 TiB", "a link out"):
        harmed(EVENTS, ODD[name])(job.folder)
        assert job.follow().new() == []


@pytest.mark.parametrize(
    ("text", "told"),
    [(b'{"a": 1, "a": 2}', "there twice"), (b"[" * 10**5, "nested too deep"), (b"[-Infinity]", "no number"),
     (b"1e400", "no finite number"), (b"9" * 10**4, "integer string"), (b"\xff", "utf-8"), (b"", "Expecting value")],
)  # fmt: skip
def test_json_means_one_thing(text: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_json(text)


def test_a_file_that_grows_is_read_no_further(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_received(tmp_path / "x", 5) == b"12345"
    with pytest.raises(ValueError, match="at most are read"):
        read_received(tmp_path / "x", 4)


@pytest.fixture(scope="module")
def run_state(
    tiny_encoder: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, HyperST, HyperST, torch.optim.AdamW]:
    """Return the state of a run after a step, with what it is of."""
    torch.manual_seed(0)
    model = HyperST(HyperSTConfig(encoder=tiny_encoder, lora_blocks=1, dim=8), 3)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimiser.step()
    averaged = copy.deepcopy(model)
    folder = tmp_path_factory.mktemp("state")
    write_state(folder, Progress(step=1, sums={"total": 1.5}, scaler={"scale": 2.0}), model, averaged, optimiser)
    return folder, model, averaged, optimiser


def numbers(**said: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / NUMBERS).write_text(json.dumps(json.loads((folder / NUMBERS).read_text()) | said))


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        found = load_file(folder / TENSORS)
        change(found)
        save_file(found, folder / TENSORS)

    return harm


STATES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a step that is text": (numbers(step="rm"), "step"),
    "a step without end": (lambda folder: (folder / NUMBERS).write_text('{"step": 1e999}'), "no finite number"),
    "numbers of 1 TiB": (lambda folder: os.truncate(folder / NUMBERS, 2**40), "4 at most are read"),
    "a shape that would be broadcast": (tensors(lambda t: t.update({"model/output.bias": torch.ones(1)})), "output.b"),
    "a tensor too many": (tensors(lambda t: t.update(extra=torch.ones(3))), "extra"),
    "a moment of another size": (tensors(lambda t: t.update({"optimiser/0/x": torch.ones(12345)})), "optimiser/0/x"),
    "a header of 2^60 bytes": (
        lambda folder: (folder / TENSORS).write_bytes(struct.pack("<Q", 2**60) + b"{}"), "header claims",
    ),
    "a pickle": (lambda folder: torch.save({}, folder / TENSORS), "header claims"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_the_state_of_a_run_that_was_sent(
    run_state: tuple[Path, HyperST, HyperST, torch.optim.AdamW], tmp_path: Path, name: str
) -> None:
    whole, model, averaged, optimiser = run_state
    for file in whole.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert read_state(tmp_path, model, averaged, optimiser).sums == {"total": 1.5}
    harm, told = STATES[name]
    harm(tmp_path)
    with pytest.raises(StoreError, match="holds no state of this run") as caught:
        read_state(tmp_path, model, averaged, optimiser)
    assert told in str(caught.value)
