"""The demo: MCP servers that need nothing installed, a model by rules, and one question asked.

run (the demo itself), help (what it prints for people), finder (an inference server on this
machine), serving (applications on loopback), servers (clock, calculator, notes), zones (names of
time zones). The scripted model: understand (what a text asks for), offers (which tool fits), rules
(what to say), model (all of it over HTTP, as an OpenAI client expects it).
"""
