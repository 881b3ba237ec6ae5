"""The anatomy of a model of which there is only an ONNX file: its probes run through ONNX Runtime, without torch."""

from collections.abc import Sequence

import numpy as np
import onnx

from anatomy_export.core.errors import AnatomyError, MissingExtraError
from anatomy_export.evaluation.onnx_session import MAKE_A_PLAN, OnnxSession
from anatomy_export.evaluation.text_reader import TextReader
from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.surgery.graph import MOST_STEPS, Graph, operator
from anatomy_export.surgery.model import OnnxModel, damage_is_refused
from anatomy_export.surgery.operators import PASSING, SKIP_NORMS
from anatomy_export.surgery.weights_apart import weights_apart

NORMS = ("LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization")
MOVED, MOVE = "anatomy_moved_state", "anatomy_move"
LEAST_EFFECT = 1e-3


def anatomy_of_graph(
    model: OnnxModel, reader: TextReader, probes: Sequence[str], *, strong_threshold: float
) -> tuple[Anatomy, str]:
    """Cosine similarity of every FFN neuron with the token that the classifier reads, and the paper's rule for it:
    "bert" where that is the first token, "gpt2" where it is the last.

    Which token it is, the graph says itself: the one whose state after the last norm moves the logits. Similarities of
    the layers are not measured (NaN); only thresholds need them.

    Raises:
        AnatomyError: no norm after the last FFN, or the logits depend on another or on several tokens.
        MissingExtraError: onnxruntime is not installed.
    """
    run = _ProbeRun(model, reader)
    rule = run.rule(max(probes, key=run.reader.count))
    targets = np.stack([run.state(probe)[0 if rule == "bert" else -1] for probe in probes])
    with damage_is_refused(model.path):
        neurons = tuple(_cosine(ffn.down_weight().astype(np.float32), targets) for ffn in model.ffns)
    unknown = np.full((len(probes), len(neurons) + 1), np.nan)
    return Anatomy(unknown, neurons, strong_threshold, tuple(probes), model.fingerprint()), rule


def _cosine(rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(p, n) of rows (n, d) with targets (p, d); 0 where either is all zeros."""
    rows, targets = (
        array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-30) for array in (rows, targets)
    )
    return (targets @ rows.T).astype(np.float64)


class _ProbeRun:
    """The graph in ONNX Runtime, with the state after its last norm as an output that can be moved."""

    def __init__(self, model: OnnxModel, reader: TextReader):
        self.reader = reader
        self.hidden = model.ffns[-1].hidden
        with damage_is_refused(model.path):
            probed, weights, self.state_name = _with_moved_state(model)
        self.session = OnnxSession(probed.SerializeToString(), str(model.path), weights=weights, hint=MAKE_A_PLAN)

    def state(self, probe: str) -> np.ndarray:
        """(tokens, d) after the last norm."""
        return self._run(probe, None)[0]

    def rule(self, probe: str) -> str:
        """By which token of a probe the logits change."""
        if self.reader.count(probe) < 2:
            raise AnatomyError(
                "criterion 'anatomy' needs a probe of two tokens or more; next step: write longer --probes"
            )
        state, logits = self._run(probe, None)
        size = float(state.std())
        direction = size * np.random.default_rng(0).standard_normal(self.hidden).astype(np.float32)
        effects = []
        for position in range(len(state)):
            move = np.zeros_like(state)
            move[position] = direction
            effects.append(float(np.abs(self._run(probe, move)[1] - logits).max()))
        read = np.flatnonzero(np.array(effects) > LEAST_EFFECT * max(effects))
        if max(effects) > 0 and read.tolist() in ([0], [len(state) - 1]):
            return "bert" if read[0] == 0 else "gpt2"
        raise AnatomyError(
            f"criterion 'anatomy' needs a classifier that reads the first or the last token, the logits of this graph "
            f"depend on {len(read)} of {len(state)} tokens; next step: use --criterion magnitude"
        )

    def _run(self, probe: str, move: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, d) the state and (classes,) the logits, the state moved by `move`; without what is padding."""
        inputs, place = self.reader.inputs(probe), self.reader.place(probe)
        moved = np.zeros((*inputs["input_ids"].shape, self.hidden), np.float32)
        if move is not None:
            moved[0, place] = move
        state, logits = self.session.run([self.state_name, self.session.logits_output], {**inputs, MOVE: moved})
        return state[0, place], logits[0]


def _with_moved_state(model: OnnxModel) -> tuple[onnx.ModelProto, dict, str]:
    """A copy whose state after the last norm is an output, (1, tokens, d) float32, and is moved by an input before
    anything else reads it; with the weights that it lacks, and that output's name."""
    maker, state = _last_norm(model)
    try:
        probed, weights = weights_apart(model.proto, model.folder)
    except ImportError as error:
        raise MissingExtraError(str(error.name), "edge") from error
    graph = probed.graph
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == state:
                node.input[position] = MOVED
    move = onnx.helper.make_node("Add", [state, MOVE], [MOVED], name=MOVED)
    graph.node.insert(maker + 1, move)
    shape: list[str | int | None] = ["anatomy_batch", "anatomy_tokens", model.ffns[-1].hidden]
    graph.input.append(onnx.helper.make_tensor_value_info(MOVE, onnx.TensorProto.FLOAT, shape))
    if state not in [value.name for value in graph.output]:
        graph.output.append(onnx.helper.make_tensor_value_info(state, onnx.TensorProto.FLOAT, None))
    return probed, weights, state


def _last_norm(model: OnnxModel) -> tuple[int, str]:
    """The norm of what the last FFN and its residual sum up to: its node, and its output.

    Raises:
        AnatomyError: the FFNs are not float32, or no norm follows.
    """
    graph, last = model.graph, model.ffns[-1]
    if not last.is_float32:
        raise AnatomyError(f"criterion 'anatomy' reads float32 files only; {MAKE_A_PLAN}")
    index = last.ffn.residual
    if operator(graph.nodes[index]) in SKIP_NORMS:
        return index, graph.nodes[index].output[0]
    norm = _norm_after(graph, graph.nodes[index].output[0])
    if norm is None:
        raise AnatomyError(
            f"{model.path}: no layer norm as one operator follows the last FFN, so the token that the classifier reads "
            f"cannot be found; {MAKE_A_PLAN}"
        )
    return norm, graph.nodes[norm].output[0]


def _norm_after(graph: Graph, name: str) -> int | None:
    left = [name]
    for _ in range(MOST_STEPS):
        if not left:
            return None
        for use in graph.uses[left.pop()]:
            kind = operator(graph.nodes[use.node])
            if kind in NORMS and use.input == 0:
                return use.node
            if kind in PASSING and use.input == 0:
                left.append(graph.nodes[use.node].output[0])
    return None
