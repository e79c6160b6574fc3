"""What may be in the place of a file: other kinds, links, sparse files, and texts that are no JSON."""

import contextlib
import os
import pathlib
import shutil
import socket

VICTIM = b"not ours"
TEXTS = {"not UTF-8": b"\xff\xfe{", "nested": b"[" * 200_000, "null": b"null", "empty": b"", "NUL": b"\0" * 99}
KINDS = ("pipe", "socket", "device", "folder", "sparse", "link", "dangling", "missing", *TEXTS)


def put(path, kind, outside=None):
    """Put something into the place of a file; return the file in the folder `outside` that a link points to, if any."""
    path = pathlib.Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:  # the path may have 107 characters
            made.bind(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(20 << 30)
    elif kind == "dangling":
        path.symlink_to(path.parent / "nowhere")
    elif kind == "link":
        victim = pathlib.Path(outside or path.parent) / "victim"
        victim.write_bytes(VICTIM)
        path.symlink_to(victim)
        return victim
    elif kind in TEXTS:
        path.write_bytes(TEXTS[kind])
    return None
