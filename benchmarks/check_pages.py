"""Open the pages of `refattn explain` in headless Chromium: python benchmarks/check_pages.py OUT [--chromium PATH]

Every page of OUT gets one more script, in a copy beside it, which chooses every score in turn and sorts the table, and
leaves what it saw in the page; Chromium then prints it. A page passes if the drawing is not blank, every score gives
another picture than the one before it, and no error was thrown. No address can be resolved meanwhile, so that a page
that needs the network fails. Exit status 1 where a page fails.
"""

import argparse
import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

SECONDS = 600
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--window-size=1200,900",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--virtual-time-budget=60000",
    "--dump-dom",
]
WATCH = """<script>
const errors = [];
addEventListener("error", (event) => errors.push(String(event.message)));
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
console.error = (...parts) => errors.push(parts.join(" "));
</script>"""
LOOK = """<script>
async function colours(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer);
  return new Set(pixels).size;
}
async function lookAtAll() {
  const found = { scores: [], drawn: [], colours: [], rows: [] };
  const shot = () => Plotly.toImage(plot, { format: "png", width: 600, height: 400 });
  for (let n = 0; n < menu.options.length; n++) {
    menu.selectedIndex = n;
    await redraw();
    const address = await shot();
    found.scores.push(menu.value);
    found.drawn.push(address.length + ":" + address.slice(-400));
    found.colours.push(await colours(address));
  }
  const table = document.getElementById("sites");
  table.tHead.rows[0].cells[2].querySelector("button").click();
  found.rows = [...table.tBodies[0].rows].map((row) => Number(row.cells[2].dataset.value));
  return found;
}
addEventListener("load", async () => {
  const found = await lookAtAll().catch((error) => ({ failed: String(error) }));
  const note = document.createElement("pre");
  note.id = "seen";
  note.textContent = btoa(unescape(encodeURIComponent(JSON.stringify({ ...found, errors }))));
  document.body.append(note);
});
</script>"""


def seen_by(chromium, page):
    """What the script saw on a page, as a dict."""
    copy = page.with_name(f"check-{page.name}")
    text = page.read_text(encoding="utf-8")
    copy.write_text(text.replace("<body>", "<body>" + WATCH).replace("</body>", LOOK + "</body>"), encoding="utf-8")
    try:
        command = [chromium, *FLAGS, copy.absolute().as_uri()]
        result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    finally:
        copy.unlink()
    found = re.search(r'<pre id="seen">([^<]+)</pre>', result.stdout)
    return json.loads(base64.b64decode(found[1])) if found else {"failed": "the page did not finish"}


def faults_of(seen):
    """List of str: what is wrong with a page."""
    if "failed" in seen:
        return [seen["failed"], *seen.get("errors", [])]
    faults = [f"error: {text}" for text in seen["errors"]]
    faults += [f"{score} is blank" for score, n in zip(seen["scores"], seen["colours"]) if n < 20]
    pairs = zip(seen["scores"][1:], seen["drawn"], seen["drawn"][1:])
    faults += [f"{score} looks as the score before it" for score, before, after in pairs if before == after]
    if sorted(seen["rows"], reverse=True) != seen["rows"]:
        faults.append("the table is not sorted")
    return faults


def main():
    """Check every page of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    arguments = parser.parse_args()
    if not arguments.chromium:
        sys.exit("no Chromium was found: install one, or name it with --chromium")
    bad = 0
    for page in sorted((arguments.out / "pages").glob("*.html")):
        faults = faults_of(seen_by(arguments.chromium, page))
        bad += bool(faults)
        print(f"{page.name}: {'; '.join(faults) or 'drawn, recoloured by every score, sorted, no error'}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
