"""Checkpoints as somebody who means harm would send them: refused in a line, before anything is allocated or read."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_hyperst.errors import CheckpointError
from napari_hyperst.models import checkpoint
from napari_hyperst.models.checkpoint import load_checkpoint
from napari_hyperst.models.encoders import encoder_spec, known_encoder
from napari_hyperst.models.hub import FOLDER_VARIABLE
from napari_hyperst.models.state_dicts import read_state_dict
from napari_hyperst.nouns.checkpoint import Card

Harm = Callable[[Path], object]
WEIGHTS, CARD, GENES = "model.safetensors", "card.json", "genes.csv"


@pytest.fixture
def folder(tiny_checkpoint_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint_folder, tmp_path / "checkpoint"))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a model is built with weights, or the network is asked."""
    built = checkpoint.build_method

    def shapes_only(*args: Any) -> Any:
        assert torch.get_default_device().type == "meta", "a model was allocated"
        return built(*args)

    monkeypatch.setattr(checkpoint, "build_method", shapes_only)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def refuse(*args: object, **options: object) -> NoReturn:
    raise AssertionError("this was not to be called")


def header(change: Callable[[dict[str, Any]], Any], cut: int | None = None) -> Harm:
    """Change the header of the weights, and leave their bytes."""

    def harm(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        said = json.loads(content[8 : 8 + length])
        changed = change(said)
        text = (changed if isinstance(changed, str) else json.dumps(said)).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :][:cut])

    return harm


def entry(name: str = "output.bias", **said: Any) -> Harm:
    return header(lambda tensors: tensors[name].update(said))


def claims(length: int) -> Harm:
    return lambda folder: (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + b"{}" * 50)


