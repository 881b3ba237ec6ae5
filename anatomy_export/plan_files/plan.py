"""Which neurons stay: made from an anatomy, written to and read from `plan.json`, never silently repaired."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.json_files import JsonFile, checksum
from anatomy_export.plan_files.model_identity import HINT, RecordedLogits

FORMAT_VERSION = 1


@dataclass(frozen=True)
class LayerPlan:
    """One layer: its original width, the sorted kept neurons, the threshold and rule they come from, the protected."""

    layer: int
    width: Annotated[int, Meta(ge=1)]
    keep: tuple[int, ...]
    threshold: float | None = None
    rule: str | None = None
    protected: tuple[int, ...] = ()


@dataclass(frozen=True)
class PrunePlan:
    """Kept neurons of every layer for the model of that fingerprint and, where they are recorded, those logits.

    The logits' last digits are the machine's: they are no part of what makes two plans equal.
    """

    fingerprint: str
    layers: tuple[LayerPlan, ...]
    criterion: str
    parameters: dict = field(default_factory=dict)
    calibration_fingerprint: str | None = None
    repair: dict | None = None
    recorded_logits: RecordedLogits | None = field(default=None, compare=False)

    @property
    def widths(self) -> list[int]:
        """Original neurons of each layer."""
        return [layer.width for layer in self.layers]

    @property
    def kept_widths(self) -> list[int]:
        """Kept neurons of each layer."""
        return [len(layer.keep) for layer in self.layers]

    @property
    def removed(self) -> int:
        """Neurons that go, over all layers."""
        return sum(self.widths) - sum(self.kept_widths)

    def to_json(self) -> str:
        """The text of `plan.json`, its checksum included; the same plan gives the same text."""
        body = {"format_version": FORMAT_VERSION, **asdict(self)}
        if self.recorded_logits is None:
            del body["recorded_logits"]  # the text, and so the checksum, of a plan from before they were recorded
        return json.dumps({**body, "checksum": checksum(body)}, indent=1, allow_nan=False) + "\n"

    @property
    def sha256(self) -> str:
        """SHA-256 of the text of `plan.json`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def check_model(self, fingerprint: str, widths: list[int]) -> None:
        """Raise AnatomyError unless the plan was made for the model with this fingerprint and these widths."""
        if len(self.layers) != len(widths):
            raise AnatomyError(f"plan has {len(self.layers)} layers but this model has {len(widths)}; {HINT}")
        for layer, width in zip(self.layers, widths, strict=True):
            if layer.width != width:
                raise AnatomyError(
                    f"layer {layer.layer}: plan expects an FFN of {layer.width} neurons, this one has {width}; {HINT}"
                )
        if self.fingerprint != fingerprint:
            raise AnatomyError(
                f"plan was made for the model {self.fingerprint[:12]}…, this one is {fingerprint[:12]}…; {HINT}"
            )


def identity_plan(fingerprint: str, widths: list[int]) -> PrunePlan:
    """The plan that keeps every neuron."""
    layers = tuple(LayerPlan(index, width, tuple(range(width))) for index, width in enumerate(widths))
    return PrunePlan(fingerprint, layers, criterion="none")


def read_plan(path: Path) -> PrunePlan:
    """Read and check a `plan.json`.

    Raises:
        AnatomyError: missing, not JSON, another version, a wrong checksum, or indices that are unsorted, repeated, out
            of range, or none at all.
    """
    file = JsonFile(Path(path), "make the plan again with this release", title=f"plan {path}")
    body = file.read_object(format_version=FORMAT_VERSION)
    plan = file.convert(body, PrunePlan)
    for written, kind in ((body, PrunePlan), *((layer, LayerPlan) for layer in body["layers"])):
        if lacking := sorted({field.name for field in fields(kind)} - {"recorded_logits"} - written.keys()):
            raise file.error(f"a field is missing or of the wrong kind: it lacks {lacking[0]}")
    for position, layer in enumerate(plan.layers):
        if layer.layer != position:
            raise file.error(f"entry {position} of 'layers' is not layer {position}")
        _check_kept(layer)
    file.check_seal(body)
    return plan


def _check_kept(layer: LayerPlan) -> None:
    if not layer.keep:
        raise AnatomyError(f"layer {layer.layer}: plan keeps no neuron, expected at least 1; an FFN cannot be emptied")
    previous = -1
    for neuron in layer.keep:
        if not 0 <= neuron < layer.width:
            raise AnatomyError(
                f"layer {layer.layer}: plan keeps neuron {neuron} but this FFN has {layer.width} "
                f"(valid 0–{layer.width - 1}); was the plan made for another model?"
            )
        if neuron <= previous:
            what = "repeats" if neuron == previous else "is not sorted at"
            raise AnatomyError(f"layer {layer.layer}: plan {what} neuron {neuron}; kept neurons must rise strictly")
        previous = neuron
