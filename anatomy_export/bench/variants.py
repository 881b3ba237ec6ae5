"""What is timed: bundles given by path, or dense, mask and slice of a model, made and cached on the way."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from anatomy_export.bench.environment import package_versions
from anatomy_export.bundle.manifest import FORMAT_VERSION, read_manifest
from anatomy_export.core.cache import cache_directory, cache_lock
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import MANIFEST, sha256_file
from anatomy_export.core.progress import Progress
from anatomy_export.core.target_cpu import PORTABLE, int8_weights
from anatomy_export.models.flops import FlopModel


@dataclass(frozen=True)
class BundleOrder:
    """A bundle that is to be made of `model` in `directory`: its checkpoint beside the graph, no dense graph compared.

    `plan`, or `keep_ratio` of each layer's neurons with widths rounded up to a multiple of `align`; neither for dense.
    """

    model: str
    mode: str
    directory: Path
    fuse: str
    plan: Path | None
    keep_ratio: float | None
    align: int
    precision: str
    target_cpu: str


MakeBundle = Callable[[BundleOrder, Progress], object]


@dataclass(frozen=True)
class Variant:
    """One thing to time: its bundle by kind of graph ("ort" fusions or "none"), and what its plan removed.

    `keep_ratio` is the share of neurons that compute; `flops` the dense model's cost, `planned_ffn_token` the FFN
    FLOPs a token that the plan leaves (for a masked model too, though it still runs them all). None where a bare
    `.onnx` file tells nothing. `precision` is that of the `.onnx` file; a checkpoint beside it is fp32 in any case.
    """

    name: str
    mode: str | None
    keep_ratio: float | None
    bundles: dict[str, str]
    flops: FlopModel | None = None
    planned_ffn_token: int | None = None
    source: str | None = None
    facts: dict = field(default_factory=dict)
    precision: str = "fp32"

    def config(self) -> dict:
        """The model's `config.json`; empty where there is none beside it."""
        file = Path(next(iter(self.bundles.values()))) / "config.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def removed_share(self, batch: int, sequence: int) -> float | None:
        """Removed FFN FLOPs ÷ all FLOPs of the dense model at this batch and padded length."""
        if self.flops is None or self.planned_ffn_token is None:
            return None
        removed = (self.flops.ffn_token - self.planned_ffn_token) * batch * sequence
        return removed / self.flops.total(batch, sequence)

    def executed_flops(self, batch: int, sequence: int) -> int | None:
        """FLOPs that the variant really runs: the plan's where it was sliced, else the dense model's."""
        if self.flops is None or self.planned_ffn_token is None:
            return None
        removed = self.flops.ffn_token - self.planned_ffn_token if self.mode == "slice" else 0
        return self.flops.without_neurons(removed).total(batch, sequence)


def given_variants(paths: list[str]) -> list[Variant]:
    """Bundles or `.onnx` files as they are.

    Raises:
        AnatomyError: a path is neither, or its manifest cannot be read.
    """
    variants = []
    for given in paths:
        path = Path(given)
        if path.is_dir() and (path / MANIFEST).is_file():
            variants.append(_from_bundle(path.resolve().name, {"ort": str(path), "none": str(path)}))
        elif path.is_file() and path.suffix == ".onnx":
            variants.append(Variant(path.stem, None, None, {"ort": str(path), "none": str(path)}))
        else:
            raise AnatomyError(f"{path}: neither a bundle nor an .onnx file; next step: make one with anatomy-export")
    names = [variant.name for variant in variants]
    earlier = [names[:index].count(name) for index, name in enumerate(names)]
    return [
        replace(variant, name=f"{variant.name} ({count + 1})") if count else variant
        for variant, count in zip(variants, earlier, strict=True)
    ]


