"""What stands in a .wandb file: protocol buffers in LevelDB's log format, as wandb writes it for `wandb sync`."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER, BLOCK = 7, 1 << 15  # bytes; of the file, as of each record, and what no record crosses in one part
WHOLE, LAST = 1, 4  # kinds of parts that end a record


def records(file: Path, patience: float = 60.0) -> list[Any]:
    """Its records, as wandb.proto.wandb_internal_pb2.Record, once the one that ends a run is there.

    They are written by a process of wandb's own, which on a busy machine is not done when `finish` returns.
    """
    end = time.monotonic() + patience
    while True:
        found = list(_written(file.read_bytes()))
        if any(record.HasField("exit") for record in found) or time.monotonic() > end:
            return found
        time.sleep(0.1)


def _written(content: bytes) -> Iterator[Any]:
    """The records that are whole."""
    from wandb.proto.wandb_internal_pb2 import Record

    place, parts = HEADER, b""
    while place + HEADER <= len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + HEADER])
        if place + HEADER + length > len(content):
            return
        parts += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (WHOLE, LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""
