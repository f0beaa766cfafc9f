"""fetch against a server on this machine that breaks off, lies, changes its file, and against kill -9."""

import contextlib
import hashlib
import http.server
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner

from refattn.cli.main import cli
from refattn.data.sources import fetch as fetch_module
from refattn.data.sources.fetch import TRIES, fetch
from refattn.data.sources.published import PUBLISHED, RemoteFile
from refattn.errors import DataError, OutputError

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
OPTIONS = fetch_module.Options


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content` as `server.behaviour` (a dict) says, and notes what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        how, content = self.server.behaviour, self.server.content
        self.server.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        self.close_connection = True
        time.sleep(how.get("silent", 0))
        if self.path in how.get("status", {}):
            self.send_error(how["status"][self.path])
            return
        if self.path in how.get("redirect", {}):
            self.send_response(302)
            self.send_header("Location", how["redirect"][self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = how.get("files", {}).get(self.path, content)
        start = self._start(how, content)
        if start is None:
            return
        self.send_header("Content-Length", str(how.get("length", len(content)) - start))
        for name, value in how.get("headers", {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}).items():
            self.send_header(name, value)
        self.end_headers()
        self._send(content[start:], how)

    def _start(self, how, content):
        """Answer the first line; the byte to begin with, or None where all is said."""
        wanted = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, f'"{hashlib.md5(content).hexdigest()}"', how.get("date"))
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if not wanted or not same or how.get("ignores_range"):
            self.send_response(how.get("answer", 200))
            return 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.send_response(206)
        self.send_header("Content-Range", how.get("span", f"bytes {start}-{len(content) - 1}/{len(content)}"))
        return start

    def _send(self, data, how):
        limit, pause = how.get("breaks_after"), how.get("pause", 0)
        with contextlib.suppress(OSError):  # the client may be gone
            for at in range(0, min(len(data), limit or len(data)), 8192):
                self.wfile.write(data[at : min(at + 8192, limit or len(data))])
                time.sleep(pause)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.behaviour, server.asked = CONTENT, {}, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def remote(server, *paths, **facts):
    return RemoteFile("set.bin", tuple(server.url + path for path in paths or ("/set",)), **facts)


def get(file, folder, **options):
    return fetch(file, folder, schemes=("http",), pause=0, timeout=5, **options)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize(
    ("facts", "checked"),
    [({"sha256": SHA256}, "sha256"), ({"md5": MD5}, "md5"), ({"sha256": SHA256, "size": len(CONTENT)}, "sha256")],
)
def test_download_and_the_second_time(server, tmp_path, facts, checked):
    states = []
    result = get(remote(server, **facts), tmp_path / "new", progress=lambda *state: states.append(state))
    assert result == (tmp_path / "new" / "set.bin", True, checked, SHA256)
    assert result.path.read_bytes() == CONTENT
    assert names(result.path.parent) == ["set.bin"]
    assert states[-1] == (len(CONTENT), len(CONTENT))
    assert get(remote(server, **facts), tmp_path / "new") == (result.path, False, checked, SHA256)
    assert len(server.asked) == 1


def test_without_a_published_checksum(server, tmp_path):
    assert get(remote(server), tmp_path).checked == ""
    assert (tmp_path / "set.bin.sha256").read_text() == f"{SHA256}  set.bin\n"  # as sha256sum writes it
    assert get(remote(server), tmp_path).checked == "recorded"
    (tmp_path / "set.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=r"set.bin.sha256 says .*move it away"):
        get(remote(server), tmp_path)
    (tmp_path / "set.bin.sha256").unlink()
    assert get(remote(server), tmp_path).checked == ""  # put there by hand
    assert get(remote(server), tmp_path).checked == "recorded"
    assert len(server.asked) == 1


def test_a_file_that_is_another_one_is_left_alone(server, tmp_path):
    (tmp_path / "set.bin").write_bytes(b"mine")
    for facts in ({"sha256": SHA256}, {"md5": MD5}, {"size": 5}):
        with pytest.raises(DataError, match=r"set.bin: has .* published file has .*; move it away"):
            get(remote(server, **facts), tmp_path)
    assert (tmp_path / "set.bin").read_bytes() == b"mine"
    assert not server.asked


def test_connections_that_break(server, tmp_path):
    server.behaviour = {"breaks_after": 50_000}
    assert get(remote(server, sha256=SHA256), tmp_path).path.read_bytes() == CONTENT
    starts = [int(asked[1].strip("bytes=-")) if asked[1] else 0 for asked in server.asked]
    assert starts == [0, 50_000, 100_000, 150_000, 200_000, 250_000]  # every byte once


@pytest.mark.parametrize("headers", [{"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}, {}, {"ETag": 'W/"weak"'}])
def test_what_the_server_tells_of_its_file(server, tmp_path, headers):
    """A date lets a download go on; with nothing, or an ETag that promises nothing, it starts over and gives up."""
    server.behaviour = {"breaks_after": 200_000, "headers": headers, "date": headers.get("Last-Modified")}
    if "Last-Modified" in headers:
        assert get(remote(server), tmp_path).path.read_bytes() == CONTENT
        assert len(server.asked) == 2
        return
    with pytest.raises(
        DataError, match=r"ends after 200000 of 300000 bytes\); get http.* by hand, put it at .*set.bin"
    ):
        get(remote(server), tmp_path)
    assert {asked[1] for asked in server.asked} == {None}
    assert len(server.asked) == TRIES + 1


def test_a_server_that_ignores_ranges(server, tmp_path):
    server.behaviour = {"breaks_after": 100_000}
    (tmp_path / "set.bin.part").write_bytes(CONTENT[:77_777])
    (tmp_path / "set.bin.part.json").write_text(json.dumps([f"{server.url}/set", f'"{MD5}"']))
    server.behaviour = {"ignores_range": True}
    assert get(remote(server, sha256=SHA256), tmp_path).path.read_bytes() == CONTENT
    assert server.asked == [("/set", "bytes=77777-", f'"{MD5}"')]


@pytest.mark.parametrize("checksum", [{}, {"sha256": SHA256}])
def test_a_file_that_changes_between_two_requests(server, tmp_path, checksum):
    (tmp_path / "set.bin.part").write_bytes(b"x" * 100_000)
    (tmp_path / "set.bin.part.json").write_text(json.dumps([f"{server.url}/set", '"of before"']))
    assert get(remote(server, **checksum), tmp_path).path.read_bytes() == CONTENT
    assert server.asked == [("/set", "bytes=100000-", '"of before"')]


@pytest.mark.parametrize("note", ["", "[]", "null", '["a", 1]', '{"url": 1}', "[" * 9999])
def test_damaged_notes_start_over(server, tmp_path, note):
    (tmp_path / "set.bin.part").write_bytes(b"x" * 100_000)
    (tmp_path / "set.bin.part.json").write_text(note)
    assert get(remote(server), tmp_path).path.read_bytes() == CONTENT
    assert server.asked == [("/set", None, None)]


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 5])
def test_a_part_that_is_complete_or_too_long(server, tmp_path, size):
    (tmp_path / "set.bin.part").write_bytes((CONTENT + b"12345")[:size])
    (tmp_path / "set.bin.part.json").write_text(json.dumps([f"{server.url}/set", f'"{MD5}"']))
    assert get(remote(server, sha256=SHA256), tmp_path).path.read_bytes() == CONTENT
    assert len(server.asked) == (1 if size == len(CONTENT) else 2)


def test_lies_about_the_length(server, tmp_path):
    server.behaviour = {"length": len(CONTENT) + 1000, "headers": {}}
    with pytest.raises(DataError, match="ends after 300000 of 301000 bytes"):
        get(remote(server, sha256=SHA256), tmp_path)
    with pytest.raises(DataError, match="a file of 301000 bytes, not of 300000 as published"):
        get(remote(server, size=len(CONTENT)), tmp_path)
    server.behaviour = {"length": len(CONTENT) + 1000}  # and with an ETag: asked for the rest, it says there is none
    assert get(remote(server, sha256=SHA256), tmp_path / "a").sha256 == SHA256
    server.behaviour = {"length": len(CONTENT) - 1000}
    with pytest.raises(DataError, match="has the checksum .* deleted"):
        get(remote(server, sha256=SHA256), tmp_path)
    with pytest.raises(DataError, match="a file of 299000 bytes"):
        get(remote(server, size=len(CONTENT)), tmp_path)
    assert "set.bin" not in names(tmp_path)


def test_a_wrong_file_is_deleted_and_the_next_address_is_asked(server, tmp_path):
    server.behaviour = {"files": {"/wrong": b"<html>sign in</html>"}, "status": {"/gone": 404, "/ill": 500}}
    file = remote(server, "/wrong", sha256=SHA256)
    with pytest.raises(DataError, match=f"has the checksum .* published file has {SHA256}; it was deleted"):
        get(file, tmp_path)
    assert names(tmp_path) == []
    server.asked.clear()
    assert get(remote(server, "/wrong", "/gone", "/ill", "/set", sha256=SHA256), tmp_path).sha256 == SHA256
    assert [path for path, *_ in server.asked] == ["/wrong", "/gone", *["/ill"] * TRIES, "/set"]
    assert names(tmp_path) == ["set.bin"]


@pytest.mark.parametrize(("code", "tries"), [(404, 1), (403, 1), (500, TRIES), (503, TRIES), (429, TRIES)])
def test_answers_that_are_errors(server, tmp_path, code, tries):
    server.behaviour = {"status": {"/set": code}}
    with pytest.raises(DataError, match=f"answers {code} .* by hand, put it at") as caught:
        get(remote(server), tmp_path)
    assert len(server.asked) == tries
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_an_empty_202_is_no_file(server, tmp_path):
    """What figshare's guard sends to programs."""
    server.behaviour = {"answer": 202}
    with pytest.raises(DataError, match="answers 202 Accepted and no file"):
        get(remote(server), tmp_path)
    server.behaviour = {"span": "bytes 5-9/10", "breaks_after": 100_000}
    with pytest.raises(DataError, match="another part of the file|ends after 100000 of 300000"):
        get(remote(server), tmp_path)
    assert "set.bin" not in names(tmp_path)


def test_redirections_only_to_what_is_allowed(server, tmp_path):
    server.behaviour = {"redirect": {"/here": "/there", "/out": "file:///etc/passwd", "/ftp": "ftp://127.0.0.1/x"}}
    assert get(remote(server, "/here", sha256=SHA256), tmp_path / "a").path.read_bytes() == CONTENT
    for path in ("/out", "/ftp"):
        with pytest.raises(DataError, match="cannot be downloaded"):
            get(remote(server, path), tmp_path / "b")
    with pytest.raises(DataError, match="leads to http://.*, which is not https"):
        fetch(remote(server), tmp_path / "b", pause=0)
    assert names(tmp_path / "b") == []


def test_nobody_answers(server, tmp_path):
    with pytest.raises(DataError, match="refused"):
        get(RemoteFile("x", ("http://127.0.0.1:1/x",)), tmp_path)
    with pytest.raises(DataError, match=r"the address of this file is not known; get .* at https://page by hand"):
        get(RemoteFile("x", page="https://page"), tmp_path)
    server.behaviour = {"silent": 0.3}
    with pytest.raises(DataError, match="timed out"):
        fetch(remote(server), tmp_path, schemes=("http",), timeout=0.05, pause=0)
    server.behaviour = {"pause": 0.01}  # slower than the timeout allows in all, but never silent for so long
    assert get(remote(server, sha256=SHA256), tmp_path).path.read_bytes() == CONTENT


def test_folders_that_refuse_and_two_at_a_time(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        get(remote(server), tmp_path / "file")
    server.behaviour = {"pause": 0.02}
    first = threading.Thread(target=get, args=(remote(server, sha256=SHA256), tmp_path))
    first.start()
    while not server.asked:
        time.sleep(0.001)
    with pytest.raises(OutputError, match="another process is downloading it"):
        get(remote(server), tmp_path)
    first.join()
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


DOWNLOAD = """
import sys
from refattn.data.sources.fetch import TRIES, fetch
from refattn.data.sources.published import RemoteFile
fetch(RemoteFile("set.bin", (sys.argv[1],), **{checksum}), sys.argv[2], schemes=("http",), pause=0)
"""


@pytest.mark.parametrize("checksum", [{}, {"sha256": SHA256}], ids=["unknown", "sha256"])
def test_killed_at_random_moments(server, tmp_path, checksum):
    """20 kills in two tests; between them the part never shrinks, and the result has the same bytes."""
    server.behaviour, moments, sizes = {"pause": 0.06}, random.Random(1), [0]
    script, part = DOWNLOAD.replace("{checksum}", repr(checksum)), tmp_path / "set.bin.part"
    command = [sys.executable, "-c", script, f"{server.url}/set", str(tmp_path)]
    for _ in range(10):
        asked = len(server.asked)
        process = subprocess.Popen(command)
        while len(server.asked) == asked and process.poll() is None:
            time.sleep(0.002)  # the moments count from the request on, not from the start of Python
        time.sleep(moments.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if part.exists():
            sizes.append(part.stat().st_size)
    assert sizes == sorted(sizes)
    assert sizes[-1] > 0
    assert part.exists()  # or there was nothing left to kill
    server.behaviour = {}
    assert subprocess.run(command).returncode == 0
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert sum(asked[1] is not None for asked in server.asked) >= 1
    assert names(tmp_path) == ["set.bin"] + ([] if checksum else ["set.bin.sha256"])


# ---- hostile servers and other files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["http://[::1", "http://a..b/", "http://", "http://127.0.0.1:x/", "http://\x1b/"])
def test_redirections_to_no_address(server, tmp_path, address):
    server.behaviour = {"redirect": {"/set": address}}
    with pytest.raises(DataError, match="cannot be downloaded") as caught:
        get(remote(server), tmp_path)
    assert str(caught.value).isprintable()
    assert names(tmp_path) == []


@pytest.mark.parametrize("digits", ["9" * 400, "9" * 5000, "²"])
def test_headers_of_many_digits(server, tmp_path, digits):
    server.behaviour = {"breaks_after": 100_000, "span": f"bytes 100000-{digits}/{digits}"}
    with pytest.raises(DataError, match=r"another part of the file|ends after|connection breaks"):
        get(remote(server, sha256=SHA256), tmp_path)
    server.behaviour = {"headers": {"ETag": "\x1b[2J" * 999}}
    assert get(remote(server, sha256=SHA256), tmp_path).path.read_bytes() == CONTENT


def test_a_part_that_no_download_has_begun_is_left_alone(server, tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "set.bin.part").write_text("mine")
    with pytest.raises(OutputError, match=r"set.bin.part: is not of a download"):
        get(remote(server), tmp_path)
    (tmp_path / "set.bin.part").unlink()
    (tmp_path / "set.bin.part").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match=r"set.bin.part: is not of a download"):
        get(remote(server), tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not server.asked


# ---- the commands ---------------------------------------------------------------------------------------------------


def test_command(server, tmp_path, monkeypatch):
    other = RemoteFile("list.txt", (f"{server.url}/list",))
    item = PUBLISHED["qm9"]._replace(files=(remote(server, sha256=SHA256), other))
    monkeypatch.setitem(PUBLISHED, "qm9", item)
    monkeypatch.setattr(fetch_module, "Options", lambda **options: OPTIONS(**{"schemes": ("http",), **options}))
    result = CliRunner().invoke(cli, ["data", "fetch", "qm9", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "set.bin: downloaded; it has the published SHA-256" in result.stderr
    assert "list.txt: downloaded; it could not be compared with a published checksum" in result.stderr
    assert f"next: refattn prepare {tmp_path / 'set.bin'} qm9_upstream.h5 --format qm9" in result.stdout
    result = CliRunner().invoke(cli, ["data", "fetch", "qm9", "--out", str(tmp_path), "--json"])
    facts = json.loads(result.stdout)
    assert [file["downloaded"] for file in facts["files"]] == [False, False]
    assert [file["checked"] for file in facts["files"]] == ["sha256", "recorded"]
    assert facts["licence"].startswith("CC0")
    assert result.stderr.count("nothing was downloaded") == 2


def test_command_without_a_network(tmp_path):
    """Real addresses, in an environment whose proxy nobody answers."""
    environment = {"https_proxy": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1", "no_proxy": ""}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(fetch_module, "Options", lambda **options: OPTIONS(**{"pause": 0, **options}))
        result = CliRunner().invoke(cli, ["data", "fetch", "smfe12", "--out", str(tmp_path)])
    assert result.exit_code == 1
    (message,) = result.stderr.splitlines()
    for text in ("refattn: smfe12.zip cannot be downloaded", "https://zenodo.org/records/8435481/files", "by hand"):
        assert text in message
    assert str(tmp_path / "smfe12.zip") in message
    assert CliRunner().invoke(cli, ["data", "fetch", "nothing"]).exit_code == 2
