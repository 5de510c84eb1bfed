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

import ssl


class HttpFailure(Exception):
    """A request that got no answer, or half of one."""


class Unsent(HttpFailure):
    """No byte of the request was on its way."""


class Unreachable(Unsent):
    """No connection came about; `error` is why."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error

    @property
    def why(self) -> str:
        """The error as people read it. Such errors name hosts and certificates, never headers."""
        match self.error:
            case ConnectionRefusedError():
                return "connection refused"
            case ssl.SSLCertVerificationError() as error:
                return f"its certificate is not trusted: {error.verify_message}"
            case UnicodeError():
                return "there can be no such host"
            case OSError() as error if error.strerror:
                return error.strerror
            case error:
                return str(error) or type(error).__name__


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
