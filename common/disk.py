"""Whether a disk is full: torch and safetensors report that in errors of their own, without its number."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

_FULL_BELOW_BYTES = 1 << 20  # whoever failed was about to write more than is left


def is_full(error: BaseException, path: Path) -> bool:
    """Whether writing to `path`, a folder or file, failed for want of space. Ask before what was written is removed."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return path.exists() and shutil.disk_usage(path).free < _FULL_BELOW_BYTES
