"""How connections are made, used again and given up; TLS and proxies."""

import asyncio
import gc
import ssl
import weakref
from collections.abc import AsyncGenerator, Iterator
from contextvars import Context, ContextVar
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mcp_bridge.http1.failures import BadUrl, Broken, HttpFailure, ProxyRefused, Unreachable
from mcp_bridge.http1.pool import Pool
from tests.http1.serving import (
    Reader,
    Site,
    Talk,
    Writer,
    keeps_saying,
    no_certificates,
    pool_for,
    says,
    serving,
    whole,
)

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"content-length: 5\r\n\r\nhello"


# Connections


async def test_a_connection_is_used_again() -> None:
    async with serving(keeps_saying(HELLO)) as site, pool_for(site.url) as pool:
        for _ in range(5):
            assert await whole(pool, site.url) == b"hello"
    assert site.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        OK + b"content-length: 5\r\n\r\nhello and more than was announced",
        OK + b"content-length: 5\r\n\r\nhelloHTTP/1.1 2",
    ],
    ids=["close", "1.0", "more", "half of one more"],
)
async def test_a_connection_that_is_not_to_be_kept_is_not(answer: bytes) -> None:
    async with serving(keeps_saying(answer)) as site, pool_for(site.url) as pool:
        for _ in range(3):
            assert await whole(pool, site.url) == b"hello"
            await anyio.wait_all_tasks_blocked()
    assert site.connections == 3


async def test_an_answer_that_is_closed_early_takes_its_connection_with_it() -> None:
    left = anyio.Event()

    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        await site.head(reader)
        writer.write(OK + b"content-length: 9\r\n\r\nhel")
        assert await reader.read() == b""
        left.set()

    async with serving(talk) as site, pool_for(site.url) as pool:
        request = await pool.send("GET", site.url, b"")
        await request.aclose()
        with anyio.fail_after(5):
            await left.wait()


async def test_a_connection_that_the_server_has_closed_is_not_used() -> None:
    async with serving(says(HELLO)) as site, pool_for(site.url) as pool:
        assert await whole(pool, site.url, "POST", b"") == b"hello"
        await site.closed.wait()
        for _ in range(10):  # the end is heard of as soon as the event loop looks
            await anyio.lowlevel.checkpoint()
        assert await whole(pool, site.url, "POST", b"") == b"hello"
    assert site.connections == 2


def closes_the_second() -> Talk:
    """A server that gives up a connection in the moment in which a request comes."""

    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        await site.head(reader)
        writer.write(HELLO)
        await site.head(reader)

    return talk


async def test_what_crosses_with_the_end_of_a_connection_is_asked_again_where_that_is_safe() -> (
    None
):
    async with serving(closes_the_second()) as site, pool_for(site.url) as pool:
        with anyio.fail_after(5):
            assert await whole(pool, site.url) == b"hello"
            assert await whole(pool, site.url) == b"hello"
    assert site.connections == 2


async def test_what_may_have_an_effect_is_sent_once() -> None:
    async with serving(closes_the_second()) as site, pool_for(site.url) as pool:
        with anyio.fail_after(5):
            assert await whole(pool, site.url, "POST", b"") == b"hello"
            with pytest.raises(Broken):
                await whole(pool, site.url, "POST", b"")
    assert len(site.heads) == 2


async def test_a_connection_waits_for_so_long_and_no_longer() -> None:
    closed = anyio.Event()

    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        await site.head(reader)
        writer.write(HELLO)
        assert await reader.read() == b""
        closed.set()

    async with serving(talk) as site, pool_for(site.url, keep_alive=0.01) as pool:
        assert await whole(pool, site.url) == b"hello"
        with anyio.fail_after(5):
            await closed.wait()


async def test_a_connection_holds_nothing_of_the_request_it_was_made_for() -> None:
    class Visitor:
        """Somebody whom a request is for."""

    visitor = ContextVar[Visitor]("visitor")

    async def visit(pool: Pool, url: str) -> weakref.ref[Visitor]:
        visitor.set(Visitor())
        await whole(pool, url)
        return weakref.ref(visitor.get())

    async with serving(keeps_saying(HELLO)) as site, pool_for(site.url) as pool:
        found = await asyncio.get_running_loop().create_task(
            visit(pool, site.url), context=Context()
        )
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        assert found() is None
        assert await whole(pool, site.url) == b"hello"
    assert site.connections == 1


async def test_a_server_that_closes_at_once_is_said() -> None:
    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    async with serving(talk) as site, pool_for(site.url) as pool:
        for _ in range(20):  # sometimes before there is a request, sometimes behind it
            with anyio.fail_after(5), pytest.raises(HttpFailure):
                await whole(pool, site.url, "POST", b"")


