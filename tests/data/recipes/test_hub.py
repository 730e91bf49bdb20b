import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from moe_study.data.recipes import Source, hub_parquet
from moe_study.design.data_options import HubParquetOptions, HubSource
from moe_study.errors import DataError
from tests.data.test_recipes import prepared, write_parquet


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub as its client needs to list a data set at a commit and fetch its files."""

    folder: Path
    commit = "c0ffee" + "0" * 34
    requests: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self.requests.append(self.path)
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        route = self.path.split("?")[0]
        if route.startswith("/api/datasets/owner/corpus"):
            files = sorted(p for p in self.folder.rglob("*") if p.is_file())
            siblings = [
                {"rfilename": p.relative_to(self.folder).as_posix(), "size": p.stat().st_size} for p in files
            ]
            info = {"id": "owner/corpus", "sha": self.commit, "private": False, "downloads": 0, "tags": [],
                    "siblings": siblings}  # fmt: skip
            self._send(200, json.dumps(info).encode(), body)
        elif route.startswith(f"/datasets/owner/corpus/resolve/{self.commit}/"):
            content = (self.folder / route.split(self.commit + "/")[1]).read_bytes()
            self._send(200, content, body, ETag=f'"{len(content)}"')
        else:
            self._send(404, b"{}", body, **{"X-Error-Code": "RepoNotFound"})

    def _send(self, status: int, content: bytes, body: bool, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "X-Repo-Commit": self.commit, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    FakeHub.folder, FakeHub.requests = tmp_path / "hub", []
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeHub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds until it sees its end
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


HUB_RUN = """
import json, sys
from moe_study.design.config import DataConfig
from moe_study.design.plain import from_plain
from moe_study.data import prepare
from moe_study.design.data_options import read_options
from moe_study.errors import DataError
try:
    print(json.dumps(prepare(from_plain(DataConfig, json.loads(sys.argv[1])), progress=False).table()))
except DataError as error:
    print(error)
