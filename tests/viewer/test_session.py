from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from anndata import AnnData, concat
from napari.components import ViewerModel
from napari.layers import Layer
from napari.settings import get_plugin_settings
from napari.utils.notifications import notification_manager
from spatialdata import SpatialData, read_zarr
from spatialdata.models import TableModel

from napari_hyperst.errors import HyperSTError, StoreError
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.export import write_table
from napari_hyperst.viewer import session_of, show_slide
from napari_hyperst.viewer.contract import ours
from napari_hyperst.viewer.entry import Entry
from napari_hyperst.viewer.filling import FILLING
from napari_hyperst.viewer.genes import genes_of
from napari_hyperst.viewer.layers import OURS
from napari_hyperst.viewer.preferences import percentiles
from napari_hyperst.viewer.session import Session
from napari_hyperst.viewer.stored import choices, shown_of

if TYPE_CHECKING:
    from napari_hyperst.viewer.layers import MapLayer

Make = Callable[..., Any]


@pytest.fixture
def session() -> Session:
    """Return the session of a viewer without a window."""
    viewer = ViewerModel()
    found = session_of(viewer)
    found.keep = viewer  # type: ignore[attr-defined]  # a session does not keep its viewer alive
    return found


@pytest.fixture
def predicted(session: Session, section: Path, tiny_table: AnnData) -> Session:
    entry = session.add(open_slide(section))
    session.set_prediction(entry.key, tiny_table.copy(), "table_hyperst", section / "job" / "prediction.h5ad")
    return session


def names(session: Session) -> list[str]:
    return [layer.name for layer in session.viewer.layers]


def visible(session: Session) -> list[str]:
    return [layer.metadata[OURS]["kind"] for layer in session.viewer.layers if layer.visible][2:]


def prediction_shown(session: Session) -> tuple[Entry, AnnData, MapLayer]:
    """Return the active slide, its prediction and the layer that shows it."""
    entry = session.active
    assert entry is not None
    assert entry.table is not None
    layer = session.layer_of(entry, "predicted")
    assert layer is not None
    return entry, entry.table, layer


def test_a_viewer_has_one_session_and_is_not_kept_alive_by_it() -> None:
    viewer = ViewerModel()
    assert session_of(viewer) is session_of(viewer)
    assert session_of(ViewerModel()) is not session_of(viewer)


def test_a_slide_is_shown_with_what_other_tools_look_for(session: Session, section: Path) -> None:
    slide = open_slide(section)
    entry = show_slide(session.viewer, slide)
    image, spots = session.viewer.layers
    assert names(session) == [slide.source.image, "corner"]
    assert image.multiscale
    assert image.rgb
    for layer in (image, spots):
        assert layer.metadata["sdata"] is slide.sdata
        assert layer.metadata["_current_cs"] in layer.metadata["_active_in_cs"]
    assert spots.metadata["adata"] is slide.counts
    assert spots.metadata["table_names"] == ["table"]
    assert spots.metadata["indices"] == slide.spots.index.tolist()
    assert session.active is entry
    assert session.viewer.canvas.overlays.scale_bar.visible
    session.viewer.layers.remove(image)
    assert "name" not in image.metadata  # napari-spatialdata raises on one that has it and was renamed
    session.viewer.layers.insert(0, image)
    assert image.metadata["name"] == slide.source.image


def test_a_prediction_adds_measured_and_predicted_and_shows_one(predicted: Session) -> None:
    assert predicted.active is not None
    key = predicted.active.key
    assert names(predicted)[2:] == [f"{key} measured", f"{key} predicted"]
    assert visible(predicted) == ["predicted"]
    entry = predicted.active
    assert entry is not None
    layer = predicted.layer_of(entry, "predicted")
    assert layer is not None
    assert "sdata" not in layer.metadata
    said = layer.metadata[OURS]
    assert {key: said[key] for key in ("element", "table", "gene", "kind")} == {
        "element": "corner", "table": "table_hyperst", "gene": predicted.gene, "kind": "predicted",
    }  # fmt: skip
    assert "research use" in predicted.viewer.canvas.overlays.text.text
    spots = predicted.viewer.layers["corner"]
    assert spots.metadata["table_names"] == ["table", "table_hyperst"]


