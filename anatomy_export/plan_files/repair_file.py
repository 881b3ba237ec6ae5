"""The repaired W2 and b2 of a plan: `repair.safetensors` beside `plan.json`, applied with it or not at all."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from anatomy_export.core.errors import AnatomyError
from anatomy_export.plan_files.plan import PrunePlan

REPAIR_FILE = "repair.safetensors"


@dataclass(frozen=True)
class LayerRepair:
    """One layer's kept rows of W2, `down_weight: (k, d)`, and its `down_bias: (d,)`, float32."""

    down_weight: np.ndarray
    down_bias: np.ndarray


@dataclass(frozen=True)
class Repair:
    """W2 of the kept neurons and b2, layer by layer, in the canonical orientation and in the plan's order."""

    layers: tuple[LayerRepair, ...]

    def to_bytes(self) -> bytes:
        """The content of `repair.safetensors`; the same repair gives the same bytes."""
        tensors = {}
        for index, layer in enumerate(self.layers):
            tensors[f"layers.{index}.down_weight"] = np.ascontiguousarray(layer.down_weight, dtype="<f4")
            tensors[f"layers.{index}.down_bias"] = np.ascontiguousarray(layer.down_bias, dtype="<f4")
        return save(tensors)

    @property
    def sha256(self) -> str:
        """SHA-256 of the content of `repair.safetensors`."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def entry(self) -> dict[str, str]:
        """What `plan.json` says of this repair."""
        return {"file": REPAIR_FILE, "sha256": self.sha256}

    def save(self, directory: Path) -> None:
        """Write `repair.safetensors` into `directory`."""
        (Path(directory) / REPAIR_FILE).write_bytes(self.to_bytes())


def check_repair(plan: PrunePlan, repair: Repair | None) -> None:
    """Raise AnatomyError unless the plan names exactly this repair, or neither is there."""
    if plan.repair is None and repair is None:
        return
    if repair is None:
        raise AnatomyError(
            f"plan was made with repaired weights ({(plan.repair or {}).get('file')}) and is void without them; "
            "next step: keep that file beside plan.json"
        )
    if plan.repair is None:
        raise AnatomyError("plan names no repaired weights, but some were given; next step: apply it without them")
    if plan.repair.get("sha256") != repair.sha256:
        raise AnatomyError(
            f"repaired weights have SHA-256 {repair.sha256[:12]}…, the plan expects "
            f"{str(plan.repair.get('sha256'))[:12]}…; next step: use the {REPAIR_FILE} that was made with this plan"
        )
    shapes = [(layer.down_weight.shape, layer.down_bias.shape) for layer in repair.layers]
    hidden = repair.layers[0].down_bias.size if repair.layers else 0
    if shapes != [((kept, hidden), (hidden,)) for kept in plan.kept_widths]:
        raise AnatomyError(f"repaired weights and biases have {shapes}, the plan keeps {plan.kept_widths}")


def read_repair(plan: PrunePlan, directory: Path) -> Repair | None:
    """The repair that the plan names, from the plan's directory; None where it names none.

    Raises:
        AnatomyError: the file is missing, damaged, or not the one that the plan was made with.
    """
    if plan.repair is None:
        return None
    name = plan.repair.get("file") if isinstance(plan.repair, dict) else plan.repair
    if not isinstance(name, str) or Path(name).name != name:
        raise AnatomyError(f"plan names the repair file {name!r}, expected a plain file name")
    path = Path(directory) / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AnatomyError(
            f"repair {path}: {error.strerror}, but the plan is void without it; next step: keep {name} beside plan.json"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != plan.repair.get("sha256"):
        raise AnatomyError(
            f"repair {path}: SHA-256 is {digest[:12]}…, the plan expects {str(plan.repair.get('sha256'))[:12]}…; "
            f"next step: use the {name} that was made with this plan"
        )
    repair = _from_bytes(content, path, len(plan.layers))
    check_repair(plan, repair)
    return repair


def _from_bytes(content: bytes, path: Path, layers: int) -> Repair:
    try:
        tensors = load(content)
        return Repair(
            tuple(
                LayerRepair(tensors[f"layers.{index}.down_weight"], tensors[f"layers.{index}.down_bias"])
                for index in range(layers)
            )
        )
    except Exception as error:
        raise AnatomyError(f"repair {path}: cannot be read ({error})") from error
