"""A store with the JSON API of Google Cloud Storage on the loopback, for one process of tests.

It imitates the differences between a store and a disk: an object appears completely or not at all. There are no
folders, no renames and no appending. A write may require that the object does not exist or has not changed
(`ifGenerationMatch`). Objects are kept in memory. Run as a program, it prints its address and serves.
"""

import base64
import contextlib
import email
import hashlib
import itertools
import json
import re
import struct
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUCKET = "bucket"


class Store(ThreadingHTTPServer):
    """`objects` by name: (bytes, generation). `fail` is called with every request and may return a status to send."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.lock = threading.Lock()
        self.generations = itertools.count(1)
        self.uploads: dict[str, bytes] = {}  # parts received of objects that are sent in pieces
        self.requests: list[str] = []
        self.fail = lambda method, path: None

    def handle_error(self, request, client_address) -> None:
        """Clients close the connection on responses that they no longer need."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make gcsfs and TensorStore use this store."""
        address = f"http://127.0.0.1:{self.server_port}"
        clients = {"STORAGE_EMULATOR_HOST": address, "TENSORSTORE_GCS_HTTP_URL": address}
        return {
            **clients,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            "FSSPEC_GCS_TOKEN": "anon",
            "FSSPEC_GS_TOKEN": "anon",
        }


@contextlib.contextmanager
def served() -> Iterator[Store]:
    """Serve a store until the end of the block."""
    with Store() as store:
        thread = threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield store
        store.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Store

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def log_message(self, *_) -> None:
        pass

    def _answer(self, method: str) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{method} {self.path}")
        if status := self.server.fail(method, self.path):
            return self._send(status, {"error": {"code": status, "message": "made to fail"}})
        found = re.fullmatch(r"(/upload|/download)?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?", url.path)
        if not found or found[2] != BUCKET:
            return self._send(404, {"error": {"code": 404, "message": "no such bucket"}})
        name = urllib.parse.unquote(found[3]) if found[3] else None
        with self.server.lock:
            if method == "POST":
                self._put(query, body)
            elif name is None:
                self._list(query) if url.path.endswith("/o") else self._send(200, {"name": BUCKET, "kind": "bucket"})
            elif name not in self.server.objects:
                self._send(404, {"error": {"code": 404, "message": "No such object"}})
            elif method == "DELETE":
                if self._unchanged(query, name):
                    del self.server.objects[name]
                    self._send(204, None)
            elif query.get("alt") == "media":
                self._get(query, name)
            else:
                self._send(200, self._facts(name))

    def _unchanged(self, query: dict[str, str], name: str) -> bool:
        required = query.get("ifGenerationMatch")
        if required is None or int(required) == self.server.objects.get(name, (b"", 0))[1]:
            return True
        self._send(412, {"error": {"code": 412, "message": "precondition failed"}})
        return False

    def _put(self, query: dict[str, str], body: bytes) -> None:
        if query.get("uploadType") == "multipart":
            kind = self.headers["Content-Type"].encode()
            separator = b"--" + re.search(rb'boundary="?([^";]+)', kind)[1]
            split = body.split(separator, 3) if body.count(separator) == 3 else _parts(body, separator)
            _, metadata, content, _ = split
            name = json.loads(email.message_from_bytes(metadata.lstrip(b"\n")).get_payload())["name"]
            content = content.lstrip(b"\n").partition(b"\n\n")[2].removesuffix(b"\n")
        elif query.get("uploadType") == "media":
            name, content = query["name"], body
        elif "upload_id" in query:
            name, content = query["name"], self.server.uploads[query["upload_id"]] + body
            self.server.uploads[query["upload_id"]] = content
            if self.headers["Content-Range"].rpartition("/")[2] != str(len(content)):
                return self._send(308, None, {"Range": f"bytes=0-{len(content) - 1}"})
        elif query.get("uploadType") == "resumable":
            number = str(next(self.server.generations))
            self.server.uploads[number] = b""
            address = f"http://127.0.0.1:{self.server.server_port}{self.path}&upload_id={number}"
            return self._send(200, None, {"Location": address})
        else:
            return self._send(400, {"error": {"code": 400, "message": f"not spoken here: {query}"}})
        if self._unchanged(query, name):
            self.server.objects[name] = (content, next(self.server.generations))
            self._send(200, self._facts(name))

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        start, end = query.get("startOffset", ""), query.get("endOffset")
        items, prefixes = [], set()
        for name in sorted(self.server.objects):
            if not name.startswith(prefix) or name < start or (end and name >= end):
                continue
            head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if found:
                prefixes.add(prefix + head + delimiter)
            else:
                items.append(self._facts(name))
        most = int(query.get("maxResults", len(items)) or 1000)
        self._send(200, {"kind": "storage#objects", "items": items[:most], "prefixes": sorted(prefixes)})

    def _get(self, query: dict[str, str], name: str) -> None:
        content, generation = self.server.objects[name]
        if query.get("ifGenerationNotMatch") == str(generation):
            return self._send(304, None)
        status, headers = 200, {"x-goog-generation": str(generation)}
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(found[1]), min(int(found[2] or len(content) - 1), len(content) - 1)
            if first > last:
                return self._send(416, {"error": {"code": 416, "message": "no such range"}})
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            status, content = 206, content[first : last + 1]
        self._send(status, content, headers)

    def _facts(self, name: str) -> dict[str, str]:
        content, generation = self.server.objects[name]
        return {
            **{"kind": "storage#object", "name": name, "bucket": BUCKET, "generation": str(generation)},
            **{"metageneration": "1", "size": str(len(content)), "storageClass": "STANDARD"},
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "crc32c": base64.b64encode(struct.pack(">I", 0)).decode(),
            **{"timeCreated": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z"},
        }

    def _send(self, status: int, answer: object, headers: dict[str, str] | None = None) -> None:
        content = answer if isinstance(answer, bytes) else b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(answer, bytes) else "application/json"
        for key, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)


def _parts(body: bytes, separator: bytes) -> list[bytes]:
    """Split at the first two separators and the last one, because the content may contain the separator."""
    _, metadata, rest = body.split(separator, 2)
    content, _, end = rest.rpartition(separator)
    return [b"", metadata, content, end]


if __name__ == "__main__":
    with served() as store:
        print(json.dumps(store.environment), flush=True)
        sys.stdin.read()
