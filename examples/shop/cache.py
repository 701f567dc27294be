"""The cache of one web process."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from .models import Product, now


class ProductCache:
    """Products by id, for an hour: prices that could not be refreshed for so long are not shown any more."""

    def __init__(self) -> None:
        self._products: Mapping[int, Product] = {}
        self._expires_at: datetime = now()

    def fill(self, products: Mapping[int, Product], lifetime: timedelta = timedelta(hours=1)) -> None:
        """Replace all products."""
        self._products, self._expires_at = products, now() + lifetime

    def get(self, product_id: int) -> Product | None:
        """A product; ``None`` where it is not in the cache."""
        return self._products.get(product_id) if now() < self._expires_at else None

    def __len__(self) -> int:
        return len(self._products)
