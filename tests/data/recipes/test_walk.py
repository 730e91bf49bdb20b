import os
from pathlib import Path

import pytest

from moe_study.data.recipes.walk import HIDDEN, IRREGULAR, LOOP, Pattern, find_files
from moe_study.data.tally import Tally
from moe_study.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def found(root: Path, pattern: str = "**/*", tally: Tally | None = None) -> list[str]:
    return [p.relative_to(root).as_posix() for p in find_files(root, Pattern(pattern), tally or Tally())]


NAMES = ["a.txt", "b.txt", "de/a.txt", "de/law/c.txt", "en/law/c.jsonl", "en/law/deep/er/d.txt", "[x].txt", "**.txt"]


@pytest.mark.parametrize(
    "pattern",
    ["*", "**/*", "**/*.txt", "*.txt", "de/*", "de/**/*", "**/law/*", "**/law/**/*", "*/law/*", "?.txt", "[ab].txt",
     "**/**/c.*", "e*/**/d.txt", "nothing/*", "[[]x].txt", "de", "de/a.txt", "[!a].txt"],
)  # fmt: skip
def test_patterns_mean_what_pathlib_means_by_them(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path, *NAMES)
    expected = sorted(p for p in set(tmp_path.glob(pattern)) if p.is_file())
    assert found(tmp_path, pattern) == [p.relative_to(tmp_path).as_posix() for p in expected]


@pytest.mark.parametrize(("pattern", "expected"), [("**", 8), ("de/**", 2), ("[", 0), ("[z-a].txt", 0), ("*" * 500, 4)])
def test_odd_patterns_are_patterns_like_others(tmp_path: Path, pattern: str, expected: int) -> None:
    touch(tmp_path, *NAMES)
    assert len(found(tmp_path, pattern)) == expected


def test_a_pattern_of_many_stars_takes_no_time(tmp_path: Path) -> None:
    touch(tmp_path, "/".join("a" * 60) + "/b.txt")
    assert found(tmp_path, "**/a/" * 30 + "c.txt") == []


def test_folders_and_files_behind_links_are_read_beside_real_ones(tmp_path: Path) -> None:
    touch(tmp_path, "outside/fr/a.txt", "outside/b.txt", "root/de/a.txt")
    root = tmp_path / "root"
    (root / "fr").symlink_to(tmp_path / "outside" / "fr")
    (root / "linked.txt").symlink_to(tmp_path / "outside" / "b.txt")
    (root / "again").symlink_to("de")
    assert found(root) == ["again/a.txt", "de/a.txt", "fr/a.txt", "linked.txt"]


def test_a_link_to_a_folder_that_holds_it_is_not_entered(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.txt", "b/y.txt")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "a" / "other").symlink_to("../b")
    (tmp_path / "b" / "other").symlink_to("../a")
    tally = Tally()
    assert found(tmp_path, tally=tally) == ["a/other/y.txt", "a/x.txt", "b/other/x.txt", "b/y.txt"]
    assert tally.left_out[LOOP].count == 6  # four from each of a and b's view of a, less those behind a cut


def test_hidden_files_and_folders_are_not_read_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, ".git/a.txt", "b/._c.txt", "b/c.txt", ".d.txt")
    tally = Tally()
    assert found(tmp_path, tally=tally) == ["b/c.txt"]
    assert tally.left_out[HIDDEN].count == 3
    assert found(tmp_path / ".git") == ["a.txt"], "a hidden folder that was asked for by name is read"


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    tally = Tally()
    assert found(tmp_path, tally=tally) == []
    assert tally.left_out[IRREGULAR].examples == ["a.txt"]


@pytest.mark.parametrize("target", ["nowhere", "a.txt"])
def test_a_link_that_leads_nowhere_is_named_where_it_is_asked_for(tmp_path: Path, target: str) -> None:
    (tmp_path / "a.txt").symlink_to(target)
    touch(tmp_path, "b.jsonl")
    assert found(tmp_path, "*.jsonl") == ["b.jsonl"]
    with pytest.raises(DataError, match=r"a\.txt is a link that leads nowhere \(.*\); repair or remove it"):
        found(tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/b.txt")
    whole = os.listdir

    def listdir(folder: Path) -> list[str]:
        if folder.name == "a":
            raise PermissionError(13, "Permission denied")
        return whole(folder)

    monkeypatch.setattr("moe_study.data.recipes.walk.os.listdir", listdir)
    with pytest.raises(DataError, match=r"/a cannot be listed \(Permission denied\)"):
        found(tmp_path)


def test_folders_nest_deeper_than_python_does(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(400):  # the system's limit on a path's length comes first
        folder = folder / "a"
    folder.mkdir(parents=True)
    (folder / "b.txt").write_text("deep")
    assert len(found(tmp_path)) == 1
