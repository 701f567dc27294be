"""The end of the process after Ctrl-C or SIGTERM: not later than five seconds after the shutdown_timeout."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from textwrap import dedent

import pytest

from bgjobs._runs.threads import waits as times  # no public name: users have `shutdown_timeout` alone
from scripts import finished, hammered, signalled, start

SWALLOW = """
    async def swallow():
        say("begun")
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
"""

#: Jobs that do not end when they are asked to, nor when they are cancelled.
STUBBORN = {
    "swallows its cancellation": SWALLOW.replace("swallow()", "work()"),
    "blocks its event loop": """
    async def work():
        say("begun")
        for_ever.wait()
""",
    "hangs in a thread": """
    def work():
        say("begun")
        for_ever.wait()
""",
    "leaves a thread": """
    async def work():
        asyncio.get_running_loop().call_later(0.01, say, "begun")
        await asyncio.to_thread(for_ever.wait)
""",
    "leaves a task": SWALLOW
    + """
    async def work():
        for_ever.task = asyncio.create_task(swallow())
""",
}

RUN = """
    from bgjobs._runs.threads import waits
    waits.cancelled, waits.close, waits.exit = {waits}
    atexit.register(print, "atexit")
    jobs = cold(CLASSES[{kind!r}](), shutdown_timeout={timeout})
    jobs.add_background_job(work, cron=NIGHTLY, run_immediately=True)
    jobs.run()
    print("run came back")
"""
QUICK = "0.1, 0.3, 1.0"


def running(
    tmp_path: Path, kind: str, job: str, after: str = "", *, timeout: float = 0.1, waits: str = QUICK
) -> subprocess.Popen[str]:
    """A script that runs that job with `run`, and does something after it."""
    return start(tmp_path, "".join(map(dedent, (job, RUN.format(kind=kind, timeout=timeout, waits=waits), after))))


def test_the_waiting_times_add_up() -> None:
    """What a close may take, what ends the process, and its last words lie within five seconds."""
    assert times.cancelled < times.close < times.exit
    assert times.exit + times.last == 5.0


@pytest.mark.parametrize("what", STUBBORN)
def test_no_job_keeps_the_process(tmp_path: Path, kind: str, what: str) -> None:
    """It ends with status 1, or well where nothing is left that would hang; where it can, `run` comes back first."""
    process = running(tmp_path, kind, STUBBORN[what])
    signalled(process, signal.SIGTERM)
    status, lines, err = finished(process)
    is_harmless = what == "leaves a task" and kind != "asyncio"  # it ends with the thread of its event loop
    assert status == (0 if is_harmless else 1), err
    is_caught = kind == "asyncio" and what in ("blocks its event loop", "leaves a thread", "leaves a task")
    assert ("run came back" in lines) != is_caught
    if what in ("swallows its cancellation", "blocks its event loop", "hangs in a thread"):
        assert "job 'work' did not end within the shutdown_timeout and was abandoned" in err
        assert lines[-1] == "atexit"


def test_the_last_moment_is_five_seconds_after_the_shutdown_timeout(tmp_path: Path) -> None:
    """With the waiting times as they are."""
    process = running(tmp_path, "asyncio", STUBBORN["blocks its event loop"], timeout=1.0, waits="3.0, 4.0, 4.5")
    signalled(process, signal.SIGTERM)
    begun = time.monotonic()
    status, _, err = finished(process)
    assert status == 1
    assert "the process did not end within 5.5 s of a signal; it ends now, with status 1" in err
    assert 5.0 < time.monotonic() - begun < 6.5


def test_a_run_that_ends_after_all_is_no_failure(tmp_path: Path) -> None:
    """The script that called `run` goes on after it, and what was left behind may end meanwhile."""
    process = running(
        tmp_path,
        "background",
        STUBBORN["hangs in a thread"],
        """
    for_ever.set()
    while jobs.status()[0].running:
        time.sleep(0.001)
