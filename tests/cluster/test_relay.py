"""The relay carries bytes both ways, and is silent where the other side is lost."""

import socket

import pytest

from gensupcon_jax.cluster.relay import Relay


@pytest.fixture
def service():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def relay(service):
    made = Relay(*service.getsockname())
    yield made
    made.hide()


def connected(relay, service):
    client = socket.socket(socket.AF_UNIX)
    client.connect(relay.address.removeprefix("unix:"))
    accepted, _ = service.accept()
    return client, accepted


def test_bytes_go_both_ways_and_the_file_is_removed(relay, service):
    client, accepted = connected(relay, service)
    relay.hide()
    client.sendall(b"question")
    assert accepted.recv(100) == b"question"
    accepted.sendall(b"answer" * 100_000)
    assert client.recv(600_000, socket.MSG_WAITALL) == b"answer" * 100_000
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(FileNotFoundError):
        late.connect(relay.address.removeprefix("unix:"))


def test_a_lost_service_is_silence(relay, service):
    client, accepted = connected(relay, service)
    accepted.close()
    client.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.recv(1)  # the end of the connection would be b""


def test_a_client_that_leaves_ends_the_connection_to_the_service(relay, service):
    client, accepted = connected(relay, service)
    client.close()
    accepted.settimeout(10)
    assert accepted.recv(1) == b""


def test_a_service_that_starts_later_is_waited_for(service):
    host, port = service.getsockname()
    service.close()
    relay = Relay(host, port)
    client = socket.socket(socket.AF_UNIX)
    client.connect(relay.address.removeprefix("unix:"))
    client.sendall(b"early")
    with socket.create_server((host, port)) as listener:
        accepted, _ = listener.accept()
        assert accepted.recv(100) == b"early"
    relay.hide()


def test_a_long_temporary_folder_is_not_used(tmp_path, monkeypatch, service):
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    relay = Relay(*service.getsockname())
    connected(relay, service)
    assert list(folder.iterdir()) == []
    relay.hide()
