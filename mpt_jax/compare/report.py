"""Results of every kind as one report: lines of words and tables of text, which `show` renders."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mpt_jax.compare import text
from mpt_jax.compare.text import Result, percent
from mpt_jax.errors import listed, printable


class Table(NamedTuple):
    """A table of text; the first `left` columns are names, `most` rows are shown where space is short."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    most: int = 10


class Line(NamedTuple):
    """What was found for a limit: its name, the verdict on it, a sentence, and details for a failed test."""

    name: str
    verdict: str
    passed: bool
    sentence: str
    details: str


class Report(NamedTuple):
    """A result in words."""

    title: str
    notes: Sequence[str]
    verdict: str
    tone: str
    lines: Sequence[Line]
    tables: Sequence[Table]
    interval_note: str
    meanings: Sequence[tuple[str, str]]


def of(result: Result) -> Report:
    """Return the report of a result; without a `kind` it compares two models with one label a row."""
    return _KINDS[result.get("kind", "pair")](result)


def _pair(result: Result) -> Report:
    flips = text.flip_cells(result)
    return Report(
        title=text.title(result),
        notes=text.notes(result),
        verdict=text.verdict(result),
        tone=result["verdict"] or "",
        lines=[_line(check, result, text.failure(result)) for check in result["checks"]],
        tables=[
            Table("Rates", text.rate_headings(result), text.rate_cells(result)),
            Table("Classes", text.CLASS_HEADINGS, text.class_cells(result)),
            *(
                Table(title, headings, cells, left=2 if headings is text.SPLIT_HEADINGS else 1)
                for title, headings, cells in (
                    ("Split classes", text.SPLIT_HEADINGS, text.split_cells(result)),
                    ("Slices", text.SLICE_HEADINGS, text.slice_cells(result)),
                    ("Weak combinations of slices", text.COMBINATION_HEADINGS, text.combination_cells(result)),
                )
                if cells
            ),
            *(
                [Table("Flips that corrected labels explain or reveal", text.CORRECTION_HEADINGS, corrections, left=6)]
                if (corrections := text.correction_cells(result))
                else []
            ),
            Table(text.flips_title(result, len(flips)), text.FLIP_HEADINGS, flips, left=4),
        ],
        interval_note=text.interval_note(result),
        meanings=text.meanings(result),
    )


def _chain(result: Result) -> Report:
    compared = [*result["steps"], *result["against_ancestors"][:-1]]
    short = _short(result["models"])
    arrows = [f"{short[each['old']]} -> {short[each['new']]}" for each in compared]
    lost, rows = result["lost_from_any"], result["steps"][0]["all_rows"]["count"]
    checks = [check for each in compared for check in each["checks"]]
    comparisons = [
        [
            arrow,
            f"{each['old_classes_rows']['count']:,}",
            f"{each['old_classes_rows']['negative_flips']:,}",
            percent(each["old_classes_rows"]["nfr"], each["old_classes_rows"]["intervals"]["nfr"]),
            *(percent(each["old_classes_rows"][key]) for key in ("accuracy_old", "accuracy_new")),
            each["verdict"] or "",
        ]
        for arrow, each in zip(arrows, compared, strict=True)
    ]
    examples = [
        [
            *(printable(each[key]) for key in ("id", "label")),
            ", ".join(short[name] for name in each["right_in"]),
            printable(each["new"]),
        ]
        for each in lost["examples"]
    ]
    return Report(
        title=f"{' -> '.join(map(printable, result['models']))}: {len(result['models']):,} versions, {rows:,} rows",
        notes=[
            *text.copies(result),
            f"Right in an earlier version and wrong in the last: {lost['count']:,} of {lost['rows']:,} rows, "
            f"{percent(lost['rate'], lost['interval'])}",
            *(f"{arrow}: {note}" for arrow, each in zip(arrows, compared, strict=True) for note in text.notes(each)),
        ],
        verdict=text.verdict({"checks": checks, "passed": result["passed"]}),
        tone=result["verdict"] or "",
        lines=[
            _line(check, each, text.failure(each), f"{arrow}: ")
            for arrow, each in zip(arrows, compared, strict=True)
            for check in each["checks"]
        ],
        tables=[
            Table(
                "Comparisons on the rows of old classes",
                ("", "rows", "negative\nflips", "NFR", "old\naccuracy", "new\naccuracy", "verdict"),
                comparisons,
                most=100,
            ),
            Table(f"Lost from any version ({lost['count']:,})", ("id", "label", "right in", "new"), examples, left=4),
            *(
                Table(f"Classes, {arrow}", text.CLASS_HEADINGS, text.class_cells(each), most=0)
                for arrow, each in zip(arrows, compared, strict=True)
            ),
            *(
                Table(f"Split classes, {arrow}", text.SPLIT_HEADINGS, cells, left=2, most=0)
                for arrow, each in zip(arrows, compared, strict=True)
                if (cells := text.split_cells(each))
            ),
            *(
                Table(f"Slices, {arrow}", text.SLICE_HEADINGS, cells, most=0)
                for arrow, each in zip(arrows, compared, strict=True)
                if (cells := text.slice_cells(each))
            ),
        ],
        interval_note=text.interval_note(compared[0]),
        meanings=[*text.MEANINGS[:2], ("lost from any", "a row that an earlier version has right and the last wrong")],
    )


