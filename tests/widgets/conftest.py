"""Children without torch, and windows that leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from anndata import AnnData
from napari.components import ViewerModel
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QApplication

from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.viewer import session_of
from napari_hyperst.viewer.session import Session
from napari_hyperst.widgets.process import Child

SCRIPT = Path(__file__).with_name("scripted_child.py")


@pytest.fixture(scope="session")
def table_file(tiny_table: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the table of a prediction of the tiny section."""
    path = tmp_path_factory.mktemp("tables") / "prediction.h5ad"
    tiny_table.copy().write_h5ad(path)
    return path


@pytest.fixture(scope="session")
def tiny_slide(tiny_section: Path) -> Slide:
    """Return the tiny section, open."""
    return open_slide(tiny_section)


@pytest.fixture
def empty_session() -> Session:
    """Return the session of a viewer without a window, in which no slide is open."""
    viewer = ViewerModel()
    session = session_of(viewer)
    session.keep = viewer  # type: ignore[attr-defined]  # a session does not keep its viewer alive
    return session


@pytest.fixture
def session(empty_session: Session, tiny_slide: Slide, tiny_table: AnnData) -> Session:
    """Return a session in which the tiny section is predicted."""
    entry = empty_session.add(tiny_slide)
    empty_session.set_prediction(entry.key, tiny_table.copy(), "table_hyperst")
    return empty_session


@pytest.fixture
def child(qapp: QApplication, table_file: Path) -> Iterator[Child]:
    """Return a child that plays scenes; it has ended when the test is over."""
    made = Child([str(SCRIPT), str(table_file)])
    yield made
    made.close()


@pytest.fixture
def other_child(qapp: QApplication, table_file: Path) -> Iterator[Child]:
    """Return another."""
    made = Child([str(SCRIPT), str(table_file)])
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_is_left(qapp: QApplication) -> Iterator[None]:
    """Fail a test that leaves windows, or threads of ours, behind."""
    windows = set(map(id, QApplication.topLevelWidgets()))
    children = set(psutil.Process().children())
    yield
    QApplication.sendPostedEvents(None, 52)  # what is to be deleted later is deleted now
    qapp.processEvents()
    left = [w for w in QApplication.topLevelWidgets() if id(w) not in windows and w.isVisible()]
    assert left == []
    assert QThreadPool.globalInstance().activeThreadCount() == 0
    assert set(psutil.Process().children()) <= children
