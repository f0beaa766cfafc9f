"""prepare by several processes: the data set, the report, the errors and the end of a single one."""

import contextlib
import dataclasses
import gzip
import itertools
import os
import random
import shutil
import threading

import pytest
from test_parts import contents, files_in

from refattn.data import processes as module
from refattn.data.prepare import prepare
from refattn.data.processes import n_pieces, prepare_in_processes
from refattn.data.sources import extxyz
from refattn.data.sources.registry import open_source
from refattn.errors import DataError

CLOCK = {"seconds": 0, "seconds_reading": 0, "seconds_graphs": 0, "seconds_writing": 0}


class Inside:
    """A process of module._process as a thread of this one, with pipes as it has; `dies` before that piece."""

    dies = None

    def __init__(self, order, said):
        lines, self.stdin = (os.fdopen(end, mode, encoding="utf-8") for end, mode in zip(os.pipe(), "rw", strict=True))

        def numbers():
            for line in iter(lines.readline, ""):
                if line.strip() == self.dies:
                    return
                yield line

        def serve():
            module._serve(numbers(), lambda message: said.put((self, message)))
            said.put((self, None))

        self.thread = threading.Thread(target=serve)
        self.thread.start()
        self.stdin.write(module.json.dumps(order) + "\n")
        self.stdin.flush()


@contextlib.contextmanager
def inside(order, said):
    process = Inside(order, said)
    try:
        yield process
    finally:
        process.stdin.close()
        process.thread.join()


@pytest.fixture
def folder(tmp_path):
    return files_in(tmp_path / "set")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "PIECE_BYTES", 1200)
    monkeypatch.setattr(module, "_process", inside)


def without_clock(report):
    return dataclasses.replace(report, **CLOCK)


def check(folder, out, n, **options):
    """Prepare by one process and by n; the same file and report, and nothing beside it."""
    expected = prepare(open_source(folder), out / "serial.h5", **options)
    found = prepare_in_processes(open_source(folder), out / "all.h5", None, None, n, **options)
    assert contents(out / "all.h5") == contents(out / "serial.h5")
    assert without_clock(found) == without_clock(expected)
    assert {path.name for path in out.iterdir()} == {"set", "serial.h5", "all.h5"}


@pytest.mark.parametrize("n", [1, 5])
def test_they_make_what_one_process_makes(n, folder, tmp_path):
    (folder / "08.xyz").write_text((folder / "08.xyz").read_text().replace("homo=-4.0", "homo=unknown"))
    (folder / "readme.txt").write_text("no structure")
    assert n_pieces(open_source(folder)) > 2
    check(folder, tmp_path, n)


