"""`REPRODUCIBILITY.md` and the pages of `docs/results/`, from `results/*.json` with the texts of `results/*.md`.

The first page has the summary. Every table has a page, and so has every text that does not belong to the first page or
to a table.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mpt_jax.errors import InputError
from mpt_jax.files import storage
from mpt_jax.reproduce import cells, overview, plots, readme_figure, results, summary_figure, table_page
from mpt_jax.reproduce.results import BASELINE
from mpt_jax.reproduce.summary import margin, representative, summarize
from mpt_jax.reproduce.tables import BUDGETS, TABLES
from mpt_jax.runtime import regular_file

PAGES = pathlib.Path("docs/results")  # next to the first page
_MARK = "<!-- Written by `python -m mpt_jax.reproduce page` from results/. Change that, not this page. -->\n\n"
_MPT = ("mpt_kl", "mpt_lm")
_FIRST_PAGE = ("introduction", "judgement", "choose")  # texts, in this order
_SUMMARY = """\
- *Plain*: accuracy and negative flips of plain retraining (`no_treatment`), in %.
- *As trained*: change of the flips, and of the accuracy in points.
- *At equal accuracy*: change of the flips when a constant on the new classes' logits gives both models the same
  accuracy. This is the gain beyond a post-hoc bias. *Chance*: plain retraining with other random numbers.
- Brackets: 95 % interval, from three seeds on. **Bold**: p < 0.05.
- MPT is the row chosen on validation images. *Fixed*: these do not decide; `mpt_kl` is shown."""


def write(folder: pathlib.Path, page: pathlib.Path) -> int:
    """Draw the figures of all tables in a folder of results and write the pages; return the number of tables.

    Figures and pages of tables that no longer exist are removed.

    Raises:
      InputError: the folder has no table.
    """
    found = {path.stem: results.read(path) for path in sorted(folder.glob("*.json"))}
    if not found:
        raise InputError(f"--results {folder} has no table; expected a folder with files such as digits-cpu.json")
    figures = {
        folder / "plots" / f"{name}-{figure}.png": picture
        for name, table in found.items()
        for figure, picture in plots.draw(table["runs"]).items()
    }
    for name, picture in (
        (readme_figure.FILE, readme_figure.draw(found)),
        (summary_figure.FILE, summary_figure.draw(current(tables(folder)))),
    ):
        figures |= {folder / "plots" / name: picture} if picture else {}
    (folder / "plots").mkdir(exist_ok=True)
    for path in (folder / "plots").glob("*.png"):
        if path not in figures and path.stem.rpartition("-")[2] in plots.FIGURES:
            path.unlink()
    for path, picture in figures.items():
        storage.write_bytes(path, picture)
    texts = render(folder, page)
    (page.parent / PAGES).mkdir(parents=True, exist_ok=True)
    for path in (page.parent / PAGES).glob("*.md"):
        if path not in texts and regular_file.read_bytes(path).startswith(_MARK.encode()):
            path.unlink()
    for path, text in texts.items():
        storage.write_text(path, text)
    return len(found)


def tables(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Read the results of a folder, in the order of the tables."""
    names = [f"{name}-{budget}.json" for name in TABLES for budget in BUDGETS]
    return [results.read(folder / name) for name in names if (folder / name).exists()]


