"""The entry points of the command line; the commands are in `commands`."""

import click

from anatomy_export.commands.bench import bench
from anatomy_export.commands.doctor import doctor
from anatomy_export.commands.exit_codes import script_group
from anatomy_export.commands.export import export
from anatomy_export.commands.finetune import finetune
from anatomy_export.commands.pareto import pareto
from anatomy_export.commands.plan import plan
from anatomy_export.commands.report import report
from anatomy_export.commands.score import score
from anatomy_export.commands.slice_onnx import slice_onnx
from anatomy_export.commands.study import study
from anatomy_export.commands.verify import verify


@script_group("anatomy")
@click.version_option(package_name="anatomy-export")
def main() -> None:
    """Prune transformer classifiers without training, slice them, export verified ONNX."""


main.section("Prune and export", export, slice_onnx, plan, finetune)
main.section("Look inside and compare", score, study, pareto, report)
main.section("On the machine that runs it", verify, bench, doctor)


def bench_main() -> None:
    """Console script `anatomy-bench`."""
    bench.main(prog_name="anatomy-bench")


def export_main() -> None:
    """Console script `anatomy-export`."""
    export.main(prog_name="anatomy-export")


if __name__ == "__main__":
    main()
