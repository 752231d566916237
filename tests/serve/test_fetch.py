"""Fetching by URL: listed hosts, public addresses, the very address that was checked, no redirects, within bounds."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ossicle.serve.fetch import fetch, is_public
from ossicle.serve.limits import ApiError


class Site(BaseHTTPRequestHandler):
    """A web site with one good page and several bad ones."""

    def do_GET(self):
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/")
            self.end_headers()
            return
        if self.path == "/slow-head":
            for _ in range(30):
                self.wfile.write(b"H")
                time.sleep(0.1)
            return
        self.send_response(200)
        self.end_headers()
        if self.path == "/slow":
            for _ in range(20):
                self.wfile.write(b"x")
                time.sleep(0.1)
        elif self.path == "/large":
            self.wfile.write(b"x" * 5000)
        else:
            self.wfile.write(f"{self.headers['Host']} {self.path}".encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def port():
    site = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield site.server_address[1]
    site.shutdown()
    site.server_close()


def get(url, domains, *, timeout_s=5.0, addresses=("127.0.0.1",), **options):
    asked = []

    def resolve(host, port, **_):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    settings = {
        "max_bytes": 1000,
        "timeout_s": timeout_s,
        "resolve": resolve,
        "public": lambda address: True,
        **options,
    }
    try:
        return fetch(url, domains, **settings)
    finally:
        assert len(asked) <= 1  # a second look-up could find another address


def test_the_checked_address_is_the_one_connected_to_and_the_name_is_what_is_asked_for(port):
    host = f"sounds.example:{port}"
    assert get(f"http://{host}/a.wav?b=c", (host,)) == f"{host} /a.wav?b=c".encode()


@pytest.mark.parametrize(
    "url, code",
    [
        ("http://other.example/a", "host_not_allowed"),
        ("http://good.example:8080/a", "host_not_allowed"),
        ("http://good.example.evil.example/a", "host_not_allowed"),
        ("http://good.example@evil.example/a", "invalid_url"),
        ("http://user:word@good.example/a", "invalid_url"),
        ("http://good.example\\@evil.example/a", "invalid_url"),
        ("http://good.example/a b", "invalid_url"),
        ("http://good.example/a\r\nHost: x", "invalid_url"),
        ("gopher://good.example/a", "invalid_url"),
        ("http:///a", "invalid_url"),
        ("http://[::1", "invalid_url"),
        ("http://good.example:99999/a", "invalid_url"),
    ],
)
def test_nothing_else_is_asked_for(url, code):
    with pytest.raises(ApiError) as caught:
        get(url, ("good.example",))
    assert caught.value.code in (code, "host_not_allowed")


def test_private_addresses_are_refused_even_beside_a_public_one():
    for addresses in (["10.0.0.1"], ["8.8.8.8", "127.0.0.1"], []):
        with pytest.raises(ApiError) as caught:
            get("http://good.example/a", ("good.example",), addresses=addresses, public=is_public)
        assert caught.value.status == 403


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
     "::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::",
     "fec0::1", "64:ff9b:1::7f00:1"],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


def test_redirects_large_and_slow_answers_are_refused(port):
    host = f"good.example:{port}"
    for path, status in (("moved", 400), ("large", 413), ("slow", 400), ("slow-head", 400)):
        began = time.monotonic()
        with pytest.raises(ApiError) as caught:
            get(f"http://{host}/{path}", (host,), timeout_s=0.5)
        assert caught.value.status == status and time.monotonic() - began < 1.5
        assert path not in ("slow", "slow-head") or "too long" in str(caught.value)


def test_a_host_that_does_not_answer_is_an_error_of_one_kind():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        host = f"good.example:{silent.getsockname()[1]}"
        with pytest.raises(ApiError) as caught:
            get(f"http://{host}/", (host,), timeout_s=0.5)
    assert caught.value.code == "fetch_failed"
