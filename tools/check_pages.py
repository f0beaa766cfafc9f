"""Open what `refattn explain` wrote in headless Chromium: python tools/check_pages.py OUT [--chromium PATH]

Chromium is driven over a pipe (the DevTools protocol), so that everything is waited for and timed as a reader sees it.
Every page, and one of 1,000 atoms made for the purpose, passes if it asks for nothing but files, draws something, looks
different with every score, tells the numbers of the site under the pointer, turns when it is dragged, follows the
system between light and dark, sorts its table, throws no error and is as quick as LIMITS say, although the processor
draws. The list must follow the system, sort, filter and show its pictures.
Exit status 1 where one fails. With --screenshots FOLDER what was seen is kept.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ase.build import bulk
from matplotlib.image import imread

from refattn.report.scene import Scene

LIMITS = {"drawn": 5.0, "recoloured": 1.0}  # s, at 1,000 atoms and software rendering
N_LARGE = 1000
SECONDS = 120.0  # for one command
SIZE = 1200, 900  # pixels
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
]
PAINTED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
PLACE = "(({ x, y, width, height }) => [x, y, width, height])(plot.getBoundingClientRect())"
NEAREST = """(() => {  // where the atom that is nearest to the viewer is shown, in pixels
  const [right, up, near] = Object.values(data.views)[0];
  const along = (axis, p) => p[0] * axis[0] + p[1] * axis[1] + p[2] * axis[2];
  const atom = data.position.reduce((a, b) => (along(near, a) >= along(near, b) ? a : b));
  const { x, y } = canvas.getBoundingClientRect();
  const [left, top] = seen(atom);
  return [x + left, y + top];
})()"""
TOLD = "told.hidden ? '' : told.textContent"
CHOOSE = f"""(async (name) => {{
  const start = performance.now();
  menu.value = name;
  menu.dispatchEvent(new Event("change"));
  await drawn;
  await {PAINTED};
  return (performance.now() - start) / 1000;
}})"""
ROWS = "[...document.querySelector('table.sortable').tBodies[0].rows]"
SORT = f"""((column) => {{
  document.querySelector("table.sortable").tHead.rows[0].cells[column].querySelector("button").click();
  return {ROWS}.map((row) => row.cells[column].dataset.value).filter((value) => value !== "").map(Number);
}})"""
FILTER = f"""((text) => {{
  const field = document.getElementById("filter");
  field.value = text;
  field.dispatchEvent(new Event("input"));
  return {ROWS}.filter((row) => !row.hidden).length;
}})"""
BROKEN = "[...document.images].filter((i) => (i.loading = 'eager') && i.complete && !i.naturalWidth).map((i) => i.src)"


class Browser:
    """A headless Chromium with one tab; commands are those of the DevTools protocol."""

    def __init__(self, chromium, profile):
        from_here, to_here = os.pipe(), os.pipe()

        def connect():
            ends = os.dup(from_here[0]), os.dup(to_here[1])
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        command = [chromium, *FLAGS, f"--user-data-dir={profile}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, close_fds=False, preexec_fn=connect, **quiet)
        os.close(from_here[0]), os.close(to_here[1])
        self.writing, self.reading, self.unread = from_here[1], to_here[0], b""
        self.session, self.number, self.events = None, 0, []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")
        self("Emulation.setDeviceMetricsOverride", width=SIZE[0], height=SIZE[1], deviceScaleFactor=1, mobile=False)

    def __call__(self, method, **params):
        """Send a command and wait for its result, a dict."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        answer = self._wait(lambda message: message.get("id") == self.number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _wait(self, wanted):
        """The first message that is wanted; events before it are kept. Raises TimeoutError."""
        until = time.monotonic() + SECONDS
        while True:
            while b"\0" not in self.unread:
                ready, _, _ = select.select([self.reading], [], [], max(0.0, until - time.monotonic()))
                part = os.read(self.reading, 1 << 20) if ready else b""
                if not part:
                    raise TimeoutError("Chromium ended or did not answer in time")
                self.unread += part
            text, _, self.unread = self.unread.partition(b"\0")
            message = json.loads(text)
            self.events.append(message)
            if wanted(message):
                return message
            if time.monotonic() > until:
                raise TimeoutError("Chromium sends events and no answer")

    def open(self, path):
        """Load a file; what was seen before is forgotten."""
        self.events.clear()
        self("Page.navigate", url=path.absolute().as_uri())
        self._wait(lambda message: message.get("method") == "Page.loadEventFired")

    def value(self, expression):
        """The value of a JavaScript expression, of a promise when it is kept."""
        answer = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", "an error"))
        return answer["result"].get("value")

    def scheme(self, name):
        """The system turns light or dark."""
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def see(self, keep=None):
        """What is shown, (height, width, 3) float; written to `keep` too."""
        png = base64.b64decode(self("Page.captureScreenshot", format="png")["data"])
        if keep:
            keep.write_bytes(png)
        return imread(io.BytesIO(png))[:, :, :3]

    def point(self, kind, x, y, pressed=False):
        """The pointer moves to a place, or is pressed or released there; the page has a tenth of a second to answer."""
        button = {"button": "left", "buttons": 1, "clickCount": 1} if pressed else {}
        self("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)
        self.value("new Promise((done) => setTimeout(done, 100))")
        self.value(PAINTED)

    def complaints(self):
        """List of str: errors that were thrown or logged, and addresses that are no files."""
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"].get("exception", {}).get("description", "an error was thrown"))
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
                found.append(" ".join(str(part.get("value", part.get("description"))) for part in params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
            elif method == "Network.requestWillBeSent" and not re.match("file:|data:|blob:", params["request"]["url"]):
                found.append(f"it asks for {params['request']['url']}")
        return found

    def close(self):
        self.session = None
        with contextlib.suppress(TimeoutError):
            self("Browser.close")
        self.process.wait(SECONDS)


def check_page(browser, page, keep):
    """Times in seconds, `recoloured` the median over the scores, and a list of what is wrong with a page."""
    browser.scheme("light")
    browser.open(page)
    times = {"drawn": browser.value(f"drawn.then(() => {PAINTED}).then(() => performance.now() / 1000)")}
    x, y, width, height = browser.value(PLACE)
    part = np.s_[int(y) + 2 : int(y + height) - 2, int(x) + 2 : int(x + width) - 2]
    faults, before, taken = [], None, []
    for name in browser.value("[...menu.options].map((option) => option.value)"):
        taken.append(browser.value(f"{CHOOSE}({json.dumps(name)})"))
        seen = browser.see(keep / f"{page.stem}-{name}.png" if keep else None)[part]
        if len(np.unique(seen.reshape(-1, 3), axis=0)) < 20:
            faults.append(f"{name} is blank")
        if before is not None and (seen == before).all():
            faults.append(f"{name} looks as the score before it")
        before = seen
    times["recoloured"] = float(np.median(taken))
    faults += pointer_faults(browser)
    faults += background_faults(browser, keep / f"{page.stem}-dark.png" if keep else None, part)
    return times, faults + table_faults(browser, 2) + browser.complaints()


def pointer_faults(browser):
    """List of str: whether the numbers of a site are not told, or dragging does not turn the structure."""
    faults, (x, y) = [], browser.value(NEAREST)
    for step in (1, 0):
        browser.point("mouseMoved", x + step, y)
    if not all(name in browser.value(TOLD) for name in browser.value("data.columns.map((column) => column.name)")):
        faults.append("it does not tell the numbers of a site")
    before = browser.value("JSON.stringify(turn)")
    browser.point("mousePressed", x, y, pressed=True)
    for step in (30, 60):
        browser.point("mouseMoved", x + step, y, pressed=True)
    browser.point("mouseReleased", x + 60, y, pressed=True)
    if browser.value("JSON.stringify(turn)") == before:
        faults.append("it does not turn")
    return faults


def background_faults(browser, keep, part=np.s_[:]):
    """List of str: whether the page does not turn dark and light again with the system."""
    faults = []
    for scheme, fits in (("dark", lambda grey: grey < 0.3), ("light", lambda grey: grey > 0.9)):
        browser.scheme(scheme)
        browser.value(PAINTED)
        seen = browser.see(keep if scheme == "dark" else None)[part]
        if not fits(np.median(seen)):
            faults.append(f"it does not turn {scheme}")
    return faults


def table_faults(browser, column):
    """List of str: whether pressing a heading of numbers does not sort its column, largest first and then smallest."""
    down, up = (browser.value(f"{SORT}({column})") for _ in range(2))
    good = down == sorted(down, reverse=True) and up == sorted(down)
    return [] if good else [f"column {column} of the table does not sort"]


def check_list(browser, page, keep):
    """List of str: what is wrong with the page that lists all."""
    browser.scheme("light")
    browser.open(page)
    n = browser.value(f"{ROWS}.length")
    browser.see(keep / "index.png" if keep else None)
    faults = background_faults(browser, keep / "index-dark.png" if keep else None)
    faults += [f"{address} is broken" for address in browser.value(BROKEN)]
    faults += [fault for column in (3, 4) for fault in table_faults(browser, column)]
    if (browser.value(f'{FILTER}("no structure is called so")'), browser.value(f'{FILTER}("")')) != (0, n):
        faults.append("its filter does not work")
    return faults + browser.complaints()


def large_page(page):
    """The text of a page with a piece of diamond of N_LARGE atoms in the place of its structure."""
    atoms = bulk("C", "diamond", a=3.567, cubic=True).repeat(6)[:N_LARGE]
    atoms.pbc = False
    scene, rng = Scene.of(atoms), np.random.default_rng(0)
    text = page.read_text(encoding="utf-8")
    start, end = re.search(r'id="data">(.*?)</script>', text, re.DOTALL).span(1)
    data = json.loads(text[start:end])
    for column in data["columns"]:
        column["values"] = rng.uniform(column["low"], column["high"], N_LARGE).tolist()
    data |= {name: getattr(scene, name).tolist() for name in ("site", "position", "radius", "bonds", "box")}
    data |= {"elements": ["C"] * N_LARGE, "notes": {}}
    return text[:start] + json.dumps(data) + text[end:]


@contextlib.contextmanager
def everything(out, chromium):
    """A Browser, the pages of structures, and one more page that is large, which is gone in the end."""
    pages = sorted((out / "pages").glob("*.html"))
    if not pages:
        sys.exit(f"{out}/pages holds no page: give the folder that refattn explain wrote")
    large = out / "pages" / f"check-{N_LARGE}-atoms.html"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(chromium, profile)
        try:
            large.write_text(large_page(pages[0]), encoding="utf-8")
            yield browser, [*pages, large]
        finally:
            large.unlink(missing_ok=True)
            browser.close()


def main():
    """Check every page of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--screenshots", type=Path)
    arguments = parser.parse_args()
    if not arguments.chromium:
        sys.exit("no Chromium was found: install one, or name it with --chromium")
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    with everything(arguments.out, arguments.chromium) as (browser, pages):
        faults = check_list(browser, arguments.out / "index.html", arguments.screenshots)
        print(f"index.html: {'; '.join(faults) or 'good'}")
        bad = bool(faults)
        for page in pages:
            times, faults = check_page(browser, page, arguments.screenshots)
            faults += [f"{name} after {times[name]:.1f} s" for name, limit in LIMITS.items() if times[name] > limit]
            bad |= bool(faults)
            words = ", ".join(f"{name} {times[name]:.2f} s" for name in times)
            print(f"{page.name}: {words}: {'; '.join(faults) or 'good'}", flush=True)
    sys.exit(bad)


if __name__ == "__main__":
    main()
