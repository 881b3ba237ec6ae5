"""`anatomy-bench paper`: the paper's job."""

from pathlib import Path

from click import IntRange
from cloup import command, option, option_group

from anatomy_export.commands import kinds
from anatomy_export.commands.bench_measurement import bench_table, measure_and_write, measurement_options
from anatomy_export.core.progress import Progress


@command("paper")
@option_group(
    "Models",
    option("--model", default="bert-base", help="bert-base, gpt2-base, bert, gpt2, a directory, a hub id."),
    option(
        "--removed",
        default="0,0.1,0.3,0.5,0.7",
        type=kinds.REMOVED_SHARES,
        help="Shares of the neurons; the dense model is there in any case.",
    ),
)
@option_group(
    "Texts",
    option(
        "--texts",
        default="reviews,imdb",
        type=kinds.some_of("reviews", "imdb"),
        help="reviews: the embedded sentences; imdb: IMDB from the hub, or the sentences joined up to IMDB's lengths.",
    ),
    option("--examples", type=IntRange(min=1, max=2000), default=1000, help="Texts of each kind."),
    option("--batch", type=kinds.FROM_1, default=32, help="Texts of a batch."),
    option("--seq-len", "length", type=kinds.FROM_2, default=100, help="Tokens, padded."),
)
@measurement_options
def paper(**given) -> None:
    """The paper's job: 1,000 reviews in batches of 32 padded to 100 tokens; and how it should be run."""
    from anatomy_export.bench.paper import PaperRequest, run_paper
    from anatomy_export.bench.plots import paper_plot
    from anatomy_export.bench.tables import PAPER_HEADINGS, paper_markdown, paper_rows
    from anatomy_export.jobs.bench_bundles import make_bundle

    def tables(body: dict):
        return [bench_table(PAPER_HEADINGS, paper_rows(body, texts, intervals=False), texts) for texts in body["texts"]]

    measure_and_write(
        given,
        f"paper-{Path(given['model']).name}",
        lambda settings: run_paper(PaperRequest(**settings), Progress(), make_bundle),
        markdown=paper_markdown,
        plot=paper_plot,
        tables=tables,
    )
