"""Download of published files: resumable, checked, complete or not there.

Bytes go to NAME.part; NAME.part.json beside it says which file at which address they belong to. A download that was
stopped, even by kill -9, goes on where it was if the server confirms that it is still the same file (If-Range with the
ETag or the date that it gave), and starts over otherwise. The finished part is compared with the published length and
checksum and takes its name only if they fit. Where no checksum is published, the SHA-256 of the first download is
kept in NAME.sha256, as sha256sum writes it.

Source   RFC 9110, sections 13.1.5 (If-Range), 14.2 (Range), 14.4 (Content-Range), 15.3.7 (206), 15.5.17 (416)
"""

import contextlib
import hashlib
import http.client
import json
import os
import re
import socket
import stat
import time
import typing
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import refattn
from refattn.common.files import FLAGS, put_in_place, remove_leftovers, write_text
from refattn.data.sources.published import RemoteFile
from refattn.errors import DataError, OutputError, in_one_line

try:
    import fcntl
except ImportError:  # Windows: two downloads of one file into one folder are then not kept apart
    fcntl = None

CHUNK = 1 << 16
TRIES = 4  # in a row without a byte of progress, before an address is given up
TIMEOUT = 20.0  # s
PAUSE = 1.0  # s
BUSY = (408, 429)  # the answers below 500 that may change with time


class Options(typing.NamedTuple):
    """How to download; the tests' server has neither https nor time."""

    progress: Callable[[int, int | None], None] = lambda done, total: None
    schemes: tuple[str, ...] = ("https",)
    timeout: float = TIMEOUT
    pause: float = PAUSE


class Fetched(typing.NamedTuple):
    """What fetch left at `path`.

    `checked` is what the file was compared with: "sha256" or "md5" as published, "recorded" for that of an earlier
    download, "" for nothing.
    """

    path: Path
    downloaded: bool
    checked: str
    sha256: str


class GivenUp(Exception):
    """An address that does not give the file; the message is the reason."""


class Broken(Exception):
    """A try that failed where the next one may not."""


class Answer(typing.NamedTuple):
    """A response whose bytes continue the part at `start`; `total` bytes has the file, None if not told."""

    stream: http.client.HTTPResponse
    start: int
    total: int | None


def fetch(
    file: RemoteFile, folder: Path | str, progress: Callable[[int, int | None], None] | None = None, **options: object
) -> Fetched:
    """Have the file at `folder`/NAME: find it there and check it, or download and check it.

    Parameters
    ----------
    folder : path
        Made where it does not exist.
    progress : callable (done, total), optional
        Called now and then with bytes; `total` is None where unknown.
    schemes : tuple of str
        What an address, also that of a redirection, may begin with; by default https alone.
    timeout, pause : float
        s without an answer until a try counts as failed, and between two tries.

    Raises
    ------
    DataError
        No address gives the file, with what to get by hand and where to put it; a file that is there is another one.
    OutputError
        The folder cannot be written, or another process downloads this file.
    """
    path = Path(folder) / file.name
    options = Options(**({"progress": progress} if progress else {}), **options)
    try:
        if path.exists():
            return _found(file, path)
        if not file.urls:
            raise DataError(f"{path}: the address of this file is not known; {_by_hand(file, path)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open_part(path) as stream:
            _lock(stream, path)
            remove_leftovers(path.parent)
            digest = _download(Part(path, stream), file, options)
        put_in_place(Path(f"{path}.part"), path)
        Path(f"{path}.part.json").unlink(missing_ok=True)
        if not _published(file):
            write_text(_record(path), f"{digest}  {path.name}\n")
        return Fetched(path, True, _published(file), digest)
    except OSError as error:
        reason = in_one_line(error)
        raise OutputError(f"{path}: cannot be written or read ({reason}); check the folder and its space") from None


def _found(file, path):
    """A file that is there already, maybe put there by hand."""
    checked, digest = _check(file, path, _recorded(path), "move it away and give the command again")
    if not checked:
        write_text(_record(path), f"{digest}  {path.name}\n")
    return Fetched(path, False, checked, digest)


def _by_hand(file, path):
    where = file.urls[0] if file.urls else f"the set's archive at {file.page}"
    return f"get {where} by hand, put it at {path}, and give the command again to have it checked"


class Part:
    """The growing file and the note beside it."""

    def __init__(self, path: Path, stream: BinaryIO):
        self.path = path
        self.stream = stream
        self.note = Path(f"{path}.part.json")

    def size(self) -> int:
        return os.fstat(self.stream.fileno()).st_size

    def origin(self) -> tuple[str, str]:
        """Address and validator of the bytes in the part; ("", "") where the note is absent or damaged."""
        try:
            url, validator = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, RecursionError):
            return "", ""
        is_text = isinstance(url, str) and isinstance(validator, str)
        return (url, validator) if is_text and _is_header(validator) else ("", "")

    def restart(self, url: str = "", validator: str = "") -> None:
        """Empty the part, and only then note whose bytes come: a stop in between leaves nothing to go on with."""
        self.stream.truncate(0)
        write_text(self.note, json.dumps([url, validator]))

    def append(self, data: bytes) -> None:
        self.stream.write(data)
        self.stream.flush()

    def remove(self) -> None:
        Path(f"{self.path}.part").unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _open_part(path):
    """The growing file; one that no download has begun is left alone. Raises OutputError."""
    part = f"{path}.part"
    if os.path.lexists(part):
        facts = os.lstat(part)
        if not stat.S_ISREG(facts.st_mode) or (facts.st_size and not os.path.isfile(f"{part}.json")):
            raise OutputError(f"{part}: is not of a download, {part}.json is not beside it; move it, or download again")
    return open(os.open(part, FLAGS | os.O_APPEND, 0o666), "ab")


