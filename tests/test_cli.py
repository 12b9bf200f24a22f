"""The terminal, as a user runs it: in a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import painted
import pytest
import spatialdata as sd
from anndata import AnnData
from PIL import Image

from napari_hyperst import cli
from napari_hyperst.cli import _spread_lists, main
from napari_hyperst.errors import StoreError
from napari_hyperst.models.checkpoint import load_checkpoint
from napari_hyperst.prediction import predict
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.export import write_table


def run(*words: object, check: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "napari_hyperst.cli", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == check, done.stderr
    return done


def said(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    """Run in this process, which knows the tiny encoder, and return the object on standard output."""
    with pytest.raises(SystemExit) as left:
        main([*map(str, words), "--json"])
    assert left.value.code == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_predict_and_python_give_the_same_numbers(tiny_section: Path, tmp_path: Path) -> None:
    """With the bundled checkpoint and its real encoder."""
    done = run("predict", tiny_section, "--out", tmp_path / "out.zarr", "--json")
    content = json.loads(done.stdout)
    slide = open_slide(tiny_section)
    prediction = predict(slide, load_checkpoint("her2st-dinov2s"))
    table = sd.read_zarr(tmp_path / "out.zarr").tables["table_hyperst"]
    np.testing.assert_allclose(table.X, prediction.expression, rtol=1e-3, atol=1e-3)
    assert content["spots"] == len(prediction.spots)
    assert content["genes"] == 200
    assert content["tiles_per_second"] == pytest.approx(2 * content["spots"] / content["seconds"])
    assert {"pcc@10", "pcc@50", "pcc@200", "mse", "mae"} <= set(content)
    assert "spots" in done.stderr
    assert "left out" in done.stderr
    assert "Traceback" not in done.stderr
    told = json.loads(run("info", tmp_path / "out.zarr", "--json").stdout)
    assert told["predictions"]["table_hyperst"]["checkpoint"] == "her2st-dinov2s"
    assert told["predictions"]["table_hyperst"]["command"].startswith("napari-hyperst predict")


def test_several_slides_go_into_a_folder(
    tiny_section: Path, tiny_checkpoint_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(tiny_section, tmp_path / "other"))
    words = ("--checkpoint", tiny_checkpoint_folder, "--out", tmp_path / "out")
    content = said(capsys, "predict", tiny_section, other, *words)
    assert [Path(slide["written"]).name for slide in content["slides"]] == ["corner.zarr", "other.zarr"]
    for slide in content["slides"]:
        assert "table_hyperst" in sd.read_zarr(slide["written"]).tables
    with pytest.raises(SystemExit):
        main([str(word) for word in ("predict", tiny_section, other, *words[:2], "--out", tmp_path / "again")])
    told = capsys.readouterr().out.splitlines()  # one slide after the other, each as it is done
    assert [line for line in told if line.startswith("written: ")] == [
        f"written: {tmp_path / 'again' / name}" for name in ("corner.zarr", "other.zarr")
    ]


def test_an_image_file_alone_is_predicted_converted_and_told_of(
    tiny_checkpoint_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """H&E only: the scale, the pitch, the diameter and the mask are options."""
    png, mask = tmp_path / "he.png", np.zeros((15, 20), np.uint8)
    Image.fromarray(painted.paint()).save(png)
    mask[:, 15:] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    with pytest.raises(SystemExit) as left:
        main(["info", str(png)])
    assert left.value.code == 2
    assert (
        capsys.readouterr().err.strip().endswith("he.png: nothing tells how many µm a px is; state it (--mpp, or mpp=)")
    )

    told = said(capsys, "info", png, "--mpp", 2)
    assert (told["lattice"], told["spot_diameter_um"]) == ("hex", 55)
    assert told["pitch_um"] == pytest.approx(100)
    half = said(capsys, "info", png, "--mpp", 2, "--pitch", 50)
    assert half["spots"] == pytest.approx(4 * told["spots"], rel=0.03)
    words = ("--mpp", 2, "--pitch", 200, "--spot", 80, "--tissue", tmp_path / "mask.png")
    masked = said(capsys, "info", png, *words)
    assert masked["spot_diameter_um"] == 80
    assert masked["spots"] == pytest.approx(1000 * 3000 / (200**2 * np.sqrt(0.75)), abs=8)

    out = tmp_path / "out.zarr"
    content = said(capsys, "predict", png, *words, "--checkpoint", tiny_checkpoint_folder, "--out", out)
    assert content["spots"] <= masked["spots"]
    assert "mse" not in content
    store = sd.read_zarr(out)
    assert store.tables["hyperst"].n_obs == content["spots"]
    assert set(store.labels) == {"he_tissue"}
    centres = store.tables["hyperst"].obsm["spatial"]
    assert (centres[:, 0] >= 0.75 * painted.SHAPE[1]).all()

    converted = said(capsys, "convert", png, *words, "--out", tmp_path / "c.zarr")
    assert converted["spots"] == masked["spots"] == said(capsys, "info", tmp_path / "c.zarr")["spots"]
    several = said(capsys, "predict", png, tmp_path / "c.zarr", *words, "--checkpoint", tiny_checkpoint_folder,
                   "--out", tmp_path / "many")  # fmt: skip
    assert [Path(slide["written"]).name for slide in several["slides"]] == ["he.zarr", "c.zarr"]


def test_info_tells_how_the_tables_of_a_store_were_made(
    tiny_section: Path, tiny_table: AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tiny_table.copy()
    odd.uns["hyperst"] = {"card": "<script>"}
    store = write_table(open_slide(tiny_section), tiny_table, tmp_path / "s.zarr")
    write_table(open_slide(store), tiny_table, store, table="second")
    write_table(open_slide(store), odd, store, table="odd")
    code = "import sys; from napari_hyperst.cli import main\ntry: main(sys.argv[1:])"
    code += "\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, "info", str(store)], capture_output=True, text=True, check=True)
    told = done.stdout.partition("predictions:\n")[2]
    assert [line for line in told.splitlines() if not line.startswith("    ")] == ["  second:", "  table_hyperst:"]
    for word in ("8 genes", "by tiny (hyperst", "entails", "eta 0.7", "on cpu in ", "asked for by: command"):
        assert word in told.partition("table_hyperst:")[0]
    assert "odd): what it says of how it was made cannot be read" in done.stderr
    made = said(capsys, "info", store)["predictions"]
    assert made["second"]["card"]["name"] == "tiny"
    assert made["second"]["run"]["device"] == "cpu"
    assert made["second"]["genes"] == 8


def test_a_store_is_exported_and_a_prediction_written_as_other_formats(
    tiny_section: Path, tiny_checkpoint_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--checkpoint", tiny_checkpoint_folder)
    store, csv = tmp_path / "a.zarr", tmp_path / "a.csv"
    said(capsys, "predict", tiny_section, *words, "--out", store)
    content = said(capsys, "export", store, csv, "--gene", "FASN", "--measured")
    assert content == {"written": str(csv), "store": str(store), "table": "table_hyperst", "gene": "FASN"}
    stored = sd.read_zarr(store).tables["table_hyperst"][:, "FASN"]
    written = np.genfromtxt(csv, delimiter=",", names=True, dtype=None, encoding="utf-8")
    assert written.dtype.names == ("spot", "x_px", "y_px", "x_um", "y_um", "FASN", "FASN_measured")
    np.testing.assert_allclose(written["FASN"], stored.X[:, 0], rtol=1e-5)
    np.testing.assert_allclose(written["FASN_measured"], stored.layers["measured"][:, 0], rtol=1e-5)
    figure = said(capsys, "export", store, tmp_path / "best.png")
    assert figure["gene"] == sd.read_zarr(store).tables["table_hyperst"].var["pcc"].idxmax()
    direct = tmp_path / "direct.csv"
    told = said(capsys, "predict", tiny_section, *words, "--out", direct, "--gene", "FASN", "--measured")
    assert told["written"] == str(direct)
    assert direct.read_bytes() == csv.read_bytes()
    refused = {
        ("export", store, csv): "is there already",
        ("export", store, tmp_path / "a.ome.tif"): "holds one gene; name it",
        ("export", tiny_section, tmp_path / "b.csv"): "is no SpatialData Zarr",
        ("predict", tiny_section, *words, "--out", tmp_path / "b.csv", "--gene", "TP53"): "does not predict 'TP53'",
        ("predict", tiny_section, store, *words, "--out", tmp_path / "b.csv"): "holds one slide, not several",
    }
    for wrong, what in refused.items():
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in wrong])
        assert left.value.code == 2
        assert what in capsys.readouterr().err.strip().splitlines()[-1]
    said(capsys, "export", store, csv, "--overwrite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.zarr", "best.png", "direct.csv"]


def test_convert_and_info(tiny_section: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = said(capsys, "convert", tiny_section, "--out", tmp_path / "c.zarr")
    told = said(capsys, "info", tmp_path / "c.zarr")
    assert content["spots"] == told["spots"] == told["counted_spots"]
    assert told["lattice"] == "square"
    assert told["mpp"] == pytest.approx(0.687, abs=0.01)


def test_a_conversion_is_stopped_by_a_signal_and_gone_on_with(
    tiny_section: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_hyperst.slides.pyramid_writer import PyramidWriter

    write, interrupts = PyramidWriter._write_block, iter([signal.SIGINT])

    def interrupted(self: PyramidWriter, *block: object) -> None:
        write(self, *block)  # type: ignore[arg-type]
        for number in interrupts:  # once: the second time it ends at once
            os.kill(os.getpid(), number)
        time.sleep(0.3)

    monkeypatch.setattr(PyramidWriter, "_write_block", interrupted)
    out = tmp_path / "c.zarr"
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(tiny_section), "--out", str(out), "--json"])
    assert caught.value.code == 130
    told = json.loads(capsys.readouterr().out)
    assert told["stopped"] == str(out)
    assert not out.exists()
    monkeypatch.undo()
    words = shlex.split(told["resume"])[1:]
    with pytest.raises(SystemExit) as caught:
        main([*words, "--json"])
    assert caught.value.code == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["store"] == str(out)
    first = printed.err.split("blocks of pixels ")[1].split("/14")[0]
    assert int(first) > 0
    assert len(open_slide(out).spots) == 48
    assert [file.name for file in tmp_path.iterdir()] == ["c.zarr"]


def test_a_bar_shows_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_hyperst import terminal

    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    report = terminal.show_progress("blocks")
    report(40, 100)  # it goes on where it stood: what was there took no time
    now[0] += 10
    report(60, 100)
    report(61, 100)  # too soon after the last
    now[0] += 20
    report(100, 100)
    lines = capsys.readouterr().err.split("\r")
    assert lines[0].startswith("blocks [#########...............] 40/100 ")
    assert lines[1].startswith("blocks [##############..........] 60/100, 20 s left")
    assert lines[2].rstrip(" ").endswith("[########################] 100/100, 0 s left   \n")


def test_train_reads_slides_settings_and_writes_a_checkpoint(
    tiny_section: Path, tiny_encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"epochs": 2, "genes": 10, "symmetries": 1, "batch_size": 16, "method.dim": 8}
    settings |= {"method.encoder": tiny_encoder}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    content = said(capsys, "train", "--slides", tiny_section, "--out", tmp_path / "run", *words)
    told = said(capsys, "info", content["checkpoint"])
    assert told["genes"] == 10
    assert told["method"]["dim"] == 8


def test_a_run_is_stopped_by_a_signal_and_resumed(
    tiny_section: Path, tiny_encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["train", "--slides", tiny_section, "--out", out, "--set", f"method.encoder={tiny_encoder}"]
    words += ["--set", "epochs=40", "--set", "genes=10", "--set", "batch_size=16", "--set", "symmetries=1"]

    def interrupt() -> None:
        while not (out / "events.jsonl").exists() or '"step"' not in (out / "events.jsonl").read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(SystemExit) as caught:
        main([*map(str, words), "--json"])
    thread.join()
    assert caught.value.code == 130
    told = json.loads(capsys.readouterr().out)
    assert told["stopped"] == str(out)
    assert shlex.split(told["resume"])[1:] == ["train", "--resume", str(out)]
    content = said(capsys, "train", "--resume", out)
    assert content["checkpoint"] == str(out / "best")
    status = json.loads((out / "status.json").read_text())
    assert status["pid"] == os.getpid()
    assert not status["running"]


def test_bad_runs_leave_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["--slides", "nowhere", "--out", tmp_path / "run"], "nothing here"),
        (["--resume", tmp_path, "--out", tmp_path / "run"], "leave other options out"),
        (["--resume", tmp_path / "run"], "no job's folder"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["train", *map(str, words)])
        assert caught.value.code == 2
        assert told in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    content = said(capsys, "doctor")
    assert content["checkpoints"] == ["her2st-dinov2s"]
    assert content["device"] in ("cpu", "cuda", "mps")
    assert Path(content["cache"]) == Path(os.environ["NAPARI_HYPERST_CACHE"])


def test_doctor_clears_the_cache(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_HYPERST_CACHE", str(tmp_path))
    name = "0" * 32
    for left in (f"{name}.zarr/s0", f".{name}.partial/pixels", ".pyramid-abc", "mine.zarr"):
        (tmp_path / left).mkdir(parents=True)
    (tmp_path / f"tissue-{name}.png").write_bytes(b"0" * 2**20)
    assert said(capsys, "doctor", "--clear-cache")["cache_mib"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.zarr"]


def test_lists_after_an_option() -> None:
    words = ["train", "--slides", "a", "b", "--val", "c", "--out", "d", "--set", "x=1"]
    assert _spread_lists(words) == [
        "train", "--slides", "a", "--slides", "b", "--val", "c", "--out", "d", "--set", "x=1",
    ]  # fmt: skip


@pytest.mark.slow
def test_demo_without_a_display_writes_store_and_picture(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-m", "napari_hyperst.cli", "demo"],
        capture_output=True, text=True, check=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    content = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert content["spots"] == "187"
    assert float(content["pcc"]) > 0.5
    assert content["in_training"] == "False"
    folder = tmp_path / "hyperst-demo"
    assert tmp_path / content["written"] == folder / "C2.zarr"
    assert tmp_path / content["picture"] == folder / "C2.png"
    assert sorted(file.name for file in folder.iterdir()) == ["C2.png", "C2.zarr"]
    with Image.open(folder / "C2.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 1500
    assert pixels.std() > 20
    table = sd.read_zarr(folder / "C2.zarr").tables["table_hyperst"]
    assert table.shape == (187, 200)
    assert len([name for name in table.obs if name.startswith("violation_")]) == 4


@pytest.mark.parametrize("words", [("--out", "{tmp}/demo"), ("--json",)])
def test_demo_opens_no_window_where_it_is_told_what_to_write(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...]
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("it would have been written")

    monkeypatch.setattr(cli, "has_display", lambda: True)
    monkeypatch.setattr(cli, "open_demo", lambda _device: pytest.fail("a window"))
    monkeypatch.setattr("napari_hyperst.prediction.predict", refuse)
    with pytest.raises(SystemExit):
        main(["demo", *(word.format(tmp=tmp_path) for word in words)])
    assert "it would have been written" in capsys.readouterr().err


BAD = {
    "no slide": (["predict", "{tmp}/no", "--out", "{tmp}/o.zarr"], "there is nothing here"),
    "no checkpoint": (["predict", "{slide}", "--checkpoint", "none", "--out", "{tmp}/o.zarr"], "no such checkpoint"),
    "out is taken": (["predict", "{slide}", "--out", "{slide}"], "is there already"),
    "no folder of a table": (["predict", "{slide}", "--out", "{tmp}/no/o.csv"], "there is no such folder"),
    "a gene of all": (["predict", "{slide}", "--out", "{tmp}/o.h5ad", "--gene", "FN1"], "holds all genes"),
    "no such device": (["predict", "{slide}", "--out", "{tmp}/o.zarr", "--device", "abacus"], "no device"),
    "no such precision": (["predict", "{slide}", "--out", "{tmp}/o.zarr", "--precision", "int1"], "no precision"),
    "convert nothing": (["convert", "{tmp}/no", "--out", "{tmp}/o.zarr"], "there is nothing here"),
    "convert at no scale": (["convert", "{slide}", "--out", "{tmp}/o.zarr", "--mpp", "0"], "no scale"),
    "convert onto a slide": (["convert", "{slide}", "--out", "{slide}"], "is there already"),
    "unknown setting": (["train", "--slides", "{slide}", "--out", "{tmp}/r", "--set", "epoch=1"], "mean epochs?"),
    "slide twice": (["predict", "{slide}", "{slide}", "--out", "{tmp}/o"], "several slides would be written"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_one_line_and_writes_nothing(
    tiny_section: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words, told = BAD[name]
    with pytest.raises(SystemExit) as left:
        main([word.format(tmp=tmp_path, slide=tiny_section) for word in words])
    assert left.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert told in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_mistyped_option_ends_with_status_2() -> None:
    assert "no such option" in run("predict", "x", "--outt", "y", check=2).stderr.lower()
