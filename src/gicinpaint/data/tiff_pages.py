"""TIFF files page by page, their tags as numbers and their pixels as the bytes that are stored, never decoded."""

import itertools
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, NamedTuple

import numpy as np
from PIL.ExifTags import Base

_TYPES = {  # of numbers, by TIFF's number of the type; a rational is two of them
    **dict.fromkeys((1, 2, 6, 7), "u1"),
    **dict.fromkeys((3, 8), "u2"),
    **dict.fromkeys((4, 5, 9, 10, 11, 13), "u4"),
    **dict.fromkeys((12, 16, 17, 18), "u8"),
}
_RATIONAL = (5, 10)
_PIXELS = {Base.StripOffsets: Base.StripByteCounts, Base.TileOffsets: Base.TileByteCounts}
_DIRECTORIES = (Base.SubIFDs, Base.ExifOffset, Base.GPSInfo, 40965)  # the last is EXIF's interoperability
_DEEPEST = 3  # a page, a reduced copy of it, its EXIF data, their interoperability
_OLD_JPEG = 6  # a compression whose tables lie anywhere in the file
_MOST = 2**16  # directories of a file; a chain of them may be a loop


class Page(NamedTuple):
    """A directory of a TIFF file: type and numbers of each tag, and what the tags point to."""

    numbers: dict[int, tuple[int, np.ndarray]]
    pixels: dict[int, list[memoryview]]
    directories: dict[int, list["Page"]]

    def number(self, tag: int, default: int) -> int:
        """Return the first number of a tag."""
        return int(self.numbers[tag][1][0]) if tag in self.numbers else default


class Layout(NamedTuple):
    """How a file writes its numbers: "<" or ">", its offsets, the counts of directories, and the head of an entry."""

    order: str
    offset: struct.Struct
    counts: struct.Struct
    entry: struct.Struct

    @classmethod
    def of(cls, content: bytes) -> "Layout":
        """Return the layout of a file that begins so; BigTIFF has offsets of 64 bits, other files of 32."""
        order, kinds = "<" if content[:2] == b"II" else ">", "QQHHQ" if b"+" in content[2:4] else "IHHHI"
        return cls(order, *(struct.Struct(order + kind) for kind in (kinds[0], kinds[1], kinds[2:])))

    @property
    def big(self) -> bool:
        """Say whether offsets have 64 bits."""
        return self.offset.size == 8


class TiffReader:
    """The pages of a TIFF file; what is wrong with it is a ValueError or a LookupError.

    No more bytes are handed out than twice the file has, because pages of a hostile file may all be the same bytes.
    """

    def __init__(self, content: bytes) -> None:
        self.content = memoryview(content)
        self.left, self.directories = 2 * len(content), _MOST
        self.layout = Layout.of(content)

    def pages(self, first: int = 0) -> Iterator[Page]:
        """Yield the pages from number `first` on; those before it are not looked into."""
        number, at = 0, self._number(self.layout.offset, 8 if self.layout.big else 4)
        while at:
            if number >= first:
                yield self._page(at)
            number, at = number + 1, self._number(self.layout.offset, self._entries(at)[-1])

    def _page(self, at: int, depth: int = 0) -> Page:
        page = Page({}, {}, {})
        offset, entry = self.layout.offset, self.layout.entry
        for place in self._entries(at)[:-1]:
            tag, kind, count = entry.unpack(self._take(place, entry.size))
            size = count * np.dtype(_TYPES[kind]).itemsize * (1 + (kind in _RATIONAL))
            place += entry.size
            where = place if size <= offset.size else self._number(offset, place)
            page.numbers[tag] = kind, np.frombuffer(self._take(where, size), self.layout.order + _TYPES[kind])
        self.directories -= 1
        if self.directories < 0:
            raise ValueError(f"there are more than {_MOST:,}")
        if depth > _DEEPEST or page.number(Base.Compression, 1) == _OLD_JPEG:
            raise ValueError("they are stored in an unusual form")
        for tag in _PIXELS.keys() & page.numbers.keys():
            spans = zip(page.numbers[tag][1].tolist(), page.numbers[_PIXELS[tag]][1].tolist(), strict=True)
            page.pixels[tag] = [self._take(*span) for span in spans]
        for tag in page.numbers.keys() & {*_DIRECTORIES}:
            try:
                page.directories[tag] = [self._page(place, depth + 1) for place in page.numbers[tag][1].tolist()]
            except (ValueError, LookupError):  # EXIF data of pages that Pillow appended: nobody can read them
                del page.numbers[tag]
        return page

    def _entries(self, at: int) -> range:
        """Return where the entries of a directory lie, and last where the offset of the next directory does."""
        count, step = self._number(self.layout.counts, at), self.layout.entry.size + self.layout.offset.size
        at += self.layout.counts.size
        return range(at, at + (count + 1) * step, step)

    def _number(self, kind: struct.Struct, at: int) -> int:
        return int(kind.unpack(self._take(at, kind.size))[0])

    def _take(self, at: int, size: int) -> memoryview:
        self.left -= size
        if self.left < 0 or at + size > len(self.content):
            raise ValueError("they lie beyond the end of the file, or some of it is in several of them")
        return self.content[at : at + size]


