import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from moe_study.data.recipes.docs.archives import NO_FILE, ODD_NAME, Limits, members, unpack_gzip
from moe_study.data.tally import Tally
from moe_study.errors import DataError
from tests.data.recipes.docs.planted import PACKERS, deb, tar, tarball, wheel

FILES = {"usr/share/doc/a.html": b"<p>One</p>", "usr/share/doc/b.html": b"<p>Two</p>", "usr/lib/c.so": b"\x7fELF"}
MAKERS: dict[str, Callable[[Path], Path]] = {
    "whl": lambda folder: wheel(folder / "x-1.whl", FILES),
    "tgz": lambda folder: tarball(folder / "x-1.tgz", FILES),
    **{f"deb{kind}": lambda folder, kind=kind: deb(folder / "x_1_all.deb", FILES, packed=kind) for kind in PACKERS},
}  # fmt: skip


def pages(name: str) -> bool:
    return name.endswith(".html")


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_of_archive_gives_its_wanted_files(kind: str, tmp_path: Path) -> None:
    found = dict(members(MAKERS[kind](tmp_path), pages))
    assert found == {name: content for name, content in FILES.items() if pages(name)}
    assert [path.name for path in tmp_path.iterdir()] == [MAKERS[kind](tmp_path).name]  # nothing was unpacked


@pytest.mark.parametrize("kind", MAKERS)
def test_a_download_that_was_cut_short_is_one_sentence(kind: str, tmp_path: Path) -> None:
    path = MAKERS[kind](tmp_path)
    whole = path.read_bytes()
    for length in (0, 5, len(whole) // 3, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"damaged or cut short|not a Debian package") as caught:
            list(members(path, pages))
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_byte_that_changed_never_gets_out_as_another_error(kind: str, tmp_path: Path) -> None:
    path = MAKERS[kind](tmp_path)
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            list(members(path, pages))
        except DataError as error:
            assert "x" in str(error)


HOSTILE = ["../../etc/a.html", "/etc/a.html", "a/../../b.html", "C:\\a.html"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_out_are_left_out(name: str, tmp_path: Path) -> None:
    for make in (
        lambda files: wheel(tmp_path / "x.whl", files),
        lambda files: tarball(tmp_path / "x.tgz", files),
    ):
        tally = Tally()
        found = list(members(make({name: b"bad", "good.html": b"good"}), pages, tally=tally))
        assert [member.content for member in found] == [b"good"]
        assert tally.left_out[ODD_NAME].count == 1


def test_links_and_devices_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.html").write_text("secret")
    tally = Tally()
    links = {"usr/a.html": str(tmp_path / "secret.html"), "usr/b.html": "../../../../etc/passwd"}
    path = deb(tmp_path / "x_1_all.deb", {"usr/c.html": b"good"}, links)
    assert [member.name for member in members(path, pages, tally=tally)] == ["usr/c.html"]
    assert tally.left_out[NO_FILE].count == 2
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        info = zipfile.ZipInfo("a.html")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, str(tmp_path / "secret.html"))
    assert list(members(tmp_path / "x.whl", pages, tally=tally)) == []
    hard = io.BytesIO()
    with tarfile.open(fileobj=hard, mode="w:gz") as archive:
        link = tarfile.TarInfo("a.html")
        link.type, link.linkname = tarfile.LNKTYPE, "/etc/passwd"
        archive.addfile(link)
    (tmp_path / "y.tgz").write_bytes(hard.getvalue())
    assert list(members(tmp_path / "y.tgz", pages, tally=tally)) == []


SMALL = Limits(member=100_000, total=1_000_000, ratio=50, members=50)
BOMBS: dict[str, Callable[[Path], Path]] = {
    "a member": lambda f: wheel(f / "x.whl", {"a.html": bytes(200_000)}),
    "a member of a tarball": lambda f: tarball(f / "x.tgz", {"a.html": bytes(200_000)}),
    "many members": lambda f: tarball(f / "x.tgz", {f"{n}.txt": b"" for n in range(60)}),
    "all together": lambda f: deb(f / "x.deb", {f"{n}.html": bytes(90_000) for n in range(40)}),
    "what nobody asked for": lambda f: deb(f / "x.deb", {"a.bin": bytes(5_000_000), "b.html": b"x"}),
    "many times": lambda f: wheel(f / "x.whl", {f"{n}.html": bytes(90_000) for n in range(20)}),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_before_they_unpack(bomb: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not what it should be"):
        for member in members(BOMBS[bomb](tmp_path), pages, SMALL):
            assert len(member.content) <= SMALL.member


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path / "x.whl", {"a.html": bytes(200_000)})
    real = (200_000).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(real, (10).to_bytes(4, "little")))
    with pytest.raises(DataError):
        list(members(path, pages, SMALL))


def test_a_compressed_member_is_limited_too() -> None:
    assert unpack_gzip(gzip.compress(b"text")) == b"text"
    with pytest.raises(DataError, match="more than 100,000 bytes"):
        unpack_gzip(gzip.compress(bytes(200_000)), SMALL)
    for damaged in (b"", b"no gzip", gzip.compress(b"text" * 100)[:-5]):
        if damaged:
            with pytest.raises(DataError, match="damaged"):
                unpack_gzip(damaged)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.rar").write_bytes(tar(FILES))
    with pytest.raises(DataError, match=r"x\.rar is no archive that can be read; give \.whl"):
        list(members(tmp_path / "x.rar", pages))
