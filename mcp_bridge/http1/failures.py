"""What can go wrong with a request, drawn as one tree:

HttpFailure
├── Unsent            no byte of the request was on its way: it may be sent again
│   ├── Unreachable   no connection came about
│   │   └── ProxyUnreachable  nor one to the proxy
│   ├── TooSlow       none came about in time
│   └── ProxyRefused  the proxy does not lead there
├── Broken            the connection ended before the answer did
├── NotHttp           what came is no HTTP
└── Undecodable       the body is not compressed as its header says
ValueError
└── BadUrl            it is no http:// or https:// URL

Their texts hold no header and no URL, and so no secret.
"""


class HttpFailure(Exception):
    """A request that got no answer, or half of one."""


class Unsent(HttpFailure):
    """No byte of the request was on its way."""


class Unreachable(Unsent):
    """No connection came about; `error` says why."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class ProxyUnreachable(Unreachable):
    """No connection to the proxy came about."""


class TooSlow(Unsent):
    """No connection came about in time."""


class ProxyRefused(Unsent):
    """The proxy does not lead there."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the proxy answered {status}")
        self.status = status


class Broken(HttpFailure):
    """The connection ended before the answer did."""


class NotHttp(HttpFailure):
    """What came is no HTTP."""


class Undecodable(HttpFailure):
    """The body is not compressed as its header says, or in a way that we do not know."""


class BadUrl(ValueError):
    """It is no http:// or https:// URL."""
