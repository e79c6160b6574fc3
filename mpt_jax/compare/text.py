"""The result of `compare` in words and in cells of text, for the terminal, the page and JUnit."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mpt_jax.compare import gate, options, vocabulary
from mpt_jax.compare.evidence import LEVEL, PASS, REGRESSION, UNDECIDED
from mpt_jax.compare.factors import MISSING
from mpt_jax.errors import counted_rows, listed, printable

Result = dict[str, Any]

CLASS_HEADINGS = ("class", "rows", "negative\nflips", "positive\nflips", "NFR", "old\naccuracy", "new\naccuracy")
INPUT_HEADINGS = ("input", "name", "rows", "bytes", "SHA-256")
SLICE_HEADINGS = ("slice", "rows", "negative\nflips", "positive\nflips", "NFR", "old\naccuracy", "new\naccuracy")
COMBINATION_HEADINGS = ("slices", "rows", "negative\nflips", "NFR", "NFR of\nall rows", "p")
SPLIT_HEADINGS = ("split class", "right is", "rows", "negative\nflips", "NFR", "old\naccuracy", "new\naccuracy")
FLIP_HEADINGS = ("id", "label", "old", "new")
CORRECTION_HEADINGS = ("id", "former label", "label", "old", "new", "flip")
MEANINGS = (
    ("negative flip", "an example that the old model predicts correctly and the new one does not"),
    ("NFR", "negative flip rate: the share of rows that are negative flips; limits apply to the rows of old classes"),
    ("relative NFR", "NFR divided by that of two models with unrelated errors; below 1 is better than chance"),
    ("positive flip", "an example that the new model predicts correctly and the old one does not"),
    (
        "slice",
        "the rows of old classes with one value in a column; their intervals hold for all slices at once (Bonferroni)",
    ),
    (
        "combination",
        "rows with two values that flip more than the others: found on one half of the rows, confirmed on the other",
    ),
    ("McNemar's test", "exact and two-sided: how often models of equal accuracy would differ at least this much"),
)
CHANGE_MEANINGS = {
    "class_map": (
        ("retired class", "a class that the new release no longer has; its rows are in no rate"),
        (
            "old taxonomy",
            "the old model's classes: there the new model is right with any part of the split class that the label is "
            "a part of; all other rates need the label itself",
        ),
    ),
    "label_changes": (
        ("explained by a correction", "a negative flip by the former label that is none by the corrected one"),
        ("revealed by a correction", "a negative flip by the corrected label that was none by the former one"),
    ),
}
"""Terms of results with these keys."""
_RATES = (
    ("accuracy_old", "accuracy, old model"),
    ("accuracy_new", "accuracy, new model"),
    ("nfr", "negative flips (NFR)"),
    ("relative_nfr", "relative NFR"),
    ("pfr", "positive flips (PFR)"),
    ("churn", "predictions changed"),
)
FEW_ROWS = 30  # on which two models may well agree
_BESIDE = ("labels", "metadata", "must_pass", "class_map", "label_changes", "policy")  # inputs that are no predictions
_KNOWN_FROM = {
    "answers": "those that it predicts",
    "old_classes": "given by old_classes",
    "class_names or scores": "those in its file",
}


def title(result: Result) -> str:
    """Return what is compared, in one line."""
    classes, rows = result["classes"], result["all_rows"]["count"]
    known = f"the old model knows {len(classes['old']):,} ({_KNOWN_FROM[classes['known_from']]})"
    names = f"{printable(result['old'])} -> {printable(result['new'])}"
    return f"{names}: {rows:,} rows, {classes['count']:,} classes; {known}"


def notes(result: Result) -> list[str]:
    """Return what a reader has to know before the rates, such as classes that are new, and tied scores."""
    lines, new, ties = copies(result), result["new_classes"], result["ties"]
    if new:
        rows = sum(each["rows"] for each in new)
        names = listed([f"{printable(each['class'])} ({each['rows']:,})" for each in new], most=10)
        lines.append(
            f"New to the old model, so without negative flips: {rows:,} rows of {len(new):,} "
            f"{'class' if len(new) == 1 else 'classes'}: {names}"
        )
    lines += [*_class_map_notes(result), *_correction_notes(result)]
    for age, found in result.get("never_labels", {}).items():
        if found:
            names = listed([f"{printable(each['class'])} ({each['rows']:,})" for each in found], most=10)
            hidden = sum(each["new_wrong"] for each in found) if age == "old" else 0
            flips = f", or hide up to {_count(hidden, 'negative flip')}" if hidden else ""
            lines.append(
                f"Predictions of the {age} model that are never a label, so wrong in each row: {names}; other names of "
                f"a class need --same{flips}"
            )
    if effective := result["all_rows"].get("effective_rows"):
        rows = f"{result['all_rows']['count']:,} rows"
        lines.append(f"Rates are weighted: {rows} tell as much as {effective:,.0f} of equal weight")
    if without := result.get("weightless"):
        lines.append(
            f"{_count(without['rows'], 'row')} of weight 0 {'is' if without['rows'] == 1 else 'are'} in no rate, with "
            f"{_count(without['negative_flips'], 'negative flip')}"
        )
    lines += _slice_notes(result)
    chosen = result.get("must_pass", {"flips": [], "both_wrong": 0})
    if chosen["flips"]:
        names = listed([repr(printable(each["id"])) for each in chosen["flips"]], chosen["negative_flips"])
        lines.append(f"Examples that must pass and flipped: {names}")
    if chosen["both_wrong"]:
        lines.append(
            f"Of {chosen['rows']:,} examples that must pass, {chosen['both_wrong']:,} were wrong before and still are, "
            "which is no flip"
        )
    if left_out := result["left_out"]:
        lines.append(f"Not compared: {listed([f'{count:,} {reason}' for reason, count in left_out.items()])}")
    if ties["rows"]:
        change = f"; another choice could change {', '.join(ties['could_change'])}" if ties["could_change"] else ""
        lines.append(
            f"Tied scores in {counted_rows(ties['rows'])}: the prediction is the first of these classes, in one order "
            f"for both files{change}"
        )
    return lines


def _slice_notes(result: Result) -> list[str]:
    """Return what in the columns of slices may divide the rows otherwise than meant."""
    lines = []
    if lacking := result.get("without_metadata"):
        lines.append(f"The metadata lack {counted_rows(lacking)}, whose slice is {MISSING}")
    slices: dict[str, list[str]] = {}
    for row in result.get("slices", []):
        slices.setdefault(row["column"], []).append(row["value"])
    for column, values in slices.items():
        groups = [" and ".join(repr(printable(each)) for each in group) for group in vocabulary.respelled(values)]
        if groups:
            lines.append(f"Values of the slice {printable(column)} that look like one: {listed(groups, most=5)}")
    return lines


def _class_map_notes(result: Result) -> list[str]:
    """Return how many classes changed, and which are retired."""
    if "class_map" not in result:
        return []
    found = result["class_map"]
    renamed, merges, splits, retired = (
        [key for each in found["maps"] for key in each.get("rename", ())],
        [members for each in found["maps"] for members in each.get("merge", {}).values()],
        [parts for each in found["maps"] for parts in each.get("split", {}).values()],
        [name for each in found["maps"] for name in each.get("retire", ())],
    )
    counts = [
        f"{count:,} {what}"
        for count, what in (
            (len(renamed), "renamed"),
            (sum(map(len, merges)), f"merged into {len(merges):,}"),
            (len(splits), f"split into {sum(map(len, splits)):,}"),
            (len(retired), "retired"),
        )
        if count
    ]
    lines = [f"Old classes by the class map: {listed(counts) if counts else 'all stay'}"]
    if all(row["class"].isdecimal() for row in result["per_class"]):
        lines.append(
            "Numbers are taken for names: one that the class map does not have is the same class in both files"
        )
    if found["retired"]:
        names = [
            f"{printable(each['class'])} ({counted_rows(each['rows'])} not compared"
            + (f"; still predicted by the old model in {counted_rows(each['predicts'])})" if each["predicts"] else ")")
            for each in found["retired"]
        ]
        lines.append(f"Retired: {listed(names, most=10)}")
    if found["split"]:
        coarse = result["old_taxonomy"]
        lines.append(
            f"In the old taxonomy, where any part of a split class is right: NFR "
            f"{percent(coarse['nfr'], coarse['interval'])}, accuracy {_both_accuracies(coarse)}"
        )
    return lines


def _correction_notes(result: Result) -> list[str]:
    """Return what corrected labels changed."""
    if "label_changes" not in result:
        return []
    found = result["label_changes"]
    before, after = (found[key]["negative_flips"] for key in ("former", "corrected"))
    return [
        f"Corrected labels: {counted_rows(found['rows'])}. Of {before:,} negative flips by the former labels the "
        f"corrections explain {found['explained']:,}; of {after:,} by the corrected labels, which count, they reveal "
        f"{found['revealed']:,}"
    ]


def copies(result: Result) -> list[str]:
    """Return which of the compared files have the same content or predictions, so that nothing differs, a line each."""
    files: dict[str, list[str]] = {}
    for each in result.get("inputs", []):
        if "sha256" in each and each["role"] not in _BESIDE:
            files.setdefault(each["sha256"], []).append(printable(each["name"]))
    same = [
        f"The same content in {' and '.join(names)}: nothing can differ; expected the predictions of two models"
        for names in files.values()
        if len(names) > 1
    ]
    rows = result.get("all_rows", {})
    if not same and rows.get("churn") == 0 and rows["count"] >= FEW_ROWS and "weightless" not in result:
        old, new = (printable(result[age]) for age in ("old", "new"))
        return [f"All predictions of {old} and {new} are the same, as those of one model; were two models expected?"]
    return same


def verdict(result: Result) -> str:
    """Return the verdict in one line."""
    checks = result["checks"]
    if not checks:
        return "No limits given, so nothing was checked"
    failed, open_ = (sum(check["verdict"] == each for check in checks) for each in (REGRESSION, UNDECIDED))
    if failed:
        also = f", {open_} undecided" if open_ else ""
        return f"REGRESSION: {failed} of {len(checks)} checks failed{also}"
    if open_:
        counts_as = "passes here" if result["passed"] else "counts as a REGRESSION"
        return f"UNDECIDED, which {counts_as}: too few rows for {open_} of {len(checks)} checks"
    return "PASS: within all limits"


def sentence(check: dict[str, Any], result: Result) -> str:
    """Return what was found for one limit, in one line."""
    if check["value"] is None:
        return f"{check['limit']}: {check['where']}, so nothing was compared with the limit"
    is_minimum = check["limit"].startswith("min_")
    number, scale, unit = (_ratio, 1, "") if check["limit"] in options.RATIOS else (percent, 100, " %")
    found = number(check["value"], check["interval"], digits=_precise_enough(check, scale))
    limit = f"the limit of {scale * check['allowed']:.12g}{unit}"
    shown = f"{check['limit']}: {found} on {printable(check['where'])}"
    if check["held"] is None:
        shown += ": no confidence interval to compare with"
    else:
        words = ("reaches", "is below") if is_minimum else ("is within", "exceeds")
        bound = f": the {'lower' if is_minimum else 'upper'} bound" if check["held"] != check["value"] else ""
        shown += f"{bound} {words[not _is_within(check)]}"
    return f"{shown} {limit}"


def reason(check: dict[str, Any]) -> str:
    """Return what the rows can show about one limit, in one line; nothing if the numbers speak for themselves."""
    parts, more = [], f"{check['more_rows']:,} more rows" if check["more_rows"] else ""
    if "groups" in check:
        more += " a class" if more and check["limit"] in gate.OF_CLASSES else " a slice" if more else ""
    if check["verdict"] == UNDECIDED and check["value"] is not None:
        parts.append(f"chance may explain that{f'; {more} would decide' if more else ''}")
    elif check["verdict"] == PASS and not _is_within(check):
        parts.append(f"among {check['groups']['count']:,} chance explains that")
    if check["verdict"] == PASS and more:
        parts.append(f"too few rows to exclude twice the limit; {more} can")
    return "; ".join([*parts, *_beyond(check)])


def said(check: dict[str, Any], result: Result) -> str:
    """Return what was found for a limit, and what the rows can show about it, in one line."""
    return "; ".join(filter(None, (sentence(check, result), reason(check))))


def _is_within(check: dict[str, Any]) -> bool:
    if check["held"] is None:
        return False
    sign = -1 if check["limit"].startswith("min_") else 1
    return sign * check["held"] <= sign * check["allowed"]


def _beyond(check: dict[str, Any]) -> list[str]:
    """Name the groups of a limit that did not pass, and count those with too few rows."""
    groups = check.get("groups", {})
    parts = []
    for key, words in (("regression", "beyond it by more than chance"), ("undecided", "beyond it, perhaps by chance")):
        if len(named := groups.get(key, [])) > 1:
            names = listed([f"{printable(each['group'])} ({percent(each['value'])})" for each in named], most=5)
            parts.append(f"{len(named):,} of {groups['count']:,} are {words}: {names}")
    if left_out := groups.get("not_judged"):
        parts.append(f"not judged for too few rows: {listed([printable(each['group']) for each in left_out], most=5)}")
    return parts


def failure(result: Result) -> str:
    """Return the failed checks and some flipped examples, for a failed test."""
    lines = [sentence(check, result) for check in result["checks"] if not check["passed"]]
    count, examples = result["flips"]["count"], result["flips"]["examples"][:5]
    if examples:
        named = "; ".join("id {!r} (label {!r}, old {!r}, new {!r})".format(*cells) for cells in flip_cells(result)[:5])
        lines.append(f"{count:,} negative {'flip' if count == 1 else 'flips'}, such as {named}")
    lines += [
        f"{check['limit']}: {reason(check)}" for check in result["checks"] if not check["passed"] and reason(check)
    ]
    return "\n".join(lines)


def interval_note(result: Result) -> str:
    """Return what the numbers in brackets are."""
    level = 100 * (1 - result["confidence"]) / 2
    test = (
        f"held against limits is their end, a one-sided test at the level of {level:g} %"
        if result["confident"]
        else f"a regression is a one-sided test at the level of {100 * LEVEL:g} %, by Holm over classes and slices"
    )
    together = "; those of slices hold for all slices at once (Bonferroni)" if result.get("slices") else ""
    return (
        f"In brackets: {100 * result['confidence']:g} % confidence intervals ({result['interval']}){together}; {test}."
    )


def rate_headings(result: Result) -> list[str]:
    """Return the headings of `rate_cells`."""
    return [
        "",
        f"rows of old classes ({result['old_classes_rows']['count']:,})",
        f"all rows ({result['all_rows']['count']:,})",
    ]


def rate_cells(result: Result) -> list[list[str]]:
    """Return one row per rate, on the rows of old classes and on all rows."""
    parts = [result["old_classes_rows"], result["all_rows"]]
    rows = []
    for key, name in _RATES:
        number = _ratio if key == "relative_nfr" else percent
        rows.append([name, *(number(part[key], part["intervals"][key]) for part in parts)])
    counts = [f"{part['negative_flips']:,} / {part['positive_flips']:,}" for part in parts]
    p_values = [f"{part['mcnemar_p']:.2g}" if part["mcnemar_p"] else "< 1e-300" for part in parts]
    rows += [["flips, negative / positive", *counts], ["McNemar's test, p", *p_values]]
    return [*rows, *_score_cells(result)]


def _score_cells(result: Result) -> list[list[str]]:
    """Return the rows of what was measured on request: mean F1, the largest scores, accepted answers."""
    rows = []
    if f1 := result.get("macro_f1"):
        rows.append(
            ["mean F1, old -> new", f"{percent(f1['old'])} -> {percent(f1['old'] - f1['drop'])}", percent(f1["new"])]
        )
    if top := result.get("top_k"):
        rows.append([f"top-{top['k']} accuracy, old -> new", _both_accuracies(top), ""])
        rows.append([f"top-{top['k']} NFR", percent(top["nfr"], top["interval"]), ""])
    if accepted := result.get("accepted"):
        rows.append(
            [
                f"accepted at {accepted['threshold']:g}, old / new",
                f"{accepted['rows']:,} / {accepted['rows_new']:,}",
                "",
            ]
        )
        rows.append(["accepted answers that became wrong", percent(accepted["nfr"], accepted["interval"]), ""])
    return rows


def _both_accuracies(part: dict[str, Any]) -> str:
    return f"{percent(part['accuracy_old'])} -> {percent(part['accuracy_new'])}"


def class_cells(result: Result) -> list[list[str]]:
    """Return one row per class, the highest NFR first."""
    return [
        [
            printable(row["class"]) + ("" if row["known"] else " (new)"),
            *(f"{row[key]:,}" for key in ("count", "negative_flips", "positive_flips")),
            percent(row["nfr"], row["interval"]),
            *(percent(row[key]) for key in ("accuracy_old", "accuracy_new")),
        ]
        for row in result["per_class"]
    ]


def slice_cells(result: Result) -> list[list[str]]:
    """Return one row per slice, by the lower end of its interval; the intervals shown hold for all slices at once."""
    return [
        [
            printable(f"{row['column']} = {row['value']}"),
            *(f"{row[key]:,}" for key in ("rows", "negative_flips", "positive_flips")),
            percent(row["nfr"], row["simultaneous"]),
            *(percent(row[key]) for key in ("accuracy_old", "accuracy_new")),
        ]
        for row in result.get("slices", [])
    ]


def combination_cells(result: Result) -> list[list[str]]:
    """Return one row per combination of slices that flips more than chance explains, on the rows that confirm it."""
    return [
        [
            printable(" and ".join(f"{a} = {b}" for a, b in zip(each["columns"], each["values"], strict=True))),
            f"{each['confirmation']['rows']:,}",
            f"{each['confirmation']['negative_flips']:,}",
            percent(each["confirmation"]["nfr"]),
            percent(each["confirmation"]["overall_nfr"]),
            f"{each['p']:.2g}",
        ]
        for each in result.get("combinations", [])
        if each["confirmed"]
    ]


def split_cells(result: Result) -> list[list[str]]:
    """Return two rows per split class, one for each reading."""
    return [
        [
            f"{printable(each['class'])}: {listed([printable(part) for part in each['parts']])}",
            right,
            *(f"{count:,}" for count in (each["rows"], found["negative_flips"])),
            percent(found["nfr"], found["interval"]),
            *(percent(accuracy) for accuracy in (each["accuracy_old"], found["accuracy_new"])),
        ]
        for each in result.get("class_map", {}).get("split", [])
        for right, found in (("the label", each), ("any part", each["old_taxonomy"]))
    ]


def correction_cells(result: Result) -> list[list[str]]:
    """Return one row per example whose flip a corrected label explains or reveals."""
    return [
        [printable(each[key]) for key in ("id", "former", "label", "old", "new", "flip")]
        for each in result.get("label_changes", {}).get("examples", [])
    ]


def meanings(result: Result) -> list[tuple[str, str]]:
    """Return the terms of a result and what they mean."""
    return [*MEANINGS, *(each for key, terms in CHANGE_MEANINGS.items() if key in result for each in terms)]


def flip_cells(result: Result) -> list[list[str]]:
    """Return one row per example that flipped."""
    return [[printable(example[key]) for key in FLIP_HEADINGS] for example in result["flips"]["examples"]]


def input_cells(result: Result) -> list[list[str]]:
    """Return one row per file or table that was read."""
    return [
        [
            each["role"],
            printable(each.get("name", each["kind"])),
            *(f"{each[key]:,}" if key in each else "" for key in ("rows", "bytes")),
            each.get("sha256", ""),
        ]
        for each in result["inputs"]
    ]


def record(result: Result) -> list[tuple[str, str]]:
    """Return options, versions and time: with the inputs, what is needed to repeat the comparison."""
    options = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in result["options"].items()]
    versions = [f"{name} {version}" for name, version in result["versions"].items()]
    created = [("created", result["created"])] if "created" in result else []
    return [("options", printable(", ".join(options), 4000)), ("versions", ", ".join(versions)), *created]


def flips_title(result: Result, most: int) -> str:
    """Return the heading of a table of at most this many examples that flipped."""
    count = result["flips"]["count"]
    shown = min(most, len(result["flips"]["examples"]))
    return f"Flipped examples ({f'{shown:,} of ' if shown < count else ''}{count:,})"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _precise_enough(check: dict[str, Any], scale: float) -> Callable[[float], str]:
    """Return a format with enough digits to show on which side of the limit the number is."""
    held, limit, is_minimum = check["held"], round(scale * check["allowed"], 12), check["limit"].startswith("min_")
    formats: list[Callable[[float], str]] = [_two_digits, *(partial(_significant, count) for count in range(3, 17))]
    for format_ in formats if held is not None else []:
        shown = float(format_(scale * held))
        if _is_within(check) == (shown >= limit if is_minimum else shown <= limit):
            return format_
    return _two_digits


def _two_digits(value: float) -> str:
    return f"{value:.2f}" if value >= 1 else f"{value:.2g}"


def _significant(count: int, value: float) -> str:
    return f"{value:.{count}g}"


def percent(value: float, interval: Sequence[float] | None = None, digits: Callable[[float], str] = _two_digits) -> str:
    """Return a share as a percentage, with its interval if there is one."""
    ends = f" [{', '.join(digits(100 * end) for end in interval)}]" if interval else ""
    return f"{digits(100 * value + 0.0)} %{ends}"  # not "-0"


def _ratio(value: float, interval: Sequence[float] | None = None, digits: Callable[[float], str] = _two_digits) -> str:
    ends = f" [{', '.join(map(digits, interval))}]" if interval else ""
    return f"{digits(value)}{ends}"