def write_pages(file: IO[bytes], first: bytes, changes: Mapping[int, Sequence[int]], further: bytes | None) -> None:
    """Write the one page of a file, some of its tags changed, and behind it the further pages of another file.

    The other file decides about the order of bytes, because pixels that are packed in it cannot be turned.
    """
    reader = TiffReader(first)
    (page,) = reader.pages()
    page.numbers.update({tag: (page.numbers[tag][0], np.array(values)) for tag, values in changes.items()})
    source = reader if further is None else TiffReader(further)
    own, layout = reader.layout, source.layout
    if layout.order != own.order and (width := page.number(Base.BitsPerSample, 1) // 8) > 1:
        for tag, parts in page.pixels.items():
            page.pixels[tag] = [np.frombuffer(part, f"u{width}").byteswap().data for part in parts]
    file.write(b"II" if layout.order == "<" else b"MM")
    file.write(struct.pack(layout.order + ("HHH" if layout.big else "H"), *((43, 8, 0) if layout.big else (42,))))
    link = file.tell()
    file.write(bytes(layout.offset.size))
    for each in itertools.chain([page], () if further is None else further_pages(source)):
        at = _write(file, each, layout)
        end = file.seek(0, 2)
        file.seek(link)
        file.write(layout.offset.pack(at))
        link = end - layout.offset.size
        file.seek(end)


def further_pages(reader: TiffReader) -> Iterator[Page]:
    """Yield what follows a file's first page, without the reduced copies of that page right behind it."""
    copies = True
    for page in reader.pages(1):
        copies = copies and bool(page.number(Base.NewSubfileType, 0) & 1)
        if not copies:
            yield page


def _write(file: IO[bytes], page: Page, layout: Layout) -> int:
    """Write what a directory points to and then, last, the directory; return where it begins."""
    numbers, kind = dict(page.numbers), 16 if layout.big else 4
    for tag, parts in page.pixels.items():
        numbers[tag] = kind, np.array([_put(file, part) for part in parts], np.uint64)
    for tag, pages in page.directories.items():
        numbers[tag] = kind, np.array([_write(file, inner, layout) for inner in pages], np.uint64)
    entries = []
    for tag, (kind, values) in sorted(numbers.items()):
        raw = values.astype(layout.order + _TYPES[kind]).tobytes()
        entries.append(layout.entry.pack(tag, kind, len(values) // (1 + (kind in _RATIONAL))))
        short = len(raw) <= layout.offset.size
        entries.append(raw.ljust(layout.offset.size, b"\0") if short else layout.offset.pack(_put(file, raw)))
    return _put(file, layout.counts.pack(len(numbers)) + b"".join(entries) + bytes(layout.offset.size))


def _put(file: IO[bytes], part: bytes | memoryview) -> int:
    """Write bytes at an even place, as the format asks for, and return the place."""
    file.write(bytes(file.tell() % 2))
    at = file.tell()
    file.write(part)
    return at
