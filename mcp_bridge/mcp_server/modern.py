"""What a request of the new era must have: its envelope, and headers that say the same.

Intermediaries route by the headers, so one that disagrees with the body is refused. The rules are
the SDK's; only tools whose arguments stand in headers are looked at argument by argument.
"""

from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    InboundLadderRejection,
    classify_inbound_request,
    unsupported_protocol_version_rejection,
    validate_mcp_param_headers,
)
from mcp_types import HEADER_MISMATCH, JSONRPCRequest
from starlette.datastructures import Headers
from starlette.types import Scope

from mcp_bridge.mcp_server.http import Fields, Refusal
from mcp_bridge.mcp_server.visit import Offer

ROUTING = frozenset({MCP_PROTOCOL_VERSION_HEADER, MCP_METHOD_HEADER, MCP_NAME_HEADER})


def check_version(version: str) -> None:
    """Raises:
    Refusal: it is not spoken here.
    """
    if (rejection := unsupported_protocol_version_rejection(version)) is not None:
        raise refusal(rejection, None)


def check_envelope(request: JSONRPCRequest, fields: Fields) -> None:
    """Let a request in.

    Raises:
        Refusal: its envelope or one of its headers is missing, or says something else.
    """
    for name in sorted(ROUTING & fields.repeated) if fields.repeated else ():
        message = f"{name} header appears more than once"
        raise Refusal(400, HEADER_MISMATCH, message, request_id=request.id)
    body = {"method": request.method, "params": request.params}
    verdict = classify_inbound_request(body, headers=fields)
    if isinstance(verdict, InboundLadderRejection):
        raise refusal(verdict, request)


def check_arguments(request: JSONRPCRequest, offer: Offer, scope: Scope) -> None:
    """Let a tool call in.

    Raises:
        Refusal: an argument and the header that repeats it differ.
    """
    params = request.params or {}
    name, arguments = params.get("name"), params.get("arguments", {})
    schema = offer.schema_with_headers(name) if isinstance(name, str) else None
    if schema is None or not isinstance(arguments, dict):
        return
    rejection = validate_mcp_param_headers(schema, arguments, Headers(scope=scope))
    if rejection is not None:
        raise refusal(rejection, request)


def refusal(rejection: InboundLadderRejection, request: JSONRPCRequest | None) -> Refusal:
    return Refusal(
        ERROR_CODE_HTTP_STATUS.get(rejection.code, 400),
        rejection.code,
        rejection.message,
        data=rejection.data,
        request_id=request.id if request else None,
    )
