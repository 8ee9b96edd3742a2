"""Whether the files of a TFDS data set can be downloaded: without a network, TFDS itself retries for minutes."""

import http.client
import os
import queue
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gensupcon_jax.text import one_line

_SECONDS = 6.0  # for an answer of any host


def missing_downloads(builder: Any, download_config: Any) -> list[str]:
    """The addresses of the data set's files that are neither downloaded already nor in the folder of manual downloads."""
    from tensorflow_datasets.core.download.resource import get_dl_fname

    downloads = Path(os.fspath(builder.data_dir_root)) / "downloads"
    manual = getattr(download_config, "manual_dir", None)
    places = [downloads, downloads / builder.name, *([Path(os.fspath(manual))] if manual else [])]
    found = []
    for url, info in (builder.url_infos or {}).items():
        names = {get_dl_fname(url, info.checksum), info.filename}
        if not any(name and (place / name).exists() for place in places for name in names):
            found.append(url)
    return found


def unreachable(urls: Iterable[str], seconds: float = _SECONDS) -> str | None:
    """Why no host of these addresses answers, in words; None where one answers, or where it cannot be known (no http).

    Any answer counts, also a refusal. Proxies are those of the environment, which TFDS uses too.
    """
    hosts: dict[str, str] = {}
    for url in urls:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https"):
            return None
        hosts.setdefault(parts.netloc, url)
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for url in hosts.values():
        # Not a pool, which would wait at the end for a host that never answers, nor here: the look-up of a name has no limit.
        threading.Thread(target=lambda url=url: answers.put(_failure(url, seconds)), daemon=True).start()
    reasons = []
    for _ in hosts:
        try:
            reason = answers.get(timeout=seconds + 1)
        except queue.Empty:
            reason = f"no answer in {seconds:g} s"
        if reason is None:
            return None
        reasons.append(reason)
    return f"{', '.join(hosts)} cannot be reached: {reasons[0]}" if hosts else None


def _failure(url: str, seconds: float) -> str | None:
    try:
        # Not urlopen, which keeps the proxies of its first call.
        urllib.request.build_opener().open(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
    except urllib.error.HTTPError:
        return None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):  # TFDS brings its own certificates
            return None
        if isinstance(reason, TimeoutError):
            return f"no answer in {seconds:g} s"
        return getattr(reason, "strerror", None) or one_line(reason)
    return None