@pytest.fixture
def whole(session: Session, section: Path, tiny_table: AnnData) -> Session:
    """Return the session of a slide each of whose spots was predicted."""
    entry = session.add(open_slide(section))
    table = tiny_table.copy()
    ids = set(table.obs_names)
    bare = [i for i, spot in enumerate(entry.slide.spots.ids) if spot not in ids]
    assert len(bare) == 1  # its tile reaches over the edge
    more = table[: len(bare)].copy()
    more.obs_names, more.obs["spot_id"] = entry.slide.spots.ids[bare], np.asarray(entry.slide.spots.index)[bare]
    whole = concat([table, more], uns_merge="first", merge="first")
    session.set_prediction(entry.key, whole, "table_hyperst")
    return session


def test_rings_are_hidden_while_a_map_colours_all_spots(whole: Session) -> None:
    entry, spots = whole.active, whole.viewer.layers["corner"]
    assert entry is not None
    assert entry.table is not None
    layer = whole.layer_of(entry, "predicted")
    assert layer is not None
    assert not spots.visible
    whole.show("measured")
    assert not spots.visible
    layer.visible = True  # both
    for shown in (layer, whole.layer_of(entry, "measured")):
        assert shown is not None
        shown.visible = False  # by hand, in the layer list
    assert spots.visible
    layer.visible = True
    assert not spots.visible
    spots.visible = True  # by hand
    whole.show(gene=str(entry.table.var_names[2]))
    assert spots.visible
    whole.viewer.layers.selection.active = spots
    whole.viewer.layers.selection.active = layer
    assert not spots.visible
    whole.viewer.layers.selection.active = spots  # to be looked at, or selected in
    assert spots.visible
    whole.viewer.layers.selection.active = layer
    whole.viewer.layers.selection.add(spots)
    assert spots.visible
    whole.forget_prediction(entry.key)
    assert spots.visible


def test_a_spot_without_a_value_is_blank_and_brings_no_rings(whole: Session) -> None:
    entry, spots = whole.active, whole.viewer.layers["corner"]
    assert entry is not None
    assert entry.table is not None
    gaps = entry.table.copy()
    gaps.layers["measured"] = gaps.layers["measured"].copy()
    gaps.layers["measured"][3] = np.nan
    whole.set_prediction(entry.key, gaps, "table_hyperst")
    for kind in ("measured", "predicted", "measured"):  # to and fro: a change shows what differs
        whole.show(kind)
        assert not spots.visible


def test_rings_that_were_hidden_by_hand_stay_so(whole: Session) -> None:
    spots = whole.viewer.layers["corner"]
    layer = whole.layer_of(whole.active, "predicted")
    assert layer is not None
    layer.visible = False
    assert spots.visible
    spots.visible = False  # by hand
    for _ in range(2):
        layer.visible = True
        layer.visible = False
        assert not spots.visible
    spots.visible = True
    layer.visible = True
    layer.visible = False
    assert spots.visible


def test_a_map_that_is_made_visible_instead_of_the_shown_one_is_what_is_shown(whole: Session) -> None:
    text = whole.viewer.canvas.overlays.text
    shown, other = whole.layer_of(whole.active, "predicted"), whole.layer_of(whole.active, "measured")
    assert shown is not None
    assert other is not None
    shown.visible = False
    assert text.text == "corner · 48 spots\nFor research use only"
    heard = MagicMock()
    whole.shown_changed.connect(heard)
    other.visible = True
    heard.assert_called()
    assert whole.map == "measured"
    assert "measured" in text.text
    shown.visible = True  # both: the upper one is told
    assert whole.map == "measured"
    upper = max((shown, other), key=whole.viewer.layers.index)
    assert ours(upper)["kind"] in text.text
    assert text.visible
    other.visible = False  # the one that is left is it
    assert whole.map == "predicted"
    other.visible = True
    whole.viewer.layers.remove(shown)
    assert whole.map == whole.seen == "measured"
    heard.reset_mock()
    whole.show("predicted")
    heard.assert_called_once()
    whole.show("measured")
    assert heard.call_count == 2


def test_the_status_bar_tells_another_gene_without_a_move_of_the_mouse(whole: Session) -> None:
    assert whole.active is not None
    assert whole.active.table is not None
    told = MagicMock()
    whole.viewer.cursor.events.position.connect(told)
    whole.show(gene=str(whole.active.table.var_names[2]))
    told.assert_not_called()  # the mouse is elsewhere
    whole.viewer.mouse_over_canvas = True
    whole.show(gene=str(whole.active.table.var_names[3]))
    told.assert_called()


