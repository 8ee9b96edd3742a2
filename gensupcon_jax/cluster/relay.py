"""A relay between jax's client and its service in process 0: where process 0 is lost, the client hears nothing of it.

jax's client ends its process from C++, by an abort with a stack, as soon as its connection breaks, and a callback of Python in
its place does too (`std::bad_cast`). Through the relay its connection lasts: the lost process is named by `processes`.
"""

import contextlib
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

_CONNECTING_SECONDS = 60.0  # until process 0 has started jax's service
_RETRY_SECONDS = 0.1
_LONGEST_PATH = 90  # of a socket's file: the system takes 103 characters


class Relay:
    """Carries the bytes of one client; `address` is what jax connects to.

    A socket in the file system, as gRPC would send a TCP connection to this machine through a proxy that http_proxy names.
    """

    def __init__(self, host: str, port: int):
        self._place = host, port
        folder = tempfile.mkdtemp(prefix="gensupcon_")
        if len(folder) > _LONGEST_PATH:
            Path(folder).rmdir()
            folder = tempfile.mkdtemp(prefix="gensupcon_", dir="/tmp")
        self._folder = Path(folder)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._folder / "jax"))
        self._listener.listen()
        self.address = f"unix:{self._folder / 'jax'}"
        threading.Thread(target=self._accept, daemon=True, name="relay").start()

    def hide(self) -> None:
        """Remove the socket's file; what is connected stays so."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        service = self._service()
        if service is None:
            client.close()
            return
        threading.Thread(target=_copy, args=(service, client), daemon=True).start()
        _copy(client, service)
        with contextlib.suppress(OSError):
            service.shutdown(socket.SHUT_RDWR)  # the client has left

    def _service(self) -> socket.socket | None:
        deadline = time.monotonic() + _CONNECTING_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                service = socket.create_connection(self._place, timeout=_CONNECTING_SECONDS)
                service.settimeout(None)
                service.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return service
            time.sleep(_RETRY_SECONDS)
        return None


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until one of them is closed; the other one stays open."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
