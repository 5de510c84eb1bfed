"""Every error that the bridge raises, in one tree.

    BridgeError                  status, code, type: what an OpenAI client is told
    ├── ConfigError              the configuration cannot be used; lists every mistake by its path
    ├── RequestError             400  the caller's request is wrong (also 401, 403, 404, 413)
    ├── InferenceError           the inference server refused, failed, or cannot be reached
    └── SourceError              a tool source could not answer
        ├── SourceUnavailable    not connected: nothing was sent, trying again is safe
        ├── SourceTimeout        no answer in time; the call was cancelled
        ├── OutcomeUnknown       the connection broke during the call: it may have happened
        └── SourceRefused        the source answered with a protocol error (code, message, data)

A SourceError during a conversation becomes a tool result that the model can read (DESIGN 3.14);
the others become an OpenAI error object with their status.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from mcp_bridge.types import Json


class BridgeError(Exception):
    """What went wrong, for whom, and what to do. Never holds a key or a token."""

    status: int = 500
    type: str = "server_error"
    code: str | None = None
    param: str | None = None
    retryable: bool | None = None
    """Relayed as `x-should-retry`; None leaves the decision to the client's SDK."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.headers: dict[str, str] = {}

    def without_frames(self) -> Self:
        """The same error, which does not hold where it came through any more, nor do its causes.

        Frames hold the request and what was made of it, and often the error itself. Such a circle
        is opened by the collector only, which looks at what has lived for a while once in minutes:
        when an inference server is down, requests would pile up.
        """
        each: BaseException | None = self
        while each is not None:
            each.__traceback__ = None
            each = each.__cause__ or each.__context__
        return self

    def body(self) -> Json:
        """The OpenAI error object: `{"error": {"message", "type", "param", "code"}}`."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class ConfigError(BridgeError):
    """The configuration cannot be used. `mistakes` holds one line each: `path: what to do`.

    `warnings` are told with them: a name that is not known is often why something is missing.
    """

    code = "invalid_configuration"

    def __init__(self, mistakes: Sequence[str], warnings: Sequence[str] = ()) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)
        self.warnings = tuple(warnings)


class RequestError(BridgeError):
    """The caller's request cannot be served as it is."""

    status = 400
    type = "invalid_request_error"

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status


class InferenceError(BridgeError):
    """The inference server refused, failed, or cannot be reached.

    `upstream` is its own answer when that was JSON: it is relayed as it came, so that clients see
    the fields they know. `unsent` tells that the request certainly did not reach a model, so
    another server may be asked.
    """

    code = "inference_server_error"

    def __init__(
        self,
        message: str,
        *,
        status: int = 502,
        code: str | None = None,
        upstream: Json | None = None,
        headers: Mapping[str, str] | None = None,
        unsent: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or type(self).code
        self.upstream = upstream
        self.unsent = unsent
        self.headers.update(headers or {})

    def body(self) -> Json:
        return self.upstream if self.upstream is not None else super().body()


class SourceError(BridgeError):
    """A tool source could not answer. `source` names it."""

    status = 502
    code = "source_error"

    def __init__(self, source: str, message: str) -> None:
        super().__init__(message)
        self.source = source


class SourceUnavailable(SourceError):
    """The source is not connected. Nothing was sent."""

    status = 503
    code = "source_unavailable"


class SourceTimeout(SourceError):
    """The source did not answer in time; the call was cancelled."""

    status = 504
    code = "source_timeout"


class OutcomeUnknown(SourceError):
    """The connection broke after the call was sent: it may or may not have happened (L22)."""

    code = "outcome_unknown"


class SourceRefused(SourceError):
    """The source answered with a JSON-RPC error."""

    code = "source_refused"

    def __init__(self, source: str, message: str, *, rpc_code: int, data: Any = None) -> None:
        super().__init__(source, message)
        self.rpc_code = rpc_code
        self.data = data
