"""Predictions or features of a released model: `python -m mpt_jax.predict RELEASE SOURCE --output FILE`."""

import argparse
import logging
import pathlib
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mpt_jax.cli import command
from mpt_jax.cli.arguments import new_parser, output_file, positive_int
from mpt_jax.compare import vocabulary
from mpt_jax.errors import InputError, listed

if TYPE_CHECKING:  # at run time it imports JAX, which --help does not need
    import numpy as np

    from mpt_jax.data import examples


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 2 bad input, 3 disk full, 130 SIGINT, 143 SIGTERM."""
    return command.run(
        lambda: run(parse(sys.argv[1:] if argv is None else argv)),
        when_interrupted="stopped; nothing was written",
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = new_parser(
        "mpt_jax.predict",
        "Run a released model on images and write its predictions, which python -m mpt_jax.compare reads.",
        shared=["release", "--data-dir", "--no-compilation-cache"],
        epilog="SOURCE is one of: a folder of images, with or without a folder per class; a .csv or .parquet file with "
        "a column path and, optionally, label and id; an .npz file with images or features and, optionally, labels and "
        "ids; the name of a TFDS data set.",
    )
    option = parser.add_argument
    option("source", metavar="SOURCE", help="images or features to run the model on")
    option("--output", required=True, metavar="FILE", help=".csv, .parquet or .npz file; overwritten if it exists")
    option("--split", default="test", help="split of a TFDS data set, or prefix of the .npz keys (default: test)")
    option("--batch", type=positive_int, default=256, metavar="N", help="examples per step (default: 256)")
    option(
        "--scores",
        default="logits",
        choices=("logits", "probabilities", "none"),
        help="scores of each class (default: logits)",
    )
    option(
        "--features",
        action="store_true",
        help="write the inputs of the network's last layer, and no predictions, to an .npz file that a run reads as a "
        "data set; --split names its arrays",
    )
    option(
        "--on-bad-image",
        default="error",
        choices=("error", "skip"),
        help="stop at an unreadable image, or skip and count it (default: error)",
    )
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> None:
    """Read the model, predict batch by batch and write the file; progress goes to stderr."""
    from rich.console import Console

    from mpt_jax import data, models
    from mpt_jax.cli import compilation_cache
    from mpt_jax.cli.progress import progress
    from mpt_jax.data import examples
    from mpt_jax.files import released_model, storage
    from mpt_jax.files.predictions import cells, feature_writer, writer
    from mpt_jax.models import own_network
    from mpt_jax.training import inference, sharding

    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax warns of damaged files, which we report ourselves
    output, as_features = output_file("--output", pathlib.Path(arguments.output)), arguments.features
    formats = [".npz"] if as_features else list(writer.FORMATS)
    if output.suffix.lower() not in formats:
        raise InputError(
            f"--output {output}{' with --features' * as_features}; expected a name that ends in {', '.join(formats)}"
        )
    if as_features and arguments.scores != "logits":
        raise InputError(f"--features writes no scores, but --scores={arguments.scores}; expected one of the two")
    if output.resolve() == pathlib.Path(arguments.source).resolve():
        raise InputError(f"--output {output} would overwrite the source; expected another file")
    classifier, card = released_model.read(storage.path(arguments.release))
    if as_features and classifier.ensemble:
        raise InputError(
            f"--features: {arguments.release} is an ensemble, whose networks have features of their own; expected the "
            "release of one network"
        )
    architecture, shape = card["architecture"]["name"], tuple(card["image_shape"])
    own = as_features and own_network.is_own(architecture)
    if own and (reason := own_network.without_head(classifier.module, shape)):
        raise InputError(
            f"--features: {architecture} has none, because {reason}; expected a network whose last layer is called head"
        )
    source = examples.open_examples(
        *(arguments.source, card["image_shape"], card["classes"]),
        split=arguments.split,
        data_dir=arguments.data_dir,
        any_class=as_features,
        resizing=data.Resizing(**card.get("resizing", {})),
    )
    batch_size = min(arguments.batch, source.count)
    unread: list[str] = []

    with progress(Console(stderr=True)) as shown:
        if not arguments.no_compilation_cache:
            compilation_cache.enable(shown.log)
        if source.note:
            shown.log(source.note)
        unknown: Counter[str] = Counter()
        done, title = 0, f"{card['name']} on {source.name}"
        classes, labelled = card["classes"], source.labelled
        is_csv, marked = output.suffix.lower() == ".csv", sum(map(cells.is_marked, card["classes"]))
        known = frozenset(classes)
        if as_features:
            opened = feature_writer.open_writer(output, classes, split=arguments.split, labelled=labelled)
        else:
            opened = writer.open_writer(output, classes, labelled=labelled, scores=arguments.scores)
        with opened as add_rows:
            shown.start(title, 0, source.count, "example")
            readable = _readable(source, batch_size, unread, skip=arguments.on_bad_image == "skip")
            outputs = inference.stream(
                *(classifier, readable, models.features if as_features else models.logits),
                batch_size=batch_size,
                mesh=sharding.make_mesh(),
            )
            for batch, rows in outputs:
                add_rows(batch.ids, batch.labels, rows)
                unknown.update(label for label in batch.labels if label and label not in known)
                marked += sum(map(cells.is_marked, batch.ids)) if is_csv else 0
                done += len(batch.ids)
                shown.advance(done + len(unread), {})
            if not done:
                raise InputError(f"{source.name} has no readable example: {listed(unread)}")
        if unknown:
            shown.log(_about(unknown, classes))
        if is_csv and marked:
            shown.log(
                f"names that begin with =, +, - or @, or have control characters: {marked:,}; {output} has ' before "
                "them, so that no spreadsheet computes them (compare removes it); .parquet has them as they are"
            )
        skipped = f", {len(unread)} skipped: {listed(unread)}" if unread else ""
        what = "rows of features" if as_features else "predictions"
        shown.finish(f"{title}: {done} {what} in {output}{skipped}")


def _about(unknown: Mapping[str, int], classes: Collection[str]) -> str:
    """Describe labels that are no classes of the model, the most frequent first.

    Examples:
      >>> _about({"fox": 1, "Cat": 2}, ["cat", "dog"])
      "labels that the model does not know: 'Cat' (2), 'fox' (1); 'Cat' looks like its class 'cat'"
    """
    names = sorted(unknown, key=lambda name: (-unknown[name], name))
    alike = [
        f"{name!r} looks like its class {known!r}" for name, known in vocabulary.other_spellings(names, classes).items()
    ]
    text = f"labels that the model does not know: {listed([f'{name!r} ({unknown[name]:,})' for name in names])}"
    return f"{text}; {listed(alike)}" if alike else text


def _readable(
    source: "examples.Examples", batch_size: int, unread: list[str], *, skip: bool
) -> "Iterator[tuple[examples.Batch, np.ndarray]]":
    """Yield each batch of a source with its images, and append the names of unreadable examples to `unread`.

    Raises:
      InputError: an example is unreadable and `skip` is False.
    """
    for batch in source.batches(batch_size):
        if batch.unread and not skip:
            raise InputError(
                f"{source.name} has unreadable examples: {listed(batch.unread)}; fix the files, or skip them with "
                "--on-bad-image=skip"
            )
        unread.extend(batch.unread)
        if batch.ids:
            yield batch, batch.images


if __name__ == "__main__":
    sys.exit(main())