def test_slides_are_numbered_in_each_viewer(whole: Session, section: Path, make_napari_viewer_proxy: Any) -> None:
    assert whole.active is not None
    assert whole.active.key == "corner"
    assert whole.add(open_slide(section)).key == "corner [1]"
    assert session_of(make_napari_viewer_proxy()).add(open_slide(section)).key == "corner"


def test_rings_come_back_when_their_slide_is_looked_at_again(whole: Session, section: Path) -> None:
    entry, spots = whole.active, whole.viewer.layers["corner"]
    assert entry is not None
    other = whole.add(open_slide(section))
    whole.activate(entry.key)
    assert not spots.visible  # its map is
    layer = whole.layer_of(entry, "predicted")
    assert layer is not None
    assert layer.visible
    whole.activate(other.key)
    assert [ours(shown)["slide"] for shown in whole.viewer.layers if shown.visible] == [other.key, other.key]


def test_points_are_uploaded_once_for_a_change_of_gene(whole: Session) -> None:
    _, table, layer = prediction_shown(whole)
    told = MagicMock()
    for event in (layer._face.events.colors, layer._face.events.color_properties):
        event.connect(told)
    before = layer.face_color.copy()
    whole.show(gene=str(table.var_names[2]))
    assert told.call_count == 1
    assert not np.array_equal(layer.face_color, before)


def test_a_change_of_gene_tells_the_list_of_layers_nothing_and_keeps_what_a_user_added(whole: Session) -> None:
    entry, table, layer = prediction_shown(whole)
    layer.features["mine"] = np.arange(len(layer.data))
    told, told_table = MagicMock(), MagicMock()
    whole.viewer.layers.events.connect(lambda event: told(event.type))
    layer.events.features.connect(told_table)
    gene = str(table.var_names[2])
    whole.show(gene=gene)
    assert told.mock_calls == []  # the list would be drawn again, and so the whole window
    np.testing.assert_array_equal(layer.features["value"], table[:, gene].X.ravel())
    np.testing.assert_array_equal(layer.features["mine"], np.arange(len(layer.data)))
    assert not told_table.called
    whole.overlays.catch_up(entry)
    assert told_table.call_count == 1  # napari's table of features is told when the map has been seen


def test_labels_and_colours_that_were_chosen_by_hand_follow_the_gene(whole: Session) -> None:
    _, table, layer = prediction_shown(whole)
    layer.text = "{value:.2f}"
    layer.face_color_mode = "direct"
    for gene in map(str, table.var_names[2:4]):
        whole.show(gene=gene)
        wanted = table[:, gene].X.ravel()
        assert list(layer.text.values) == [f"{value:.2f}" for value in wanted]
        layer.face_color_mode = "colormap"
        np.testing.assert_array_equal(layer._face.color_properties.values, wanted)


def test_rings_stay_where_a_spot_was_not_predicted(predicted: Session) -> None:
    assert predicted.viewer.layers["corner"].visible


def test_each_map_has_a_layer_of_its_own_made_once(predicted: Session) -> None:
    entry = predicted.active
    assert entry is not None
    for found in [*entry.maps, *entry.maps]:
        predicted.show(found.key)
        assert visible(predicted) == [found.key]
    assert len(predicted.viewer.layers) == 2 + len(entry.maps)


def test_another_gene_recolours_what_is_visible_now_and_the_rest_when_it_is(predicted: Session) -> None:
    entry = predicted.active
    assert entry is not None
    assert entry.table is not None
    first, second = (predicted.layer_of(entry, kind) for kind in ("predicted", "measured"))
    assert first is not None
    assert second is not None
    before = second.features["value"].to_numpy().copy()
    changed = MagicMock()
    second.events.features.connect(changed)
    gene = next(g for g in entry.table.var_names if g != predicted.gene)
    predicted.show(gene=gene)
    np.testing.assert_array_equal(first.features["value"], entry.table[:, gene].X.ravel())
    np.testing.assert_array_equal(second.features["value"], before)
    changed.assert_not_called()
    second.visible = True  # by hand, in the layer list
    np.testing.assert_array_equal(second.features["value"], entry.table[:, gene].layers["measured"].ravel())
    assert first.face_contrast_limits == pytest.approx(second.face_contrast_limits)
    assert [ours(layer)["gene"] for layer in (first, second)] == [gene, gene]


