"""The same Protocols without a server: a small LLM, Piper, drawn cards; each works in a process of its own."""
