"""A released model's answers as a file: `python -m mpt_jax.predict RELEASE SOURCE --output FILE`."""

import argparse
import logging
import pathlib
import sys
from collections.abc import Iterator, Sequence

from mpt_jax.cli import command
from mpt_jax.errors import InputError

POLICIES = ("error", "skip")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, 3 disk full, 130 SIGINT, 143 SIGTERM."""
    return command.ended(
        lambda: run(parse(sys.argv[1:] if argv is None else argv)), goodbye="stopped; nothing was written"
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace."""
    parser = command.Parser(
        prog="python -m mpt_jax.predict",
        description="Answer every image of a source with a released model; python -m mpt_jax.compare reads the file.",
        epilog="SOURCE: a folder of images, with a folder per class or without; a .csv or .parquet file with a column "
        "path and, if you like, label and id; an .npz file with images or features and, if you like, labels and ids; "
        "or the name of a TFDS data set.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("release", metavar="RELEASE", help="a folder in WORKDIR/releases")
    option("source", metavar="SOURCE", help="what to answer")
    option("--output", required=True, metavar="FILE", help="ends in .csv, .parquet or .npz; replaced where it exists")
    option("--split", default="test", help="of a TFDS data set, or test_ before the keys of an .npz (default: test)")
    option("--data-dir", default="", metavar="DIR", help="TFDS data folder (default: TFDS's own)")
    option("--scores", default="logits", choices=("logits", "probabilities", "none"), help="(default: logits)")
    option("--batch", type=command.natural, default=256, metavar="N", help="examples at once (default: 256)")
    option("--on-bad-image", default="error", choices=POLICIES, help="stop, or skip and count (default: error)")
    option("--no-compilation-cache", action="store_true", help="neither read nor keep compiled programs")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> None:
    """Read the model, answer batch by batch, write; what goes on meanwhile is said on stderr."""
    from rich.console import Console

    from mpt_jax.cli import compilation_cache
    from mpt_jax.cli.progress import progress
    from mpt_jax.data import reading
    from mpt_jax.files import checkpoint, predictions, storage
    from mpt_jax.training import inference, sharding

    logging.getLogger("absl").setLevel(logging.ERROR)  # what orbax says of files that we report ourselves
    output = command.output_file("--output", pathlib.Path(arguments.output))
    if output.suffix.lower() not in predictions.FORMATS:
        raise InputError(f"--output {output}; expected a name that ends in {', '.join(predictions.FORMATS)}")
    if output.resolve() == pathlib.Path(arguments.source).resolve():
        raise InputError(f"--output {output} would replace what is to be read; expected another file")
    classifier, card = checkpoint.read_release(storage.path(arguments.release))
    source = reading.open_stream(
        *(arguments.source, card["image_shape"], card["classes"]), split=arguments.split, data_dir=arguments.data_dir
    )
    if not arguments.no_compilation_cache:
        compilation_cache.enable()
    size, unread = min(arguments.batch, source.count), []

    with progress(Console(stderr=True)) as shown:
        if source.note:
            shown.say(source.note)

        def readable() -> Iterator:
            for batch in source.batches(size):
                if batch.unread and arguments.on_bad_image == "error":
                    raise InputError(
                        f"{source.name} has examples that cannot be read: {_listed(batch.unread)}; mend them, or leave "
                        "them out with --on-bad-image=skip"
                    )
                unread.extend(batch.unread)
                if batch.ids:
                    yield batch, batch.images

        done, title = 0, f"{card['name']} on {source.name}"
        with predictions.writing(output, card["classes"], labelled=source.labelled, scores=arguments.scores) as write:
            shown.start(title, 0, source.count, "example")
            for batch, logits in inference.stream(classifier, readable(), batch_size=size, mesh=sharding.make_mesh()):
                write(batch.ids, batch.labels, logits)
                done += len(batch.ids)
                shown.advance(done + len(unread), {})
            if not done:
                raise InputError(f"nothing of {source.name} can be read: {_listed(unread)}")
        skipped = f", {len(unread)} left out: {_listed(unread)}" if unread else ""
        shown.finish(f"{title}: {done} answers in {output}{skipped}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


if __name__ == "__main__":
    sys.exit(main())