def test_a_name_given_by_hand_stays(predicted: Session) -> None:
    entry, table, layer = prediction_shown(predicted)
    layer.name = "mine"
    for gene in table.var_names[:3]:
        predicted.show("predicted", gene)
        assert predicted.layer_of(entry, "predicted") is layer
    assert layer.name == "mine"
    predicted.show("measured")
    assert f"{entry.key} measured" in names(predicted)  # by which a script finds it, whichever gene is shown
    predicted.viewer.layers["corner"].name = "renamed"
    predicted.show("norm_spot_image")
    assert visible(predicted) == ["norm_spot_image"]


def test_a_layer_taken_away_by_hand_comes_back_when_it_is_asked_for(predicted: Session) -> None:
    entry = predicted.active
    assert entry is not None
    for kind in ("predicted", "measured"):
        predicted.viewer.layers.remove(predicted.layer_of(entry, kind))
    predicted.show("predicted")
    assert visible(predicted) == ["predicted"]
    predicted.viewer.layers.remove(predicted.viewer.layers["corner"])
    predicted.show("measured")
    assert predicted.active is entry


def test_a_slide_without_layers_is_closed(predicted: Session, tiny_table: AnnData) -> None:
    told = MagicMock()
    predicted.slides_changed.connect(told)
    entry = predicted.active
    assert entry is not None
    predicted.viewer.layers.clear()
    assert predicted.active is None
    assert predicted.entries == {}
    told.assert_called()
    assert not predicted.viewer.canvas.overlays.text.visible
    predicted.show("predicted")  # nothing is there: nothing happens
    predicted.set_prediction(entry.key, tiny_table, "late")  # of a job that was at work meanwhile
    assert len(predicted.viewer.layers) == 0


def test_predicting_again_shows_the_new_values_in_the_same_layers(predicted: Session, tiny_table: AnnData) -> None:
    entry = predicted.active
    assert entry is not None
    layer = predicted.layer_of(entry, "predicted")
    predicted.show("norm_spot_image")
    again = tiny_table.copy()
    again.X = again.X + 1
    predicted.set_prediction(entry.key, again, "table_hyperst", Path("other") / "job" / "prediction.h5ad")
    predicted.show("predicted")
    assert predicted.layer_of(entry, "predicted") is layer
    assert layer is not None
    np.testing.assert_allclose(layer.features["value"], again[:, predicted.gene].X.ravel())


def test_a_prediction_without_counts_takes_its_layers_away(predicted: Session, tiny_table: AnnData) -> None:
    entry = predicted.active
    assert entry is not None
    predicted.show("difference")
    bare = tiny_table.copy()
    del bare.layers["measured"]
    predicted.set_prediction(entry.key, bare, "table_hyperst", Path("other") / "job" / "prediction.h5ad")
    assert predicted.map == "predicted"
    assert visible(predicted) == ["predicted"]
    with pytest.raises(HyperSTError, match="no map 'difference'"):
        predicted.show("difference")


def test_two_slides_of_one_name_are_told_apart(session: Session, section: Path, tiny_table: AnnData) -> None:
    first, second = session.add(open_slide(section)), session.add(open_slide(section))
    assert first.key != second.key
    assert second.key.startswith("corner [")
    session.set_prediction(first.key, tiny_table.copy(), "hyperst", section / "a")
    assert session.active is second  # who looks at another slide goes on looking at it
    session.set_prediction(second.key, tiny_table.copy(), "hyperst", section / "b")
    session.show("norm_spot_image")
    assert session.layer_of(first, "norm_spot_image") is None
    session.show(gene=tiny_table.var_names[0])
    session.activate(first.key)
    assert f"{first.key} ·" in session.viewer.canvas.overlays.text.text
    shown = {layer.metadata[OURS]["slide"] for layer in session.viewer.layers if layer.visible}
    assert shown == {first.key}  # slides lie on each other: one is seen at a time
    session.show("norm_spot_image")
    assert session.layer_of(first, "norm_spot_image") is not session.layer_of(second, "norm_spot_image")


def test_the_gene_that_is_looked_at_stays_when_another_slide_is_filled(
    session: Session, section: Path, tiny_table: AnnData
) -> None:
    first, second = session.add(open_slide(section)), session.add(open_slide(section))
    filling = tiny_table.copy()
    filling.uns[OURS] = {FILLING: True}
    session.set_prediction(first.key, filling, "")
    session.set_prediction(second.key, tiny_table.copy(), "hyperst", section / "b")
    gene = first.genes.first  # with which filling began
    session.show(gene=gene)
    session.set_prediction(first.key, tiny_table.copy(), "hyperst", section / "a")
    assert session.active is second
    assert session.gene == session.title == gene


