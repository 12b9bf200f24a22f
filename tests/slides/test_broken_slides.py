"""Broken and odd slides of every format: each opens right, or ends in a SlideError that names file and remedy."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_slides
from corpus import CASES
from damage import deny
from expected import Case, Opens, Refused
from small_slides import (
    COORD,
    COUNT,
    H5,
    H5AD,
    METADATA,
    MTX,
    PNG,
    POSITIONS,
    SCALES,
    SPOTS,
    ST,
    STORE,
    TIF,
    WSI,
    Truth,
)

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides import Slide, open_slide

#: What reading a slide may add to the memory that is in use at most.
MOST_MEMORY = 2**29


@pytest.fixture(scope="module")
def whole(crop: Any, tiny_section: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Truth]]:
    """Return a whole slide of each format, to be copied, with what it holds."""
    made: dict[str, tuple[Path, Truth]] = {}
    reduced = small_slides.small(crop)
    small_slides.CROP[:] = [reduced]
    for name, write_one in small_slides.WRITERS.items():
        folder = tmp_path_factory.mktemp("whole") / "slide"
        folder.mkdir()
        made[name] = (folder, write_one(reduced, folder))
    folder = tmp_path_factory.mktemp("whole") / "slide"
    folder.mkdir()
    made["legacy st"] = (folder, small_slides.write_legacy_st(tiny_section, folder))
    return made


@pytest.fixture
def bounded() -> Iterator[None]:
    """Fail where a slide is waited for without end, or takes more memory than its pixels could."""
    resource = pytest.importorskip("resource")
    unit = 1 if sys.platform == "darwin" else 1024

    def give_up(*_: Any) -> None:
        raise TimeoutError("hangs")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < MOST_MEMORY


def open_and_look(path: Path, options: dict[str, Any]) -> Slide:
    """Open a slide and read its pixels, since files may be broken where opening does not look."""
    slide = open_slide(path, **options)
    height, width = slide.image.shape_px
    slide.image.read(0, slice(0, min(height, 2000)), slice(0, min(width, 2000)))
    return slide


def options_in(folder: Path, case: Case) -> dict[str, Any]:
    return case.options | ({"tissue": folder / case.options["tissue"]} if "tissue" in case.options else {})


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.format}: {case.name}")
def test_a_broken_slide(case: Case, whole: dict[str, tuple[Path, Truth]], tmp_path: Path) -> None:
    source, truth = whole[case.format]
    folder = Path(shutil.copytree(source, tmp_path / "slide", symlinks=True))
    case.damage(folder)
    options, before = options_in(folder, case), sorted(folder.rglob("*"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if isinstance(case.expected, Refused):
            with pytest.raises(SlideError, match=case.expected.told) as refused:
                open_and_look(folder / case.opened, options)
            line = str(refused.value)
            assert str(folder) in line
            assert case.expected.file in line
            assert refused.value.do
            assert "\n" not in line
        else:
            slide = open_and_look(folder / case.opened, options)
    if isinstance(case.expected, Opens):
        told = [str(one.message) for one in caught if issubclass(one.category, HyperSTWarning)]
        if case.expected.warns is None:
            assert not told
        else:
            assert any(re.search(case.expected.warns, one) for one in told), told
        case.expected.check(slide, truth)
    assert sorted(folder.rglob("*")) == before


DENIED = [
    ("visium", H5, "."), ("visium", POSITIONS, "."), ("visium", SCALES, "."), ("visium", TIF, "."),
    ("visium mtx", f"{MTX}/features.tsv.gz", "."), ("hest", H5AD, H5AD), ("hest", METADATA, "."), ("hest", WSI, "."),
    ("stimage", COORD, "."), ("stimage", COUNT, "."), ("stimage", PNG, "."), ("legacy st", ST, "."),
    ("legacy st", SPOTS, "."), ("whole slide", "he.tif", "he.tif"), ("store", "slide.zarr/images/he/zarr.json", STORE),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "opened"), DENIED, ids=[f"{kind}: {name}" for kind, name, _ in DENIED])
def test_a_file_that_may_not_be_read(
    kind: str,
    name: str,
    opened: str,
    whole: dict[str, tuple[Path, Truth]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(shutil.copytree(whole[kind][0], tmp_path / "slide"))
    with monkeypatch.context() as patched:
        deny(patched, folder / name)
        with pytest.raises(SlideError, match=r"(?i)permission denied.*; ") as refused:
            open_slide(folder / opened)
    assert (STORE if kind == "store" else MTX if "mtx" in kind else Path(name).name) in str(refused.value)


def test_the_corpus_is_of_every_format() -> None:
    assert len(CASES) + len(DENIED) >= 60
    assert len({(case.format, case.name) for case in CASES}) == len(CASES)
    assert {case.format for case in CASES} == {*small_slides.WRITERS, "legacy st"}
