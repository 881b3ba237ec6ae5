"""What an export knows of its bundle: what the manifest and the model card are written from."""

from dataclasses import dataclass, field

import numpy as np

from anatomy_export.models.flops import FlopModel


@dataclass(frozen=True)
class BundleFacts:
    """What the manifest and the model card say beside the files' checksums.

    `reference_logits: (texts, classes)` are those of the file that ships. `conversion` tells how it came from the fp32
    file; None where it is that.
    """

    name: str
    mode: str
    max_length: int
    truncation_side: str
    flops_tokens: int
    labels: tuple[str, ...]
    tolerance: float
    provenance: dict
    result: dict
    dense_flops: FlopModel
    planned_ffn_token: int
    widths: tuple[int, ...]
    kept_widths: tuple[int, ...]
    criterion: str
    reference_texts: tuple[str, ...]
    reference_ids: tuple[tuple[int, ...], ...]
    reference_logits: np.ndarray
    precision: str = "fp32"
    conversion: dict | None = None
    source_card: dict = field(default_factory=dict)