"""


def run_against(endpoint: str, tmp_path: Path, options: dict[str, Any]) -> str:
    """Prepare in a process whose hub client asks `endpoint`."""
    plain = {"name": "wiki", "recipe": "hub_parquet", "options": options, "tokenizer": {"kind": "bytes"},
             "validation_fraction": 0.2, "root": str(tmp_path / "data")}  # fmt: skip
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "no_proxy": "*",
                   "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}  # fmt: skip
    command = [sys.executable, "-c", HUB_RUN, json.dumps(plain)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_a_data_set_of_the_hub_is_fetched_and_read_like_a_local_one(hub: str, tmp_path: Path) -> None:
    write_parquet(FakeHub.folder / "plain_text", files=4)
    (FakeHub.folder / "README.md").write_text("not asked for")
    source = {"files": ["plain_text/*.parquet"], "language_field": "language", "topic_field": "topic"}
    said = run_against(hub, tmp_path, {"sources": [{"repo": "owner/corpus", **source}]})
    local = {"sources": [{"folder": str(FakeHub.folder), **source}]}
    assert json.loads(said) == prepared(tmp_path, "hub_parquet", local).table()
    fetched = [path for path in FakeHub.requests if "/resolve/" in path]
    assert len(fetched) == 4 and all(FakeHub.commit in path and "plain_text" in path for path in fetched)
    manifest = json.loads(next((tmp_path / "data").glob("wiki-*/manifest.json")).read_text())
    assert manifest["pins"]["sources"][0]["revision"] == FakeHub.commit


def test_a_data_set_that_the_hub_has_not_is_one_sentence(hub: str, tmp_path: Path) -> None:
    said = run_against(hub, tmp_path, {"sources": [{"repo": "owner/nothing", "files": ["*"]}]})
    assert said.startswith("the hub has no data set owner/nothing") and said.count("\n") == 1


def test_a_hub_that_is_not_reached_is_one_sentence(tmp_path: Path) -> None:
    options = {"sources": [{"repo": "owner/corpus", "files": ["*"]}]}
    said = run_against("http://127.0.0.1:9", tmp_path, options)
    assert said.startswith("could not read owner/corpus from the hub") and said.count("\n") == 1


COMMIT = FakeHub.commit
SOURCE = {"repo": "owner/corpus", "files": ["*.parquet"], "language_field": "language", "topic_field": "topic"}


@pytest.fixture
def client(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process's hub client asks the stand-in, which holds three files, and caches under tmp_path."""
    write_parquet(FakeHub.folder, files=3)
    monkeypatch.setenv("no_proxy", "*")
    template = hub + "/{repo_id}/resolve/{revision}/{filename}"
    values = {"ENDPOINT": hub, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_CACHE": str(tmp_path / "own")}
    for name, value in {**values, "HF_HUB_DISABLE_XET": True, "HF_HUB_OFFLINE": False}.items():
        monkeypatch.setattr(constants, name, value)
    return monkeypatch


def go_offline(client: pytest.MonkeyPatch) -> None:
    """As with HF_HUB_OFFLINE=1; the hub would say so if it were asked all the same."""
    client.setattr(constants, "HF_HUB_OFFLINE", True)
    FakeHub.requests.clear()


def read(tmp_path: Path, **source: Any) -> Source:
    options = HubParquetOptions((HubSource(**{**SOURCE, "files": ("*.parquet",), **source}),))
    found = hub_parquet.RECIPE.open(options, tmp_path / "data", False)
    assert len(list(found.documents())) == 120
    return found


def test_a_pinned_revision_that_is_cached_is_read_offline(client: pytest.MonkeyPatch, tmp_path: Path) -> None:
    online = read(tmp_path, revision=COMMIT)
    go_offline(client)
    offline = read(tmp_path, revision=COMMIT)
    assert offline.pins == online.pins and offline.tally.notes == []
    assert FakeHub.requests == []


def test_a_pinned_revision_is_listed_once(client: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for _ in range(2):
        read(tmp_path, revision=COMMIT)
    assert len([path for path in FakeHub.requests if path.startswith("/api/datasets/")]) == 1


@pytest.mark.parametrize("revision", ["v1", None])
def test_a_revision_that_may_move_is_taken_as_it_was_only_offline(
    client: pytest.MonkeyPatch, tmp_path: Path, revision: str | None
) -> None:
    online = read(tmp_path, revision=revision)
    read(tmp_path, revision=revision)
    assert len([path for path in FakeHub.requests if path.startswith("/api/datasets/")]) == 2, "it may have moved"
    go_offline(client)
    assert read(tmp_path, revision=revision).pins == online.pins


@pytest.mark.parametrize("revision", [COMMIT, COMMIT[:9]])
@pytest.mark.parametrize("own", [True, False], ids=["downloads/hub", "HF_HOME"])
def test_a_cache_that_the_hubs_own_client_filled_serves(
    client: pytest.MonkeyPatch, tmp_path: Path, own: bool, revision: str
) -> None:
    """No list of ours lies there, so a note says what was taken."""
    read(tmp_path, revision=COMMIT)
    cache = tmp_path / "data" / "downloads" / "hub"
    shutil.rmtree(cache / "listings")
    if not own:
        cache.rename(tmp_path / "own")
    go_offline(client)
    (note,) = read(tmp_path, revision=revision).tally.notes
    assert f"of owner/corpus at {COMMIT[:12]} the 3 files were taken" in note


def test_what_is_not_cached_is_one_sentence_offline(client: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_offline(client)
    with pytest.raises(DataError, match=rf"owner/corpus is not cached here at revision {COMMIT}, and HF_HUB_OFFLINE"):
        read(tmp_path, revision=COMMIT)
    client.setattr(constants, "HF_HUB_OFFLINE", False)
    options = HubParquetOptions((HubSource(repo="owner/corpus", files=("part-0.parquet",), revision=COMMIT),))
    list(hub_parquet.RECIPE.open(options, tmp_path / "data", False).documents())
    go_offline(client)
    with pytest.raises(DataError, match=r"owner/corpus: part-1\.parquet is not cached here"):
        read(tmp_path, revision=COMMIT)


def test_a_damaged_list_is_asked_for_again(client: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read(tmp_path, revision=COMMIT)
    for path in (tmp_path / "data" / "downloads" / "hub" / "listings").iterdir():
        path.write_text('{"commit": 3}')
    read(tmp_path, revision=COMMIT)
