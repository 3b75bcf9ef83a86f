"""Several translators in one table, with their floors and limits: CSV, Markdown and a picture.

python scripts/compare_translators.py --runs med_dit=out/a/evaluation,pix2pix=out/b/evaluation
python scripts/compare_translators.py out/a/evaluation out/b/evaluation --output_dir output/comparison
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import fire

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from compare_translators_figure import draw_comparison
from compare_translators_runs import lines_of, read_run, require_comparable, run_names
from compare_translators_table import as_csv, as_markdown, columns_of

from common.atomic import atomic_path, write_text


def compare(folders: Sequence[str], output_dir: Path) -> str:
    """Write ``comparison.csv``, ``comparison.md`` and ``comparison.png`` of evaluations in ``folders``.

    Returns:
        the Markdown.

    Raises:
        FileNotFoundError, ValueError: an evaluation cannot be read, or does not belong to the others.
    """
    runs = [read_run(name, folder) for name, folder in run_names(folders).items()]
    require_comparable(runs)
    lines, columns = lines_of(runs), columns_of(runs[0])
    text = as_markdown(runs, lines, columns)
    write_text(output_dir / "comparison.csv", as_csv(lines))
    write_text(output_dir / "comparison.md", text)
    title = text.splitlines()[0].lstrip("# ")
    with atomic_path(output_dir / "comparison.png") as temporary:
        draw_comparison(lines, columns, title).savefig(temporary, dpi=110, format="png")
    return text


def compare_translators(*folders: str, runs: str | Sequence[str] = (), output_dir: str = "output/comparison") -> None:
    """Compare evaluations of the same test cases; exits with 1 if they are not.

    Args:
        folders: what evaluate.json wrote (metrics.json and metrics_cases.csv), each path or name=path.
        runs: more of them, separated by commas.
        output_dir: folder for the three files.
    """
    named = runs.split(",") if isinstance(runs, str) else [str(run) for run in runs]
    try:
        text = compare([*map(str, folders), *(run.strip() for run in named if run)], Path(output_dir))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(text)
    print(f"The table is in {output_dir}.")


if __name__ == "__main__":
    fire.Fire(compare_translators)