""",
    )
    signalled(process, signal.SIGTERM)
    status, lines, err = finished(process)
    assert (status, lines) == (0, ["run came back", "atexit"]), err


@pytest.mark.parametrize("stderr", ["sys.stderr", "None"])
def test_a_process_that_ends_well_ends_as_ever(tmp_path: Path, stderr: str) -> None:
    """After a signal, with what the script makes of it."""
    job = f"""
    sys.stderr = {stderr}

    def work(cancellation_token):
        say("begun")
        cancellation_token.wait()
"""
    process = running(tmp_path, "asyncio", job, "sys.exit(3)", timeout=20)
    signalled(process, signal.SIGTERM)
    status, lines, err = finished(process)
    assert (status, lines) == (3, ["run came back", "atexit"]), err


@pytest.mark.parametrize("stderr", ["sys.stderr", "None"])
def test_no_exit_function_keeps_the_process(tmp_path: Path, stderr: str) -> None:
    """After half a second it ends without the others; the tracebacks of all threads show what hangs."""
    hanging = f"""
    atexit.register(for_ever.wait)
    sys.stderr = {stderr}
"""
    process = running(tmp_path, "background", hanging + STUBBORN["hangs in a thread"])
    signalled(process, signal.SIGTERM)
    status, lines, err = finished(process)
    assert (status, lines) == (1, ["run came back", "atexit"])
    assert ("Timeout (0:00:00.500000)!" in err) == (stderr != "None")


def test_a_close_that_raises_keeps_no_other_jobs_warm(tmp_path: Path) -> None:
    """At the exit of the interpreter: every facade is closed, and each error is logged."""
    status, lines, err = finished(
        start(
            tmp_path,
            """
            from apscheduler.jobstores.memory import MemoryJobStore

            class Full(MemoryJobStore):
                def shutdown(self):
                    say("shut down")
                    raise OSError("disk full")

            for _ in range(3):
                scheduler = CLASSES["background"](jobstores={"default": Full()})
                cold(scheduler).add_background_job(nothing, cron=NIGHTLY).warm_up()
            """,
        )
    )
    assert (status, lines) == (0, ["shut down"] * 3), err
    assert err.count("closing the jobs at the exit of the interpreter failed: OSError: disk full") == 3


class TestASecondSignal:
    """It ends the process at once, although runs have twenty seconds to end."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("what", ["swallows its cancellation", "blocks its event loop", "hangs in a thread"])
    def test_it_kills(self, tmp_path: Path, kind: str, what: str, number: signal.Signals) -> None:
        """The process ends as by a signal that nobody handles."""
        process = running(tmp_path, kind, STUBBORN[what], timeout=20)
        signalled(process, number)
        hammered(process, number)
        status, lines, _ = finished(process)
        assert (status, lines) == (-number, [])

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_handler_from_before_is_called(self, tmp_path: Path, kind: str, number: signal.Signals) -> None:
        """It may close the jobs, which are being closed already, and the runs in progress end well."""
        job = f"""
    def mine(*_):
        jobs.close()
        say("called")
        for_ever.set()

    def work():
        say("begun")
        for_ever.wait()

    signal.signal({number}, mine)
"""
        process = running(tmp_path, kind, job, timeout=20)
        signalled(process, number)
        hammered(process, number)
        status, lines, err = finished(process)
        assert (status, lines) == (0, ["called", "run came back", "atexit"]), err

    def test_a_handler_that_closes_may_interrupt_itself(self, tmp_path: Path) -> None:
        """Without `run`: the close that is going on in this thread goes on when the handler comes back."""
        process = start(
            tmp_path,
            """
            def mine(*_):
                if signals:
                    say("again")
                    for_ever.set()
                signals.append(None)
                jobs.close()

            def work():
                say("begun")
                for_ever.wait()

            signals = []
            signal.signal(signal.SIGTERM, mine)
            jobs = cold().add_background_job(work, cron=NIGHTLY, run_immediately=True)
            jobs.warm_up()
            while jobs.is_warm:
                signal.pause()
            say("cold")
            """,
        )
        signalled(process, signal.SIGTERM)
        hammered(process, signal.SIGTERM)
        status, lines, err = finished(process)
        assert (status, lines) == (0, ["again", "cold"]), err
