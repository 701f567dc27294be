"""What users and their settings give: what is refused, where it is refused, and in what words."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bgjobs import BackgroundJobsSettings, CancellationToken, ConfigurationError, CronExpression
from bgjobs.testing import walk
from stage import NIGHTLY, cold, nothing

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

#: Numbers with which threads and dates cannot count.
ABSURD = [math.inf, math.nan, 1e300, float(2 * threading.TIMEOUT_MAX), 10**5000]

absurd = pytest.mark.parametrize("number", ABSURD, ids=["inf", "nan", "1e300", "beyond threads", "5000 digits"])


class TestNumbers:
    @absurd
    @pytest.mark.parametrize("option", ["timeout", "jitter", "misfire_grace_time", "max_instances"])
    def test_options(self, option: str, number: float) -> None:
        """An option that would overflow in a thread or a date is refused at registration."""
        with pytest.raises(ConfigurationError, match=f"job 'nothing': {option}: "):
            cold().add_background_job(nothing, cron=NIGHTLY, **{option: number})  # type: ignore[arg-type]

    @absurd
    def test_the_shutdown_timeout(self, number: float) -> None:
        """It is refused when the settings are read, not when the jobs are closed."""
        with pytest.raises(ConfigurationError, match="argument shutdown_timeout: "):
            BackgroundJobsSettings(shutdown_timeout=number)

    @absurd
    def test_the_jitter_of_a_trigger(self, number: float) -> None:
        """A trigger that is used without options refuses it, too."""
        with pytest.raises(ConfigurationError, match="jitter: a number of seconds from 0 to"):
            CronExpression(NIGHTLY).trigger("UTC", jitter=number)

    @absurd
    def test_the_run_time_in_a_walk(self, number: float) -> None:
        """So does the walk through virtual time."""
        jobs = cold().add_background_job(nothing, cron=NIGHTLY)
        with pytest.raises(ConfigurationError, match="takes: a number of seconds from 0 to"):
            walk(jobs, BEGIN, BEGIN + timedelta(days=2), takes=number)

    def test_long_ones_that_are_meant(self) -> None:
        """A year is no mistake."""
        year: Any = 366 * 86_400
        cold().add_background_job(nothing, cron=NIGHTLY, timeout=year, jitter=year, misfire_grace_time=year)

    @pytest.mark.parametrize("timeout", [math.inf, 1e300])
    def test_a_token_waits_without_limit(self, timeout: float) -> None:
        """Infinity, as a computation of deadlines may give it, is no mistake there: it waits for the request."""
        token = CancellationToken()
        threading.Timer(0.05, token.request_cancellation).start()
        assert token.wait(timeout)