def made_variants(
    model: str,
    *,
    modes: list[str],
    keep_ratios: list[float],
    plan: Path | None,
    align: int,
    fuses: set[str],
    dense_fuses: set[str],
    make_bundle: MakeBundle,
    progress: Progress,
    precisions: tuple[str, ...] = ("fp32",),
    target_cpu: str = PORTABLE,
) -> list[Variant]:
    """Dense, mask and slice of `model`, each a bundle with its checkpoint, cached by model, plan and versions.

    Args:
        precisions: of the `.onnx` file; each variant is made in each. `target_cpu`: what int8 weights are for.
        keep_ratios: shares of each layer's neurons that stay, for mask and slice, widths rounded up to a multiple of
            `align`; or `plan`, a plan.json.
        make_bundle: writes the bundle that an order asks for.
        fuses: which graphs are needed ("ort", "none"); `dense_fuses` are needed for dense besides.
    """
    from anatomy_export.zoo.embedded import resolve_model

    checkpoint = resolve_model(model, progress).checkpoint
    pruned: list[float | None] = [None] if plan else list(keep_ratios)
    ways = [(mode, ratio) for mode in modes for ratio in ([None] if mode == "dense" else pruned)]
    wanted = [(mode, ratio, precision) for precision in precisions for mode, ratio in ways]
    maker = BundleMaker(model, _model_identity(checkpoint), align, target_cpu, make_bundle, progress)
    variants = []
    for mode, ratio, precision in wanted:
        bundles = {
            fuse: maker.bundle(mode, ratio, None if mode == "dense" else plan, fuse, precision)
            for fuse in sorted({*fuses, *dense_fuses} if mode == "dense" else fuses)
        }
        name = (mode if ratio is None else f"{mode} {ratio:g}") + (f" {precision}" if precision != "fp32" else "")
        variants.append(_from_bundle(name, bundles, ratio))
    return variants


def _from_bundle(name: str, bundles: dict[str, str], keep_ratio: float | None = None) -> Variant:
    manifest = read_manifest(Path(next(iter(bundles.values()))))
    try:
        neurons = manifest["result"]["neurons"]
        return Variant(
            name=name,
            mode=manifest["mode"],
            keep_ratio=neurons["pruned"] / neurons["dense"] if keep_ratio is None else keep_ratio,
            bundles=bundles,
            flops=FlopModel(**manifest["flops"]["dense"]),
            planned_ffn_token=manifest["flops"]["planned_ffn_token"],
            source=manifest["provenance"]["anatomy.source_fingerprint"],
            facts={"neurons": neurons, "plan_sha256": manifest["provenance"]["anatomy.plan_sha256"]},
            precision=manifest.get("precision", "fp32"),
        )
    except (KeyError, TypeError) as error:
        raise AnatomyError(
            f"bundle {name}: its manifest lacks {error}; next step: export it again with this version"
        ) from error


@dataclass(frozen=True)
class BundleMaker:
    """Bundles of one model, kept in the cache by all that decides what they hold; `identity` is of its files."""

    model: str
    identity: str
    align: int
    target_cpu: str
    make_bundle: MakeBundle
    progress: Progress

    def bundle(self, mode: str, ratio: float | None, plan: Path | None, fuse: str, precision: str) -> str:
        """The path of a cached bundle, made if it is not there."""
        what = {
            "format_version": FORMAT_VERSION,
            "model": self.identity,
            "mode": mode,
            "keep_ratio": ratio,
            "align": self.align if ratio else None,
            "plan": sha256_file(plan) if plan else None,
            "fuse": fuse,
            "versions": package_versions(),
            **({} if precision == "fp32" else {"precision": precision}),
            **(int8_weights(self.target_cpu) if precision == "int8" else {}),
        }
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
        label = (mode if ratio is None else f"{mode}-{ratio:g}") + (f"-{precision}" if precision != "fp32" else "")
        directory = cache_directory() / "bench" / f"{Path(self.model).name}-{label}-{fuse}-{digest}"
        if not (directory / MANIFEST).is_file():
            with cache_lock(directory, self.progress):
                if not (directory / MANIFEST).is_file():
                    self.progress.note(f"making {label} of {self.model} (kept in {directory.parent})")
                    order = BundleOrder(
                        self.model, mode, directory, fuse, plan, ratio, self.align, precision, self.target_cpu
                    )
                    self.make_bundle(order, self.progress)
        return str(directory)


def _model_identity(checkpoint: str) -> str:
    """SHA-256 over the files of a checkpoint directory; a hub id stands for the snapshot it resolves to."""
    path = Path(checkpoint)
    if not path.is_dir():
        from transformers.utils import cached_file

        path = Path(str(cached_file(checkpoint, "config.json"))).parent
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.suffix in (".json", ".safetensors", ".bin"):
            digest.update(f"{file.name} {sha256_file(file)}\n".encode())
    return digest.hexdigest()
