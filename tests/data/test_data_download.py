"""Downloading: mirrors, checksums, two processes at once, a disk that refuses."""

from __future__ import annotations

import contextlib
import errno
import gzip
import multiprocessing
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pooch
import pytest
import small_idx

from tombola.data import DataSettings, download, load, published
from tombola.errors import DataError

MNIST = DataSettings(source="mnist", validation=2)
FIRST = "train-images-idx3-ubyte.gz"


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def data_files(folder: Path) -> set[str]:
    """Everything in the folder apart from the lock, partial transfers included."""
    return {path.name for path in folder.iterdir() if path.name != download.LOCK} if folder.exists() else set()


def test_downloads_into_the_given_root(tmp_path, cache, mirror):
    dataset = load(MNIST, tmp_path / "root")
    for name, array in small_idx.arrays().items():
        part = "train" if name.startswith("train") else "test"
        if "images" in name:
            np.testing.assert_array_equal(getattr(dataset, f"{part}_inputs"), array[:, None])
        else:
            np.testing.assert_array_equal(getattr(dataset, f"{part}_targets"), array)
    folder = tmp_path / "root" / "MNIST" / "raw"
    assert data_files(folder) == set(mirror.content)
    assert not cache.exists()
    assert (folder / FIRST).stat().st_mode & 0o777 == folder.stat().st_mode & 0o666


def test_downloads_into_the_cache_without_a_root(cache, mirror):
    load(MNIST)
    assert data_files(cache / "MNIST" / "raw") == set(mirror.content)


def test_downloads_into_the_cache_where_the_root_refuses(tmp_path, cache, mirror):
    (tmp_path / "root").write_text("a file where a folder should be")
    load(MNIST, tmp_path / "root")
    assert data_files(cache / "MNIST" / "raw") == set(mirror.content)


def test_the_environment_names_the_root(tmp_path, mirror, monkeypatch):
    monkeypatch.setenv("TOMBOLA_DATA", str(tmp_path / "env"))
    load(MNIST)
    assert (tmp_path / "env" / "MNIST" / "raw" / FIRST).is_file()


def test_what_is_there_is_not_downloaded_again(tmp_path, mirror):
    folder = small_idx.write(tmp_path)
    (folder / FIRST).unlink()
    load(MNIST, tmp_path)
    assert mirror.requests == {FIRST: 1}


def test_the_second_mirror_helps_where_the_first_is_down(tmp_path, mirror, monkeypatch):
    mirrors = (closed_port(), mirror.address)
    monkeypatch.setitem(published.PUBLISHED, "mnist", small_idx.published(mirrors))
    assert len(load(MNIST, tmp_path).train_inputs) == 12


def test_the_second_mirror_helps_where_the_first_serves_something_else(tmp_path, mirror, monkeypatch):
    with small_idx.serve() as other:
        other.content = dict.fromkeys(other.content, b"<html>please log in</html>")
        mirrors = (other.address, mirror.address)
        monkeypatch.setitem(published.PUBLISHED, "mnist", small_idx.published(mirrors))
        assert len(load(MNIST, tmp_path).train_inputs) == 12
    assert data_files(tmp_path / "MNIST" / "raw") == set(mirror.content)


def test_a_mirror_is_tried_again(tmp_path, mirror, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 1)
    monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)
    mirror.status = {FIRST: [503]}
    load(MNIST, tmp_path)
    assert mirror.requests[FIRST] == 2


