"""CLAIMS: where replicas agree that each occurrence of a job runs once. Only the keeper knows jobs and runs."""

from __future__ import annotations

import re

from .._errors import ConfigurationError
from .store import Answer, Ask, ClaimStore

__all__ = ["Answer", "Ask", "ClaimStore", "open_store"]

#: Which extra the URLs of each form need.
_EXTRAS = {
    r"postgresql(\+psycopg)?://": "postgresql",
    r"rediss?://": "redis",
    r"sqlite:///(?!.*(:memory:|mode=memory))[^?]": "sqlalchemy",
}


def open_store(url: str) -> ClaimStore:
    """Return the store that a URL names; it connects at its first use.

    Raises:
        ConfigurationError: The URL names no claim store, or a library that it needs is missing. The message shows no
            part of the URL.
    """
    extra = next((extra for form, extra in _EXTRAS.items() if re.match(form, url)), None)
    problem = "give a URL that begins with postgresql://, redis:// or rediss://, or sqlite:/// and the path of a file"
    try:
        if extra == "redis":
            from .redis import RedisStore

            return RedisStore(url)
        if extra is not None:
            from .sql import SqlStore

            return SqlStore(url)
    except ImportError as exc:
        problem = f"it needs {exc.name}, which is not installed: pip install bgjobs[{extra}]"
    except ValueError as exc:
        problem = f"the URL is malformed ({type(exc).__name__}); quote special characters of its password, as %40 for @"
    raise ConfigurationError(f"claims.url: {problem}", "claims.url")
