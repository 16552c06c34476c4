"""Downloads against a server of the test's own: whole and checked, or nothing."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from sparsemeta.cli import app
from sparsemeta.data import sources
from sparsemeta.data.download import DownloadError, fetch

DATA = bytes(range(256)) * 40
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
MD5 = f"md5:{hashlib.md5(DATA).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    """/whole, /parts (answers ranges), /short (stops half-way), anything else is missing."""

    def do_GET(self):
        start = int(self.headers["Range"][6:-1]) if "Range" in self.headers and self.path == "/parts" else 0
        self.server.asked.append((self.path, start))
        if self.path not in ("/whole", "/parts", "/short"):
            return self.send_error(404)
        if start >= len(DATA):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        self.wfile.write(DATA[start : len(DATA) // 2 if self.path == "/short" else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")  # a proxy knows nothing of this server
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("checksum", [SHA256, MD5])
def test_a_file_arrives_whole_and_is_not_fetched_again(server, tmp_path, checksum):
    path, seen = tmp_path / "new" / "file", []
    fetch(f"{server.url}/whole", path, checksum, advance=lambda *progress: seen.append(progress))
    assert path.read_bytes() == DATA and seen[-1] == (len(DATA), len(DATA)) and names(path.parent) == ["file"]
    fetch(f"{server.url}/whole", path, checksum)
    assert len(server.asked) == 1


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(DownloadError, match="expected md5:0.*got another file, which is removed"):
        fetch(f"{server.url}/whole", tmp_path / "file", "md5:0")
    assert names(tmp_path) == []


@pytest.mark.parametrize("route", ["/parts", "/whole"])
def test_an_end_before_the_end_is_named_and_continued(server, tmp_path, route):
    path = tmp_path / "file"
    with pytest.raises(DownloadError, match=f"ended after {len(DATA) // 2} of {len(DATA)} bytes. Try again"):
        fetch(f"{server.url}/short", path, SHA256)
    assert not path.exists()
    fetch(f"{server.url}{route}", path, SHA256)
    assert path.read_bytes() == DATA and names(tmp_path) == ["file"]
    assert server.asked[-1] == (route, len(DATA) // 2 if route == "/parts" else 0)


def test_a_left_over_of_another_file_does_not_stay(server, tmp_path):
    (tmp_path / ".file.part").write_bytes(b"x" * len(DATA))
    with pytest.raises(DownloadError, match="got another file, which is removed"):
        fetch(f"{server.url}/parts", tmp_path / "file", SHA256)
    fetch(f"{server.url}/parts", tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == DATA


def test_no_such_file_and_no_network(server, tmp_path):
    with pytest.raises(DownloadError, match="status 404 .*put the file at .*file yourself"):
        fetch(f"{server.url}/missing", tmp_path / "file", SHA256)
    with pytest.raises(DownloadError, match="could not download http://127.0.0.1:1/x: .*refused"):
        fetch("http://127.0.0.1:1/x", tmp_path / "file", SHA256)
    assert names(tmp_path) == []


def test_another_file_of_that_name_is_not_overwritten(server, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DownloadError, match="Move it away"):
        fetch(f"{server.url}/whole", tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_text() == "mine" and not server.asked


def run(*arguments):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_the_command_lists_and_downloads(server, tmp_path, monkeypatch):
    files = (("a.zip", f"{server.url}/whole", SHA256), ("b.zip", f"{server.url}/parts", MD5))
    here = sources.Source("a test", "nowhere", sources.omniglot, files)
    monkeypatch.setattr(sources, "SOURCES", {**sources.SOURCES, "here": here})
    assert run("download", "here", "--data", tmp_path).exit_code == 0
    assert names(tmp_path) == ["a.zip", "b.zip"]
    listed = run("list", "--data", tmp_path).output
    assert "there" in listed and "missing" in listed and "mini-imagenet" in listed


def test_what_cannot_be_downloaded_says_how_to_come_by_it(tmp_path):
    assert "ImageNet's terms forbid" in str(run("download", "mini-imagenet").exception)
    assert "expected a data set of glyphs, omniglot" in str(run("download", "minst").exception)


def test_every_source_has_an_address_and_a_checksum():
    listed = [file for source in sources.SOURCES.values() for file in source.files]
    assert len(listed) == 3
    for _, url, checksum in listed:
        algorithm, digest = checksum.split(":")
        assert url.startswith("https://") and len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size