async def test_nobody_there_is_said() -> None:
    async with serving(keeps_saying(HELLO)) as site:
        pass
    async with pool_for(site.url) as pool:
        with anyio.fail_after(5), pytest.raises(Unreachable) as info:
            await whole(pool, site.url)
        assert isinstance(info.value.error, ConnectionRefusedError)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 70 + ".test"])
async def test_a_host_that_cannot_be_found_is_said(host: str) -> None:
    async with pool_for(f"http://{host}/") as pool:
        with anyio.fail_after(5), pytest.raises(Unreachable):
            await whole(pool, f"http://{host}/")


# TLS


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that only those trust who know it, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.fixture
def of_server(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusting(certificate: Path) -> Iterator["Trusting"]:
    yield Trusting(certificate)


class Trusting:
    """Trusts this certificate, and counts how often it is asked to."""

    def __init__(self, certificate: Path) -> None:
        self._certificate = certificate
        self.count = 0

    def __call__(self) -> ssl.SSLContext:
        self.count += 1
        return ssl.create_default_context(cafile=str(self._certificate))


async def test_tls_is_spoken_and_certificates_are_read_once(
    of_server: ssl.SSLContext, trusting: Trusting
) -> None:
    body = b"x" * 300_000

    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        await site.head(reader)
        assert await reader.readexactly(len(body)) == body
        writer.write(OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello")
        await reader.read()

    async with (
        serving(talk, of_server) as site,
        pool_for(site.url, trust=trusting) as pool,
    ):
        with anyio.fail_after(10):
            for _ in range(3):
                assert await whole(pool, site.url, "POST", body) == b"hello"
    assert trusting.count == 1


async def test_a_certificate_that_is_not_trusted_is_refused(of_server: ssl.SSLContext) -> None:
    async with (
        serving(keeps_saying(HELLO), of_server) as site,
        pool_for(site.url, trust=ssl.create_default_context) as pool,
    ):
        with anyio.fail_after(10), pytest.raises(Unreachable) as info:
            await whole(pool, site.url)
    assert isinstance(info.value.error, ssl.SSLCertVerificationError)
    assert site.heads == []


# Proxies


async def test_http_goes_through_a_proxy_by_its_whole_url() -> None:
    async with (
        serving(keeps_saying(HELLO)) as proxy,
        pool_for("http://model.test:81", proxy=f"http://me:x%40y@127.0.0.1:{proxy.port}") as pool,
    ):
        assert await whole(pool, "http://model.test:81/v1/models?a=1") == b"hello"
    line, *headers = proxy.heads[0].split("\r\n")
    assert line == "GET http://model.test:81/v1/models?a=1 HTTP/1.1"
    assert headers[:2] == ["host: model.test:81", "proxy-authorization: Basic bWU6eEB5"]


def leading_to(target: Site) -> Talk:
    """A proxy that leads each CONNECT to the same server."""

    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        await site.head(reader)
        async with await anyio.connect_tcp("127.0.0.1", target.port) as behind:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with anyio.create_task_group() as tasks:

                async def there() -> None:
                    while data := await reader.read(65_536):
                        await behind.send(data)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(there)
                async for data in behind:
                    writer.write(data)

    return talk


async def test_tls_goes_through_a_tunnel(of_server: ssl.SSLContext, trusting: Trusting) -> None:
    async with (
        serving(keeps_saying(HELLO), of_server) as site,
        serving(leading_to(site)) as proxy,
        pool_for(
            site.url, trust=trusting, proxy=f"http://me:secret@127.0.0.1:{proxy.port}"
        ) as pool,
    ):
        with anyio.fail_after(10):
            assert await whole(pool, f"{site.url}/a") == b"hello"
            assert await whole(pool, f"{site.url}/b") == b"hello"
    place = f"127.0.0.1:{site.port}"
    assert proxy.heads == [
        f"CONNECT {place} HTTP/1.1\r\nhost: {place}\r\n"
        "proxy-authorization: Basic bWU6c2VjcmV0\r\n\r\n"
    ]
    assert [head.split()[1] for head in site.heads] == ["/a", "/b"]
    assert not any("proxy-authorization" in head for head in site.heads)


async def test_a_tunnel_is_used_by_one_request_and_only_with_tls(
    of_server: ssl.SSLContext, trusting: Trusting
) -> None:
    may_end = anyio.Event()

    async def slowly(site: Site, reader: Reader, writer: Writer) -> None:
        await site.head(reader)
        writer.write(OK + b"content-length: 5\r\n\r\n")
        await may_end.wait()
        writer.write(b"hello")
        await reader.read()

    async with (
        serving(slowly, of_server) as site,
        serving(leading_to(site)) as proxy,
        pool_for(site.url, trust=trusting, proxy=proxy.url) as pool,
    ):
        with anyio.fail_after(10):
            requests = [await pool.send("GET", site.url, b"") for _ in range(3)]
            may_end.set()
            for request in requests:
                assert await request.response.read() == b"hello"
                await request.aclose()
    assert [head.split()[0] for head in proxy.heads] == ["CONNECT"] * 3
    assert site.connections == 3


async def test_a_proxy_that_refuses_is_said() -> None:
    answer = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 5\r\n\r\nlogin"
    async with (
        serving(keeps_saying(answer)) as proxy,
        pool_for("https://model.test", proxy=proxy.url) as pool,
    ):
        with anyio.fail_after(5), pytest.raises(ProxyRefused) as info:
            await whole(pool, "https://model.test/v1")
    assert info.value.status == 407


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"SSH-2.0-OpenSSH_9.2\r\n"])
async def test_a_proxy_that_does_not_answer_as_one_is_no_connection(answer: bytes) -> None:
    async with serving(says(answer)) as proxy, pool_for("https://a.test", proxy=proxy.url) as pool:
        with anyio.fail_after(5), pytest.raises(Unreachable):
            await whole(pool, "https://a.test/")


