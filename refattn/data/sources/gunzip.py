"""Gunzip: the gzip reader of Python in pieces of 256 kB instead of 8.

Every call to the system or to zlib gives up the GIL. A thread that parses gets it back only when the threads that make
graphs let go of it, which takes them a structure or so: with Python 3.11's own reader that was a third of the time.
"""

import io
import zlib

PIECE = 1 << 18  # bytes


class Gunzip(io.RawIOBase):
    """The unpacked bytes of a gzip file, of one member or several, as a raw stream; wrap it in io.BufferedReader.

    Parameters
    ----------
    raw : binary stream

    Raises EOFError for a file that was cut, zlib.error for one that is damaged or of another kind.
    """

    def __init__(self, raw):
        super().__init__()
        self.raw, self.packed, self.member = raw, b"", None

    def readable(self):
        return True

    def readinto(self, buffer):
        """Unpack into `buffer`; returns the number of bytes, 0 at the end."""
        while True:
            if (self.member is None or self.member.eof) and not self._next_member():
                return 0
            self.packed = self.packed or self.raw.read(PIECE)
            if not self.packed:
                raise EOFError("the compressed file ends before its end mark")
            found = self.member.decompress(self.packed, len(buffer))
            self.packed = self.member.unused_data if self.member.eof else self.member.unconsumed_tail
            if found:
                buffer[: len(found)] = found
                return len(found)

    def _next_member(self):
        """Begin the next member; False at the end. Members may be padded with zeros, as on tapes."""
        while True:
            self.packed = self.packed if self.member is None else self.packed.lstrip(b"\0")
            if self.packed:
                break
            self.packed = self.raw.read(PIECE)
            if not self.packed:
                if self.member is None:
                    raise EOFError("the compressed file is empty")
                return False
        self.member = zlib.decompressobj(zlib.MAX_WBITS | 16)  # a gzip header, and its checksum at the end
        return True
