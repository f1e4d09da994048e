"""What the daemon says of itself: one event, seen by each sink.

Owns the events, the log, the metrics and the word to the service manager. Never decides anything and never
imports the rest of the daemon.
"""