def swap_offsets(tensors: dict[str, Any]) -> None:
    names = [name for name in tensors if name != "__metadata__"]
    same = [name for name in names if tensors[name]["shape"] == tensors[names[0]]["shape"]]
    tensors[same[1]]["data_offsets"] = tensors[same[0]]["data_offsets"]


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Harm:
    def harm(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return harm


def card(**changes: Any) -> Harm:
    def harm(folder: Path) -> None:
        said = json.loads((folder / CARD).read_text())
        (folder / CARD).write_text(json.dumps(said | changes))

    return harm


def method(**changes: Any) -> Harm:
    def harm(folder: Path) -> None:
        said = json.loads((folder / CARD).read_text())
        said["method"] |= changes
        (folder / CARD).write_text(json.dumps(said))

    return harm


def write(name: str, content: bytes | str) -> Harm:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def amid_card(text: str) -> Harm:
    return lambda folder: (folder / CARD).write_text((folder / CARD).read_text().replace("{", "{" + text, 1))


def sparse_file(name: str, size: int) -> Harm:
    return lambda folder: os.truncate(folder / name, size)


def instead(name: str, make: Callable[[Path], object]) -> Harm:
    def harm(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return harm


def moved_out(name: str) -> Harm:
    """Link to the very file, one folder up."""

    def harm(folder: Path) -> None:
        (folder / name).rename(folder.parent / name)
        (folder / name).symlink_to(f"../{name}")

    return harm


HARMS: dict[str, tuple[Harm, str]] = {
    "header of 2^60 bytes": (claims(2**60), "header claims 1,152,921,504,606,846,976 bytes"),
    "header of all bits": (claims(2**64 - 1), "header claims"),
    "header longer than the file": (claims(1000), "header claims 1,000 bytes"),
    "no header": (write(WEIGHTS, b"\0\0"), "header claims"),
    "header nested deep": (header(lambda _: '{"a":' * 20_000 + "1" + "}" * 20_000), "nested too deep"),
    "header with a key twice": (header(lambda t: json.dumps(t).replace("{", '{"output.bias": 1,', 1)), "there twice"),
    "header that is a list": (header(lambda _: "[]"), "no object"),
    "header with NaN": (header(lambda _: '{"a": NaN}'), "NaN"),
    "header of other words": (header(lambda _: '{"a": {"dtype": "F32"}}'), "not type, shape and place alone"),
    "offsets of another tensor": (header(swap_offsets), "overlap"),
    "offsets out of the file": (entry(data_offsets=[10**9, 10**9 + 32]), "outside the file"),
    "offsets below zero": (entry(data_offsets=[-32, 0]), "no place"),
    "offsets turned round": (entry(data_offsets=[32, 0]), "does not fill its place"),
    "offsets that are no numbers": (entry(data_offsets=["0", True]), "no place"),
    "shape whose product overflows": (entry(shape=[2**32, 2**32, 2**32]), "does not fill its place"),
    "shape of 100 GB": (entry(shape=[25 * 10**9], data_offsets=[0, 10**11]), "outside the file"),
    "shape below zero": (entry(shape=[-8]), "no shape"),
    "shape of a thousand sides": (entry(shape=[1] * 1000), "no shape"),
    "data that are cut off": (header(lambda _: None, cut=100), "outside the file"),
    "type F64": (weights(lambda t: t.update({"output.bias": t["output.bias"].double()})), "'F64'"),
    "type I8": (weights(lambda t: t.update({"output.bias": t["output.bias"].to(torch.int8)})), "'I8'"),
    "type BF16": (weights(lambda t: t.update({"output.bias": t["output.bias"].bfloat16()})), "bfloat16, not float32"),
    "type that is none": (entry(dtype="PICKLE"), "'PICKLE'"),
    "no values": (weights(lambda t: t.update({"output.bias": torch.zeros(0)})), "of another shape, output.bias"),
    "infinite weights": (weights(lambda t: t["output.bias"].fill_(torch.inf)), "no finite numbers"),
    "weights that fill the disk": (sparse_file(WEIGHTS, 2**42), "outside the file"),
    "dim of 10^9": (method(dim=10**9), "method.hyperst.dim: Input should be less than or equal to 8192"),
    "10^6 blocks": (method(lora_blocks=10**6), "lora_blocks: Input should be less"),
    "more blocks than there are": (method(lora_blocks=999), "LoRA on 999 blocks"),
    "rank of 10^6": (method(lora_rank=10**6), "lora_rank: Input should be less"),
    "a larger model than the weights": (method(dim=8192), "of another shape"),
    "tiles of 10^6 px": (card(tiles={"pixels": 10**6}), "tiles.pixels"),
    "a number for a method": (card(method=3), "method"),
    "no method": (card(method={"kind": "os.system"}), "hyperst and delst"),
    "a million relations": (
        method(alignment={"relations": [{"parent": "spot_image", "child": "spot_gene"}] * 10**4}), "relations",
    ),
    "card that is no UTF-8": (write(CARD, b"\xff\xfe{}"), "utf-8"),
    "card with NaN": (amid_card('"metrics": {"validation": {"pcc": NaN}},'), "NaN is no number"),
    "card with an infinity": (amid_card('"metrics": {"validation": {"pcc": 1e999}},'), "1e999 is no finite number"),
    "card with a key twice": (amid_card('"name": "another",'), "'name' is there twice"),
    "card nested deep": (write(CARD, "[" * 10**5), "nested too deep"),
    "card of 1 TiB": (sparse_file(CARD, 2**40), "4 at most are read"),
    "card of wrong types": (card(training_slides=[1]), "training_slides.0"),
    "card with an endless name": (card(name="x" * 10**5), "name: String should have at most"),
    "card of a later version": (card(schema_version=2), "update napari-hyperst"),
    "card that is a list": (write(CARD, "[]"), "no card"),
    "genes of 1 TiB": (sparse_file(GENES, 2**40), "4 at most are read"),
    "too many genes": (write(GENES, "gene\n" + "".join(f"G{i}\n" for i in range(100_001))), "over 100,000 genes"),
    "a gene that is a formula": (write(GENES, 'gene\n"=HYPERLINK(""http://x"")"\n'), "is no name of a gene"),
    "a gene with NUL": (write(GENES, "gene\nA\0B\n"), "is no name of a gene"),
    "a gene that moves the cursor": (write(GENES, "gene\nA\x1b[2J\n"), "is no name of a gene"),
    "a gene written backwards": (write(GENES, "gene\nA\u202eB\n"), "is no name of a gene"),
    "a gene without end": (write(GENES, "gene\n" + "A" * 10**5 + "\n"), "is no name of a gene"),
    "genes in Latin-1": (write(GENES, b"gene\n\xe9\n"), "utf-8"),
    "genes of another column": (write(GENES, "name\nA\n"), "is no list of genes"),
    "a gene twice": (write(GENES, "gene\nA\nA\n"), "each gene once"),
    "an encoder that is an address": (method(encoder="https://evil.example/x"), "no encoder is called"),
    "an encoder of the hub": (method(encoder="hf_hub:evil/repo"), "no encoder is called 'hf_hub:evil/repo'"),
    "an encoder of the hub, else written": (method(encoder="hf-hub:evil/vit_small"), "no encoder is called"),
    "an encoder that is a folder": (method(encoder="local-dir:/etc"), "no encoder is called"),
    "an encoder that is a path": (method(encoder="../../tiny.safetensors"), "no encoder is called"),
    "an encoder that is gated": (method(encoder="uni"), "are not fetched because a card names them"),
    "an encoder that timm could fetch": (method(encoder="vit_small_patch16_224.augreg_in21k"), "are not fetched"),
    "an encoder in a file elsewhere": (method(encoder="test_vit@/etc/passwd"), "^passwd: there are no weights"),
    "an encoder in somebody's home": (method(encoder="test_vit@~/.ssh/id_rsa"), "^id_rsa: there are no weights"),
    "an encoder on a share": (method(encoder="test_vit@\\\\evil\\share\\x.bin"), "^x.bin: there are no weights"),
    "an encoder without end": (method(encoder="x" * 10**5), "at most 4096 characters"),
}  # fmt: skip
for _name in (WEIGHTS, CARD, GENES):
    HARMS |= {
        f"{_name} is a link out": (moved_out(_name), "link to what lies outside its folder"),
        f"{_name} is a link to passwd": (instead(_name, lambda path: path.symlink_to("/etc/passwd")), "outside its"),
        f"{_name} is a device": (instead(_name, lambda path: path.symlink_to("/dev/zero")), "outside its"),
        f"{_name} is a folder": (instead(_name, Path.mkdir), "no regular file"),
    }  # fmt: skip
    if hasattr(os, "mkfifo"):
        HARMS[f"{_name} is a pipe"] = (instead(_name, os.mkfifo), "no regular file")


@pytest.mark.parametrize("name", HARMS)
def test_harm_is_refused_in_a_line(
    folder: Path, name: str, no_model: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "win32" and "is a" in name:
        pytest.skip("links, pipes and devices are those of Unix")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    harm, told = HARMS[name]
    harm(folder)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    line = str(caught.value)
    assert told in line or re.search(told, line)
    assert caught.value.do
    assert len(line) < 1500
    assert not any(character in line for character in "\x1b\0\u202e\n")


def test_what_is_checked_is_what_was_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are swapped for others between check and use are not looked at."""
    from napari_hyperst.models import tensor_file

    compare = tensor_file._compare

    def swap(*args: Any) -> None:
        compare(*args)
        other = folder / "other"
        other.write_bytes(b"not what was checked")
        other.replace(folder / WEIGHTS)

    monkeypatch.setattr(tensor_file, "_compare", swap)
    loaded = load_checkpoint(folder)
    assert (folder / WEIGHTS).read_bytes() == b"not what was checked"
    assert bool(torch.isfinite(loaded.model.output.bias).all())


def test_a_link_within_the_folder_is_none_out_of_it(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "weights")
    (folder / WEIGHTS).symlink_to("weights")
    assert len(load_checkpoint(folder).panel) == 8


def test_the_user_may_say_where_the_encoder_is(folder: Path) -> None:
    """What the card says of a place is not believed; what the user says is, and proved by the hash."""
    file = encoder_spec("tiny").weights
    method(encoder=f"test_vit@{file}")(folder)
    with pytest.raises(CheckpointError, match="there are no weights"):
        load_checkpoint(folder)
    assert load_checkpoint(folder, f"test_vit@{file}").model.encoder.spec.weights == file.resolve()


def test_names_on_a_card_are_shown_as_they_are(folder: Path) -> None:
    name = "\x1b[31mred\x07 \u202egnp.exe\u200b <img src=x>"
    card(name=name, training={"note": ["a\x1b]0;b", "hf_" + "a1B2" * 9]}, validation_slides=["a\nb"])(folder)
    read = load_checkpoint(folder).card
    assert read.name == "\ufffd[31mred\ufffd \ufffdgnp.exe\ufffd <img src=x>"
    assert read.training == {"note": ["a\ufffd]0;b", "***"]}
    assert read.validation_slides == ("a b",)
    assert Card.model_validate_json(read.model_dump_json()) == read


@pytest.mark.parametrize(
    "ref",
    ["hf://", "hf://a", "hf://../x", "hf://a/../b", "hf://a/b@../../x", "hf://a/b@", "hf://a/b/c", "hf:///etc/passwd",
     "hf://a/b?x=1", "hf://u:p@host/a/b", "hf://a/b\n", "hf://-/é"],
)  # fmt: skip
def test_only_names_of_repositories_go_to_the_hub(ref: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(CheckpointError, match="names no repository"):
        load_checkpoint(ref)


def test_of_a_repository_only_known_files_of_a_bounded_size_are_fetched(
    tiny_checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    home = shutil.copytree(tiny_checkpoint_folder, tmp_path / "models--a--b" / "snapshots" / ("c" * 40))
    size = 100

    def fetch(name: str, **options: Any) -> Any:
        asked.append({"name": name, **options})
        info: dict[str, Any] = {
            "commit_hash": "c" * 40,
            "file_size": size,
            "filename": CARD,
            "local_path": "",
            "is_cached": False,
        }
        return [huggingface_hub.DryRunFileInfo(**info, will_download=True)] if options.get("dry_run") else str(home)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    loaded = load_checkpoint("hf://a/b@v1.0")
    assert loaded.revision == "c" * 40
    assert [one["name"] for one in asked] == ["a/b", "a/b"]
    assert all(one["revision"] == "v1.0" and sorted(one["allow_patterns"]) == [CARD, GENES, WEIGHTS] for one in asked)
    size = 10**9
    with pytest.raises(CheckpointError, match=r"card.json has 1,000,000,000 bytes, over"):
        load_checkpoint("hf://a/b")


def test_a_token_in_an_error_of_the_hub_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    token, other = "hf_" + "Ab3" * 11, "unusual-token-of-a-mirror"
    monkeypatch.setenv("HF_TOKEN", other)

    def fail(*args: object, **options: object) -> NoReturn:
        raise OSError(
            f"403 for https://user:secret1@hub.example/x?X-Amz-Signature=secret2&token=secret3 "
            f"(Authorization: Bearer {token}; was {other})"
        )

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError, match="cannot be fetched") as caught:
        load_checkpoint("hf://a/b")
    line = str(caught.value)
    assert (
        "403 for https://***@hub.example/x?X-Amz-Signature=***&token=*** (Authorization: Bearer ***; was ***)" in line
    )
    assert not any(secret in line for secret in (token, other, "secret1", "secret2", "secret3"))


def test_no_name_reaches_what_timm_fetches_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("hf-hub:timm/vit_tiny_patch16_224", "hf_hub:a/b", "local-dir:.", "HF-HUB:a/b", "vit@hf-hub:a/b"):
        with pytest.raises(CheckpointError, match="no encoder is called"):
            known_encoder(name.partition("@")[0])


def claimed_by_strides() -> torch.Tensor:
    return torch.zeros(1).expand(10**6, 10**6)


PICKLES: dict[str, tuple[Callable[[], object], str]] = {
    "a million millions of one number": (lambda: {"x": claimed_by_strides()}, "claims more than"),
    "a sparse one": (lambda: {"x": torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (10**12,))}, "no plain"),
    "one without data": (lambda: {"x": torch.empty(10**12, device="meta")}, "no plain"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_tensors_that_are_larger_than_their_file(tmp_path: Path, name: str) -> None:
    make, told = PICKLES[name]
    torch.save(make(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=told):
        read_state_dict(tmp_path / "x.pt")


def test_a_pickle_that_was_packed_to_fill_the_memory(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as source,
        zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for one in source.namelist():
            packed.writestr(one, source.read(one) + b"\0" * 10**6)
    with pytest.raises(CheckpointError, match="packed"):
        read_state_dict(tmp_path / "x.pt")


def test_no_code_of_the_hub_and_no_pickle_is_ever_loaded() -> None:
    """Of the package's own source: what could run code that came with weights or a store."""
    source = Path(checkpoint.__file__).parents[1]
    files = [path for path in source.rglob("*.py") if path.name != "state_dicts.py"]
    assert len(files) > 50
    for path in files:
        text = path.read_text()
        for word in ("trust_remote_code", "torch.load(", "pickle.load", "import pickle", "allow_pickle=True", "joblib",
                     "torch.hub", "pretrained=True"):  # fmt: skip
            assert word not in text, f"{word} in {path.name}"
        assert not re.search(r"(?<![.\w])(eval|exec)\(", text), path.name  # Qt's dialogs have an exec of their own
    only = (source / "models" / "state_dicts.py").read_text()
    assert only.count("torch.load(") == only.count("weights_only=True") == 1
