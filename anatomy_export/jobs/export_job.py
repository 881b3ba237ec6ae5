"""What the stages of the main job share once the plan is made."""

from dataclasses import dataclass
from pathlib import Path

from anatomy_export.core.progress import Progress
from anatomy_export.data.loading import Dataset, Examples
from anatomy_export.evaluation.comparison import VerificationInputs
from anatomy_export.jobs.export_request import ExportRequest
from anatomy_export.models.checkpoint import Checkpoint
from anatomy_export.plan_files.plan import PrunePlan
from anatomy_export.plan_files.repair_file import Repair
from anatomy_export.planning.plan_maker import PlanWithRepair
from anatomy_export.zoo.embedded import ModelSource


@dataclass(frozen=True)
class ExportJob:
    """The dense model, its plan, and what it is verified on.

    Attributes:
        max_length: tokens that texts are cut off at.
        flops_tokens: that FLOPs are counted at.
        texts: that the export is verified on, `inputs` the same with the reference texts, tokenized.
        staging: the directory that becomes the output.
    """

    request: ExportRequest
    source: ModelSource
    checkpoint: Checkpoint
    planned: PlanWithRepair
    data: Dataset | None
    max_length: int
    flops_tokens: int
    texts: tuple[str, ...]
    inputs: VerificationInputs
    staging: Path
    progress: Progress

    @property
    def plan(self) -> PrunePlan:
        return self.planned.plan

    @property
    def repair(self) -> Repair | None:
        return self.planned.repair

    @property
    def onnx_path(self) -> Path:
        return self.staging / "model.onnx"

    @property
    def dense_path(self) -> Path:
        return self.staging / ".dense" / "model.onnx"

    @property
    def makes_dense(self) -> bool:
        """Is a dense graph exported to compare with?"""
        return self.request.mode != "dense" and self.request.compare_dense

    @property
    def test_examples(self) -> Examples | None:
        """What accuracy is measured on; None where it is not."""
        if self.data is None or self.source.random_weights or not self.request.compare_dense:
            return None
        return self.data.test.head(self.request.data.eval_examples) if len(self.data.test) else None

    @property
    def validation_examples(self) -> Examples | None:
        """What decides whether another precision ships; None where there is no labelled text for it."""
        if self.test_examples is None or self.data is None:
            return None
        return self.data.validation if len(self.data.validation) else None
