"""``python manage.py runjobs``: the process that runs the jobs."""

from typing import Any

from django.core.management.base import BaseCommand

from ...jobs import jobs


class Command(BaseCommand):
    """Runs the background jobs."""

    help = "Run the background jobs until Ctrl-C or SIGTERM."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the jobs; at the end, wait for the runs in progress."""
        jobs.run()
