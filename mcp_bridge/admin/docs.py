"""The page at /docs: what the REST door takes and answers, and a way to try it.

FastAPI's own page loads its scripts from another host: it is blank where that cannot be reached,
and what they do with an API key is up to that host. This one needs nobody.
"""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

PAGE = Path(__file__).with_name("docs.html")
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

router = APIRouter()


@router.get("/docs", include_in_schema=False)
async def docs() -> FileResponse:
    """The page itself holds nothing of the configuration: it is open, like `/openapi.json`."""
    return FileResponse(PAGE, headers={"content-security-policy": POLICY})
