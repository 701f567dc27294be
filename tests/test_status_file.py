"""The status file of a process, and what `bgjobs status` makes of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bgjobs import ConfigurationError
from bgjobs.__main__ import main
from scripts import said
from stage import CLASSES, LIMIT, NIGHTLY, Records, cold, fail, nothing, until, warm


@pytest.fixture(name="file")
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the settings of the command line name."""
    file = tmp_path / "status.json"
    monkeypatch.setenv("BGJOBS__STATUS_FILE", str(file))
    monkeypatch.chdir(tmp_path)
    return file


def content(file: Path) -> dict[str, Any]:
    """What it says; it is there after a moment, and never half written."""
    until(file.exists)
    found: dict[str, Any] = json.loads(file.read_bytes())
    return found


def write(file: Path, *, age: float = 0.0, problems: tuple[str, ...] = (), **job: Any) -> None:
    """Write one as a process of that age would have."""
    moment = datetime.now(UTC) - timedelta(seconds=age)
    health = {"ok": not problems, "problems": list(problems)}
    row = {"key": "sync", "cron": "@daily", **job}
    file.write_text(json.dumps({"time": moment.isoformat(), "health": health, "jobs": [row]}), encoding="utf-8")


class TestWriting:
    def test_from_warm_up_to_close(self, kind: str, file: Path) -> None:
        """It is that of this process while the jobs are warm, and says in the end that they are not."""
        jobs = cold(CLASSES[kind](timezone="UTC"), status_file=file, application="shop")
        jobs.add_background_job(nothing, cron=NIGHTLY)
        assert not file.exists()
        with warm(kind, jobs):
            found = content(file)
            assert found["jobs"] == [row.as_dict() for row in jobs.status()]
        assert (found["application"], found["host"], found["pid"]) == ("shop", socket.gethostname(), os.getpid())
        assert found["health"] == {"ok": True, "problems": []}
        assert datetime.fromisoformat(found["time"]).tzinfo is not None
        assert content(file)["health"] == {"ok": False, "problems": ["the jobs are not warmed up"]}
        assert content(file)["jobs"][0]["next_run_time"] is None
        assert [path.name for path in file.parent.iterdir()] == [file.name]

    def test_again_and_again(self, file: Path, waits: Any) -> None:
        """While nothing changes, too, so that its age tells of a process that hangs."""
        waits.status = waits.look = 0.01
        with cold(status_file=file).add_background_job(nothing, cron=NIGHTLY):
            first = content(file)
            until(lambda: content(file)["time"] > first["time"])

    def test_at_each_change_of_health(self, file: Path, waits: Any) -> None:
        """Long before the ten seconds are over; the way back to health is a change as well."""
        waits.status, waits.look = 3600.0, 0.01
        scheduler = CLASSES["background"](timezone="UTC")
        with cold(scheduler, status_file=file).add_background_job(nothing, cron=NIGHTLY):
            content(file)
            scheduler.shutdown()
            until(lambda: content(file)["health"]["problems"] == ["the scheduler is not running"])
            scheduler.start()
            until(lambda: content(file)["health"]["ok"])

    def test_a_second_warm_up(self, file: Path) -> None:
        """It is written from there on, too."""
        jobs = cold(status_file=file).add_background_job(nothing, cron=NIGHTLY)
        for _ in range(2):
            with jobs:
                until(lambda: file.exists() and content(file)["health"]["ok"])

    def test_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        """A mistake, before anything starts."""
        jobs = cold(status_file=tmp_path / "nowhere" / "status.json")
        with pytest.raises(ConfigurationError, match=r"status_file: there is no directory '.*nowhere'"):
            jobs.warm_up()
        assert not jobs.is_warm

    def test_a_file_that_cannot_be_written(self, tmp_path: Path, waits: Any, records: Records) -> None:
        """One warning until it works; the jobs run on, and it is tried again."""
        waits.status = waits.look = 0.01
        file = tmp_path / "status.json"
        file.mkdir()
        tried = f"{file.name}.{os.getpid()}"
        with cold(status_file=file).add_background_job(nothing, cron=NIGHTLY) as jobs:
            until((tmp_path / tried).exists)
            number = (tmp_path / tried).stat().st_mtime_ns
            until(lambda: (tmp_path / tried).exists() and (tmp_path / tried).stat().st_mtime_ns > number)
            assert jobs.health()
            file.rmdir()
            until(file.is_file)
        (warning,) = records.texts("WARNING")
        assert warning.startswith(f"the status file {str(file)!r} cannot be written: IsADirectoryError: ")

    def test_a_link_is_not_followed(self, file: Path) -> None:
        """What somebody else has put in the place of the file that is to come is replaced, not written to."""
        victim = file.parent / "victim"
        victim.write_text("mine", encoding="utf-8")
        (file.parent / f"{file.name}.{os.getpid()}").symlink_to(victim)
        with cold(status_file=file).add_background_job(nothing, cron=NIGHTLY):
            content(file)
        assert victim.read_text(encoding="utf-8") == "mine"

    def test_a_change_of_directory(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative path is that of the warm-up."""
        with cold(status_file=Path(file.name)).add_background_job(nothing, cron=NIGHTLY):
            (file.parent / "below").mkdir()
            monkeypatch.chdir(file.parent / "below")
        assert not content(file)["health"]["ok"]
        assert not list(Path().iterdir())

    def test_without_the_setting_there_is_no_thread(self) -> None:
        """Nobody pays for what is not asked for."""
        with cold().add_background_job(nothing, cron=NIGHTLY):
            assert "bgjobs-status" not in [thread.name for thread in threading.enumerate()]

    def test_a_forked_child_writes_nothing(self, tmp_path: Path) -> None:
        """Neither while it runs nor at its end; the file is its parent's."""
        script = """
        import json
        from pathlib import Path
        from bgjobs._runs.threads import waits

        waits.status = waits.look = 0.01
        file = Path("FILE")

        def pid():
            return json.loads(file.read_bytes())["pid"]

        with cold(status_file=file).add_background_job(nothing, cron=NIGHTLY) as jobs:
            while not file.exists():
                time.sleep(0.01)
            def body():
                jobs.close()
                say([t.name for t in threading.enumerate() if t.name == "bgjobs-status"], pid() == os.getppid())
            child(body)
            say(pid() == os.getpid())
        """
        assert said(tmp_path, script.replace("FILE", str(tmp_path / "status.json"))) == ["[] True", "True"]


class TestReading:
    def test_all_is_well(self, file: Path, capsys: pytest.CaptureFixture[str], waits: Any) -> None:
        """A table of the jobs, and exit status 0."""
        waits.status = waits.look = 0.01
        jobs = cold(status_file=file).add_background_job(fail, key="sync", cron="0 0 3 * * *")
        with jobs:
            jobs.wait(jobs.run_now("sync"), LIMIT)
            until(lambda: content(file)["jobs"][0]["consecutive_failures"])
            assert main(["status"]) == 0
            due = jobs.status()[0].next_run_time
        head, line = capsys.readouterr().out.splitlines()
        assert [title.strip() for title in head.split("  ") if title] == (
            ["JOB", "SCHEDULE", "NEXT RUN", "RUNNING", "OUTCOME", "LAST SUCCESS", "FAILURES", "ERROR"]
        )
        assert due is not None
        cells = ["sync", "0 0 3 * * *", due.isoformat(), "-", "failed", "-", "1", "ValueError: boom"]
        assert [cell.strip() for cell in line.split("  ") if cell] == cells

    def test_problems_come_first(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """With exit status 1; nothing in the file moves the cursor of a terminal."""
        write(file, problems=("job 'sync' is overdue by 12 s\x1b[2J",), paused=True, last_error="no\x1b[2J")
        assert main(["status"]) == 1
        problem, _, line = capsys.readouterr().out.splitlines()
        assert problem == "problem: job 'sync' is overdue by 12 s\\u001b[2J"
        assert line.split() == ["sync", "@daily", "paused", "-", "-", "-", "-", "no\\u001b[2J"]

    def test_an_old_file(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A process that does not write any more is not well, whatever it said last; its age is told."""
        write(file, age=45.2)
        assert main(["status"]) == 1
        expected = "the status file was written 45 s ago: its process hangs, or has ended"
        assert capsys.readouterr().out.startswith(f"problem: {expected}\n")
        assert main(["status", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["health"] == {"ok": False, "problems": [expected]}

    @pytest.mark.parametrize("age", [0, 25, -25])
    def test_a_file_that_is_young_enough(self, age: float, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Thirty seconds are allowed, and clocks may differ as much; for machines all is there as it was written."""
        write(file, age=age)
        assert main(["status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == content(file)

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", "{}", "null", "\x00", '{"time": "noon"}', '{"time": "2026-01-01T00:00:00"}', "[" * 99_999],
        ids=["empty", "half", "list", "nothing", "null", "binary", "no-time", "no-offset", "deep"],
    )
    def test_a_damaged_file(self, text: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Exit status 2, and one line."""
        file.write_text(text, encoding="utf-8")
        assert main(["status"]) == 2
        assert capsys.readouterr().err == (
            f"bgjobs: error: the status file {str(file)!r} is damaged, or no status file\n"
        )

    @pytest.mark.parametrize("rows", [3, [3], ["k"], {"k": 3}])
    def test_damaged_rows(self, rows: object, file: Path) -> None:
        """The rows are looked at, too."""
        write(file)
        file.write_text(json.dumps({**content(file), "jobs": rows}), encoding="utf-8")
        assert main(["status"]) == 2

    def test_no_file(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Exit status 2, with the name of the file."""
        assert main(["status"]) == 2
        assert capsys.readouterr().err == (
            f"bgjobs: error: the status file {str(file)!r} cannot be read: No such file or directory\n"
        )

    @pytest.mark.usefixtures("file")
    def test_neither_setting(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """The error names both, and with --local the one."""
        monkeypatch.delenv("BGJOBS__STATUS_FILE")
        assert main(["status"]) == 2
        assert "no status_file (BGJOBS__STATUS_FILE) and no claim store (claims.url, BGJOBS__CLAIMS__URL); " in (
            capsys.readouterr().err
        )
        assert main(["status", "--local"]) == 2
        assert "the settings name no status_file (BGJOBS__STATUS_FILE); " in capsys.readouterr().err

    def test_both_settings(
        self, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The claim store knows all replicas; --local asks for this process."""
        monkeypatch.setenv("BGJOBS__CLAIMS__URL", "sqlite:///claims.db")
        write(file, problems=("the scheduler is not running",))
        assert main(["status"]) == 0
        assert "LAST OCCURRENCE" in capsys.readouterr().out
        assert main(["status", "--local"]) == 1
        assert "LAST OCCURRENCE" not in capsys.readouterr().out


def test_the_command_line_writes_it(file: Path) -> None:
    """A real `bgjobs run` is well for a real `bgjobs status`, and after SIGTERM it is not."""
    settings = file.parent / "shop.toml"
    (file.parent / "shop.py").write_text("def sync(): ...\n", encoding="utf-8")
    settings.write_text('[jobs.sync]\njob = "shop:sync"\ncron = "@daily"\n', encoding="utf-8")
    status = [sys.executable, "-m", "bgjobs", "status", "--config", "shop.toml"]
    with subprocess.Popen([sys.executable, "-m", "bgjobs", "run", "--config", "shop.toml"]) as process:
        until(file.exists)
        shown = subprocess.run(status, capture_output=True, text=True, timeout=LIMIT, check=True)
        assert "\nsync  @daily" in shown.stdout
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    shown = subprocess.run(status, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (shown.returncode, shown.stdout.splitlines()[0]) == (1, "problem: the jobs are not warmed up")