def _lock(stream, path):
    """The system lifts the lock when the process ends, however it does."""
    if fcntl is None:
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"{path}: another process is downloading it; wait for that one to end") from None


def _download(part, file, options):
    """The right bytes in the part, from the first address that has them. Returns their SHA-256, or raises DataError."""
    reasons = []
    for url in file.urls:
        try:
            _transfer(part, url, file, options)
            return _check(file, Path(f"{part.path}.part"))[1]
        except GivenUp as error:
            reason = str(error)
        except DataError as error:
            part.restart()
            reason = f"{error}; it was deleted"
        reasons.append(f"{urllib.parse.urlsplit(url).netloc}: {reason}")
    if not part.size():
        part.remove()
    raise DataError(f"{file.name} cannot be downloaded ({'; '.join(reasons)}); {_by_hand(file, part.path)}")


def _transfer(part, url, file, options):
    """Bytes of `url` into the part until all are there. Raises GivenUp, or OSError where the disk refuses."""
    failures = 0
    reached = part.size()
    while True:
        try:
            with contextlib.closing(_request(part, url, options)) as stream:
                answer = _understand(stream, part, url)
                if answer:
                    _copy(part, answer, _expected(answer, file), options.progress)
            return
        except Broken as error:
            failures = 0 if part.size() > reached else failures + 1
            reached = max(reached, part.size())
            if failures == TRIES:
                raise GivenUp(error) from None
        time.sleep(options.pause * (1 + failures))


def _request(part, url, options):
    """The response of `url`, asked to go on at the end of the part where the server can tell that it is the same."""
    _check_scheme(url, options.schemes)
    headers = {"User-Agent": f"refattn/{refattn.__version__}"}
    origin, validator = part.origin()
    if part.size() and origin == url and validator:
        headers |= {"Range": f"bytes={part.size()}-", "If-Range": validator}
    opener = urllib.request.build_opener(Redirections(options.schemes))
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=options.timeout)
    except urllib.error.HTTPError as error:
        error.close()
        kind = Broken if error.code >= 500 or error.code in BUSY else GivenUp
        raise kind(f"the server answers {error.code} {in_one_line(error.reason)}") from None
    except (ValueError, LookupError) as error:  # an address that is none, as of a redirection
        raise GivenUp(f"leads to an address that cannot be read ({in_one_line(error)})") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        kind = GivenUp if isinstance(reason, socket.gaierror) else Broken  # without a network no try is better
        raise kind(in_one_line(reason)) from None


