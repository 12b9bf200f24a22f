"""What a table tells of the hierarchy, against the maths of the models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from anndata import AnnData

from napari_hyperst.models import lorentz
from napari_hyperst.nouns.hierarchy import AlignmentConfig
from napari_hyperst.viewer.hierarchy import Angles, Hierarchy, SpotCone, disk_embeddings, disk_radius
from napari_hyperst.widgets.cone_view import places, way_between


def test_the_hierarchy_is_the_cards(tiny_table: AnnData) -> None:
    hierarchy = Hierarchy.of(tiny_table)
    assert hierarchy.relations == AlignmentConfig().relations
    assert hierarchy.geometry == "hyperbolic"
    assert hierarchy.curvature == pytest.approx(tiny_table.uns["hyperst"]["curvature"])


def test_the_disk_keeps_the_distance_from_the_origin(tiny_table: AnnData) -> None:
    c = Hierarchy.of(tiny_table).curvature
    assert disk_embeddings(tiny_table) == ("spot_image", "niche_image", "spot_gene", "niche_gene")
    for name in disk_embeddings(tiny_table):
        radius = np.linalg.norm(tiny_table.obsm[f"hyperst_disk_{name}"].astype(float), axis=1)
        np.testing.assert_allclose(radius, disk_radius(tiny_table.obs[f"norm_{name}"], c), rtol=1e-5)
        x = tiny_table.obsm[f"hyperst_{name}"].astype(float)
        depth = np.arcsinh(np.sqrt(c) * np.linalg.norm(x, axis=1)) / np.sqrt(c)
        np.testing.assert_allclose(radius, np.tanh(np.sqrt(c) * depth / 2), rtol=1e-5)


def test_shares_count_children_outside_eta_times_the_aperture(tiny_table: AnnData) -> None:
    hierarchy = Hierarchy.of(tiny_table)
    for relation in hierarchy.relations:
        parent, child = (
            torch.from_numpy(tiny_table.obsm[f"hyperst_{name}"].astype(float))
            for name in (relation.parent, relation.child)
        )
        exterior = np.degrees(lorentz.exterior_angle(parent, child, hierarchy.curvature).numpy())
        aperture = np.degrees(lorentz.half_aperture(parent, hierarchy.curvature).numpy())
        angles = Angles.of(tiny_table, relation)
        np.testing.assert_allclose(angles.exterior, exterior, rtol=1e-5)
        np.testing.assert_allclose(angles.threshold, relation.eta * aperture, rtol=1e-5)
        assert angles.share == pytest.approx((exterior > relation.eta * aperture).mean())


def test_spots_without_counts_count_for_nothing(tiny_table: AnnData) -> None:
    table = tiny_table.copy()
    relation = Hierarchy.of(table).relations[0]
    for column in ("violation", "exterior_angle", "half_aperture"):
        table.obs.loc[table.obs_names[:10], f"{column}_{relation.name}"] = np.nan
    angles = Angles.of(table, relation)
    assert len(angles.violates) == len(angles.exterior) == table.n_obs - 10
    assert SpotCone.of(table, 0, relation) is None
    assert SpotCone.of(table, 10, relation) is not None
    for column in ("violation", "exterior_angle", "half_aperture"):
        del table.obs[f"{column}_{relation.name}"]
    assert np.isnan(Angles.of(table, relation).share)
    assert SpotCone.of(table, 10, relation) is None


def test_the_picture_of_a_cone_has_its_true_angles_and_depths(tiny_table: AnnData) -> None:
    hierarchy = Hierarchy.of(tiny_table)
    for relation in hierarchy.relations:
        for row in range(0, tiny_table.n_obs, 7):
            cone = SpotCone.of(tiny_table, row, relation)
            assert cone is not None
            parent, child = places(cone, hierarchy)
            np.testing.assert_allclose(abs(parent), disk_radius(cone.parent_depth, hierarchy.curvature), rtol=1e-6)
            np.testing.assert_allclose(abs(child), disk_radius(cone.child_depth, hierarchy.curvature), rtol=1e-6)
            way = way_between(parent, child, hyperbolic=True)
            np.testing.assert_allclose([way[0], way[-1]], [parent, child], atol=1e-9)
            start = (way[1] - way[0]) / parent  # as seen from straight out of the parent
            np.testing.assert_allclose(abs(np.degrees(np.angle(start))), cone.exterior, atol=2.0)  # a chord of the arc
            moved = (child - parent) / (1 - np.conj(parent) * child)
            np.testing.assert_allclose(abs(np.degrees(np.angle(moved / parent))), cone.exterior, atol=0.02)
            assert cone.violation == pytest.approx(
                np.degrees(tiny_table.obs[f"violation_{relation.name}"].iloc[row]), abs=1e-3
            )
