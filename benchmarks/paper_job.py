"""The paper's job on this machine: `anatomy-bench paper` on three settings, each into paper-<name>.json and .svg.

Run `.venv/bin/python benchmarks/paper_job.py [NAME …]`; needs the extras cpu and report.
"""

import sys
from pathlib import Path

from summarize import without_rounds, write_json

from anatomy_export.bench.paper import PaperRequest, run_paper
from anatomy_export.bench.plots import paper_plot
from anatomy_export.core.platform import usable_cores
from anatomy_export.core.progress import Progress
from anatomy_export.jobs.bench_bundles import make_bundle

HERE = Path(__file__).parent
THREADS = usable_cores()
REQUESTS = {
    "bert-base": PaperRequest(removed=(0.5,), modes=("dense", "slice"), texts=("reviews",), threads=THREADS),
    "bert": PaperRequest(model="bert", texts=("reviews",), examples=512, threads=THREADS),
    "bert-base-imdb": PaperRequest(
        removed=(0.5,), modes=("dense", "slice"), texts=("imdb",), examples=320, threads=THREADS
    ),
}


def main() -> None:
    for name in sys.argv[1:] or REQUESTS:
        body = run_paper(REQUESTS[name], Progress(), make_bundle).body
        write_json(HERE / f"paper-{name}.json", without_rounds(body, keep_times=True))
        plot = paper_plot(body)
        assert plot is not None
        (HERE / f"paper-{name}.svg").write_bytes(plot)


if __name__ == "__main__":
    main()
