"""What is known about the request that is being worked on, for whoever writes about it."""

from contextvars import ContextVar

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id that the caller finds in `x-request-id`; it stands in every log line of its request."""
