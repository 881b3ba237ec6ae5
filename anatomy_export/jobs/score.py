"""`anatomy score`: a model in, its anatomy out, as a directory."""

from dataclasses import dataclass
from pathlib import Path

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import staged_directory
from anatomy_export.core.names import public_name
from anatomy_export.core.progress import Progress
from anatomy_export.core.resumable import STUDY
from anatomy_export.data.probes import choose_probes, load_probes, probe_tasks
from anatomy_export.jobs.source_data import model_classes
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint, text_limit
from anatomy_export.models.supported_families import family_of
from anatomy_export.paper.anatomy import STRONG_THRESHOLD, Anatomy
from anatomy_export.paper.anatomy_file import DESCRIPTION, write_anatomy
from anatomy_export.paper.scoring import score_anatomy
from anatomy_export.zoo.embedded import resolve_model


@dataclass(frozen=True)
class ScoreRequest:
    """Everything that `anatomy score` was asked for; `probes` is a file, None for the built-in ones."""

    model: str
    output: Path
    force: bool = False
    probes: str | None = None
    strong_threshold: float = STRONG_THRESHOLD
    max_length: int | None = None
    allow_random_head: bool = False


def run_score(request: ScoreRequest, progress: Progress) -> dict:
    """Write `anatomy.npz` and `anatomy.json`, and give what the latter says.

    Raises:
        AnatomyError: bad input, or an output that may not be replaced.
    """
    given_probes = load_probes(request.probes)
    if (request.output / STUDY).is_file():
        raise AnatomyError(f"output {request.output} holds a study; next step: choose another --output")
    with staged_directory(request.output, request.force, marks=(DESCRIPTION,)) as staging:
        source = resolve_model(request.model, progress)
        with progress.stage("load model"):
            checkpoint = load_checkpoint(source.checkpoint, allow_random_head=request.allow_random_head)
            max_length = text_limit(checkpoint, request.max_length)
        probes = choose_probes(given_probes, model_classes(checkpoint, source.name), None)
        if probes.note:
            progress.note(probes.note)
        with progress.stage("score the anatomy"):
            anatomy = score_anatomy(
                checkpoint, probes.texts, strong_threshold=request.strong_threshold, max_length=max_length
            )
        return save_anatomy(anatomy, checkpoint, staging, request.model)


def save_anatomy(anatomy: Anatomy, checkpoint: Checkpoint, directory: Path, model: str) -> dict:
    """`write_anatomy` with what the model itself tells; `model` is the name that it was asked for by."""
    config = checkpoint.model.config
    family = family_of(config)
    return write_anatomy(
        anatomy,
        directory,
        model=public_name(model),
        family=family.model_type,
        rule=family.rule,
        hidden_size=config.hidden_size,
        tasks=probe_tasks(anatomy.probes, model_classes(checkpoint, model)),
    )
