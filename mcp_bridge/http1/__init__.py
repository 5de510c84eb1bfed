"""HTTP/1.1 to one server: bytes there and back, at a sixth of the cost of a general client.

`pool` has the connections and makes new ones (through a proxy, with the certificates of `trust`),
`connection` carries one request after the other, `head` writes what precedes a body, `decoding`
undoes a compression, and `failures` says what can go wrong. Parsing is llhttp's, through httptools.
There are no cookies, no redirects and no retries: whoever asks knows better (docs/performance.md
has what a client with all of them costs).
"""
