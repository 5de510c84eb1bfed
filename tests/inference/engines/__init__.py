"""What real engines send, in the shapes that were recorded or reported, as data.

`fixture` says what a fixture is, one module per family of engines holds them, `all` has them all:

    from tests.inference.engines.all import ALL, REFUSALS

    for fixture in ALL:
        fixture.stream    # the bytes of a streamed answer
        fixture.whole     # the JSON of a whole answer, or None where there is no such case
        fixture.expect    # an Expected answer, or an ExpectedError
"""
