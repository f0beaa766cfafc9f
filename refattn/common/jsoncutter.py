"""JSON in pieces: objects are cut out of a text stream, so that memory does not depend on its length."""

import json
import re
from collections.abc import Callable, Iterator
from typing import TextIO

from refattn.errors import in_one_line

CHUNK = 1 << 20  # characters
LARGEST_OBJECT = 1 << 26  # characters; beyond that the text is damaged
SPACE = re.compile(r"[ \t\r\n]*")


class JsonCutter:
    """Cuts a JSON text into values; holds one chunk, or one value where that is larger.

    Raises ValueError for what is no JSON. A value that was cut cannot be mistaken for a whole one: what does not parse
    is tried again with twice the text, until there is no more.
    """

    def __init__(self, text: TextIO):
        self.text = text
        self.buffer = ""
        self.at = 0
        self.decoder = json.JSONDecoder()

    def elements(self) -> Iterator[dict]:
        """The objects of a list."""
        if self._next() != "[":
            raise ValueError("it does not begin as a list")
        for _ in self._places("[", "]"):
            yield self._object()
        self._end()

    def records(self, is_record: Callable[[str, bool], bool]) -> Iterator[tuple[str, dict]]:
        """(key or "", object) of the records in lists and objects that lie in each other.

        is_record : callable (first key of an object, whether its value is an object or a list)
        """
        yield from self._within("", is_record)
        self._end()

    def table(self, rows: str) -> Iterator[tuple[str, object]]:
        """(key, value) of the places of an object; of the list under the key `rows` of every element."""
        if self._next() != "{":
            raise ValueError("it does not begin as an object")
        for key in self._places("{", "}"):
            if key == rows and self._next() == "[":
                for _ in self._places("[", "]"):
                    yield key, self._value("a row")
            else:
                yield key, self._value("a value")
        self._end()

    def _within(self, key, is_record):
        mark = self._next()
        if mark == "[":
            for _ in self._places("[", "]"):
                yield from self._within("", is_record)
        elif mark == "{" and not self._is_record(is_record):
            for own in self._places("{", "}"):
                yield from self._within(own, is_record)
        elif mark == "{":
            yield key, self._object()
        else:
            self._value("a value")

    def _is_record(self, is_record):
        """Whether the object that comes next is one; an empty one is none."""
        while True:
            start = SPACE.match(self.buffer, self.at + 1).end()
            try:
                if self.buffer[start] == "}":
                    return False
                key, end = self.decoder.raw_decode(self.buffer, start)
                end = SPACE.match(self.buffer, SPACE.match(self.buffer, end).end() + 1).end()
                return is_record(key, self.buffer[end] in "{[")
            except (ValueError, IndexError) as error:
                if len(self.buffer) - self.at > LARGEST_OBJECT or not self._more():
                    raise ValueError(f"an object is cut or damaged, {in_one_line(error)}") from None

    def _places(self, begin, end):
        """The key of every place of a list or an object in turn; "" in a list. The value is to be read each time."""
        self.at += 1
        mark = ","
        if self._next() == end:
            mark = end
            self.at += 1
        while mark == ",":
            key = ""
            if begin == "{":
                key = self._value("a key")
                if not isinstance(key, str) or self._next() != ":":
                    raise ValueError("an object has no key where one should be")
                self.at += 1
            yield key
            mark = self._next()
            self.at += 1
        if mark != end:
            raise ValueError(f"the {'list' if end == ']' else 'object'} does not end as one")

    def _end(self):
        if self._next():
            raise ValueError("there is more behind the end of the list or object")

    def _object(self):
        if self._next() != "{":
            raise ValueError("an element of the list is no object")
        return self._value("an element of the list")

    def _value(self, what):
        self._next()
        while True:
            try:
                found, at = self.decoder.raw_decode(self.buffer, self.at)
                if at < len(self.buffer) or isinstance(found, dict | list | str) or not self._more():
                    self.at = at
                    return found
            except (ValueError, RecursionError) as error:
                if len(self.buffer) - self.at > LARGEST_OBJECT or not self._more():
                    raise ValueError(f"{what} is cut or damaged, {in_one_line(error)}") from None

    def _next(self):
        """The next character that is no space, "" at the end; it stays the next."""
        while True:
            self.at = SPACE.match(self.buffer, self.at).end()
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self._more():
                return ""

    def _more(self):
        chunk = self.text.read(max(CHUNK, len(self.buffer) - self.at))
        self.buffer = self.buffer[self.at :] + chunk
        self.at = 0
        return bool(chunk)
