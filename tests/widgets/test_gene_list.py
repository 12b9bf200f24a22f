from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from napari.settings import get_plugin_settings
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QDialogButtonBox

from napari_hyperst.viewer.genes import Genes
from napari_hyperst.viewer.markers import MarkerSet, favourites, keep_favourites, keep_marker_sets, marker_sets
from napari_hyperst.widgets.gene_list import GeneList
from napari_hyperst.widgets.gene_model import NAME, PCC, STAR, VARIANCE, GeneModel
from napari_hyperst.widgets.marker_picker import MarkerDialog, MarkerPicker

FIVE = Genes(
    ("ACTB", "CD74", "COL1A1", "COL1A2", "FASN"),
    ("ENSG00000075624", "ENSG00000019582\nDHLAG", "", "", ""),
    np.array([0.2, np.nan, 0.9, 0.5, -0.1]),
    np.array([5.0, 4.0, 3.0, 2.0, 1.0]),
)


@pytest.fixture(autouse=True)
def preferences_as_before() -> Iterator[None]:
    yield
    get_plugin_settings("napari-hyperst").genes.reset()


@pytest.fixture
def genes(qtbot: Any) -> GeneList:
    made = GeneList()
    qtbot.addWidget(made)
    made.set_genes(FIVE)
    made.view.header().setSortIndicator(NAME, Qt.SortOrder.AscendingOrder)
    made.show()
    return made


def test_typing_narrows_and_chooses_nothing(qtbot: Any, genes: GeneList) -> None:
    chosen = MagicMock()
    genes.chosen.connect(chosen)
    genes.select("FASN")
    qtbot.keyClicks(genes.search, "col")
    assert genes.listed == ["COL1A1", "COL1A2"]
    assert genes.count.text() == "2 of 5 genes"
    genes.search.clear()
    assert genes.listed == genes.genes
    chosen.assert_not_called()
    qtbot.keyClicks(genes.search, "zzz")
    assert genes.listed == []
    qtbot.keyClick(genes.search, Qt.Key.Key_Return)
    chosen.assert_not_called()


def test_enter_takes_the_first_and_arrows_step(qtbot: Any, genes: GeneList) -> None:
    chosen = MagicMock()
    genes.chosen.connect(chosen)
    qtbot.keyClicks(genes.search, "Col")
    qtbot.keyClick(genes.search, Qt.Key.Key_Return)
    chosen.assert_called_once_with("COL1A1")
    qtbot.keyClick(genes.view, Qt.Key.Key_Down)
    assert chosen.call_args.args == ("COL1A2",)


