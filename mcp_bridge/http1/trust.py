"""Which certificates are trusted."""

import ssl


def trusted() -> ssl.SSLContext:
    """The certificates of the system, wherever it keeps them, or those of SSL_CERT_FILE."""
    from httpx2 import create_ssl_context  # here, for only TLS needs it

    context = create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
