"""Keys of jobs and other names that users choose, as they are compared between sources."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=4096)
def fold(key: str) -> str:
    """The form in which two spellings of one key are equal: ``data-sync``, ``data_sync`` and ``DataSync``."""
    return re.sub(r"[\W_]+", "", key.casefold())