def test_the_one_that_is_left_is_taken_by_enter_and_by_a_click(qtbot: Any, genes: GeneList) -> None:
    chosen = MagicMock()
    genes.chosen.connect(chosen)
    genes.select("CD74")
    qtbot.keyClicks(genes.search, "fasn")
    assert not genes.view.currentIndex().isValid()
    qtbot.keyClick(genes.search, Qt.Key.Key_Return)
    chosen.assert_called_once_with("FASN")
    genes.search.setText("actb")
    where = genes.view.visualRect(genes.model.index(0, NAME)).center()
    qtbot.mouseClick(genes.view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert chosen.call_args.args == ("ACTB",)
    genes.search.clear()
    assert marked(genes) == "ACTB"


def test_a_click_chooses(qtbot: Any, genes: GeneList) -> None:
    where = genes.view.visualRect(genes.model.index(3, NAME)).center()
    with qtbot.waitSignal(genes.chosen) as told:
        qtbot.mouseClick(genes.view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert told.args == ["COL1A2"]


def test_marking_and_other_genes_tell_nothing(genes: GeneList) -> None:
    chosen = MagicMock()
    genes.chosen.connect(chosen)
    genes.select("CD74")
    assert marked(genes) == "CD74"
    genes.select("NOT THERE")
    genes.select(None)
    genes.set_genes(Genes(("A", "B"), ("", ""), np.zeros(2), np.zeros(2)))
    assert genes.genes == ["A", "B"]
    chosen.assert_not_called()


def test_whole_names_come_first_then_beginnings(genes: GeneList) -> None:
    names = ("MFN1", "FN1B", "FN1", "ACTB")
    genes.set_genes(Genes(names, ("",) * 4, np.array([0.9, 0.8, 0.1, 0.5]), np.ones(4)))
    genes.view.header().setSortIndicator(PCC, Qt.SortOrder.DescendingOrder)
    genes.search.setText("fn1")
    assert genes.listed == ["FN1", "FN1B", "MFN1"]


def test_ids_and_other_names_are_found(genes: GeneList) -> None:
    genes.search.setText("ENSG00000019582")
    assert genes.listed == ["CD74"]
    genes.search.setText("dhlag")
    assert genes.listed == ["CD74"]


@pytest.mark.parametrize(
    ("column", "order", "listed"),
    [
        (PCC, "Descending", ["COL1A1", "COL1A2", "ACTB", "FASN", "CD74"]),
        (PCC, "Ascending", ["FASN", "ACTB", "COL1A2", "COL1A1", "CD74"]),
        (VARIANCE, "Descending", ["ACTB", "CD74", "COL1A1", "COL1A2", "FASN"]),
        (NAME, "Descending", ["FASN", "COL1A2", "COL1A1", "CD74", "ACTB"]),
    ],
)
def test_a_click_on_the_head_sorts_and_what_is_unknown_is_last(
    genes: GeneList, column: int, order: str, listed: list[str]
) -> None:
    genes.view.header().setSortIndicator(column, getattr(Qt.SortOrder, f"{order}Order"))
    assert genes.listed == listed


def test_an_id_is_not_said_to_be_missing_where_none_is_known(qtbot: Any, genes: GeneList) -> None:
    qtbot.keyClicks(genes.search, "ENSG00000141736")
    assert genes.count.text() == "0 of 5 genes: this checkpoint predicts no such gene"
    genes.set_genes(Genes(FIVE.names, ("",) * 5, FIVE.pcc, FIVE.variance))
    assert genes.count.text() == "0 of 5 genes: no Ensembl id is known of them; search by symbol"
    genes.search.setText("nosuch")
    assert genes.count.text() == "0 of 5 genes: this checkpoint predicts no such gene"


def test_favourites_come_first_and_are_kept(qtbot: Any, genes: GeneList) -> None:
    chosen = MagicMock()
    genes.chosen.connect(chosen)
    where = genes.view.visualRect(genes.model.index(3, STAR)).center()
    qtbot.mouseClick(genes.view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert favourites() == {"COL1A2"}
    chosen.assert_not_called()  # a star chooses no gene
    header = genes.view.header()
    for column, first in ((STAR, "COL1A2"), (NAME, "ACTB"), (PCC, "COL1A1"), (VARIANCE, "ACTB")):  # the best on top
        where = QPoint(header.sectionViewportPosition(column) + 12, header.height() // 2)
        qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=where)
        assert genes.listed[0] == first
    again = GeneList()
    qtbot.addWidget(again)
    assert again.model.favourites == {"COL1A2"}
    keep_favourites({*favourites(), "ERBB2"})  # in another viewer
    for one in (genes, again):
        assert one.model.favourites == {"COL1A2", "ERBB2"}
    genes.search.clear()
    row = genes.listed.index("COL1A2")
    where = genes.view.visualRect(genes.model.index(row, STAR)).center()
    qtbot.mouseClick(genes.view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert favourites() == {"ERBB2"}  # nothing of another's is lost


def test_steps_go_round(genes: GeneList) -> None:
    chosen = MagicMock()
    genes.chosen.connect(chosen)
    genes.select("COL1A2")
    for by, gene in ((1, "FASN"), (1, "ACTB"), (-1, "FASN")):
        genes.step(by)
        assert chosen.call_args.args == (gene,)


def test_the_model_is_one_that_qt_can_trust(qtmodeltester: Any) -> None:
    model = GeneModel()
    model.set_genes(FIVE)
    qtmodeltester.check(model)


def test_a_pasted_list_is_kept_under_its_name(qtbot: Any) -> None:
    picker = MarkerPicker()
    qtbot.addWidget(picker)
    picker.set_genes(FIVE)
    dialog = MarkerDialog(picker)
    save = dialog.buttons.button(QDialogButtonBox.StandardButton.Save)
    assert save.toolTip() == "Give it a name"
    dialog.name.setText("Stroma; old: one")
    dialog.list.setPlainText('"COL1A1", ENSG00000019582\nNOPE;fasn FASN')
    assert save.isEnabled()
    markers = dialog.markers
    keep_marker_sets([markers])
    again = MarkerDialog(picker)
    again.list.setPlainText("COL1A1")
    for name, told in (("Stroma old one", "Replace"), ("Stroma", "Save")):
        again.name.setText(name)
        assert again.buttons.button(QDialogButtonBox.StandardButton.Save).text() == told
    assert marker_sets() == [MarkerSet("Stroma old one", ("COL1A1", "ENSG00000019582", "NOPE", "fasn", "FASN"))]
    picker.select(markers)
    assert picker.sets.currentText() == "Stroma old one"
    assert picker.missing.text() == "Mean of 3 genes; not predicted: NOPE"
    with qtbot.waitSignal(picker.chosen) as told:
        qtbot.mouseClick(picker.delete, Qt.MouseButton.LeftButton)
    assert told.args == [None]
    assert marker_sets() == []


def marked(genes: GeneList) -> str:
    return genes.model.name(genes.view.currentIndex().row())
