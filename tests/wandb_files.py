"""What stands in a .wandb file: protocol buffers in LevelDB's log format, as wandb writes it for `wandb sync`."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER, BLOCK = 7, 1 << 15  # bytes; of the file, as of each record, and what no record crosses in one part
WHOLE, LAST = 1, 4  # kinds of parts that end a record


def records(file: Path) -> Iterator[Any]:
    """Its records, as wandb.proto.wandb_internal_pb2.Record."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = file.read_bytes(), HEADER, b""
    while place + HEADER <= len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + HEADER])
        parts += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (WHOLE, LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""
