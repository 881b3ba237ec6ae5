"""Write docs/RESULTS.md, PAPER.md, T4.md and the README's table from the JSON files of this folder, every figure."""

from pathlib import Path

from choice_tables import cost_section, pareto_section, speedup_section
from claims_page import paper_markdown
from frontier_tables import frontier_section, second_training_section
from gap_tables import gap_section, harness_section
from headline import readme_markdown
from job_tables import job_section
from precision_tables import precision_section
from startup_tables import startup_section
from study_tables import score_section, study_section
from summary_page import summary_section
from surgery_tables import surgery_section
from t4_page import t4_markdown

HERE = Path(__file__).parent
ROOT = HERE.parent
SECTIONS = (
    second_training_section,
    score_section,
    pareto_section,
    speedup_section,
    cost_section,
    startup_section,
    precision_section,
    surgery_section,
)
TITLE = """# Results

Written by `benchmarks/render.py` from the JSON files beside it, which are summaries: CONTRIBUTING.md says which script
makes each again, with its raw rounds.
"""


def results_markdown() -> str:
    jobs = sorted(set(HERE.glob("paper-*.json")) - {HERE / "paper-claims.json"})
    return "\n".join(
        [
            TITLE,
            summary_section(),
            gap_section(),
            harness_section(),
            *(frontier_section(path.stem.split("-")[1]) for path in sorted(HERE.glob("frontier-*.json"))),
            *(study_section(path.stem.split("-")[1]) for path in sorted(HERE.glob("study-*.json"))),
            *(section() for section in SECTIONS),
            *(job_section(path.stem) for path in jobs),
        ]
    )


def pages() -> dict[Path, str]:
    """Every page with figures, as it should be."""
    readme = ROOT / "README.md"
    return {
        ROOT / "docs" / "RESULTS.md": results_markdown(),
        ROOT / "docs" / "PAPER.md": paper_markdown(),
        ROOT / "docs" / "T4.md": t4_markdown(),
        readme: readme_markdown(readme.read_text(encoding="utf-8")),
    }


def main() -> None:
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