def test_a_map_of_another_slide_shown_by_hand_keeps_its_gene(
    session: Session, section: Path, tiny_table: AnnData
) -> None:
    first, second = session.add(open_slide(section)), session.add(open_slide(section))
    session.activate(first.key)
    session.set_prediction(first.key, tiny_table[:, :3].copy(), "hyperst", section / "a")
    before = session.gene
    session.activate(second.key)
    session.set_prediction(second.key, tiny_table[:, 5:].copy(), "hyperst", section / "b")
    assert session.gene != before
    layer = session.layer_of(first, "predicted")
    assert layer is not None
    layer.visible = True  # in the layer list
    np.testing.assert_array_equal(layer.features["value"], tiny_table[:, before].X.ravel())


def test_a_store_with_a_prediction_shows_it_at_once(
    session: Session, section: Path, tmp_path: Path, tiny_table: AnnData
) -> None:
    store = write_table(open_slide(section), tiny_table.copy(), tmp_path / "s.zarr")
    entry = session.add(open_slide(store))
    assert entry.table_name == "table_hyperst"
    assert visible(session) == ["predicted"]
    assert session.gene == tiny_table.var["pcc"].idxmax()


def test_what_is_not_there_is_refused(predicted: Session) -> None:
    with pytest.raises(HyperSTError, match="NOPE is not predicted"):
        predicted.show(gene="NOPE")
    with pytest.raises(HyperSTError, match="no map 'nope'"):
        predicted.show("nope")


def test_the_first_gene_is_the_one_predicted_best(section: Path, tiny_table: AnnData) -> None:
    slide = open_slide(section)
    assert genes_of(tiny_table, slide).first == tiny_table.var["pcc"].idxmax()
    bare = tiny_table.copy()
    del bare.var["pcc"]
    assert genes_of(bare, slide).first == bare.var_names[np.asarray(bare.X).std(axis=0).argmax()]


def test_other_preferences_recolour_what_is_shown(predicted: Session) -> None:
    settings = get_plugin_settings("napari-hyperst").colours
    entry = predicted.active
    assert entry is not None
    predicted.show("norm_spot_image")
    norm, expression = (predicted.layer_of(entry, kind) for kind in ("norm_spot_image", "predicted"))
    assert norm is not None
    assert expression is not None
    narrow = norm.face_contrast_limits
    try:
        settings.colormap, settings.low_percentile, settings.high_percentile = "plasma", 0.0, 100.0
        values = norm.features["value"]
        assert norm.face_contrast_limits == pytest.approx((values.min(), values.max()))
        assert norm.face_contrast_limits != narrow
        assert norm.face_colormap.name == "magma"
        assert expression.face_colormap.name == "viridis"  # it is hidden
        predicted.show("predicted")
        assert expression.face_colormap.name == "plasma"
    finally:
        settings.reset()
    assert expression.face_colormap.name == "viridis"


def test_other_spots_than_before_are_drawn_where_they_are(predicted: Session, tiny_table: AnnData) -> None:
    entry = predicted.active
    assert entry is not None
    for rows in (np.arange(46, -1, -1), np.arange(40)):
        other = tiny_table[rows].copy()
        predicted.set_prediction(entry.key, other, "table_hyperst", Path(str(len(rows))) / "job" / "prediction.h5ad")
        predicted.show("predicted")
        layer = predicted.layer_of(entry, "predicted")
        assert layer is not None
        np.testing.assert_array_equal(layer.data, other.obsm["spatial"][:, ::-1])
        np.testing.assert_array_equal(layer.features["value"], other[:, predicted.gene].X.ravel())
        np.testing.assert_array_equal(layer.features["spot"], other.obs_names)
        assert np.ptp(layer.size) == 0


def test_a_spot_deleted_by_hand_comes_back_with_the_next_gene(predicted: Session, tiny_table: AnnData) -> None:
    entry = predicted.active
    assert entry is not None
    layer = predicted.layer_of(entry, "predicted")
    assert layer is not None
    layer.selected_data = {3}
    layer.remove_selected()
    gene = next(g for g in tiny_table.var_names if g != predicted.gene)
    predicted.show(gene=gene)
    np.testing.assert_array_equal(layer.features["value"], tiny_table[:, gene].X.ravel())
    assert len(layer.data) == 47


