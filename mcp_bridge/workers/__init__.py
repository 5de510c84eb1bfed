"""Several processes behind one port: the supervisor that starts them, and what they share.

`supervise` starts the workers and keeps them; `run` is one worker. Worker 0, the keeper, has the
MCP servers and every door that keeps sessions; the others answer `/v1` and pass the rest to it
(`passing`). They call tools through it (`mirror`, `relay`), and all tell each other what they keep
for a caller's next request (`crew`, `copies`), over connections that stay open (`link`, `host`).
"""
