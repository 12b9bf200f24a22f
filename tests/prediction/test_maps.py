from __future__ import annotations

import numpy as np

from napari_hyperst.nouns.hierarchy import Relation
from napari_hyperst.prediction.maps import entailment_cones, hyperbolic_norms, poincare_disk


def points(n: int = 30, d: int = 5) -> dict:
    rng = np.random.default_rng(0)
    found = {name: rng.normal(size=(n, d)).astype(np.float32) for name in ("spot_image", "niche_image")}
    found["niche_image"][3] = np.nan
    return found


def test_disk_keeps_the_distance_from_the_origin_exactly() -> None:
    for c in (0.1, 1.0, 4.0):
        norms, disk = hyperbolic_norms(points(), c), poincare_disk(points(), c)
        for name in norms:
            radius = np.linalg.norm(disk[name].astype(float), axis=1)
            np.testing.assert_allclose(radius, np.tanh(np.sqrt(c) * norms[name] / 2), rtol=1e-5)
            assert (radius[np.isfinite(radius)] < 1).all()


def test_disk_of_points_in_a_plane_keeps_their_angles() -> None:
    rng = np.random.default_rng(1)
    flat = rng.normal(size=(40, 2)).astype(np.float32)
    embedded = np.hstack([flat, np.zeros((40, 6), np.float32)])
    disk = poincare_disk({"spot_image": embedded}, 1.0)["spot_image"]
    cosines = [p @ p.T for p in (_unit(flat), _unit(disk))]
    np.testing.assert_allclose(*cosines, atol=1e-4)


def test_missing_embeddings_stay_missing() -> None:
    (cones,) = entailment_cones(
        points(),
        [Relation(parent="spot_image", child="niche_image"), Relation(parent="spot_image", child="spot_gene")],
        1.0,
        0.1,
    )
    assert cones.relation.name == "spot_image__niche_image"
    assert np.isnan(cones.violation[3])
    assert np.isfinite(np.delete(cones.violation, 3)).all()
    assert np.isnan(poincare_disk(points(), 1.0)["niche_image"][3]).all()


def test_child_further_out_on_the_same_ray_violates_nothing_and_the_reverse_does() -> None:
    parent = points()["spot_image"]
    outward = {"spot_image": parent, "niche_image": 2 * parent}
    there = Relation(parent="spot_image", child="niche_image")
    back = Relation(parent="niche_image", child="spot_image")
    inside, outside = entailment_cones(outward, [there, back], 1.0, 0.1)
    assert (inside.violation == 0).all()
    np.testing.assert_allclose(outside.exterior_angle, np.pi, atol=1e-6)
    assert (outside.violation > 0).all()


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)
