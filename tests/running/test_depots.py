"""Parcels, and the depots in which they lie."""

from __future__ import annotations

import io
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tombola.errors import InputError, StoreError
from tombola.running.depots import AddressDepot, Depot, FolderDepot, checkpoint_name, counted, next_count
from tombola.running.files import Damaged
from tombola.running.parcels import pack, signature, unpack
from tombola.running.sites import site_for

DEPOTS: dict[str, Callable[[Path], Depot]] = {
    "folder": lambda folder: FolderDepot(folder / "depot"),
    "address": lambda folder: AddressDepot(f"memory://{uuid.uuid4().hex}/a"),
}


@pytest.fixture(params=list(DEPOTS))
def depot(request: pytest.FixtureRequest, tmp_path: Path) -> Depot:
    made = DEPOTS[request.param](tmp_path)
    if isinstance(made, AddressDepot):
        made._system.makedirs(made._root)
    return made


def test_a_depot_keeps_parcels(depot: Depot) -> None:
    assert depot.names("one") == []
    assert not depot.has("one/a.result")
    depot.put("one/a.result", b"first")
    depot.put("one/b.result", b"")
    depot.put("two/c.checkpoint", b"third")
    assert depot.get("one/a.result") == b"first"
    assert depot.get("one/b.result") == b""
    assert sorted(depot.names("one")) == ["a.result", "b.result"]
    assert sorted(depot.names("")) == ["one", "two"]
    depot.delete("one/a.result")
    assert depot.names("one") == ["b.result"]
    depot.delete("one")
    depot.delete("one")  # it may have been another's turn
    assert depot.names("") == ["two"]
    with pytest.raises(StoreError):
        depot.get("one/a.result")


def test_an_empty_folder_of_parcels_goes(tmp_path: Path) -> None:
    depot = FolderDepot(tmp_path / "depot")
    depot.put("one/a", b"1")
    depot.put("two/a", b"1")
    depot.delete("one/a")
    depot.close()
    assert [path.name for path in depot.root.iterdir()] == ["two"]
    depot.delete("two/a")
    depot.close()
    assert not depot.root.exists()


@pytest.mark.parametrize("name", ["../a", "a/../b", "/etc/passwd", "a/b/c", "a/.b", ".a", "a\\b", "a/"])
def test_no_name_leads_out_of_a_folder(tmp_path: Path, name: str) -> None:
    depot = FolderDepot(tmp_path / "depot")
    for act in (depot.get, depot.names, depot.has, depot.delete, lambda name: depot.put(name, b"")):
        with pytest.raises(StoreError, match="is not the name of a parcel"):
            act(name)


def test_the_latest_checkpoint_has_the_highest_count() -> None:
    names = [checkpoint_name(count, "ab") for count in (9, 123456789, 10)]
    others = ["x.result", "-1-ab.checkpoint", "x-ab.checkpoint", "٣-ab.checkpoint", f"{10**20}-ab.checkpoint"]
    assert counted([*names, *others]) == [names[1], names[2], names[0]]
    assert (next_count([]), next_count(names)) == (1, 123456790)


def test_a_parcel_is_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "state").write_bytes(bytes(range(256)))
    (folder / "empty").touch()
    for name in ("progress.json", "progress.tmp", ".state.0123456789ab.tmp"):
        (folder / name).touch()
    (folder / "link").symlink_to("/etc/passwd")
    before = signature(folder)
    unpack(pack(folder), tmp_path / "b")
    found = {path.relative_to(tmp_path / "b").as_posix() for path in (tmp_path / "b").rglob("*") if path.is_file()}
    assert found == {"checkpoints/state", "empty"}
    assert (tmp_path / "b" / "checkpoints" / "state").read_bytes() == bytes(range(256))
    (folder / "progress.json").write_text("{}")
    assert signature(folder) == before
    (folder / "empty").write_text("no longer")
    assert signature(folder) != before


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "a//b", "C:a", "a\\..\\b", ""])
def test_a_parcel_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as parcel:
        parcel.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(Damaged, match="is not what was sent"):
        unpack(content.getvalue(), tmp_path / "inner" / "folder")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_part_of_a_parcel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "state").write_bytes(bytes(1000))
    whole = pack(tmp_path / "a")
    for content in (b"", whole[:-1], whole[:500], whole.replace(bytes(900), bytes(450) + b"x" + bytes(449))):
        with pytest.raises(Damaged, match="is not what was sent"):
            unpack(content, tmp_path / "b")


@pytest.mark.parametrize(
    ("store", "on", "message"),
    [
        ("via-engine", "local", "--on local works in the results folder itself; leave --store out"),
        ("s3://a/b", "local", "--on local works in the results folder itself"),
        ("results", "dask", "give via-engine, or an address such as s3://bucket/prefix"),
        ("file:///results", "dask", "give via-engine, or an address such as s3://bucket/prefix"),
        ("nowhere://a/b", "dask", r"fsspec can't use this address \(Protocol not known: nowhere\)"),
        ("", "dask", "give via-engine, or an address"),
    ],
)
def test_a_store_of_no_use_is_refused(store: str, on: str, message: str) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match=message):
        site_for(on, None, store)