def _agreement(result: Result) -> Report:
    rows, changes, changed = result["all_rows"], result["changes"], result["changed"]
    kinds = [
        [printable(each["old"]), printable(each["new"]), f"{each['count']:,}", percent(each["share"])]
        for each in changes["most_frequent"]
    ]
    classes = [
        [printable(row["class"]), *(f"{row[key]:,}" for key in ("rows_old", "rows_new", "left", "joined"))]
        for row in result["per_class"]
    ]
    examples = [[printable(each[key]) for key in ("id", "old", "new")] for each in changed["examples"]]
    count = result["classes"]["count"]
    failed = _failed(result, examples, "changed {}, such as id {!r} (old {!r}, new {!r})", changed["count"])
    return Report(
        title=f"{_arrow(result)}: {rows['count']:,} rows, {count:,} classes, compared without labels",
        notes=_agreement_notes(result),
        verdict=text.verdict(result),
        tone=result["verdict"] or "",
        lines=[_line(check, result, failed) for check in result["checks"]],
        tables=[
            Table(
                "Rates",
                ("", f"all rows ({rows['count']:,})"),
                [
                    ["agreement", percent(rows["agreement"], rows["intervals"]["agreement"])],
                    ["predictions changed (churn)", percent(rows["churn"], rows["intervals"]["churn"])],
                ],
            ),
            Table(
                f"Changes from class to class ({changes['kinds']:,} kinds)",
                ("old", "new", "rows", "share"),
                kinds,
                left=2,
            ),
            Table(
                "Classes",
                ("class", "rows,\nold model", "rows,\nnew model", "left it", "joined it"),
                classes,
                most=0,
            ),
            Table(f"Changed examples ({changed['count']:,})", ("id", "old", "new"), examples, left=3),
        ],
        interval_note=text.interval_note(result),
        meanings=[
            ("agreement", "the share of rows with the same prediction"),
            ("churn", "the share of rows whose prediction changed; without labels no one can tell for better or worse"),
        ],
    )


def _agreement_notes(result: Result) -> list[str]:
    notes = []
    if result["labels_ignored"]:
        notes.append(f"The labels in {listed([printable(name) for name in result['labels_ignored']])} were ignored")
    for age, key in (("old", "only_old"), ("new", "only_new")):
        if only := result["classes"][key]:
            names = listed([f"{printable(each['class'])} ({each['rows']:,})" for each in only], most=10)
            notes.append(f"Classes that only the {age} model predicts, with their rows: {names}")
    return notes + text.notes({"new_classes": [], **result})


