"""An application that has its own APScheduler, and gets background jobs on it. See README.md."""
