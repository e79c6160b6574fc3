"""Write the tables of `docs/methods.md` from the registry: `python docs/method_table.py`."""

import pathlib

from mpt_jax.methods import PAPERS, rows

PAGE = pathlib.Path(__file__).with_name("methods.md")
START, END = "<!-- methods -->\n\n", "\n\n<!-- end of methods -->"


def tables() -> str:
    """Return every method by family, and the papers that they come from, as markdown.

    Examples:
      >>> [line for line in tables().splitlines() if line.startswith("| `pct_kl`")]
      ['| `pct_kl` | CE + FD-KL(old) | [Yan et al., 2021](https://arxiv.org/abs/2011.09161) |']
    """
    methods = rows()
    lines = []
    for family in dict.fromkeys(row.family for row in methods.values()):
        lines += [f"### {family}", "", "| method | objective or result | source |", "|---|---|---|"]
        lines += [
            f"| `{name}` | {row.doc} | {'; '.join(map(_source, row.papers)) or '-'} |"
            for name, row in methods.items()
            if row.family == family
        ]
        lines.append("")
    lines += ["### Papers", ""]
    cited = {key for row in methods.values() for key in row.papers}
    papers = sorted((paper for key, paper in PAPERS.items() if key in cited), key=lambda paper: paper.authors)
    for paper in papers:
        link = f" [arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})." if paper.arxiv else ""
        lines.append(f"- {paper.authors}, *{paper.title}*, {paper.year}.{link}")
    return "\n".join(lines)


def page() -> str:
    """Return `docs/methods.md` with the tables of the registry."""
    before, rest = PAGE.read_text("utf-8").split(START)
    return f"{before}{START}{tables()}{END}{rest.split(END)[1]}"


def _source(key: str) -> str:
    paper = PAPERS.get(key)
    if paper is None:
        return key
    cited = f"{paper.authors}, {paper.year}"
    return f"[{cited}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else cited


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
