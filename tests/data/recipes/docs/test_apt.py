import shutil
from pathlib import Path

import pytest

from moe_study.data.download import fetch_all, sha256_of
from moe_study.data.recipes.docs.apt import AptRoot, with_component
from moe_study.errors import DataError
from tests.data.recipes.docs.planted import archive

needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get is only on Debian and its relatives")
PACKAGES = {
    name: {f"usr/share/doc/{name}/a.html": name.encode()} for name in ("doc-6.1", "doc-6.12", "doc-6.9", "other")
}
GERMAN = f"Package: other\nDescription-md5: {'0' * 32}\nDescription-de: Anderes\n Text.\n"


@pytest.fixture
def root(tmp_path: Path) -> AptRoot:
    return AptRoot(tmp_path / "root", ["en", "de"], archive(tmp_path / "archive", PACKAGES, {"de": GERMAN}))


@needs_apt
def test_packages_are_found_fetched_and_checked_without_touching_this_machines_apt(
    root: AptRoot, tmp_path: Path
) -> None:
    lists = Path("/var/lib/apt/lists")
    before = sorted(path.name for path in lists.glob("*"))
    root.update()
    found = root.packages([r"doc-\d+\.\d+", "other", "missing"])
    assert {pattern: package.requirement for pattern, package in found.items()} == {
        r"doc-\d+\.\d+": "doc-6.12=1:1.0", "other": "other=1:1.0",
    }  # fmt: skip
    assert found["other"].filename == "other_1%3a1.0_all.deb"
    fetch_all(list(found.values()), tmp_path / "packages", progress=False)
    fetched = tmp_path / "packages" / "other_1%3a1.0_all.deb"
    assert fetched.read_bytes() == (tmp_path / "archive" / "pool" / "other_1.0_all.deb").read_bytes()
    assert root.sources()["doc-6.1"] == "doc"
    assert [path.read_text(encoding="utf-8") for path in root.descriptions("de")] == [GERMAN]
    assert before == sorted(path.name for path in lists.glob("*"))


@needs_apt
def test_lists_stay_until_they_are_deleted_or_damaged(root: AptRoot, tmp_path: Path) -> None:
    root.update()
    first = root.fingerprint()
    archive(tmp_path / "archive", {**PACKAGES, "newer": {}}, {"de": GERMAN})
    root.update()  # a preparation that goes on
    assert root.fingerprint() == first and not root.packages(["newer"])
    damaged = root.descriptions("de")[0]
    damaged.write_text("x")
    root.update()
    assert damaged.read_text(encoding="utf-8") == GERMAN
    assert root.fingerprint() != first and root.packages(["newer"])


@needs_apt
def test_a_package_that_the_archive_no_longer_has_or_that_changed_is_one_sentence(
    root: AptRoot, tmp_path: Path
) -> None:
    root.update()
    package = root.packages(["other"])["other"]
    kept = tmp_path / "archive" / "pool" / "other_1.0_all.deb"
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    for _ in range(2):
        with pytest.raises(DataError, match=r"could not download other=1:1\.0 with apt-get.*newer version") as caught:
            fetch_all([package], tmp_path / "packages", progress=False)
        assert "\n" not in str(caught.value)
        assert not list((tmp_path / "packages").glob("*.deb"))
        kept.unlink(missing_ok=True)


@needs_apt
def test_what_was_fetched_is_kept_when_another_package_fails(root: AptRoot, tmp_path: Path) -> None:
    root.update()
    found = root.packages(["other", "doc-6.9"])
    (tmp_path / "archive" / "pool" / "other_1.0_all.deb").unlink()
    with pytest.raises(DataError):
        fetch_all([found["doc-6.9"], found["other"]], tmp_path / "packages", progress=False)
    kept = tmp_path / "packages" / found["doc-6.9"].filename
    assert sha256_of(kept) == found["doc-6.9"].sha256


def test_a_machine_without_apt_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"apt-get is not installed.* on Debian"):
        AptRoot(tmp_path / "root", ["en"]).update()


@needs_apt
def test_archives_that_do_not_answer_are_one_sentence(tmp_path: Path) -> None:
    configured = tmp_path / "apt"
    (configured / "sources.list.d").mkdir(parents=True)
    (configured / "sources.list").write_text(f"deb [trusted=yes] file:{tmp_path}/nothing stable main\n")
    with pytest.raises(DataError, match=r"failed .*prepare again") as caught:
        AptRoot(tmp_path / "root", ["en"], configured).update()
    assert "\n" not in str(caught.value)


def test_the_component_of_documentation_that_is_not_free_is_asked_for_too() -> None:
    assert with_component("deb http://x stable main contrib # why\ndeb-src http://x stable main\n", False) == (
        "deb http://x stable main contrib non-free\ndeb-src http://x stable main\n"
    )
    stanza = "Types: deb\nComponents: main\nSuites: a\n"
    assert with_component(stanza, True) == "Types: deb\nComponents: main non-free\nSuites: a\n"
    assert with_component("deb http://x stable non-free main\n# deb y main\n", False) == (
        "deb http://x stable non-free main\n# deb y main\n"
    )
