"""Whether download hosts can be reached, answered within seconds."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from urllib.parse import urlsplit

_TOTAL_S = 5.0


def unreachable_reason(urls: Iterable[str], *, all_hosts: bool = True) -> str | None:
    """Asks one URL of each host for its headers, all at once, through the proxies that the environment names.

    Args:
        urls: what is to be downloaded.
        all_hosts: whether every host is needed; else one that answers is enough.

    Returns:
        None where the hosts answer within five seconds in all, else which do not, and why.
    """
    by_host = {urlsplit(url).netloc: url for url in urls}
    answers: dict[str, str | None] = {}

    def ask(host: str, url: str) -> None:
        answers[host] = _ask(url)

    # Daemon threads: a name server that never answers blocks a thread past every time-out, and must not block our exit.
    threads = [threading.Thread(target=ask, args=item, daemon=True) for item in by_host.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _TOTAL_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    failures = {host: reason for host in by_host if (reason := answers.get(host, f"no answer in {_TOTAL_S:.0f} s"))}
    if not failures or (not all_hosts and len(failures) < len(by_host)):
        return None
    return "; ".join(f"{host}: {reason}" for host, reason in failures.items())


def _ask(url: str) -> str | None:
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "mnist-tfx"})
    try:
        # An opener of its own: urlopen keeps for ever the proxies that it finds at its first call.
        with urllib.request.build_opener().open(request, timeout=_TOTAL_S):
            return None
    except urllib.error.HTTPError as error:
        # Some hosts answer GET only; anything else is a proxy's refusal or a file that is gone.
        return None if error.code in (405, 501) else f"HTTP {error.code}"
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, ValueError) as error:
        return str(error)
