"""What is known of the rows apart from labels and predictions: slices, weights, and examples that must not flip."""

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from mpt_jax.compare import align, factors, rows
from mpt_jax.compare.factors import Factor
from mpt_jax.compare.rows import NAMED, Rows
from mpt_jax.errors import InputError, counted_rows, listed, unknown
from mpt_jax.files.predictions import columns, formats, packed
from mpt_jax.files.predictions.formats import IDS, Source
from mpt_jax.runtime import regular_file

_TOP_BIT = np.uint64(63)
_FEW_ROWS = 100  # of which each may be a slice


@dataclass(frozen=True)
class Extras:
    """Further facts about ``n`` rows.

    Attributes:
      factors: the columns that define slices.
      weights: float64 ``[n]``, from 0 to 1, the largest is 1; None: all rows count the same.
      must_pass: places of the examples that must not flip, in increasing order; None: none were given.
      second_half: which half of the rows each is in, by a hash of its id; whatever the order of the rows.
      without_metadata: which rows the metadata lack; None: there are no metadata.
    """

    factors: Mapping[str, Factor] = field(default_factory=dict)
    weights: np.ndarray | None = None
    must_pass: np.ndarray | None = None
    second_half: np.ndarray | None = None
    without_metadata: np.ndarray | None = None


def require_columns(
    sources: Sequence[Source], metadata: Source | None, extra: Sequence[str], weight: str | None
) -> None:
    """Check, before anything is read, that each column is in one of the sources, and that metadata are of use.

    Raises:
      InputError: an unknown or repeated column, or metadata without any of them.
    """
    given = [*sources, *([metadata] if metadata else [])]
    present = sorted({column for source in given for column in source.columns} - {*IDS})
    if twice := formats.repeated(extra):
        raise InputError(f"slice {twice[0]!r} is given twice; expected each column once")
    for what, column in [*(("slice", column) for column in extra), *([("weight", weight)] if weight else [])]:
        if column not in present:
            raise InputError(f"{unknown(f'column {column!r} for {what}', column, present)}")
    if metadata and not {*extra, weight} & {*metadata.columns}:
        of = listed(sorted({*metadata.columns} - {*IDS}))
        needed = listed([repr(column) for column in (*extra, weight) if column])
        what = f"has none of the columns {needed}" if needed else "is given without slice or weight"
        raise InputError(f"{metadata.name} {what}; expected a slice or weight of its columns: {of}")


def read(
    versions: Sequence[Rows],
    *,
    metadata: Source | None = None,
    extra: Sequence[str] = (),
    weight: str | None = None,
    must_pass: Any = None,
) -> tuple[Extras, list[str]]:
    """Merge the further columns of aligned rows and of metadata, and describe what makes them unusable.

    Args:
      versions: rows of one order, which the first still has fingerprints of; with the further columns of each source.
      metadata: a source with ids; rows that it lacks have the value `factors.MISSING`.
      extra: names of the columns.
      weight: name of the column of weights.
      must_pass: see `places_of`.

    Raises:
      InputError: metadata or ids that do not fit.
    """
    first, keys = versions[0], versions[0].keys
    parts, lacking = list(versions), None
    if metadata:
        further, lacking = _aligned(metadata, first, extra, weight)
        parts.append(further)
    found: dict[str, Factor] = {}
    problems: list[str] = []
    for column in extra:
        having = [part for part in parts if column in part.factors]
        merged, differ = factors.merged([part.factors[column] for part in having])
        found[column] = factors.complete(merged)
        problems += _too_fine(column, found[column])
        if differ.size:
            where = " and ".join(part.source.name for part in having)
            problems.append(f"column {column!r} differs between {where}: {_named(first, differ)}")
    weights = None
    if weight:
        weights, more = _weights([part for part in parts if part.weights is not None], weight, first)
        problems += more
    places = None if must_pass is None else places_of(must_pass, first)
    halves = (keys[0] >> _TOP_BIT).astype(bool) if len(extra) > 1 else None
    return Extras(found, weights, places, halves, lacking), problems


def at(extras: Extras, kept: np.ndarray, count: int, first: Rows, why: str = "no label") -> Extras:
    """Return the facts about the rows that are kept, by their places among `count` rows; `why` others are not.

    Raises:
      InputError: an example that must not flip is not kept.
    """
    place = np.full(count, -1)
    place[kept] = np.arange(len(kept))
    must_pass = extras.must_pass
    if must_pass is not None:
        if (lost := must_pass[place[must_pass] < 0]).size:
            raise InputError(f"{rows.named(first, lost, why)}; expected one for each id of must_pass")
        must_pass = place[must_pass]
    return Extras(
        {column: factors.at(factor, kept) for column, factor in extras.factors.items()},
        None if extras.weights is None else extras.weights[kept],
        must_pass,
        None if extras.second_half is None else extras.second_half[kept],
        None if extras.without_metadata is None else extras.without_metadata[kept],
    )


def places_of(given: Any, first: Rows) -> np.ndarray:
    """Return the rows of some ids, in increasing order.

    Args:
      given: a list of ids, a file with one id per line, or a file or table with a column of ids.
      first: rows with fingerprints.

    Raises:
      InputError: an id that no row has, or no id.
    """
    name, batches = _ids(given)
    keys, texts = [], []
    for ids in batches:
        keys.append(rows.fingerprints(ids))
        texts.append(ids)
    if not sum(map(len, texts)):
        raise InputError(f"{name} has no ids; expected one per line, or a column 'id'")
    one, two = (np.concatenate(part) for part in zip(*keys, strict=True))
    places = align.places((one, two), first.keys)
    if (lost := np.flatnonzero(places < 0)).size:
        named = list(map(repr, pa.chunked_array(texts).take(pa.array(lost[:NAMED])).to_pylist()))
        is_not = "id of {} is" if lost.size == 1 else "ids of {} are"
        raise InputError(
            f"{lost.size:,} {is_not.format(name)} not in {first.source.name}: {listed(named, lost.size)}; "
            "expected ids of rows that are compared"
        )
    return np.unique(places)