# What is sent


async def test_a_request_is_its_line_its_headers_and_its_length() -> None:
    async with serving(keeps_saying(HELLO)) as site, pool_for(site.url) as pool:
        request = await pool.send("POST", f"{site.url}/a%20b?c=d", b"x: 1\r\n", b"")
        await request.aclose()
    assert site.heads == [
        f"POST /a%20b?c=d HTTP/1.1\r\nhost: 127.0.0.1:{site.port}\r\nx: 1\r\n"
        "content-length: 0\r\n\r\n"
    ]


async def test_a_body_of_known_length_is_sent_without_chunks() -> None:
    arrived: list[bytes] = []

    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        await site.head(reader)
        arrived.append(await reader.readexactly(6))
        writer.write(HELLO)

    async def body() -> AsyncGenerator[bytes]:
        yield b"abc"
        yield b"def"

    async with serving(talk) as site, pool_for(site.url) as pool:
        with anyio.fail_after(5):
            request = await pool.send("PUT", site.url, b"content-length: 6\r\n", body())
            await request.aclose()
    assert arrived == [b"abcdef"]
    assert "transfer-encoding" not in site.heads[0]


async def test_a_body_that_breaks_off_breaks_off_the_request() -> None:
    async def body() -> AsyncGenerator[bytes]:
        yield b"abc"
        raise OSError("the client has left")

    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        await site.head(reader)
        assert not (await reader.read()).endswith(b"0\r\n\r\n")

    async with serving(talk) as site, pool_for(site.url) as pool:
        with anyio.fail_after(5), pytest.raises(Broken):
            await pool.send("POST", site.url, b"", body())


@pytest.mark.parametrize(
    "url", ["ftp://host/", "host", "http://", "http://[::1", "http://h:99999/"]
)
async def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(BadUrl):
        Pool(url, trust=no_certificates, connect_timeout=1)


@pytest.mark.parametrize("body", [None, b"x" * 300_000])
async def test_a_request_may_be_cancelled_at_any_step(
    of_server: ssl.SSLContext, trusting: Trusting, body: bytes | None
) -> None:
    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        while True:
            await site.head(reader)
            await reader.readexactly(len(body or b""))
            writer.write(OK + b"content-length: 5\r\n\r\nhe")
            await anyio.lowlevel.checkpoint()
            writer.write(b"llo")

    async with (
        serving(talk, of_server) as site,
        pool_for(site.url, trust=trusting) as pool,
    ):
        with anyio.fail_after(20):
            for steps in range(60):
                async with anyio.create_task_group() as tasks:
                    for _ in range(2):
                        tasks.start_soon(whole, pool, site.url, "PUT", body)
                    for _ in range(steps):
                        await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()
                assert await whole(pool, site.url, "PUT", body) == b"hello"


async def test_cancelling_a_request_closes_its_connection() -> None:
    left = anyio.Event()

    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        await site.head(reader)
        assert await reader.read() == b""
        left.set()

    async with serving(talk) as site, pool_for(site.url) as pool:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(whole, pool, site.url)
                while not site.heads:  # nobody tells when one has come
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            await left.wait()
