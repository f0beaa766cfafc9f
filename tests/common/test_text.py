"""Text of others on its way out, folders of one's own, archives with an end, limits."""

import bz2
import gzip
import io
import os
import tarfile

import pytest

from refattn.common import archives, limits
from refattn.common.archives import TarMember, bounded, read_member
from refattn.common.files import private_folder
from refattn.common.strict_json import to_json
from refattn.common.text import csv_cell, encodable, in_picture, plain_cell, printable
from refattn.config import Config, DataConfig, ModelConfig, config_from_dict, load_config, to_toml
from refattn.errors import ConfigError, OutputError
from refattn.network.params import parameter_table

NASTY = "a\x1b[2J\x07\x7f\x9b\u202e\udcff\nb"


def test_what_a_terminal_obeys_is_escaped():
    assert printable(NASTY) == r"a\x1b[2J\x07\x7f\x9b\u202e\udcff\nb"
    assert printable("Å β 日本 −1.5") == "Å β 日本 −1.5"
    assert encodable("a\udcff") == r"a\udcff"
    text = to_json({NASTY: NASTY}, ensure_ascii=False)
    assert text.isprintable()
    assert text.encode()
    assert to_json(["Å"], ensure_ascii=False) == '["Å"]'
    assert in_picture("$x$") == r"\$x\$"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "'=1", "''=1", "'", "a", "a=1", "", "'a"])
def test_formulas_in_cells_and_back(text):
    assert not str(csv_cell(text)).startswith(("=", "+", "-", "@", "\t"))
    assert plain_cell(csv_cell(text)) == text
    assert csv_cell(-1.5) == -1.5


def test_paths_in_configurations(tmp_path):
    config = Config(data=DataConfig(path="a\x7f\x1b\t'\"\\b"))
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert load_config(tmp_path / "c.toml") == config
    for path in ("a\udcff", "a\0"):
        with pytest.raises(ConfigError, match=r"data.path .* text in UTF-8"):
            DataConfig(path=path)
        for target in (path, ["a", path]):
            with pytest.raises(ConfigError, match=r"data.target .* text in UTF-8"):
                DataConfig(target=target)


def test_networks_have_an_end():
    with pytest.raises(ConfigError, match=r"n_layers is 65536; it must be at most 1000 \(REFATTN_LAYERS\)"):
        config_from_dict({"model": {"n_layers": 65536}})
    with pytest.raises(ConfigError, match=r"parameters; at most .* \(REFATTN_PARAMETERS\)"):
        parameter_table(ModelConfig(width=16384))


def test_limits_from_the_environment(monkeypatch):
    monkeypatch.setenv("REFATTN_SMALL", "17")
    assert limits._limit("SMALL", 5) == 17
    for text in ("", "-1", "0", "x", "9" * 5000):
        monkeypatch.setenv("REFATTN_SMALL", text)
        with pytest.raises(ConfigError, match="REFATTN_SMALL is .* it must be a number"):
            limits._limit("SMALL", 5)


def test_folders_that_others_may_write_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = private_folder("x")
    assert (folder, folder.stat().st_mode & 0o777) == (tmp_path / "refattn" / "x", 0o700)
    assert private_folder("x") == folder
    folder.chmod(0o777)
    with pytest.raises(OutputError, match="others may write it"):
        private_folder("x")
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(OutputError):
        private_folder("x")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(OutputError, match="others may write it"):
        private_folder("y")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_what_unpacks_without_end_has_one(monkeypatch, compress):
    monkeypatch.setattr(archives, "SMALL", 1000)
    packed = compress(bytes(10_000_000))
    opener = {gzip.compress: gzip.open, bz2.compress: bz2.open}[compress]
    raw = io.BytesIO(packed)
    with opener(raw) as stream, pytest.raises(ValueError, match="unpack to"):
        bounded(stream, raw).read()
    raw = io.BytesIO(compress(os.urandom(5000)))
    with opener(raw) as stream:
        assert len(bounded(stream, raw).read()) == 5000


def test_members_and_headers_of_tar_files(monkeypatch):
    monkeypatch.setattr(archives, "MEMBER", 1000)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, pax in (("large", {}), ("header", {"comment": "x" * 5000})):
            member = tarfile.TarInfo(name)
            member.size = 5000
            member.pax_headers = pax
            archive.addfile(member, io.BytesIO(bytes(5000)))
    raw.seek(0)
    with tarfile.open(fileobj=raw, mode="r|", tarinfo=TarMember) as archive:
        with pytest.raises(ValueError, match="large has 5000 bytes"):
            read_member(archive, archive.next())
        with pytest.raises(tarfile.ReadError, match="a header of"):
            archive.next()