class Redirections(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not from https to something else; and takes 416 for the answer that it is."""

    def __init__(self, schemes: tuple[str, ...]):
        self.schemes = schemes

    def redirect_request(self, request, stream, code, message, headers, url):
        _check_scheme(url, self.schemes)
        return super().redirect_request(request, stream, code, message, headers, url)

    def http_error_416(self, request, stream, code, message, headers):
        return stream


def _check_scheme(url, schemes):
    if url.partition(":")[0].lower() not in schemes:
        raise GivenUp(f"leads to {in_one_line(url):.100}, which is not {' or '.join(schemes)}")


def _understand(stream, part, url):
    """The Answer in a response; None where the part is complete already. Raises GivenUp for what is no file."""
    headers = stream.headers
    size = part.size()
    span = re.fullmatch(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)", headers.get("Content-Range", ""))
    if stream.status == 416 and span and span[2] == str(size):
        return None
    if stream.status == 416 or (stream.status == 206 and not (span and span[1] == str(size))):
        part.restart()
        raise Broken("the server answers with another part of the file than was asked for")
    if stream.status == 206:
        return Answer(stream, size, None if span[2] == "*" else int(span[2]))
    if stream.status != 200:
        raise GivenUp(f"the server answers {stream.status} {in_one_line(stream.reason)} and no file")
    etag, date, length = (headers.get(name, "") for name in ("ETag", "Last-Modified", "Content-Length"))
    validator = etag if etag.startswith('"') else date  # a weak ETag does not promise the same bytes
    part.restart(url, validator if _is_header(validator) else "")
    return Answer(stream, 0, int(length) if re.fullmatch("[0-9]{1,18}", length) else None)


def _is_header(text):
    """Whether a request may carry it: a server may have sent anything."""
    return text.isascii() and text.isprintable() and len(text) < 1000


def _expected(answer, file):
    if file.size is not None and answer.total not in (None, file.size):
        raise GivenUp(f"the server has a file of {answer.total} bytes, not of {file.size} as published")
    return answer.total if file.size is None else file.size


def _copy(part, answer, total, progress):
    """Read the answer into the part, `total` bytes in all where that is known."""
    done = answer.start
    while True:
        try:
            data = answer.stream.read1(CHUNK)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Broken(f"the connection breaks after {done} bytes ({in_one_line(error)})") from None
        if not data:
            break
        part.append(data)
        done += len(data)
        progress(done, total)
        if total is not None and done > total:
            part.restart()
            raise GivenUp(f"the server sends more than the {total} bytes of the file")
    if total is not None and done < total:
        raise Broken(f"the connection ends after {done} of {total} bytes")


def _published(file):
    return "sha256" if file.sha256 else "md5" if file.md5 else ""


def _record(path):
    return path.with_name(path.name + ".sha256")


def _recorded(path):
    """The SHA-256 that an earlier download noted beside the file; "" where there is none."""
    try:
        words = _record(path).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return ""
    return words[0] if words and re.fullmatch("[0-9a-f]{64}", words[0]) else ""


def _check(file, path, recorded="", advice=""):
    """What the file was compared with, as in Fetched, and its SHA-256. Raises DataError where it does not fit."""
    advice = advice and f"; {advice}"
    size = path.stat().st_size
    if file.size not in (None, size):
        raise DataError(f"{path}: has {size} bytes, the published file has {file.size}{advice}")
    kind = _published(file)
    sha256 = hashlib.sha256()
    md5 = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as stream:
        while data := stream.read(1 << 20):
            sha256.update(data)
            if kind == "md5":
                md5.update(data)
    found = {"sha256": sha256.hexdigest(), "md5": md5.hexdigest()}.get(kind, sha256.hexdigest())
    wanted = {"sha256": file.sha256, "md5": file.md5}.get(kind, recorded)
    if wanted and found != wanted:
        whose = "the published file has" if kind else f"{_record(path).name} says"
        raise DataError(f"{path}: has the checksum {found}, {whose} {wanted}{advice}")
    return kind or ("recorded" if recorded else ""), sha256.hexdigest()