def test_a_copy_of_a_map_made_by_hand_is_recoloured_too(predicted: Session, tiny_table: AnnData) -> None:
    entry = predicted.active
    assert entry is not None
    layer = predicted.layer_of(entry, "predicted")
    assert layer is not None
    data, settings, kind = layer.as_layer_data_tuple()
    copy = Layer.create(data, {**settings, "metadata": {**settings["metadata"]}}, kind)
    predicted.viewer.add_layer(copy)
    gene = next(g for g in tiny_table.var_names if g != predicted.gene)
    predicted.show(gene=gene)
    for one in (layer, copy):
        np.testing.assert_array_equal(one.features["value"], tiny_table[:, gene].X.ravel())


def test_maps_follow_the_spots_and_points_grow_with_the_affine(predicted: Session) -> None:
    entry = predicted.active
    assert entry is not None
    spots = predicted.viewer.layers["corner"]
    layer = predicted.layer_of(entry, "predicted")
    assert layer is not None
    size = spots.size[0]
    spots.affine = np.array([[0, -2, 30], [2, 0, -7], [0, 0, 1.0]])  # as another coordinate system may be
    np.testing.assert_allclose(layer.data_to_world(layer.data[5]), spots.data_to_world(layer.data[5]))
    assert layer.size[0] == pytest.approx(2 * size)
    assert spots.size[0] == pytest.approx(2 * size)
    spots.affine = np.eye(3)
    assert layer.size[0] == pytest.approx(size)


def test_a_prediction_that_cannot_be_read_leaves_the_slide(
    session: Session, section: Path, tmp_path: Path, tiny_table: AnnData
) -> None:
    table = tiny_table.copy()
    table.uns["hyperst"]["card"] = "{}"
    store = write_table(open_slide(section), table, tmp_path / "s.zarr")
    notification_manager.records.clear()
    entry = session.add(open_slide(store))
    assert entry.table is None
    assert len(session.viewer.layers) == 2
    assert "cannot be shown" in str(notification_manager.records[-1].message)


@pytest.mark.parametrize("odd", ["nothing", "text", "html", "names", "columns", "places", "measured"])
def test_an_odd_prediction_in_somebodys_store_is_told_and_leaves_the_slide(
    session: Session, section: Path, tmp_path: Path, tiny_table: AnnData, odd: str
) -> None:
    table = tiny_table.copy()
    match odd:
        case "nothing":
            table.uns["hyperst"] = {}
        case "text":
            table.uns["hyperst"] = "text"
        case "html":
            table.uns["hyperst"]["card"] = "<img src=x onerror=alert(1)>" * 1000
        case "names":
            table.var_names = ["same"] * table.n_vars
        case "columns":
            table.obs["norm_spot_image"] = "far"
        case "places":
            table.obsm["spatial"] = np.full((table.n_obs, 2), np.nan)
        case "measured":
            table.layers["measured"] = np.full(table.shape, "x")
    slide = open_slide(section)
    whole = SpatialData(
        images=dict(slide.sdata.images), shapes=dict(slide.sdata.shapes), tables=dict(slide.sdata.tables)
    )
    whole.tables["theirs"] = table
    slide = replace(slide, source=replace(slide.source, sdata=whole))
    notification_manager.records.clear()
    entry = session.add(slide)
    assert entry.table is None
    assert len(session.viewer.layers) == 2
    told = [str(record.message) for record in notification_manager.records]
    assert [("theirs cannot be shown" in one, "<" in one, len(one) < 500) for one in told] == [(True, False, True)]


