"""From the environment and files to one model. Knows neither runs nor APScheduler.

The model is imported when it is first asked for: pydantic-settings is slow, and most modules do without.
"""

import typing

if typing.TYPE_CHECKING:  # what stands below would let a type checker take every name for known
    from .model import BackgroundJobsSettings as BackgroundJobsSettings
else:

    def __getattr__(name: str) -> object:
        if name == "BackgroundJobsSettings":
            from .model import BackgroundJobsSettings

            globals()[name] = BackgroundJobsSettings
            return BackgroundJobsSettings
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
