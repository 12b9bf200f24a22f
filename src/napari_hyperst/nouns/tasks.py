"""What can be asked of a job: plain settings that are written into its folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter

from napari_hyperst.nouns.slide_ref import SlideRef
from napari_hyperst.nouns.training import TrainConfig


class PredictTask(BaseModel):
    """Predict the genes of a slide; the result is a table, in the job's folder.

    Attributes
    ----------
    slide
        The slide.
    checkpoint
        A folder, a bundled name, or ``hf://owner/repo``.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    batch_size
        Spots at a time.
    precision
        What the encoder computes in.
    filling
        Whether to write what is predicted as it is, for a viewer to show.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["predict"] = "predict"
    slide: SlideRef
    checkpoint: str
    device: str = "auto"
    batch_size: PositiveInt = 32
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    filling: bool = False

    @property
    def command(self) -> str:
        """The command that does the same in a terminal, but for ``--out``."""
        words = ["napari-hyperst", "predict", *self.slide.words, "--checkpoint", self.checkpoint]
        words += ["--device", self.device, "--batch-size", str(self.batch_size), "--precision", self.precision]
        return shlex.join(words)


class ExportTask(BaseModel):
    """Write the table of a prediction, in the format that the ending of ``out`` names, as ``export`` does.

    Attributes
    ----------
    slide
        The slide that was predicted.
    result
        The table, as the job that predicted it wrote it; that of the slide's own store if not told.
    out
        The store or file to write.
    gene
        One gene, for a map, a figure or a table.
    measured
        Whether tables and GeoJSON are to have the measured values too.
    table
        What to call the table in a store; as ``export`` does if not told. Without ``result`` also what it is called in
        the slide's own.
    overwrite
        Whether a file of the same format may be replaced.
    copy_store
        Whether a new store is a copy of the slide's own, with all its elements.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["export"] = "export"
    slide: SlideRef
    result: Path | None = None
    out: Path
    gene: str | None = None
    measured: bool = False
    table: str | None = None
    overwrite: bool = False
    copy_store: bool = False


class ConvertTask(BaseModel):
    """Write a slide as a SpatialData Zarr; what was stopped or killed goes on where it stood when asked again.

    Attributes
    ----------
    slide
        The slide.
    out
        The store to write.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["convert"] = "convert"
    slide: SlideRef
    out: Path

    @property
    def command(self) -> str:
        """The command that does the same in a terminal."""
        return shlex.join(["napari-hyperst", "convert", *self.slide.words, "--out", str(self.out)])


class TrainTask(BaseModel):
    """Train a checkpoint; the job's folder is the folder of the run, and running it again resumes it.

    Attributes
    ----------
    config
        All settings; its ``out`` is the job's folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["train"] = "train"
    config: TrainConfig


class PlanTask(BaseModel):
    """Work out what a training run would take, and sensible settings for it; the result is ``plan.json``.

    Attributes
    ----------
    config
        The run, as it is asked for so far; nothing is written to its ``out``.
    genes_of
        A checkpoint whose genes are taken in the place of ``config.gene_list``.
    free
        Names of settings that may be worked out; the others stay as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["plan"] = "plan"
    config: TrainConfig
    genes_of: str | None = None
    free: tuple[str, ...] = ()


class ShareTask(BaseModel):
    """Make of the checkpoint of a run a folder to share, or a repository on the Hugging Face hub.

    Attributes
    ----------
    run
        The folder of the run.
    out
        The folder to write, or None.
    repository
        ``owner/name`` on the hub, or None.
    private
        Whether a repository that is made is seen by its owner only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["share"] = "share"
    run: Path
    out: Path | None = None
    repository: str | None = None
    private: bool = True


AnyTask = PredictTask | ExportTask | ConvertTask | TrainTask | PlanTask | ShareTask
_TASK: TypeAdapter[AnyTask] = TypeAdapter(Annotated[AnyTask, Field(discriminator="kind")])


def read_task(text: str) -> AnyTask:
    """Read a task from the JSON in a job's ``config.json``.

    Raises
    ------
    pydantic.ValidationError
        If it is no task.
    """
    return _TASK.validate_json(text)
