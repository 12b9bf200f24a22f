from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest
from qtpy.QtCore import Qt

from napari_hyperst.viewer.maps import NO_COUNTS, Map
from napari_hyperst.widgets.gene_list import GeneList
from napari_hyperst.widgets.map_list import MapList


@pytest.fixture
def genes(qtbot: Any) -> GeneList:
    made = GeneList()
    qtbot.addWidget(made)
    made.set_genes(["ACTB", "CD74", "COL1A1", "COL1A2", "FASN"])
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
    where = genes.view.visualRect(genes.proxy.index(0, 0)).center()
    qtbot.mouseClick(genes.view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert chosen.call_args.args == ("ACTB",)
    genes.search.clear()
    assert genes.view.currentIndex().data() == "ACTB"


def test_a_click_chooses(qtbot: Any, genes: GeneList) -> None:
    where = genes.view.visualRect(genes.proxy.index(3, 0)).center()
    with qtbot.waitSignal(genes.chosen) as told:
        qtbot.mouseClick(genes.view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert told.args == ["COL1A2"]


def test_marking_and_other_genes_tell_nothing(genes: GeneList) -> None:
    chosen = MagicMock()
    genes.chosen.connect(chosen)
    genes.select("CD74")
    assert genes.view.currentIndex().data() == "CD74"
    genes.select("NOT THERE")
    genes.select(None)
    genes.set_genes(["A", "B"])
    assert genes.genes == ["A", "B"]
    chosen.assert_not_called()


def test_maps_that_cannot_be_shown_are_greyed_with_the_reason(qtbot: Any) -> None:
    maps = MapList()
    qtbot.addWidget(maps)
    maps.set_maps([Map("a", "One", "First", "u"), Map("b", "Two", "First", "u", reason=NO_COUNTS)])
    assert [maps.item(row).text().strip() for row in range(3)] == ["First", "One", "Two (needs counts)"]
    greyed = maps.item_of("b")
    assert greyed is not None
    assert not greyed.flags() & Qt.ItemFlag.ItemIsEnabled
    assert NO_COUNTS in greyed.toolTip()
    chosen = MagicMock()
    maps.chosen.connect(chosen)
    maps.select("a")
    chosen.assert_not_called()
    maps.setCurrentRow(-1)
    maps.setCurrentItem(maps.item_of("a"))
    chosen.assert_called_once_with("a")