def test_of_two_stored_predictions_the_later_is_shown_and_both_are_told(
    session: Session, section: Path, tmp_path: Path, tiny_table: AnnData
) -> None:
    store = tmp_path / "s.zarr"
    for i, name in enumerate(("zebra", "aardvark")):  # the names do not tell which is the later
        table = tiny_table.copy()
        table.X = table.X + i
        table.uns["hyperst"]["run"] = json.dumps({"at": f"2026-01-0{i + 1}T00:00:00+00:00"})
        write_table(open_slide(store if i else section), table, store, table=name)
    notification_manager.records.clear()
    entry = session.add(open_slide(store))
    assert entry.table_name == "aardvark"
    assert list(entry.stored) == ["zebra", "aardvark"]
    assert "2 predictions, zebra, aardvark: aardvark is shown" in str(notification_manager.records[-1].message)
    layer = session.layer_of(entry, "predicted")
    assert layer is not None
    later = np.asarray(layer.features["value"])
    session.show_stored(entry, "zebra")
    np.testing.assert_allclose(later - np.asarray(layer.features["value"]), 1, rtol=1e-5)
    with pytest.raises(HyperSTError, match="no prediction 'lion'"):
        session.show_stored(entry, "lion")
    assert choices(entry) == ("zebra", "aardvark")
    made = tiny_table.copy()
    session.set_prediction(entry.key, made, "zebra", tmp_path / "job" / "prediction.h5ad")
    assert choices(entry) == ("zebra", "aardvark", "zebra (new)")
    assert shown_of(entry) == "zebra (new)"
    for name, shown, table_name in (("aardvark", None, "aardvark"), ("zebra (new)", made, "zebra")):
        session.show_stored(entry, name)
        assert entry.table is (shown if shown is not None else entry.stored[name])
        assert shown_of(entry) == name
        assert entry.table_name == table_name
    assert choices(entry) == ("zebra", "aardvark", "zebra (new)")


def test_a_table_of_somebody_elses_is_neither_hidden_nor_overwritten(
    session: Session, section: Path, tmp_path: Path, tiny_table: AnnData
) -> None:
    slide = open_slide(section)
    theirs = TableModel.parse(
        slide.counts[:, :3].copy(),
        overwrite_metadata=True,
        region="corner",
        region_key="region",
        instance_key=slide.counts.uns["spatialdata_attrs"]["instance_key"],
    )
    slide.sdata.tables["table_hyperst"] = theirs
    slide.sdata.write(tmp_path / "s.zarr")
    entry = session.add(open_slide(tmp_path / "s.zarr", mpp=0.69, table="table"))
    assert entry.ref.table == "table"
    session.set_prediction(entry.key, tiny_table.copy(), "table_hyperst", tmp_path / "job" / "prediction.h5ad")
    assert "hyperst" not in entry.slide.sdata.tables["table_hyperst"].uns
    with pytest.raises(StoreError, match="not ours"):
        write_table(entry.slide, tiny_table.copy(), tmp_path / "s.zarr")
    assert read_zarr(tmp_path / "s.zarr").tables["table_hyperst"].n_vars == 3


@pytest.mark.parametrize("meanwhile", ["nothing", "another", "forgotten", "closed"])
def test_a_prediction_taken_in_by_steps_ends_where_it_is_another_s_turn(
    session: Session, section: Path, tiny_table: AnnData, meanwhile: str
) -> None:
    entry = session.add(open_slide(section))
    steps = session.setting_prediction(entry.key, tiny_table.copy(), "late", section / "job" / "prediction.h5ad")
    next(steps)
    assert entry.table_name == "late"
    assert session.layer_of(entry, "predicted") is None
    if meanwhile == "another":
        session.set_prediction(entry.key, tiny_table.copy(), "hyperst", section / "b")
    elif meanwhile == "forgotten":
        session.forget_prediction(entry.key)
    elif meanwhile == "closed":
        session.viewer.layers.clear()
    shown = MagicMock()
    session.shown_changed.connect(shown)
    left = sum(1 for _ in steps)
    assert (left > 0) == shown.called == (meanwhile == "nothing")
    wanted = {"nothing": "late", "another": "hyperst"}.get(meanwhile)
    assert (entry.table_name or None) == (wanted or ("late" if meanwhile == "closed" else None))
    there = [ours(layer)["kind"] for layer in session.viewer.layers if layer.visible]
    assert ("predicted" in there) == (wanted is not None)


def test_a_map_has_its_colour_bar_when_it_is_first_shown(predicted: Session) -> None:
    entry = predicted.active
    assert entry is not None
    shown, other = (predicted.layer_of(entry, kind) for kind in ("predicted", "measured"))
    assert shown is not None
    assert other is not None
    assert shown.face_colorbar.visible
    assert not other.face_colorbar.visible
    predicted.show("measured")
    assert other.face_colorbar.visible
    other.face_colorbar.visible = False  # by hand
    predicted.show("predicted")
    predicted.show("measured", str(entry.table.var_names[2]))
    assert not other.face_colorbar.visible


