from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_hyperst.errors import SlideError
from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.provenance import Provenance, Run, read_provenance


@pytest.fixture
def made() -> Provenance:
    card = Card(name="tiny", method=HyperSTConfig(encoder="x"), encoder_sha256="0" * 64)
    return Provenance(
        card=card, checkpoint="tiny", checkpoint_sha256="ab" * 32, curvature=0.93, min_radius=0.1,
        eta={"spot_image__spot_gene": 0.7}, parent={"spot_image__spot_gene": "spot_image"}, transform="log2(count+1)",
        mpp=0.687, spot_um=112.0, niche_um=600.0, versions={"python": "3.12"}, command="napari-hyperst predict x",
        run=Run(at="2026-01-02T03:04:05+00:00", device="cpu", precision="float32", seconds=3.0),
    )  # fmt: skip


def test_what_is_written_is_read_also_as_numpys_scalars(made: Provenance) -> None:
    uns = made.to_uns()
    assert read_provenance(uns, "x") == made
    stored = {key: np.asarray(value) if isinstance(value, float | int) else value for key, value in uns.items()}
    assert read_provenance(stored, "x") == made
    flat = read_provenance({**uns, "curvature": float("nan")}, "x")
    assert np.isnan(flat.curvature)
    assert not any("hyperbolic" in sentence for sentence in flat.sentences())


def test_it_tells_in_plain_words(made: Provenance) -> None:
    told = " / ".join(made.sentences())
    for part in ("by tiny (hyperst, weights abab", "on cpu in float32", "2026-01-02", "112 and 600 µm", "0.687 µm/px",
                 "curvature -0.93", "spot_image entails spot_gene, eta 0.7", "python 3.12",
                 "napari-hyperst predict x"):  # fmt: skip
        assert part in told


DEEP: Any = "[" * 100_000
HOSTILE: dict[str, Any] = {
    "no dictionary": "a string", "an array": np.zeros(3), "nothing": None, "empty": {}, "a list": [1, 2],
    "card gone": {"card": None}, "card of another": {"card": "{}"}, "card broken": {"card": "{" * 10},
    "card deep": {"card": DEEP}, "card huge": {"card": " " * 20_000_000}, "card a number": {"card": 3},
    "numbers as text": {"mpp": "<b>many</b>"}, "no scale": {"mpp": -1.0}, "infinite": {"spot_um": 0},
    "a table for a number": {"curvature": np.zeros((3, 3))}, "text for a dictionary": {"eta": "x"},
    "odd dictionary": {"versions": {"<img src=x onerror=alert(1)>": 3}}, "huge string": {"command": "x" * 10**7},
    "many": {"versions": {str(i): "1" for i in range(10_000)}}, "another version": {"schema_version": 99},
    "run broken": {"run": "no JSON"}, "run a list": {"run": "[1]"}, "huge name": {"checkpoint": "n" * 10**6},
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_anything_else_is_told_in_a_line_that_repeats_nothing(made: Provenance, what: str) -> None:
    odd = HOSTILE[what]
    told = {**made.to_uns(), **odd} if isinstance(odd, dict) and odd else odd
    with pytest.raises(SlideError) as caught:
        read_provenance(told, "s.zarr (table)")
    line = str(caught.value)
    assert line.startswith("s.zarr (table): ")
    assert line.endswith("predict again")
    assert len(line) < 400


def test_words_of_anybodys_are_made_plain(made: Provenance) -> None:
    odd = made.model_copy(update={"command": "a\x1b[31m\n<script>" + "x" * 5000, "checkpoint": "<img src=x>"})
    for sentence in odd.sentences():
        assert sentence.isprintable()
        assert len(sentence) < 2100
