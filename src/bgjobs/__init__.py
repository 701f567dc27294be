"""Recurring background jobs on six-field cron schedules: a thin adapter over APScheduler 3.11."""
