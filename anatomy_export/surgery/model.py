"""An ONNX file opened for surgery: its graph, the FFNs found in it, and what ties it to a plan."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx.inliner
from onnx import TensorProto

from anatomy_export.core.errors import AnatomyError, first_line
from anatomy_export.core.onnx_tensors import external_region, is_external, parts, read_model
from anatomy_export.plan_files.model_identity import ffn_fingerprint
from anatomy_export.surgery.ffn import Ffn, Refusal, find_ffns
from anatomy_export.surgery.graph import Graph, operator, sort_nodes_
from anatomy_export.surgery.missed import with_missed
from anatomy_export.surgery.operators import QUANTISED
from anatomy_export.surgery.shared import join_twins, take_apart
from anatomy_export.surgery.weights import OnnxFfn

FINGERPRINT, WIDTHS = "anatomy.fingerprint", "anatomy.widths"
MOST_REASONS = 4


class OnnxModel:
    """An ONNX file opened for surgery: its graph, and the FFNs found in it; `proto` where it is in memory already.

    Raises:
        AnatomyError: no ONNX file, a damaged one, or no FFN in it.
    """

    def __init__(self, path: Path, proto: onnx.ModelProto | None = None):
        self.path = Path(path)
        self.folder = self.path.parent
        with damage_is_refused(self.path):
            self.proto = read_model(self.path) if proto is None else proto
            if self.proto.functions:
                self.proto = onnx.inliner.inline_local_functions(self.proto)
            sort_nodes_(self.proto.graph)
            self.graph = Graph(self.proto)
            self._set_entries(join_twins(self.graph, with_missed(self.graph, find_ffns(self.graph))))
        if not self.ffns:
            raise AnatomyError(f"{self.path}: no FFN found to cut{self._reasons()}")

    def _set_entries(self, entries: list[Ffn | Refusal]) -> None:
        """The FFNs of the graph, and what looks like one but cannot be cut, in topological order."""
        self.entries = entries
        self.ffns = [OnnxFfn(self.graph, entry, self.folder) for entry in entries if isinstance(entry, Ffn)]
        self.refusals = {index: entry for index, entry in enumerate(entries) if isinstance(entry, Refusal)}
        self.passed_over = sum(entry.in_residual for entry in self.refusals.values())

    @property
    def widths(self) -> list[int]:
        return [ffn.width for ffn in self.ffns]

    @property
    def metadata(self) -> dict[str, str]:
        return {entry.key: entry.value for entry in self.proto.metadata_props}

    def fingerprint(self) -> str:
        """That of the FFN weights; of a reduced-precision file the one that its metadata names, where it does."""
        if FINGERPRINT in self.metadata and not self.is_float32:
            return self.metadata[FINGERPRINT]
        with damage_is_refused(self.path):
            return ffn_fingerprint(ffn.weights() for ffn in self.ffns)

    @property
    def is_float32(self) -> bool:
        return all(ffn.is_float32 for ffn in self.ffns)

    def check_fingerprint(self, expected: str) -> str:
        """The fingerprint, where it is `expected` or can be compared with that.

        Raises:
            AnatomyError: it cannot, for the weights are not float32 and the metadata does not say which those were.
        """
        fingerprint = self.fingerprint()
        if fingerprint != expected and FINGERPRINT not in self.metadata and not self.is_float32:
            raise AnatomyError(
                f"{self.path}: FFN weights are not float32 and no {FINGERPRINT} in the metadata says which model they "
                "were, so that a plan of the float32 model cannot be told from one of another; next step: cut the "
                "float32 file, then lower its precision, or make a plan of this file with --keep-ratio"
            )
        return fingerprint

    def files(self) -> set[Path]:
        """The file and the external files that it names."""
        external = (tensor for tensor in parts(self.proto, TensorProto) if is_external(tensor))
        return {self.path, *(external_region(tensor, self.folder).path for tensor in external)}

    def refuse_output(self, output: Path) -> None:
        """Raise AnatomyError where writing `output` would replace what it is made from."""
        sources = {path.resolve() for path in self.files()}
        if {output.resolve(), output.with_name(f"{output.name}.data").resolve()} & sources:
            raise AnatomyError(
                f"output {output} would replace the model that is cut; next step: choose another --output"
            )

    def for_layers(self, count: int) -> "OnnxModel":
        """This model with its FFNs as `count` layers: those of the same weights as one layer, or each for itself.

        Raises:
            AnatomyError: there are not as many either way.
        """
        apart = copy.copy(self)
        apart._set_entries(take_apart(self.entries))
        if count != len(self.ffns) and count == len(apart.ffns) and not self.passed_over:
            return apart
        self.check_layers(count)
        return self

    def check_layers(self, count: int, next_step: str = "") -> None:
        """Raise AnatomyError unless there is an FFN to cut for each of `count` layers; say which lack one, and why."""
        if len(self.ffns) != count:
            raise AnatomyError(
                f"{self.path}: {count} layers are to be cut, {len(self.ffns)} FFNs can be in this graph"
                f"{self._reasons()}; nothing was written{next_step}"
            )

    def refuse_uncut(self) -> None:
        """Raise AnatomyError where what looks like a layer's FFN cannot be cut, so that the cut would pass it over."""
        self.check_layers(
            len(self.ffns) + self.passed_over,
            "; next step: export it in a form that can be cut, or pass --allow-uncut to cut the others",
        )

    @property
    def places(self) -> list[int]:
        """Which layer each FFN is, counting those that cannot be cut."""
        counted = [entry for entry in self.entries if isinstance(entry, Ffn) or entry.in_residual]
        return [index for index, entry in enumerate(counted) if isinstance(entry, Ffn)]

    def uncut(self) -> str:
        """What looks like an FFN and cannot be cut, and why, after the number of the others; "" for nothing."""
        if not self.refusals:
            return ""
        return f"{len(self.ffns)} FFN{'s' if len(self.ffns) > 1 else ''} found{self._reasons()}"

    def narrow(self) -> str:
        """Layers with fewer neurons than outputs, as adapters have, in a file that was not cut before; "" for none."""
        layers = [
            f"layer {layer} has {ffn.width} neurons for {ffn.hidden} outputs"
            for layer, ffn in zip(self.places, self.ffns, strict=True)
            if ffn.width < ffn.hidden
        ]
        if not layers or WIDTHS in self.metadata:
            return ""
        more = f" and {len(layers) - MOST_REASONS} more" if len(layers) > MOST_REASONS else ""
        return f"{', '.join(layers[:MOST_REASONS])}{more}: if these are adapters, they are cut as FFNs are"

    def _reasons(self) -> str:
        reasons = [f"layer {index} ({entry.name}): {entry.reason}" for index, entry in self.refusals.items()]
        if reasons:
            more = f"; and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
            return ". Not cut: " + "; ".join(reasons[:MOST_REASONS]) + more
        if any(operator(node) in QUANTISED for node in self.graph.nodes):
            return ": its weights are quantised; next step: cut the float32 file, then quantise the result"
        return ": no two stored matrices with an activation between them and a residual after them"


@contextmanager
def damage_is_refused(path: Path) -> Iterator[None]:
    """What a malformed protobuf leads to becomes one line."""
    try:
        yield
    except AnatomyError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise AnatomyError(
            f"{path} is damaged or no valid ONNX model ({type(error).__name__}: {first_line(error)[:200]}); "
            "next step: export it again"
        ) from error
