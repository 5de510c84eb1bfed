"""The cookies of one MCP server: a balancer's leads to the machine that has the session."""

import email.message
from collections.abc import Iterable, Sequence
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from typing import cast
from urllib.request import Request


class Cookies:
    """What the server has set, by the rules of browsers as the standard library knows them."""

    def __init__(self) -> None:
        self._jar = CookieJar()
        self._has_some = False

    def for_url(self, url: str) -> Sequence[tuple[str, str]]:
        """The header that brings them along, if there is any."""
        if not self._has_some:  # as is usual
            return ()
        request = Request(url)  # noqa: S310  # it is only asked for its parts
        self._jar.add_cookie_header(request)
        found = request.get_header("Cookie")
        return [("cookie", found)] if found else ()

    def take(self, url: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep what an answer from that URL sets."""
        given = [value for name, value in headers if name.lower() == b"set-cookie"]
        if given:
            self._has_some = True
            answer = cast(HTTPResponse, Answer(given))
            self._jar.extract_cookies(answer, Request(url))  # noqa: S310  # the same


class Answer:
    """As much of an answer as the standard library looks at."""

    def __init__(self, given: Iterable[bytes]) -> None:
        self._message = email.message.Message()
        for value in given:
            self._message["Set-Cookie"] = value.decode("latin-1")

    def info(self) -> email.message.Message:
        return self._message
