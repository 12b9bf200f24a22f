"""The gradient of a batch does not depend on how the batch is divided."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from napari_hyperst.models.build import build_method
from napari_hyperst.models.method import Batch, Embeddings, Method
from napari_hyperst.nouns.methods import DELSTConfig, HyperSTConfig
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.training.order import epoch_order
from napari_hyperst.training.processes import Processes
from napari_hyperst.training.step import OutOfMemory, accumulate_gradient, divide, seed_of

GENES, SPOTS = 5, 12
METHODS = {"hyperst": HyperSTConfig(dim=8), "delst": DELSTConfig(dim=8)}


@pytest.fixture(scope="module")
def alone() -> Processes:
    return Processes(TrainConfig(slides=(Path("a"),), out=Path("o"), device="cpu"))


def some_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    tiles = [torch.randint(0, 256, (SPOTS, 224, 224, 3), dtype=torch.uint8, generator=generator) for _ in range(2)]
    genes = [torch.rand(SPOTS, GENES, generator=generator) * 4 for _ in range(2)]
    return Batch(*tiles, *genes, torch.arange(SPOTS) % 2, torch.randint(0, 99, (SPOTS,), generator=generator))


def rows_of(batch: Batch, rows: torch.Tensor) -> Batch:
    return Batch(*(values[rows] for values in vars(batch).values()))


def built(kind: str, encoder: str, dropout: float) -> Method:
    torch.manual_seed(0)
    changes = {"encoder": encoder, "dropout": dropout, "lora_dropout": dropout}
    model = build_method(METHODS[kind].model_copy(update=changes), GENES)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def gradients(model: Method) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def in_pieces(model: Method, batch: Batch, size: int | None, alone: Processes) -> dict[str, torch.Tensor]:
    model.zero_grad()
    pieces = [partial(rows_of, batch, rows) for rows in divide(torch.arange(SPOTS), 1, size)]
    targets = batch.spot_genes, batch.slide, batch.detected
    seeds = [seed_of(7, i) for i in range(len(pieces) + 1)]
    return accumulate_gradient(model, pieces, [SPOTS], targets, seeds, alone, lambda loss: loss.backward())


@pytest.mark.parametrize(("count", "processes", "size"), [(9, 4, 1), (40, 16, 1), (5, 2, 1), (13, 3, None), (10, 2, 3)])
def test_each_process_has_pieces_of_about_its_share(count: int, processes: int, size: int | None) -> None:
    pieces = divide(torch.arange(count), processes, size)
    assert torch.equal(torch.cat(pieces), torch.arange(count))
    each = len(pieces) // processes
    shares = [sum(map(len, pieces[i * each : (i + 1) * each])) for i in range(processes)]
    assert min(shares) >= count // processes
    assert max(shares) - min(shares) <= 1
    assert max(map(len, pieces)) <= (size or -(-count // processes))


@pytest.mark.parametrize("size", [None, 7, 4, 1])
@pytest.mark.parametrize("kind", METHODS)
def test_loss_and_gradient_are_those_of_the_whole_batch(
    kind: str, size: int | None, tiny_encoder: str, alone: Processes
) -> None:
    """Against one plain backward pass through everything."""
    model, batch = built(kind, tiny_encoder, 0.0), some_batch()
    embeddings = model(batch)
    torch.manual_seed(seed_of(7, 0))
    whole = Embeddings(embeddings.prediction, embeddings.points, batch.slide, batch.detected)
    wanted = model.objective(whole, batch.spot_genes)
    wanted["total"].backward()
    expected = gradients(model)
    assert any("lora_" in name for name in expected)
    assert {"alignment.log_curvature", "alignment.logit_scale"} <= expected.keys()
    terms = in_pieces(model, batch, size, alone)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))
    for name, term in wanted.items():
        torch.testing.assert_close(terms[name], term.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", METHODS)
def test_dropout_is_the_same_in_both_passes(kind: str, tiny_encoder: str, alone: Processes) -> None:
    """Against pieces with a graph of their own, each with its seed, joined before one backward pass."""
    model, batch = built(kind, tiny_encoder, 0.3), some_batch()
    parts = []
    for i, rows in enumerate(divide(torch.arange(SPOTS), 1, 4), 1):
        torch.manual_seed(seed_of(7, i))
        parts.append(model(rows_of(batch, rows)))
    points = {name: torch.cat([part.points[name] for part in parts]) for name in parts[0].points}
    prediction = torch.cat([part.prediction for part in parts])
    torch.manual_seed(seed_of(7, 0))
    model.objective(Embeddings(prediction, points, batch.slide, batch.detected), batch.spot_genes)["total"].backward()
    expected = gradients(model)
    in_pieces(model, batch, 4, alone)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-5 * float(expected[name].abs().max()))


def test_only_running_out_of_memory_is_taken_for_it(
    tiny_encoder: str, alone: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = built("hyperst", tiny_encoder, 0.0), some_batch()
    for message, raised in (("CUDA out of memory. Tried to allocate", OutOfMemory), ("shapes", RuntimeError)):

        def broken(*_: object, message: str = message) -> None:
            raise RuntimeError(message)

        monkeypatch.setattr(model, "forward", broken)
        with pytest.raises(raised, match=message):
            in_pieces(model, batch, None, alone)


@pytest.mark.parametrize(
    ("rows", "processes", "size"), [(10, 1, None), (10, 1, 3), (11, 2, 3), (10, 3, None), (5, 2, 1)]
)
def test_a_batch_is_divided_evenly(rows: int, processes: int, size: int | None) -> None:
    pieces = divide(torch.arange(rows), processes, size)
    assert torch.equal(torch.cat(pieces), torch.arange(rows))
    assert len(pieces) % processes == 0
    assert max(map(len, pieces)) <= (size or rows)
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_two_processes_share_a_batch_as_one_does_in_two_pieces() -> None:
    for one, two in zip(divide(torch.arange(13), 1, 7), divide(torch.arange(13), 2, None), strict=True):
        assert torch.equal(one, two)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    slide = torch.tensor([0] * 30 + [1] * 10)
    rows, symmetry = epoch_order(slide, 8, 42, 3)
    torch.manual_seed(5)
    again = epoch_order(slide, 8, 42, 3)
    assert torch.equal(rows, again[0])
    assert torch.equal(symmetry, again[1])
    assert torch.equal(rows.sort().values, torch.arange(40))
    assert set(symmetry.tolist()) <= set(range(8))
    for seed, epoch in ((42, 4), (43, 3)):
        assert not torch.equal(rows, epoch_order(slide, 8, seed, epoch)[0])


def test_balanced_slides_are_seen_as_often() -> None:
    slide = torch.tensor([0] * 31 + [1] * 10)
    rows, _ = epoch_order(slide, 1, 0, 1, balance=True)
    seen = torch.bincount(rows, minlength=41)
    assert (int(seen[:31].sum()), int(seen[31:].sum())) == (21, 20)
    assert seen[:31].max() == 1
    assert seen[31:].min() == 2
