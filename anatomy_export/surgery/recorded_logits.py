"""Is an ONNX file the model that a plan was made for? Its logits tell, where ONNX Runtime can run it."""

import numpy as np

from anatomy_export.core.errors import AnatomyError, MissingExtraError
from anatomy_export.core.progress import Progress
from anatomy_export.evaluation.classifier_inputs import unpadded_inputs
from anatomy_export.evaluation.onnx_session import MAKE_A_PLAN, OnnxSession
from anatomy_export.plan_files.model_identity import RecordedLogits
from anatomy_export.surgery.model import OnnxModel

UNCOMPARED = "so only its FFN weights are compared with the plan's, not what else its output depends on"


def check_file_logits(model: OnnxModel, recorded: RecordedLogits, progress: Progress) -> None:
    """Raise AnatomyError where a float32 file gives other logits than are recorded, or another number of them.

    A note says where they cannot be compared: another precision, no ONNX Runtime, a graph that refuses such sequences.
    Those that it takes are compared; probabilities are compared as such.
    """
    if not model.is_float32:
        progress.note(f"note: {model.path.name} is not float32, {UNCOMPARED}")
        return
    try:
        computed = _file_logits(model, recorded)
    except MissingExtraError:
        progress.note(f"note: onnxruntime is not installed, {UNCOMPARED}")
        return
    except AnatomyError as error:
        progress.note(f"note: the plan's recorded sequences cannot be run ({_reason(error)}), {UNCOMPARED}")
        return
    for output in computed.values():
        if output.shape != (1, len(recorded.logits[0])):
            raise recorded.other_output(output.shape[1:])
    rows = np.concatenate(list(computed.values()))
    probabilities = bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-4))
    recorded.check(rows, list(computed), probabilities=probabilities)


def _file_logits(model: OnnxModel, recorded: RecordedLogits) -> dict[int, np.ndarray]:
    """The file's output (1, classes) for each recorded sequence, by its index, that it takes.

    Raises:
        AnatomyError: it takes none; says why the last was refused.
    """
    session = OnnxSession(model.path, str(model.path), hint=MAKE_A_PLAN)
    computed: dict[int, np.ndarray] = {}
    refusal: AnatomyError | None = None
    for index, ids in enumerate(recorded.input_ids):
        try:
            computed[index] = session.run([session.logits_output], unpadded_inputs(ids))[0].astype(np.float64)
        except AnatomyError as error:
            refusal = error
    if refusal is not None and not computed:
        raise refusal
    return computed


def _reason(error: AnatomyError) -> str:
    return str(error).split("; next step: ")[0]
