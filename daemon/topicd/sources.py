"""From settings to what fetches files: downloads, and the voices that come by them.

Owns their arguments. Promises that nothing here opens a connection or touches the disk: it only builds.
"""

import ssl

from topicd.backends.catalogue import LIST, Catalogue
from topicd.backends.download import Downloads
from topicd.backends.files import Limits
from topicd.backends.reported import ReportedDownloads
from topicd.backends.trust import trust
from topicd.backends.voices import Arrivals, Fetcher, Voices
from topicd.durable import Durable
from topicd.settings import Settings
from topicd.telemetry.events import Events


def tls(settings: Settings) -> ssl.SSLContext:
    """Return which certificates are trusted.

    Raises:
        Unusable: the CA file cannot be used.
    """
    return trust(verify=settings.ssl_verify, ca_file=settings.ssl_ca_file)


def downloads(settings: Settings, durable: Durable, trusted: ssl.SSLContext, *, at_once: int = 2) -> Downloads:
    """Return what fetches files."""
    limits = Limits(free_bytes_min=settings.min_free_bytes)
    return Downloads(tls=trusted, limits=limits, at_once=at_once, durable=durable)


def voices(settings: Settings, durable: Durable, trusted: ssl.SSLContext, fetcher: Fetcher) -> Voices:
    """Return the folder of voices."""
    folder = settings.voices_path
    catalogue = Catalogue(folder / LIST, settings.voices_url, tls=trusted, durable=durable)
    return Voices(folder, catalogue, fetcher, bytes_max=settings.voices_bytes_max)


def arrivals(settings: Settings, events: Events) -> Arrivals:
    """Return what fetches a voice that a job misses.

    Raises:
        Unusable: the CA file cannot be used.
    """
    durable, trusted = Durable(), tls(settings)
    fetcher = ReportedDownloads(downloads(settings, durable, trusted), events)
    return Arrivals(voices(settings, durable, trusted, fetcher), again_s=settings.retry_first_s)
