"""Reads settings from the environment and from files into one model. Knows neither runs nor APScheduler."""
