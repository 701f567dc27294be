"""A read-only page about the background jobs, for any ASGI or WSGI host. See README.md."""

from .page import Answer, StatusPage

__all__ = ["Answer", "StatusPage"]
