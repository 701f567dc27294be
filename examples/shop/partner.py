"""A stand-in for the partner's API, so that the shop can be tried without one: customers, and the weather."""

from __future__ import annotations

import zlib

from fastapi import FastAPI

app = FastAPI(title="A partner")

CUSTOMERS = ["Ada", "Grace", "Edsger", "Barbara"]


@app.get("/users")
async def users() -> list[dict[str, int | str]]:
    """All customers."""
    return [
        {"id": number, "name": name, "email": f"{name.lower()}@example.com"} for number, name in enumerate(CUSTOMERS, 1)
    ]


@app.get("/weather")
async def weather(city: str) -> dict[str, float | int]:
    """The weather in a city: always the same there."""
    number = zlib.crc32(city.encode())
    return {"temperature": number % 300 / 10, "humidity": number % 60 + 40}
