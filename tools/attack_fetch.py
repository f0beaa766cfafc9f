"""A download server on this machine that answers anything, and what `fetch` makes of it.

    python tools/attack_fetch.py --number 400 --seed 0 --json benchmarks/results/attack_fetch.json

Every answer is drawn: a good one, or one whose first line, headers, redirection, chunks or length are damaged. Beside
the download may lie a part and a note of any content. A download ends well, with the right bytes where a checksum is
known, or in one sentence (DataError, OutputError).
"""

import argparse
import collections
import contextlib
import hashlib
import json
import socketserver
import tempfile
import threading
from pathlib import Path

import numpy as np
from attack_files import finish

from refattn.data.sources.fetch import fetch
from refattn.data.sources.published import RemoteFile
from refattn.errors import RefattnError

CONTENT = np.random.default_rng(0).bytes(5000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ETAG = f'"{SHA256}"'
LONG = ["9" * 400, "9" * 5000, "-1", "1e3", "٣", "0x10", "", " ", "nan", "\x1b[2J", "é", "\x00", "a" * 70000]
PLACES = [
    "http://[::1",
    "http://a..b/",
    "http://",
    "//",
    "/again",
    "ftp://x",
    "http://\x1b/",
    "http://127.0.0.1:99999/",
]
PLACES += ["http://" + "a" * 300 + "/", "http://127.0.0.1:x/", "file:///etc/passwd", "http://é/", "?", "http://%00/"]
FIRST = ["HTTP/1.1 200 OK", "HTTP/1.1 206 Partial", "HTTP/1.1 416 No", "HTTP/1.1 302 There", "HTTP/1.1 202 Wait"]
FIRST += [
    "HTTP/1.1 500 \x1b[2J",
    "HTTP/1.1 404 é",
    "HTTP/9.9 200",
    "HTTP/1.1 99999",
    "200 OK",
    "",
    "\x00\xff",
    "H" * 70000,
]
NOTES = [
    "",
    "[]",
    '["{url}", "\\u0000"]',
    '["{url}", "a\\r\\nb: c"]',
    '["{url}", "é"]',
    '["{url}", 5]',
    "[" * 9999,
    "9" * 5000,
]
NOTES += [f'["{{url}}", {json.dumps(ETAG)}]', '["{url}", "\\udcff"]', '["http://[::1", "x"]', "\x00"]


def header_lines(rng):
    """Some headers of an answer, good and bad."""
    choices = [
        f"Content-Length: {rng.choice([str(len(CONTENT)), *LONG])}",
        f"Content-Range: bytes {rng.choice(['0', '2500', *LONG])}-4999/{rng.choice(['5000', '*', *LONG])}",
        f"ETag: {rng.choice([ETAG, *LONG])}",
        f"Last-Modified: {rng.choice(['Thu, 01 Jan 2026 00:00:00 GMT', *LONG])}",
        f"Location: {rng.choice(PLACES)}",
        f"Transfer-Encoding: {rng.choice(['chunked', 'gzip', *LONG])}",
        f"Content-Encoding: {rng.choice(['gzip', *LONG])}",
        *(f"X-{n}: y" for n in range(200 * int(rng.random() < 0.1))),
        "no colon",
        ": empty",
        " folded",
    ]
    return [str(choices[n]) for n in rng.permutation(len(choices))[: rng.integers(1, 6)]]


def body(rng):
    """What follows the headers: the content, a part of it, or chunks."""
    good = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (CONTENT[:2500], CONTENT[2500:])) + b"0\r\n\r\n"
    sizes = [b"-5", b"zz", b"9" * 5000, b"f" * 400, b"", b"1_0", b"5;" + b"x" * 70000]
    bad = sizes[rng.integers(len(sizes))] + b"\r\n" + CONTENT[:100]
    choices = [CONTENT, CONTENT[2500:], CONTENT[: rng.integers(len(CONTENT))], good, bad, b"", CONTENT * 3]
    return choices[rng.integers(len(choices))]


def answer(rng):
    """The bytes of an answer."""
    if rng.random() < 0.2:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(CONTENT)}\r\nETag: {ETAG}\r\n\r\n"
        return head.encode() + CONTENT
    first = str(rng.choice(FIRST[:5] if rng.random() < 0.7 else FIRST))
    head = "\r\n".join([first, *header_lines(rng), "Connection: close", "", ""])
    return head.encode("utf-8", "surrogateescape") + body(rng)


class Handler(socketserver.StreamRequestHandler):
    timeout = 2

    def handle(self):
        with contextlib.suppress(OSError):
            while self.rfile.readline(70000) not in (b"\r\n", b"\n", b""):
                pass
            with self.server.lock:
                data = answer(self.server.rng)
            self.wfile.write(data)


def attack(url, folder, rng):
    """One download from the server; what comes of it: "good", "refused", or what is wrong."""
    if rng.random() < 0.5:
        note = NOTES[rng.integers(len(NOTES))].replace("{url}", url)
        (folder / "set.bin.part").write_bytes(CONTENT[: rng.integers(len(CONTENT))])
        (folder / "set.bin.part.json").write_bytes(note.encode("utf-8", "surrogatepass"))
    checksum = {"sha256": SHA256} if rng.random() < 0.5 else {}
    file = RemoteFile("set.bin", (url, url + "/other"), **checksum)
    try:
        result = fetch(file, folder, schemes=("http",), pause=0, timeout=2)
    except RefattnError as error:
        text = str(error)
        return "refused" if text.replace(" ", "").isprintable() and "; " in text else f"no sentence: {text[:200]!r}"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {error}"[:300]
    found = result.path.read_bytes()
    return "good" if not checksum or found == CONTENT else "another file"


def run(number, seed, work):
    """Counter of what comes of so many downloads, and what is wrong."""
    counts = collections.Counter()
    wrong = []
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.lock = threading.Lock()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        for n in range(number):
            server.rng = np.random.default_rng([seed, n, 1])
            folder = work / str(n)
            folder.mkdir()
            found = attack(f"http://127.0.0.1:{server.server_address[1]}", folder, np.random.default_rng([seed, n, 0]))
            counts[found if found in ("good", "refused") else "wrong"] += 1
            if found not in ("good", "refused"):
                wrong.append([n, found])
        server.shutdown()
        thread.join()
    return counts, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="file for the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts, wrong = run(options.number, options.seed, Path(folder))
    record = {"seed": options.seed, "downloads": options.number, **counts, "wrong": wrong}
    finish(record, options.json, bool(wrong))


if __name__ == "__main__":
    main()
