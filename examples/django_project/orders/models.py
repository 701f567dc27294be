"""Orders, and the daily reports about them."""

from django.db import models


class Order(models.Model):
    """An order: open until it is paid or expired."""

    state = models.CharField(max_length=10, default="open")
    placed_at = models.DateTimeField()


class Report(models.Model):
    """What there was to say about the orders when a job looked."""

    run_id = models.CharField(max_length=64, unique=True)
    open_orders = models.IntegerField()
