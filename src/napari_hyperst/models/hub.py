"""Weights and the Hugging Face hub: where an encoder's are, and how a checkpoint gets there. No torch here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PureWindowsPath

from napari_hyperst.errors import CheckpointError
from napari_hyperst.nouns.encoders import EncoderSpec, HubRepository

#: Names a folder of weights, for machines without a network.
FOLDER_VARIABLE = "NAPARI_HYPERST_ENCODERS"
_STANDARD_FILES = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")


def weights_sha256(path: Path) -> str:
    """Return the sha256 of a weights file, read again only when the file has changed."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encoders_folder() -> Path | None:
    """Return the folder of weights that ``NAPARI_HYPERST_ENCODERS`` names, if it names one."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).expanduser() if named else None


def find_weights(spec: EncoderSpec, fetch: bool = True) -> Path:
    """Return an encoder's weights on this disk, fetched from the hub where they are nowhere here.

    Looked for, in this order, are ``<name>.safetensors`` (or ``.bin``, ``.pth``, ``.pt``), ``<name>/<file>``,
    ``<owner>/<repository>/<file>``, ``<repository>/<file>`` and the hub's own cache layout in the folder that
    ``NAPARI_HYPERST_ENCODERS`` names; the hub's cache; and the hub.

    Parameters
    ----------
    spec
        Which encoder.
    fetch
        Whether the hub may be asked.

    Raises
    ------
    CheckpointError
        If they are not there, the repository is gated and access not granted, or the hub cannot be reached.
    """
    if spec.hub is None:
        if not spec.weights.is_file():
            raise CheckpointError(
                "the encoder's weights are not there", where=spec.weights, do="install the package again"
            )
        return spec.weights
    folder = encoders_folder()
    found = None if folder is None else _in_folder(folder, spec, spec.hub)
    found = found or _in_cache(None, spec, spec.hub)
    if found is None and not fetch:
        raise _absent(spec, spec.hub)
    return found or _fetch(spec, spec.hub)


def find_local_weights(place: str, anywhere: bool = True) -> Path:
    """Return the weights file that a user named.

    Parameters
    ----------
    place
        A file, or a folder with ``model.safetensors`` or ``pytorch_model.bin``. What is not there is looked for under
        its last name in the folder that ``NAPARI_HYPERST_ENCODERS`` names, so that a checkpoint trained on local
        weights can move to another machine.
    anywhere
        Whether ``place`` is to be believed; else only that folder is looked in, for the last name.

    Raises
    ------
    CheckpointError
        If there is no such file.
    """
    path = Path(place).expanduser() if anywhere else Path(PureWindowsPath(place).name or "unnamed")
    folder = encoders_folder()
    candidates = [path] if anywhere else []
    for candidate in candidates if folder is None else [*candidates, folder / path, folder / path.name]:
        if candidate.is_file():
            return candidate.resolve()
        for name in _STANDARD_FILES:
            if (candidate / name).is_file():
                return (candidate / name).resolve()
    raise CheckpointError(
        "there are no weights of an encoder",
        where=path,
        do=f"give a file, or put {path.name} into a folder and name that in {FOLDER_VARIABLE}",
    )


def _files(spec: EncoderSpec) -> tuple[str, ...]:
    return tuple(dict.fromkeys((spec.weights.as_posix(), *_STANDARD_FILES)))


def _in_folder(folder: Path, spec: EncoderSpec, hub: HubRepository) -> Path | None:
    for suffix in _SUFFIXES:
        if (single := folder / f"{spec.name}{suffix}").is_file():
            return single
    for inside in (spec.name, hub.name, hub.name.rpartition("/")[2]):
        for file in _files(spec):
            if (path := folder / inside / file).is_file():
                return path
    return _in_cache(folder, spec, hub)


def _in_cache(folder: Path | None, spec: EncoderSpec, hub: HubRepository) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for file in _files(spec):
        path = try_to_load_from_cache(hub.name, file, cache_dir=folder)
        if isinstance(path, str):
            return Path(path)
    return None


def _fetch(spec: EncoderSpec, hub: HubRepository) -> Path:
    from huggingface_hub import get_token, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    for file in _files(spec):
        try:
            return Path(hf_hub_download(hub.name, file))
        except LocalEntryNotFoundError as error:
            raise _unreachable(spec, hub, error) from error
        except EntryNotFoundError:
            continue
        except RepositoryNotFoundError as error:
            if hub.gated or isinstance(error, GatedRepoError):
                raise _gated(spec, hub, has_token=get_token() is not None) from error
            raise _unreachable(spec, hub, error) from error
        except Exception as error:  # what carries the bytes has errors of its own, httpx and hf_xet among them
            raise _unreachable(spec, hub, error) from error
    raise CheckpointError(
        f"has none of {', '.join(_files(spec))}", where=hub.page, do="fetch its weights by hand and name the file"
    )


def _absent(spec: EncoderSpec, hub: HubRepository) -> CheckpointError:
    gate = "accept the terms on that page, run: hf auth login, and " if hub.gated else ""
    return CheckpointError(
        f"the weights of {spec.name} ({spec.licence}) are not on this disk, and are not fetched because a card names "
        "them",
        where=hub.page,
        do=f"{gate}run: hf download {hub.name} {spec.weights.as_posix()} ({_offline(spec)})",
    )


def _gated(spec: EncoderSpec, hub: HubRepository, *, has_token: bool) -> CheckpointError:
    if has_token:
        return CheckpointError(
            f"the weights of {spec.name} ({spec.licence}) are gated, and your token gives no access to them",
            where=hub.page,
            do=f"ask for access on that page with the account that `hf auth whoami` names; a fine-grained token must "
            f"also allow gated repositories ({_offline(spec)})",
        )
    return CheckpointError(
        f"the weights of {spec.name} ({spec.licence}) are gated, and you are not logged in",
        where=hub.page,
        do=f"accept the terms on that page, then run: hf auth login ({_offline(spec)})",
    )


def _unreachable(spec: EncoderSpec, hub: HubRepository, error: Exception) -> CheckpointError:
    gate = "; it is gated: accept the terms on that page and run: hf auth login" if hub.gated else ""
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return CheckpointError(
        f"the weights of {spec.name} cannot be fetched ({reason})",
        where=hub.page,
        do=f"check the network{gate} ({_offline(spec)})",
    )


def _offline(spec: EncoderSpec) -> str:
    return f"or, without a network: put {spec.weights.name} into FOLDER/{spec.name} and set {FOLDER_VARIABLE}=FOLDER"


def upload_folder(folder: Path, repository: str, names: Sequence[str], *, private: bool = True) -> str:
    """Send files to a model repository on the Hugging Face hub, which is made if it is not there.

    Parameters
    ----------
    folder
        Where the files are.
    repository
        ``owner/name``.
    names
        Which of them to send; nothing else is.
    private
        Whether a repository that is made is seen by its owner only.

    Returns
    -------
    str
        Its page.

    Raises
    ------
    CheckpointError
        If nobody is logged in, the name is none, or the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError

    if get_token() is None:
        raise CheckpointError("you are not logged in to the Hugging Face hub", do="run: hf auth login")
    api = HfApi()
    try:
        page = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(names),
            commit_message="Add a checkpoint of napari-hyperst",
        )
    except HFValidationError as error:
        raise CheckpointError(f"names no repository ({error})", where=repository, do="write owner/name") from error
    except Exception as error:  # what carries the bytes has errors of its own, httpx and hf_xet among them
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"cannot be sent to ({reason})",
            where=repository,
            do="check the network, and that the token of `hf auth whoami` may write there",
        ) from error
    return str(page)
