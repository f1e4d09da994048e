"""`python -m topicd.health`: is the daemon on this machine's port well? For a container's health check.

Owns the question only. Promises an answer within seconds, the reasons in words, and to start fast: it is asked every
few seconds for years, so it imports nothing of topicd. Plain HTTP on loopback, whatever proxy the environment names.
"""

import http.client
import json
import os
import sys
from typing import Final

ASK_TIMEOUT_S: Final = 4.0
ANSWER_BYTES_MAX: Final = 65_536
PORT: Final = 9469


def main() -> int:
    """Ask `/healthz`; print what is wrong; return 0 if nothing is."""
    port = os.environ.get("TOPICD_METRICS_PORT") or str(PORT)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=ASK_TIMEOUT_S)
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        said = json.loads(answer.read(ANSWER_BYTES_MAX))
        why = [str(each) for each in said["why"]]
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
        print(f"the daemon does not answer on port {port}: {error}")
        return 1
    print("; ".join(why) or "ok")
    return int(answer.status != http.client.OK)


if __name__ == "__main__":
    sys.exit(main())