def _ids(given: Any) -> tuple[str, Iterable[pa.Array]]:
    """Return what the ids are called, and the ids as text."""
    if isinstance(given, str | os.PathLike):
        path = pathlib.Path(given)
        is_table = any(suffix.lower() in formats.FORMATS for suffix in path.suffixes[-2:])
        if not is_table:
            return str(path), [_lines(path)]
    elif isinstance(given, Sequence | np.ndarray | set | frozenset):
        name, values = "must_pass", [str(each) for each in given]
        return name, [pa.array(values, pa.large_string())]
    name = str(given) if isinstance(given, str | os.PathLike) else "must_pass"
    source = formats.open_source(given, name)
    if isinstance(given, packed.File) and given.path.suffix == ".csv" and not {*IDS} & {*source.columns}:
        return name, [_lines(given.path)]  # standard input, whose name does not tell a list from a table
    id_ = columns.one_of(source, IDS)
    return source.name, (columns.texts(batch[id_], id_, source.name) for batch in source.batches([id_]))


def _lines(path: pathlib.Path) -> pa.Array:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected one id per line, or a table with a column 'id'")
    try:
        lines = regular_file.read_text(path, "utf-8-sig", 2**32).splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8; expected one id per line") from error
    return pa.array([line for line in lines if line.strip()], pa.large_string())


def _aligned(source: Source, first: Rows, extra: Sequence[str], weight: str | None) -> tuple[Rows, np.ndarray]:
    """Read metadata and return them in the order of the rows, and which rows they lack.

    Raises:
      InputError: an id that occurs twice, no common id, or ids that are only written otherwise.
    """
    id_ = columns.one_of(source, IDS, ", or --columns id=NAME")
    # Other columns may hold anything, also one that is called label.
    chosen = tuple(dict.fromkeys([id_, *(column for column in source.columns if column in {*extra, weight})]))
    read = rows.read(
        replace(source, columns=chosen),
        None,
        None,
        needs_label=False,
        needs_prediction=False,
        extra=extra,
        weight=weight,
    )
    if read.problems:
        raise InputError("; ".join(read.problems))
    if (found := align.repeated(read.keys)).size:
        raise InputError(f"{rows.named(read, found, 'an id that occurs again')}; expected each id once")
    places = align.places(first.keys, read.keys)
    if not np.any(places >= 0):
        example, other = rows.ids_of(first.source, np.array([0])), rows.ids_of(source, np.array([0]))
        raise InputError(
            f"no id of {first.source.name}, such as {example[0]!r}, is in {source.name}, which has ids such as "
            f"{other[0]!r}; expected the same ids"
        )
    unused = np.ones(len(read.keys[0]), bool)
    unused[places[places >= 0]] = False
    lacking = places < 0
    if lacking.any() and unused.any():  # ids are texts only if the files are read again
        texts = [
            rows.ids_of(of, np.flatnonzero(found)[: align.MOST_IDS])
            for of, found in ((first.source, lacking), (source, unused))
        ]
        if how := align.written_otherwise(*texts):
            raise InputError(f"{source.name} lacks {counted_rows(int(lacking.sum()))} of {first.source.name}; {how}")
    return rows.reordered(read, places, first.source), lacking


def _too_fine(column: str, factor: Factor) -> list[str]:
    """Describe a column in which most rows have a value of their own, such as a time, which divides nothing."""
    values, count = len(factor.names), len(factor.codes)
    if count < _FEW_ROWS or 2 * values <= count:
        return []
    return [
        f"slice {column!r} has {values:,} values in {count:,} rows; expected a column of groups: divide numbers and "
        "times into a few parts"
    ]


def _weights(parts: Sequence[Rows], column: str, first: Rows) -> tuple[np.ndarray | None, list[str]]:
    """Return weights divided by the largest, so that no sum overflows, and describe the unusable ones."""
    weights, problems = np.full(len(first.labels), np.nan), []
    differ = np.zeros(len(weights), bool)
    for part in parts:
        own = part.weights if part.weights is not None else weights
        differ |= (weights != own) & ~np.isnan(weights) & ~np.isnan(own)
        weights = np.where(np.isnan(weights), own, weights)
    if differ.any():
        where = " and ".join(part.source.name for part in parts)
        problems.append(f"weights {column!r} differ between {where}: {_named(first, np.flatnonzero(differ))}")
    for what, mask in (
        ("no weight", np.isnan(weights)),
        ("a weight below 0 or infinite", (weights < 0) | np.isinf(weights)),
    ):
        if mask.any():
            found = rows.named(first, np.flatnonzero(mask), what)
            problems.append(f"{found}; expected a number of 0 or more in column {column!r}")
    if problems:
        return None, problems
    if not weights.any():
        return None, [f"the weights in column {column!r} are all 0; expected some above"]
    return weights / weights.max(), []


def _named(first: Rows, differ: np.ndarray) -> str:
    ids = list(map(repr, rows.ids_of(first.order, differ[:NAMED])))
    return f"{counted_rows(differ.size)}, such as {listed(ids, differ.size)}"
