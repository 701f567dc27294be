"""Cron expressions: reading, searching, explaining and translating them. Pure: knows no scheduler."""