def test_real_processes_do(folder, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(module, "PIECE_BYTES", 1200)
    check(folder, tmp_path, 2)


def test_what_only_the_whole_shows_is_as_in_one_process(folder, tmp_path):
    """An id of two pieces has the reason of prepare, not of join."""
    text = (folder / "01.xyz").read_text()
    (folder / "12.xyz").write_text(text)
    check(folder, tmp_path, 2)


def test_a_process_that_dies_is_made_good(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Inside, "dies", "2")
    check(folder, tmp_path, 2)


def test_the_first_error_is_the_one_of_a_single_process(folder, tmp_path):
    for number, value in (("07", "1,5"), ("12", "2,5")):
        text = (folder / f"{number}.xyz").read_text()
        (folder / f"{number}.xyz").write_text(text.replace("homo=-", f"homo={value} x=-"))
    said = []
    for n in (0, 1, 3):
        with pytest.raises(DataError) as caught:
            if n:
                prepare_in_processes(open_source(folder), tmp_path / "all.h5", None, None, n)
            else:
                prepare(open_source(folder), tmp_path / "all.h5")
        said.append(str(caught.value))
    assert said[0] == said[1] == said[2] and "07.xyz" in said[0]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_it_goes_on_from_the_pieces_that_are_finished(folder, tmp_path, monkeypatch):
    def interrupted(done, total, resumed):
        if done > 6:
            raise KeyboardInterrupt

    source = open_source(folder)
    with pytest.raises(KeyboardInterrupt):
        prepare_in_processes(source, tmp_path / "all.h5", None, None, 1, progress=interrupted)
    kept = tmp_path / "all.h5.parts"
    assert len(list(kept.glob("*.h5"))) >= 2 and not (tmp_path / "all.h5").exists()
    (kept / "000003.h5.parts").mkdir(exist_ok=True)  # of a process that was killed
    shutil.copy(kept / "command.json", kept / "000003.h5.parts" / "000000.block")
    report = prepare_in_processes(open_source(folder), tmp_path / "all.h5", None, None, 2)
    assert report.n_resumed > 3
    prepare(open_source(folder), tmp_path / "serial.h5")
    assert contents(tmp_path / "all.h5") == contents(tmp_path / "serial.h5") and not kept.exists()


def test_pieces_of_a_folder_that_has_changed_are_made_again(folder, tmp_path):
    def interrupted(done, total, resumed):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_in_processes(open_source(folder), tmp_path / "all.h5", None, None, 1, progress=interrupted)
    text = (folder / "00.xyz").read_text()
    (folder / "00.xyz").write_text(text.replace("homo=-0.0", "homo=-9.0"))
    notes = []
    report = prepare_in_processes(open_source(folder), tmp_path / "all.h5", None, None, 2, note=notes.append)
    assert report.n_resumed == 0 and "starting over" in notes[0]


NOISE = [random.Random(n).randbytes(600).hex() for n in range(600)]  # a packed file is read in large steps too
FRAMES = "".join(
    f"3\nid=m{n} homo={-n / 8} noise=x{text}\nO 0 0 0.{n:03d}\nH 0 0 1.1\nH 0 1 0.2\n" for n, text in enumerate(NOISE)
)


FORMATS = ("one.xyz", "one.extxyz.gz", "several")


@pytest.fixture(params=FORMATS)
def frames(request, tmp_path, monkeypatch):
    """A function that writes text as a file of many pieces, or as a folder of three such files."""
    monkeypatch.setattr(extxyz, "PIECE", 512)
    monkeypatch.setattr(extxyz, "LINES_PER_LOOK", 15)

    def write(text):
        path = tmp_path / "set"
        path.mkdir()
        if request.param == "several":
            lines = text.splitlines(keepends=True)
            for n in range(3):
                (path / f"{n}.xyz").write_text("".join(lines[1000 * n : 1000 * (n + 1)]))
            return path
        data = text.encode()
        (path / request.param).write_bytes(gzip.compress(data) if request.param.endswith("gz") else data)
        return path / request.param

    return write


def test_frames_of_a_large_file_are_shared_out(frames, tmp_path, monkeypatch):
    """Some cannot be read, have no graph or have text for a label."""
    text = (
        FRAMES.replace("O 0 0 0.033", "O 0 0").replace("O 0 0 0.044", "H 0 0 1.1").replace("homo=-50.0", "homo=unknown")
    )
    path = frames(text.replace("id=m77 ", ""))
    monkeypatch.setattr(module, "PIECE_BYTES", len(FRAMES) // 12)
    count = n_pieces(open_source(path))
    runs = module._Runs(open_source(path), count)
    sizes = [len(list(runs.take(number).cut)) for number in range(1, count + 1)]
    assert sum(sizes) == 600 and sum(map(bool, sizes)) > 2
    check(path, tmp_path, 3)


def test_runs_of_frames_follow_the_bytes(tmp_path, monkeypatch):
    """Few large frames, and a large file among small ones."""
    monkeypatch.setattr(extxyz, "PIECE", 4096)
    monkeypatch.setattr(module, "PIECE_BYTES", 50_000)
    large = "".join(f"2000\nid=m{n}\n" + "".join(f"H 0 0 {i:09d}\n" for i in range(2000)) for n in range(40))
    for n in range(5):
        (tmp_path / f"{n}.xyz").write_text(f"1\nid=s{n}\nH 0 0 0\n")
    (tmp_path / "large.xyz").write_text(large)
    source = open_source(tmp_path)
    runs = module._Runs(source, n_pieces(source))
    sizes = [len(list(runs.take(number).cut)) for number in range(1, n_pieces(source) + 1)]
    assert sum(sizes) == 45 and len(sizes) == 25 and max(sizes) <= 7


def with_q(number, width, id=None):
    """The changes that give a frame an array q of that width, and perhaps another id."""
    rows = f"O 0 0 0.{number:03d}\nH 0 0 1.1\nH 0 1 0.2\n"
    comment = f"id={id or f'm{number}'} Properties=species:S:1:pos:R:3:q:R:{width} "
    return {f"id=m{number} ": comment, rows: rows.replace("\n", " 1" * width + "\n")}


WRONG = [
    {"O 0 0 0.300\n": ""},  # the next frame begins with an atom
    {"id=m300 ": "id=m10 "},
    {"homo=-37.5": "homo=1,5"},
    {"noise=x" + NOISE[300]: "homo=3 homo=4"},
    {"3\nid=m300": "0\nid=m300"},
    {"id=m10 ": "id=e\u0301x ", "id=m300 ": "id=\u00e9x "},  # one id, with one letter or two
    {"id=m10 ": "id=a\u200bx ", "id=m300 ": "id=a\u200bx "},  # which is not kept
    {"id=m300 ": "id=m10 ", "O 0 0 0.300": "O 0 0 1.1001"},  # without a graph too
    with_q(10, 1) | with_q(300, 2, "m10"),  # left out, so that it does not matter
    with_q(300, 1) | with_q(305, 2) | {"O 0 0 0.599\nH 0 0 1.1\nH": "H"},  # and the last frame is cut
]


# each in one of the formats, in turns
@pytest.mark.parametrize(
    ("frames", "changes"), [*zip(itertools.cycle(FORMATS), WRONG)], indirect=["frames"], ids=range(len(WRONG))
)
def test_what_is_wrong_in_a_large_file_is_said_as_by_one_process(changes, frames, tmp_path, monkeypatch):
    text = FRAMES
    for where, what in changes.items():
        assert text.count(where) == 1
        text = text.replace(where, what)
    path = frames(text)
    monkeypatch.setattr(module, "PIECE_BYTES", len(FRAMES) // 12)
    said = []
    for n_processes in (1, 3):
        out = tmp_path / f"{n_processes}.h5"
        try:
            if n_processes == 1:
                report = prepare(open_source(path), out)
            else:
                report = prepare_in_processes(open_source(path), out, n_processes=n_processes)
            said.append((without_clock(report), contents(out)))
        except DataError as error:
            said.append(str(error).replace(out.name, ""))
    assert said[0] == said[1]


def test_a_large_file_goes_on_from_finished_runs_of_frames(frames, tmp_path, monkeypatch):
    def interrupted(done, total, resumed):
        if done > 300:
            raise KeyboardInterrupt

    path = frames(FRAMES)
    monkeypatch.setattr(module, "PIECE_BYTES", len(FRAMES) // 12)
    with pytest.raises(KeyboardInterrupt):
        prepare_in_processes(open_source(path), tmp_path / "all.h5", n_processes=2, progress=interrupted)
    report = prepare_in_processes(open_source(path), tmp_path / "all.h5", n_processes=1)
    assert report.n_resumed >= 150 and report.n_structures == 600
    prepare(open_source(path), tmp_path / "serial.h5")
    assert contents(tmp_path / "all.h5") == contents(tmp_path / "serial.h5")


def test_what_is_no_folder_of_files_is_one_piece(folder, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("id,gap\nm0,1\n")
    assert n_pieces(open_source(folder, labels=labels)) == n_pieces(open_source(folder / "00.xyz")) == 1