def _multi_label(result: Result) -> Report:
    rows, labels = result["all_rows"], result["labels"]
    f1 = labels["f1"]
    names = [
        ("accuracy_old", "all labels right, old model"),
        ("accuracy_new", "all labels right, new model"),
        ("nfr", "rows with a negative flip (NFR)"),
        ("churn", "rows with other labels (churn)"),
    ]
    scores = [
        [
            f"F1 on {what} ({f1[key]['classes']:,})",
            *(f"{f1[key][f'{average}_{age}']:.4f}" for average in ("micro", "macro") for age in ("old", "new")),
        ]
        for key, what in (("old_classes", "the old model's classes"), ("all_classes", "all classes"))
    ]
    classes = [
        [
            printable(row["class"]) + ("" if row["known"] else " (new)"),
            *(f"{row[key]:,}" for key in ("count", "missed", "false_alarms")),
            percent(row["nfr"], row["interval"]) if row["count"] else "",
            *("" if row[key] is None else percent(row[key]) for key in ("accuracy_old", "accuracy_new")),
            *(f"{row[key]:.2f}" for key in ("f1_old", "f1_new")),
        ]
        for row in result["per_class"]
    ]
    examples = [
        [
            printable(each["id"]),
            *(", ".join(map(printable, each[key])) for key in ("label", "old", "new", "missed", "false_alarms")),
        ]
        for each in result["flips"]["examples"]
    ]
    count = result["flips"]["count"]
    failed = _failed(result, examples, "flipped {}, such as id {!r} (labels {!r}, old {!r}, new {!r})", count)
    return Report(
        title=f"{text.title(result)}, several labels a row",
        notes=_multi_label_notes(result),
        verdict=text.verdict(result),
        tone=result["verdict"] or "",
        lines=[_line(check, result, failed) for check in result["checks"]],
        tables=[
            Table(
                "Rates",
                ("", f"all rows ({rows['count']:,})"),
                [
                    *([what, percent(rows[key], rows["intervals"][key])] for key, what in names),
                    ["true labels, missed / gained", f"{labels['missed']:,} / {labels['gained']:,}"],
                    ["false alarms, new / removed", f"{labels['false_alarms']:,} / {labels['removed']:,}"],
                ],
            ),
            Table("F1", ("", "micro,\nold", "micro,\nnew", "macro,\nold", "macro,\nnew"), scores),
            Table(
                "Classes",
                (
                    *("class", "rows with\nthe label", "missed", "false\nalarms", "NFR", "old\nrecall", "new\nrecall"),
                    *("old\nF1", "new\nF1"),
                ),
                classes,
            ),
            Table(
                f"Flipped rows ({count:,})",
                ("id", "labels", "old", "new", "missed", "false alarms"),
                examples,
                left=6,
            ),
        ],
        interval_note=text.interval_note(result),
        meanings=[
            (
                "negative flip",
                "a label that the old model had right in a row, present or absent, and the new one has not",
            ),
            ("missed", "a true label that the old model gives and the new one does not"),
            ("false alarm", "a wrong label that the new model gives and the old one does not"),
            ("NFR", "of rows, the share with any negative flip; of a class, the share of its true labels missed"),
        ],
    )


def _multi_label_notes(result: Result) -> list[str]:
    rows, notes = result["all_rows"], []
    if new := result["new_classes"]:
        names = listed([f"{printable(each['class'])} ({each['rows']:,})" for each in new], most=10)
        notes.append(
            f"New to the old model, so never missed: {len(new):,} {'class' if len(new) == 1 else 'classes'} with their "
            f"rows: {names}; their false alarms alone make {rows['only_new_classes']:,} of the "
            f"{rows['negative_flips']:,} rows with a negative flip"
        )
    if any(rows["empty"].values()):
        notes.append(
            "Rows with an empty list: {label:,} of labels, {old:,} of the old model, {new:,} of the new model".format(
                **rows["empty"]
            )
        )
    return notes + text.notes({**result, "new_classes": []})


def _line(check: dict[str, Any], result: Result, details: str, prefix: str = "") -> Line:
    return Line(
        prefix + check["limit"] + ("" if check["allowed"] is None else f" {check['allowed']:g}"),
        check["verdict"],
        check["passed"],
        f"{prefix}{text.said(check, result)}",
        details,
    )


def _failed(result: Result, examples: Sequence[Sequence[str]], words: str, count: int) -> str:
    """Return the failed checks and an example, for a failed test."""
    lines = [text.said(check, result) for check in result["checks"] if not check["passed"]]
    rows = f"{'row' if count == 1 else 'rows'}"
    return "\n".join([*lines, *(f"{count:,} {words.format(rows, *each)}" for each in examples[:1])])


def _arrow(result: Result) -> str:
    return f"{printable(result['old'])} -> {printable(result['new'])}"


def _short(versions: Sequence[str]) -> dict[str, str]:
    """Return the names of files without their folders, where those tell them apart."""
    bare = [pathlib.PurePath(name).name for name in versions]
    return {
        name: printable(short if len(set(bare)) == len(set(versions)) else name)
        for name, short in zip(versions, bare, strict=True)
    }


_KINDS: dict[str, Callable[[Result], Report]] = {
    "pair": _pair,
    "chain": _chain,
    "agreement": _agreement,
    "multi-label": _multi_label,
}
