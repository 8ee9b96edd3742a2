"""Data sets that are not prepared, without a network: one line at once in place of minutes of retries."""

import http.server
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from gensupcon_jax.data.tfds_network import missing_downloads, unreachable
from tests import ROOT

URLS = ["http://files.example.org/a.gz", "http://files.example.org/b.gz"]


@pytest.fixture
def silent_port():
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Slow(http.server.BaseHTTPRequestHandler):
    """A proxy that has every file, of 10 MB, and sends a byte of it in a tenth of a second."""

    def do_HEAD(self):
        self.send_response(404)
        self.end_headers()

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(10**7))
        self.end_headers()
        while True:
            self.wfile.write(b"x")
            time.sleep(0.1)

    def log_message(self, *_):
        pass


@pytest.fixture
def slow_port():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


def by_proxy(monkeypatch, port):
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_refused_connection_is_said(monkeypatch, closed_port):
    by_proxy(monkeypatch, closed_port)
    assert unreachable(URLS) == "files.example.org cannot be reached: Connection refused"


def test_a_host_that_never_answers_is_given_up(monkeypatch, silent_port):
    by_proxy(monkeypatch, silent_port)
    assert unreachable(URLS, seconds=0.3) == "files.example.org cannot be reached: no answer in 0.3 s"


def test_a_name_that_nobody_knows_is_said(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", _no_names)
    assert unreachable(URLS) == "files.example.org cannot be reached: Temporary failure in name resolution"


def test_a_name_server_that_never_answers_is_given_up(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5) or _no_names())
    started = time.monotonic()
    assert unreachable(URLS, seconds=0.2) == "files.example.org cannot be reached: no answer in 0.2 s"
    assert time.monotonic() - started < 4


def test_any_answer_will_do(monkeypatch, slow_port):
    by_proxy(monkeypatch, slow_port)
    assert unreachable(URLS) is None


def test_nothing_to_download_and_other_ways_are_not_asked(monkeypatch, closed_port):
    by_proxy(monkeypatch, closed_port)
    assert unreachable([]) is None
    assert unreachable(["gs://bucket/file", *URLS]) is None


def test_files_that_are_there_are_not_missing(tmp_path):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.resource import get_dl_fname

    builder = tfds.builder("fashion_mnist", data_dir=tmp_path / "data")
    urls = list(builder.url_infos)
    assert sorted(missing_downloads(builder, None)) == sorted(urls)
    manual = tmp_path / "manual"
    manual.mkdir()
    (manual / builder.url_infos[urls[0]].filename).touch()
    downloads = tmp_path / "data" / "downloads" / "fashion_mnist"
    downloads.mkdir(parents=True)
    (downloads / get_dl_fname(urls[1], builder.url_infos[urls[1]].checksum)).touch()
    config = tfds.download.DownloadConfig(manual_dir=manual)
    assert sorted(missing_downloads(builder, config)) == sorted(urls[2:])


def training_without_network(tmp_path, port):
    environment = os.environ | dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), f"http://127.0.0.1:{port}")
    environment |= {"no_proxy": "", "NO_PROXY": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    flags = ["--config", "fashion_mnist", "--workdir", tmp_path / "run", f"--config.dataset.folder={tmp_path}/data"]
    command = [sys.executable, "-m", "gensupcon_jax.main", *map(str, flags)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_training_without_a_network_ends_with_one_line(tmp_path, closed_port):
    printed, said = (process := training_without_network(tmp_path, closed_port)).communicate(timeout=120)
    assert (process.returncode, printed) == (1, "")
    assert said == (
        f"error: dataset.name is 'tfds:fashion_mnist', which is not prepared in {tmp_path}/data, and the files for it cannot be "
        "downloaded (fashion-mnist.s3-website.eu-central-1.amazonaws.com cannot be reached: Connection refused); set "
        "dataset.folder to a folder with the prepared data set, or prepare it with gensupcon prepare where there is a network\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_download(tmp_path, slow_port, number):
    process = training_without_network(tmp_path, slow_port)
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob("data/downloads/**/*.gz")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert re.split(r"[\r\n]+", said.strip())[-1] == f"{number.name}: nothing is lost; the same command resumes"
    assert "Traceback" not in said


def _no_names(*_, **__):
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
