"""From the environment and files to one model. Knows neither runs nor APScheduler."""
