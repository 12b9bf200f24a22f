from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from napari_hyperst.errors import CheckpointError
from napari_hyperst.models.hub import FOLDER_VARIABLE, find_local_weights, find_weights, weights_sha256
from napari_hyperst.nouns.encoders import ENCODERS, EncoderSpec

UNI, PHIKON = (next(spec for spec in ENCODERS if spec.name == name) for name in ("uni", "phikon"))
KAIKO = next(spec.hub for spec in ENCODERS if spec.name == "kaiko-vits16" and spec.hub is not None)
REVISION = "0123456789abcdef0123456789abcdef01234567"


def into_cache(cache: Path, repository: str, name: str, content: bytes) -> Path:
    """Put a file into a cache as the hub does: a blob under its hash, and a link to it in a snapshot."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    blob, link = folder / "blobs" / hashlib.sha256(content).hexdigest(), folder / "snapshots" / REVISION / name
    for path in (blob, link, folder / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(blob)
    (folder / "refs" / "main").write_text(REVISION)
    return link


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the hub's cache for this test, without a network behind it."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    return folder


@pytest.mark.parametrize(
    "place",
    [
        "uni.safetensors", "uni.bin", "uni.pth", "uni/pytorch_model.bin", "uni/model.safetensors",
        "MahmoodLab/UNI/pytorch_model.bin", "UNI/pytorch_model.bin",
    ],
)  # fmt: skip
def test_a_folder_is_searched_as_people_fill_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    path = tmp_path / "weights" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "weights"))
    assert find_weights(UNI) == path


def test_a_folder_may_be_a_copied_hub_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = into_cache(tmp_path / "copied", "MahmoodLab/UNI", "pytorch_model.bin", b"weights")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "copied"))
    assert find_weights(UNI) == link
    assert find_weights(UNI).read_bytes() == b"weights"


def test_the_hubs_own_cache_is_used_without_a_network(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = into_cache(cache, "owkin/phikon", "model.safetensors", b"weights")
    assert find_weights(PHIKON) == link
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "holds nothing of it"))
    assert find_weights(PHIKON) == link


def test_the_folder_comes_before_the_cache_and_the_named_file_before_the_standard_ones(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = into_cache(cache, "MahmoodLab/UNI", "model.safetensors", b"other format")
    assert find_weights(UNI) == other
    named = into_cache(cache, "MahmoodLab/UNI", "pytorch_model.bin", b"as its card says")
    assert find_weights(UNI) == named
    mine = tmp_path / "uni.safetensors"
    mine.write_bytes(b"mine")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert find_weights(UNI) == mine


def test_offline_and_nowhere(cache: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_weights(UNI)
    line = str(caught.value)
    for told in ("huggingface.co/MahmoodLab/UNI", "cannot be fetched", "hf auth login", f"{FOLDER_VARIABLE}=FOLDER"):
        assert told in line
    with pytest.raises(CheckpointError) as caught:
        find_weights(PHIKON)
    assert "hf auth login" not in str(caught.value)
    assert "put model.safetensors into FOLDER/phikon" in str(caught.value)


def test_a_bundled_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="weights are not there"):
        find_weights(EncoderSpec("gone", "test_vit", tmp_path / "gone.safetensors", "none"))


def test_local_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    file = folder / "pytorch_model.bin"
    file.touch()
    assert find_local_weights(str(file)) == find_local_weights(str(folder)) == file.resolve()
    monkeypatch.chdir(folder)
    assert find_local_weights("pytorch_model.bin") == file.resolve()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=f"mine.pth.*{FOLDER_VARIABLE}"):
        find_local_weights(str(tmp_path / "elsewhere" / "mine.pth"))
    (folder / "mine.pth").touch()
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    # Named by where it was on another machine, or by its name within the folder.
    assert find_local_weights(str(tmp_path / "elsewhere" / "mine.pth")) == (folder / "mine.pth").resolve()
    assert find_local_weights("mine.pth") == (folder / "mine.pth").resolve()


def test_a_hash_is_taken_anew_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"one")
    assert weights_sha256(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"three")
    assert weights_sha256(path) == hashlib.sha256(b"three").hexdigest()


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does: UNI is gated, phikon has a file of this content, kaiko's has another name."""

    protocol_version = "HTTP/1.1"
    weights = b"phikon's weights"
    files = {
        "/owkin/phikon/resolve/main/model.safetensors": weights,
        f"/{KAIKO.name}/resolve/main/pytorch_model.bin": b"other",
    }

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        content = self.files.get(self.path, b"")
        if content:
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
        elif "MahmoodLab" in self.path:
            self.send_response(403 if self.headers.get("Authorization") else 401)
            self.send_header("X-Error-Code", "GatedRepo")
        elif "1aurent" in self.path:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_response(401)
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


ASK = """
import json, sys
from napari_hyperst.errors import CheckpointError
from napari_hyperst.models.hub import find_weights
from napari_hyperst.nouns.encoders import ENCODERS
answers = {}
for name in sys.argv[1:]:
    try:
        answers[name] = find_weights(next(spec for spec in ENCODERS if spec.name == name)).read_text()
    except CheckpointError as error:
        answers[name] = str(error)
answers["torch"] = "torch" in sys.modules
print(json.dumps(answers))
"""


def ask(server: str, home: Path, token: str | None, *names: str) -> dict[str, str | bool]:
    """Return what a fresh process, with that hub behind it, says of the weights of some encoders."""
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith("HF_") and not k.lower().endswith("_proxy")}
    env = kept | {"HF_ENDPOINT": server, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    env.pop(FOLDER_VARIABLE, None)
    if token is not None:
        env["HF_TOKEN"] = token
    done = subprocess.run(
        [sys.executable, "-c", ASK, *names], capture_output=True, text=True, env=env, check=True, timeout=120
    )
    answers: dict[str, str | bool] = json.loads(done.stdout)
    return answers


def test_what_the_hub_answers_is_told_with_what_to_do(server: str, tmp_path: Path) -> None:
    """huggingface_hub itself against a server of its protocol: a gate, a file, another file's name, no repository."""
    found = ask(server, tmp_path / "stranger", None, "uni", "phikon", "kaiko-vits16", "hibou-b", "lunit-vits8")
    gate = str(found["uni"])
    assert gate.startswith("https://huggingface.co/MahmoodLab/UNI: ")
    assert "CC-BY-NC-ND-4.0" in gate
    assert "accept the terms on that page, then run: hf auth login" in gate
    assert found["phikon"] == Hub.weights.decode()
    assert found["kaiko-vits16"] == "other"
    assert "hf auth login" in str(found["hibou-b"])  # the hub hides repositories from strangers
    assert "has none of model.safetensors, pytorch_model.bin" in str(found["lunit-vits8"])
    assert found["torch"] is False
    known = ask(server, tmp_path / "known", "hf_abc", "uni")
    assert "your token gives no access" in str(known["uni"])
    assert "ask for access on that page" in str(known["uni"])


def test_a_download_that_breaks_off_is_no_crash(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What carries the bytes has errors of its own, with no base class of the hub's."""

    def breaks_off(*args: object) -> str:
        raise RuntimeError("connection lost\nat byte 12")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", breaks_off)
    with pytest.raises(CheckpointError, match=r"the weights of phikon cannot be fetched \(connection lost\)"):
        find_weights(PHIKON)


def test_a_name_that_is_no_spec_of_the_hub_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").touch()
    assert find_weights(replace(UNI, hub=None, weights=tmp_path / "w.safetensors")) == tmp_path / "w.safetensors"
