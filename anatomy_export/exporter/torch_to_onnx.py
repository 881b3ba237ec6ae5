"""A torch classifier to an ONNX graph of dynamic shape, fused for ONNX Runtime or in standard operators."""

import copy
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from anatomy_export.core.errors import AnatomyError, MissingExtraError
from anatomy_export.exporter.onnx_files import EXTERNAL_DATA_BYTES
from anatomy_export.exporter.quiet import quiet
from anatomy_export.models.checkpoint import Checkpoint
from anatomy_export.models.supported_families import family_of

OPSET = 20
STACK_TRACE = "pkg.torch.onnx.stack_trace"
CHATTER = (
    "torch.onnx",
    "torch.onnx._internal.exporter._registration",
    "torch.export",
    "onnxscript",
    "onnx_ir",
)
FUSED_ATTENTION = ("Attention", "MultiHeadAttention")
FUSED_GELU = ("BiasGelu", "Gelu", "FastGelu")


class _LogitsOnly(torch.nn.Module):
    """Tensors in, logits out: what the ONNX graph computes."""

    def __init__(self, model, input_names: list[str]):
        super().__init__()
        self.model = model
        self.input_names = input_names

    def forward(self, *inputs):
        return self.model(**dict(zip(self.input_names, inputs, strict=True))).logits


def graph_inputs(checkpoint: Checkpoint) -> list[str]:
    """Names of the inputs, each (batch, sequence) int64: those that its tokenizer gives and its family takes."""
    given = checkpoint.tokenizer.model_input_names
    return [name for name in family_of(checkpoint.model.config).inputs if name in given]


def require_exporter(exporter: str) -> None:
    """Raise MissingExtraError where the exporter is not installed."""
    if exporter == "optimum" and not (find_spec("optimum") and find_spec("optimum.exporters")):
        raise MissingExtraError("optimum-onnx", "optimum")


def export_onnx(
    checkpoint: Checkpoint,
    path: Path,
    *,
    fuse: str = "ort",
    exporter: str = "dynamo",
    metadata: dict[str, str],
) -> None:
    """Write `path` with float32 weights; past 2 GB the weights go to `path` + ".data" beside it.

    Args:
        fuse: "ort" for ONNX Runtime's contrib operators, "none" for standard operators only.
        exporter: "dynamo" (torch), or "optimum" (that extra).
        metadata: written as the model's metadata properties.

    Raises:
        AnatomyError: the export failed.
    """
    if exporter == "optimum":
        from anatomy_export.exporter.optimum_export import export_with_optimum

        model = export_with_optimum(checkpoint, fuse=fuse)
    else:
        model = _export_dynamo(checkpoint, fuse)
    _strip_stack_traces_(model)
    model.metadata_props.update(metadata)
    save_onnx(model, path)


def _strip_stack_traces_(model: ir.Model) -> None:
    """Leave out what names paths of the machine that exports."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in ir.traversal.RecursiveGraphIterator(graph):
            node.metadata_props.pop(STACK_TRACE, None)


def save_onnx(model: ir.Model, path: Path) -> None:
    """Write an ONNX model, its weights in one external file when they pass what protobuf can hold."""
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    ir.save(model, path, external_data=f"{path.name}.data" if size > EXTERNAL_DATA_BYTES else None)


def operator_counts(path: Path) -> dict[str, int]:
    """How many nodes of each operator type the main graph of an ONNX file has."""
    return dict(Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node))


def _export_dynamo(checkpoint: Checkpoint, fuse: str) -> ir.Model:
    try:
        from onnxscript import optimizer
        from onnxscript.rewriter.ort_fusions import optimize_for_ort
    except ImportError as error:
        raise MissingExtraError("onnxscript", "cpu") from error
    names = graph_inputs(checkpoint)
    wrapper = _LogitsOnly(_exportable(checkpoint.model), names).eval()
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence")
    example = torch.full((2, 9), 5, dtype=torch.long)
    inputs = {"input_ids": example, "attention_mask": torch.ones_like(example), "token_type_ids": example * 0}
    try:
        with quiet(*CHATTER), torch.inference_mode():
            program = torch.onnx.export(
                wrapper,
                tuple(inputs[name] for name in names),
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=(({0: batch, 1: sequence},) * len(names),),
                verbose=False,
            )
            model = program.model
            if fuse == "ort":
                optimize_for_ort(model)
                optimizer.optimize(model, input_size_limit=2**40, output_size_limit=2**40)
    except Exception as error:
        cause = error.__cause__ or error
        reason = next((line for line in str(cause).splitlines() if line.strip()), "")
        raise AnatomyError(f"ONNX export failed: {type(cause).__name__}: {reason[:300]}") from error
    return model


def _exportable(model):
    """A copy in the form the fusions know: every Conv1D a Linear, the tanh GELU torch's own. Same function."""
    model = copy.deepcopy(model)
    model.set_attn_implementation("sdpa")
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv1D):
                linear = torch.nn.Linear(*child.weight.shape)
                linear.weight = torch.nn.Parameter(child.weight.T.contiguous())
                linear.bias = child.bias
                setattr(parent, name, linear)
            elif isinstance(child, NewGELUActivation):
                setattr(parent, name, torch.nn.GELU("tanh"))
    return model