def current(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the tables whose question no other one with results answers better.

    The budget of a GPU is better than that of a CPU, and some tables name their successor.
    """
    names = {table["table"] for table in found}
    large = {table["table"] for table in found if table["budget"] == "gpu"}
    return [
        table
        for table in found
        if TABLES[table["table"]].replaced_by not in names and (table["budget"] == "gpu" or table["table"] not in large)
    ]


def render(folder: pathlib.Path, page: pathlib.Path) -> dict[pathlib.Path, str]:
    """Render every page from everything in a folder of results; return the texts by path."""
    found, pages = tables(folder), page.parent / PAGES
    texts = {path.stem: regular_file.read_text(path).strip() for path in sorted(folder.glob("*.md"))}
    drawn = {path.stem: path for path in sorted((folder / "plots").glob("*.png"))}
    first = {name: texts.pop(name, "") for name in _FIRST_PAGE}
    of_tables = {}
    for table in found:
        name = f"{table['table']}-{table['budget']}"
        figures = {f: _link(drawn[f"{name}-{f}"], pages) for f in plots.FIGURES if f"{name}-{f}" in drawn}
        of_tables[name] = table_page.render(table, figures, texts.pop(name, ""))
    others = {"overview": overview.render(found)}
    of_no_results = {f"{name}-{budget}" for name in TABLES for budget in BUDGETS}
    own = {name: text for name, text in texts.items() if name not in of_no_results}
    others |= dict(sorted(own.items(), key=lambda item: _heading(item[1])))
    figure = drawn.get(pathlib.Path(summary_figure.FILE).stem)
    parts = [
        first["introduction"],
        summary(current(found)),
        summary_figure.show(_link(figure, page.parent)) if figure else "",
        *(first["judgement"], first["choose"]),
        "## More\n\n"
        + "\n".join(f"- [{_heading(text)}]({PAGES.as_posix()}/{name}.md)" for name, text in others.items()),
    ]
    written = {page: "\n\n".join(part for part in parts if part)}
    written |= {pages / f"{name}.md": text for name, text in (of_tables | others).items()}
    written[pages / "index.md"] = _index(_link(page, pages), [*of_tables, *others])
    return {path: f"{_MARK}{text.strip()}\n" for path, text in written.items()}


def summary(found: Sequence[Mapping[str, Any]]) -> str:
    """Render the summary: a row per table and scenario of the `headline`, with what MPT changes there."""
    headings = ["data", "seeds", "plain: accuracy, flips", "MPT", "as trained: flips", "accuracy"]
    headings += ["at equal accuracy: MPT", "`pct_kl`", "chance"]
    lines = []
    for table in found:
        chosen, summaries = representative(table["runs"], *_MPT), summarize(table["runs"])
        for scenario, name in TABLES[table["table"]].headline.items():
            methods = summaries.get(scenario, {})
            base, (row, decided) = methods.get(BASELINE, {}), chosen.get(scenario, ("", False))
            if "nfr" not in base or "paired" not in methods.get(row, {}):
                continue
            run = next(run for run in table["runs"] if run["scenario"] == scenario)
            link = f"{PAGES.as_posix()}/{table['table']}-{table['budget']}.md"
            paired = methods[row]["paired"]
            same = methods.get("independent", {}) if run["protocol"]["start"] == "random" else {}
            lines.append(
                [
                    f"[{name or TABLES[table['table']].title}]({link})",
                    str(base["seeds"]),
                    ", ".join(f"{100 * base[key]['mean']:.1f}" for key in ("accuracy", "nfr")),
                    f"`{row.partition('@')[0]}`, {cells.solid(margin(row, run))}" + " (fixed)" * (not decided),
                    *(cells.estimated_change(paired["nfr"]), cells.difference(paired["accuracy"])),
                    cells.estimated_change(methods[row].get("equal")),
                    *(cells.tested_change(of.get("equal")) for of in (methods.get("pct_kl", {}), same)),
                ]
            )
    lines.sort(key=lambda line: int(line[1]) < 3)  # a single seed is weak evidence
    # An interval may have a line of its own: the page is narrow.
    lines = [[cell.replace("\N{NO-BREAK SPACE}[", " [") for cell in line] for line in lines]
    return f"## Summary\n\n{cells.table(headings, lines)}\n\n{_SUMMARY}"


def _index(page: str, names: Sequence[str]) -> str:
    """Return the page that shows the first one in the documentation and lists all others for its navigation."""
    return (
        f"```{{include}} {page}\n:relative-docs: docs/\n:relative-images:\n```\n\n"
        f"```{{toctree}}\n:hidden:\n\n{chr(10).join(names)}\n```"
    )


def _heading(text: str) -> str:
    return text.partition("\n")[0].removeprefix("# ")


def _link(path: pathlib.Path, folder: pathlib.Path) -> str:
    return pathlib.Path(os.path.relpath(path, folder)).as_posix()