def test_corrupted_content_leaves_nothing_behind(tmp_path, mirror):
    body = bytearray(mirror.content[FIRST])
    body[len(body) // 2] ^= 1
    mirror.content[FIRST] = bytes(body)
    with pytest.raises(DataError, match="its checksum differs") as caught:
        load(MNIST, tmp_path)
    assert mirror.address + FIRST in str(caught.value)
    assert data_files(tmp_path / "MNIST" / "raw") == set()


def test_a_truncated_transfer_leaves_nothing_behind(tmp_path, mirror):
    mirror.cut = {FIRST}
    with pytest.raises(DataError, match=FIRST):
        load(MNIST, tmp_path)
    assert data_files(tmp_path / "MNIST" / "raw") == set()


def test_after_a_failure_a_second_try_works(tmp_path, mirror):
    mirror.status = {"t10k-labels-idx1-ubyte.gz": [500]}
    with pytest.raises(DataError, match="500"):
        load(MNIST, tmp_path)
    assert len(load(MNIST, tmp_path).test_targets) == 6
    assert mirror.requests[FIRST] == 1


def test_without_a_network_every_mirror_and_the_way_by_hand_are_named(tmp_path, monkeypatch):
    mirrors = (closed_port(), closed_port())
    monkeypatch.setitem(published.PUBLISHED, "mnist", small_idx.published(mirrors))
    with pytest.raises(DataError) as caught:
        load(MNIST, tmp_path)
    message = str(caught.value)
    assert all(f"{mirror}{FIRST}: Connection refused" in message for mirror in mirrors)
    assert str(tmp_path / "MNIST" / "raw") in message
    assert all(name in message for name in small_idx.files())


def test_an_unknown_host_is_said_in_few_words(tmp_path, monkeypatch):
    monkeypatch.setitem(published.PUBLISHED, "mnist", small_idx.published(("http://nowhere.invalid/",)))
    monkeypatch.setattr(socket, "getaddrinfo", _no_names)
    with pytest.raises(DataError, match=r"nowhere\.invalid/train-images-idx3-ubyte\.gz: Name or service not known"):
        load(MNIST, tmp_path)


def _no_names(*args: object, **kwargs: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_a_server_that_never_answers(tmp_path, mirror, monkeypatch):
    mirror.delay = 1.0
    monkeypatch.setattr(download, "TIMEOUTS", (1.0, 0.1))
    with pytest.raises(DataError, match="no answer within"):
        load(MNIST, tmp_path)


def test_a_mirror_that_is_no_address(tmp_path, monkeypatch):
    monkeypatch.setitem(published.PUBLISHED, "mnist", small_idx.published(("http:///",)))
    with pytest.raises(DataError, match=FIRST):
        load(MNIST, tmp_path)


def test_a_full_disk(tmp_path, mirror, monkeypatch):
    def full(self, answer, file):
        file.write(b"part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download._Transfer, "_copy", full)
    with pytest.raises(DataError, match="No space left on device"):
        load(MNIST, tmp_path)
    assert data_files(tmp_path / "MNIST" / "raw") == set()


def test_a_server_that_sends_for_ever(tmp_path, mirror, monkeypatch):
    """The published files have at most 170 million bytes."""
    monkeypatch.setattr(download, "MAX_BYTES", 40_000)
    mirror.content[FIRST] = bytes(10_000_000)
    with pytest.raises(DataError, match=r"it sent more than 40,000 bytes, which no published file has"):
        load(MNIST, tmp_path)
    assert data_files(tmp_path / "MNIST" / "raw") == set()


@pytest.mark.parametrize("headers", [True, False])
def test_a_server_that_trickles(tmp_path, monkeypatch, headers):
    """Each byte comes before the timeout of a read has passed; so would the whole file, after days."""
    monkeypatch.setattr(download, "GRACE", 0.3)
    monkeypatch.setattr(download, "CHECK_EVERY", 0.05)
    monkeypatch.setattr(download, "RETRIES", 0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_trickle, args=(server, headers), daemon=True).start()
        mirrors = (f"http://127.0.0.1:{server.getsockname()[1]}/",)
        monkeypatch.setitem(published.PUBLISHED, "mnist", small_idx.published(mirrors))
        began = time.monotonic()
        with pytest.raises(DataError, match=r"it sent [\d,]+ bytes in \d+ s; that is too slow"):
            load(MNIST, tmp_path)
    assert time.monotonic() - began < 20
    assert data_files(tmp_path / "MNIST" / "raw") == set()


def _trickle(server: socket.socket, headers: bool) -> None:
    connection, _ = server.accept()
    with connection, contextlib.suppress(OSError):
        connection.recv(10_000)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 1000000\r\n\r\n" if headers else b"X: "))
        for _ in range(60):
            connection.sendall(b"x")
            time.sleep(0.02)


def test_nowhere_to_write(tmp_path, cache, mirror):
    (tmp_path / "root").write_text("")
    cache.write_text("")
    with pytest.raises(DataError, match="no folder to download to"):
        load(MNIST, tmp_path / "root")


def test_another_process_that_never_ends(tmp_path, mirror, monkeypatch):
    monkeypatch.setattr(download, "LOCK_TIMEOUT", 0.1)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    with download.filelock.FileLock(folder / download.LOCK), pytest.raises(DataError, match="another process"):
        load(MNIST, tmp_path)
    assert mirror.requests == {}


def test_not_downloaded_where_that_is_forbidden(tmp_path, mirror):
    with pytest.raises(DataError, match="downloading is switched off") as caught:
        load(MNIST, tmp_path, download=False)
    assert mirror.requests == {}
    assert str(tmp_path / "MNIST" / "raw") in str(caught.value)
    assert not (tmp_path / "MNIST").exists()


def test_a_failure_is_not_remembered(tmp_path, mirror):
    with pytest.raises(DataError):
        load(MNIST, tmp_path, download=False)
    assert load(MNIST, tmp_path, download=True) is load(MNIST, tmp_path, download=False)


def test_standard_error_stays_silent(tmp_path, mirror, capfd):
    load(MNIST, tmp_path)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def _child(address: str, root: Path, start: object, result: object) -> None:
    published.PUBLISHED["mnist"] = small_idx.published((address,))
    start.wait(30)
    result.put(int(load(MNIST, root).train_inputs.sum()))


@pytest.mark.slow
def test_two_processes_at_once(tmp_path, mirror):
    mirror.delay = 0.1  # long enough for both to find the files missing
    context = multiprocessing.get_context("spawn")
    start, result = context.Barrier(2), context.Queue()
    children = [context.Process(target=_child, args=(mirror.address, tmp_path, start, result)) for _ in range(2)]
    for child in children:
        child.start()
    sums = [result.get(timeout=60) for _ in children]
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0]
    assert sums == [int(small_idx.arrays()["train-images-idx3-ubyte"].sum())] * 2
    assert set(mirror.requests.values()) == {1}
    folder = tmp_path / "MNIST" / "raw"
    assert data_files(folder) == set(mirror.content)
    assert all(gzip.decompress((folder / name).read_bytes()) for name in mirror.content)
