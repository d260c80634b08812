"""Whether a disk is full: torch and safetensors report that in errors of their own, without its number."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

_FULL_BELOW_BYTES = 1 << 20  # whoever failed was about to write more than is left


def is_full(error: BaseException, folder: Path) -> bool:
    """Whether writing under `folder` failed for want of space. Ask before what was written is removed."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return folder.is_dir() and shutil.disk_usage(folder).free < _FULL_BELOW_BYTES
