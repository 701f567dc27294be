"""The border with APScheduler: the only wing that imports it."""
