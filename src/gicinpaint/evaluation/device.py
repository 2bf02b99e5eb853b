"""What an evaluation ran on, in words."""

import platform
from pathlib import Path
from typing import Any

import torch


def describe_device(device: torch.device, processes: int) -> dict[str, Any]:
    """Return the device's type and name, and how many processes and processor threads shared the work."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"type": device.type, "name": name, "processes": processes, "threads": torch.get_num_threads()}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
