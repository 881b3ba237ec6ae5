"""The bundles that the benchmark times, made by the main job."""

from anatomy_export.bench.variants import BundleOrder
from anatomy_export.core.progress import Progress
from anatomy_export.evaluation.precision_gate import chosen_precision
from anatomy_export.jobs.export_request import ExportRequest

PLAIN = {"criterion": "anatomy", "compensate": "none", "allocate": "uniform"}


def make_bundle(order: BundleOrder, progress: Progress) -> None:
    """Export the model as the order says; which neurons go does not matter for time."""
    from anatomy_export.jobs.export import run_export

    plain = order.mode != "dense" and not order.plan
    request = ExportRequest(
        model=order.model,
        mode=order.mode,
        output=order.directory,
        force=True,
        plan=order.plan,
        fuse=order.fuse,
        with_checkpoint=True,
        compare_dense=False,
        precision=chosen_precision(order.precision, target_cpu=order.target_cpu if order.precision == "int8" else None),
        score={**PLAIN, "keep_ratio": order.keep_ratio, "align": order.align} if plain else {},
    )
    run_export(request, progress)
