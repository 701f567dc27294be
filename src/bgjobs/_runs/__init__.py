"""A run from admission to outcome. Knows no APScheduler."""
