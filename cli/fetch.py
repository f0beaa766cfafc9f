"""refattn data fetch: the files of a published set."""

import time
from collections.abc import Callable
from pathlib import Path

import click

from refattn.cli.options import StatusLine, as_json, echo, note
from refattn.common.strict_json import to_json
from refattn.common.text import duration
from refattn.data.sources.fetch import fetch as fetch_file
from refattn.data.sources.published import PUBLISHED, PublishedSet, published_set

LOG_SECONDS = 10  # between two lines where stderr is not a terminal
CHECKS = {
    "sha256": "has the published SHA-256",
    "md5": "has the published MD5",
    "recorded": "is unchanged since its first download (no checksum is published)",
    "": "could not be compared with a published checksum, there is none; its SHA-256 is now in {}.sha256",
}


@click.command()
@click.argument("name", type=click.Choice(list(PUBLISHED)), metavar="NAME")
@click.option("--out", type=click.Path(), default=".", show_default=True, help="Folder for the files.")
@as_json
def fetch(name, out, as_json):
    """Download the published set NAME (`refattn data list` names them) as its authors published it.

    The same command goes on with a download that was stopped, and checks files that are there already, also those
    that were put there by hand.
    """
    item = published_set(name)
    results = [fetch_file(file, out, progress_printer(file.name)) for file in item.files]
    for result in results:
        where = "downloaded" if result.downloaded else "is there already, nothing was downloaded"
        note(f"{result.path}: {where}; it {CHECKS[result.checked].format(result.path)}")
    if as_json:
        facts = [{**result._asdict(), "path": str(result.path)} for result in results]
        echo(to_json({"set": name, "licence": item.licence, "citation": item.citation, "files": facts}))
        return
    echo(f"licence: {item.licence}\ncite: {item.citation}\nnext: {prepare_command(name, item, out)}")


def prepare_command(name: str, item: PublishedSet, folder: Path | str = "") -> str:
    """The command that makes a data set of the downloaded files, with the neighbour rule of the authors."""
    return (
        f"refattn prepare {Path(folder) / item.files[0].name} {name}_upstream.h5 --format {item.format} {item.options}"
    )


def progress_printer(name: str) -> Callable[[int, int | None], None]:
    """A function (done, total) that reports rate and time left: a status line, or now and then a line in a log."""
    status = StatusLine()
    start = time.perf_counter()
    first = None
    last = shown = start

    def show(done, total):
        nonlocal first, last, shown
        now = time.perf_counter()
        first = done if first is None else first  # what an earlier download left does not count for the rate
        rate = (done - first) / max(now - start, 1e-9)
        text = (
            f"{name}: {done / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB" if total else " MB") + f", {rate / 1e6:.1f} MB/s"
        )
        if total and rate:
            text += f", about {duration(max(total - done, 0) / rate)} left"
        if done == total or (now - last > LOG_SECONDS and not status.terminal):
            last = now
            status.line(text)
        elif now - shown > 0.1:
            shown = now
            status.update(text)

    return show
