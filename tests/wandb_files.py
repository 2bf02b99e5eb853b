"""Reader of W&B's offline runs, for tests: records of protocol buffers in LevelDB's log format."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768  # a record is split where a block of the file ends
HEADER = 7  # bytes, of the file as of each piece: checksum, length, kind
LAST_KINDS = (1, 4)  # a whole record, or its last piece


@dataclass
class OfflineRun:
    """What a run would send: history rows, configuration, definitions of axes and summaries, artifacts."""

    history: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    summaries: dict[str, set[str]] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)
    run: Any = None

    @property
    def keys(self) -> set[str]:
        """The keys of all history rows."""
        return set().union(*self.history)


def read_offline_run(folder: Path) -> OfflineRun:
    """Return the run whose folder, `offline-run-*`, is given."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("*.wandb")
    found = OfflineRun()
    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            found.history.append(row)
        elif kind in ("run", "config"):
            changed = record.run.config if kind == "run" else record.config
            found.run = record.run if kind == "run" else found.run
            found.config |= {u.key or "/".join(u.nested_key): json.loads(u.value_json) for u in changed.update}
        elif kind == "metric":
            name = record.metric.name or record.metric.glob_name
            found.axes[name] = record.metric.step_metric
            found.summaries[name] = {kind.name for kind, on in record.metric.summary.ListFields() if on}
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            found.artifacts.append(record.request.log_artifact.artifact)
    return found


def _records(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    place, record = HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        record += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in LAST_KINDS:
            yield record
            record = b""