def test_the_caption_tells_what_is_seen_and_the_status_bar_its_values(predicted: Session) -> None:
    entry = predicted.active
    assert entry is not None
    text = predicted.viewer.canvas.overlays.text
    for kind in ("measured", "norm_spot_image", "measured"):
        predicted.show(kind)
        layer = predicted.layer_of(entry, kind)
        assert layer is not None
        assert predicted.viewer.layers.selection.active is layer
        assert "research use" in text.text
        assert text.visible
        status = layer.get_status(layer.data_to_world(layer.data[3]), world=True)["value"]
        assert f"spot {layer.features['spot'][3]} · " in status
    layer.visible = False
    assert "measured" not in text.text
    layer.visible = True
    assert "measured" in text.text
    assert entry.table is not None
    row = int(np.nanargmax(entry.table.obs["violation_spot_image__niche_image"]))
    entry.table.obs.loc[entry.table.obs_names[row], ["in_training", "complete_niche"]] = [True, False]
    predicted.show("violation_spot_image__niche_image")
    violation = predicted.layer_of(entry, "violation_spot_image__niche_image")
    assert violation is not None
    told = str(violation.get_status(violation.data_to_world(violation.data[row]), world=True)["value"]).split(" · ")
    assert told[1:3] == ["the model was trained on it", "its niche is incomplete"]  # where no status bar cuts them off
    assert told[3] == f"spot image → niche image violation {violation.features['value'][row]:.1f}°"
    predicted.show("measured")
    predicted.viewer.layers.remove(layer)
    assert "measured" not in text.text


def test_the_caption_tells_limits_that_were_set_by_hand_until_the_gene_changes(predicted: Session) -> None:
    predicted.show("predicted")
    entry, table, layer = prediction_shown(predicted)
    assert entry.values is not None
    text = predicted.viewer.canvas.overlays.text
    layer.face_contrast_limits = (0.25, 0.75)
    assert "0.25 to 0.75" in text.text
    gene = str(table.var_names[2])
    predicted.show(gene=gene)
    low, high = entry.values.limits("predicted", (gene,), percentiles())
    assert f"{low:.3g} to {high:.3g}" in text.text
    predicted.viewer.add_layer(copy := Layer.create(*layer.as_layer_data_tuple()))
    copy.face_contrast_limits = (0.5, 1.5)
    assert "0.5 to 1.5" in text.text  # of a copy on top
    predicted.viewer.layers.remove(copy)
    layer.face_color_mode, layer.face_contrast_limits = "direct", None
    assert text.text.splitlines()[1] == "log2(count + 1)"  # there are none


def test_the_layer_that_is_selected_is_one_of_the_active_slide(
    predicted: Session, section: Path, tiny_table: AnnData
) -> None:
    layers = predicted.viewer.layers
    first = predicted.active
    assert first is not None
    second = predicted.add(open_slide(section))
    assert ours(layers.selection.active) == {**ours(layers.selection.active), "slide": second.key, "kind": "spots"}
    predicted.activate(first.key)
    assert ours(layers.selection.active)["slide"] == first.key
    assert ours(layers.selection.active)["kind"] == predicted.map
    predicted.forget_prediction(first.key)
    assert ours(layers.selection.active) == {**ours(layers.selection.active), "slide": first.key, "kind": "spots"}
    for layer in [layer for layer in layers if ours(layer)["slide"] == first.key]:
        layers.remove(layer)
    assert predicted.active is second
    assert ours(layers.selection.active)["slide"] == second.key
    predicted.set_prediction(first.key, tiny_table.copy(), "late")
    assert predicted.active is second


def test_another_slides_prediction_changes_its_layers_and_shows_none(
    predicted: Session, section: Path, tiny_table: AnnData
) -> None:
    first = predicted.active
    assert first is not None
    predicted.show_footprints(True)
    predicted.add(open_slide(section))
    bare = tiny_table[:, 5:].copy()  # without the gene that is shown
    del bare.layers["measured"]
    predicted.set_prediction(first.key, bare, "late")
    mine = {ours(layer)["kind"]: layer for layer in predicted.viewer.layers if ours(layer)["slide"] == first.key}
    assert set(mine) == {"image", "spots", "predicted", "footprints"}  # measured is no more
    assert not any(layer.visible for layer in mine.values())
    predicted.activate(first.key)
    assert predicted.gene in bare.var_names
    np.testing.assert_array_equal(mine["predicted"].features["value"], bare[:, predicted.gene].X.ravel())
    assert all(mine[kind].visible for kind in ("image", "spots", "predicted"))
