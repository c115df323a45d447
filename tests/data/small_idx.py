"""A made data set of four small IDX files, and a server to get them from."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from tombola.data import Description
from tombola.data.published import Published

SHAPES = {
    "train-images-idx3-ubyte": (12, 4, 5),
    "train-labels-idx1-ubyte": (12,),
    "t10k-images-idx3-ubyte": (6, 4, 5),
    "t10k-labels-idx1-ubyte": (6,),
}
CLASSES = 3


def encode(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        stem: generator.integers(0, 256 if len(shape) == 3 else CLASSES, shape, dtype=np.uint8)
        for stem, shape in SHAPES.items()
    }


def files() -> dict[str, bytes]:
    """Return the published, that is compressed, files by their names."""
    return {stem + ".gz": gzip.compress(encode(array), mtime=0) for stem, array in arrays().items()}


def published(mirrors: tuple[str, ...] = (), content: dict[str, bytes] | None = None) -> Published:
    content = content or files()
    return Published(
        folder="MNIST",
        description=Description(input_shape=(1, 4, 5), classes=CLASSES, train=12, test=6),
        mirrors=mirrors,
        compressed={name.removesuffix(".gz"): hashlib.sha256(body).hexdigest() for name, body in content.items()},
        plain={
            name.removesuffix(".gz"): hashlib.sha256(gzip.decompress(body)).hexdigest()
            for name, body in content.items()
        },
    )


def write(root: Path, compressed: bool = True) -> Path:
    """Write the four files in torchvision's layout; return the folder that they are in."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, body in files().items():
        if compressed:
            (folder / name).write_bytes(body)
        else:
            (folder / name.removesuffix(".gz")).write_bytes(gzip.decompress(body))
    return folder


class Mirror:
    """A local server; a test changes what it serves."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.content = files()
        self.status: dict[str, list[int]] = {}  # answers to give first, by file
        self.cut: set[str] = set()  # files whose transfer breaks off half-way
        self.delay = 0.0
        self.requests: Counter[str] = Counter()


@contextmanager
def serve() -> Iterator[Mirror]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            mirror.requests[name] += 1
            threading.Event().wait(mirror.delay)
            pending = mirror.status.get(name)
            status = pending.pop(0) if pending else 200 if name in mirror.content else 404
            body = mirror.content.get(name, b"") if status == 200 else b"<html>no</html>"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if name in mirror.cut else body)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Stay silent: clients that break off are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    mirror = Mirror(f"http://127.0.0.1:{server.server_address[1]}/data/")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
