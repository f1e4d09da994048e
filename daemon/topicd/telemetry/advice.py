"""What a person does about each event that is a warning or worse.

Owns the words; docs/OPERATIONS.md and journald's catalogue show them. Promises one entry for each such event.
"""

import uuid
from collections.abc import Mapping
from functools import cache
from typing import Final

ADVICE: Final[Mapping[str, str]] = {
    "tls.unverified": "Give SSL_CA_FILE your authority's certificate, and take SSL_VERIFY=false away.",
    "setting.unused": "Take it away, or give it the name that was meant; .env.example has every name.",
    "intake.ignored": "Only regular .md and .txt files are taken. Move the entry away, or give it such a name.",
    "intake.trouble": "The file stays in input/ and is tried again. Check who owns it and whether the disk is well.",
    "job.deferred": "Nothing: it is tried again by itself. If it happens at each attempt, `topicd show JOB` says why.",
    "job.failed": "Read the hint, mend the cause, then `topicd retry JOB`. What is whole is kept.",
    "job.crashed": "Look at the log before the daemon's last end. After the third time the job goes to failed/.",
    "job.damaged": "`topicd fsck` says what is wrong in its folder, and `topicd fsck --repair` what it can put right.",
    "backend.unavailable": "Nothing if the server comes back: the stage goes on then, and no attempt is lost. Else "
    "`topicd check` says what is missing.",
    "server.down": "The other servers go on. See whether it is up; it is asked again by itself.",
    "gpu.not_freed": "The next stage may lack memory on the GPU. See that the server is of a version that can unload.",
    "stage.bug": "Report it with its traceback. The job is in failed/; the daemon goes on.",
    "watcher.restarted": "Nothing: every directory was looked at. If it happens often, see what replaces them.",
    "watcher.trouble": "Topics are found by looking every few seconds meanwhile. Do what the hint says.",
    "watcher.overflowed": "Nothing: every directory was looked at. A larger fs.inotify.max_queued_events avoids it.",
    "watcher.wake_failed": "Report it with its traceback. Directories are looked at by the clock meanwhile.",
    "storage.trouble": "Free some space, or mend the disk. Everything goes on by itself; no attempt is lost.",
    "traces.lost": "See whether TOPICD_TRACES_URL is up and takes OTLP. Work goes on; those spans are gone.",
    "log.repeated": "Look at those that were shown before it: each has its cause and its hint.",
    "download.failed": "It is tried again by itself where a job waits for it. Check the address and the network.",
}

_NAMESPACE: Final = uuid.UUID("5f0a3c1e-7d0b-4c55-9a57-0c6f0f1c7d3a")


@cache
def message_id(name: str) -> str:
    """Return an event's MESSAGE_ID (systemd.journal-fields(7)): 128 bits as 32 digits, the same for ever."""
    return uuid.uuid5(_NAMESPACE, name).hex
