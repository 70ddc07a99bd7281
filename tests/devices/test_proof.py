"""Proofs: the agent's arithmetic against published vectors and against Python's; seals against what may happen to messages."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tvmmobile.devices.agent.build import AGENT, build_bundle, sources
from tvmmobile.devices.agents.proof import nonce, proof, proves, tracker_seal
from tvmmobile.devices.agents.tracker import Tracker

PROGRAM = r"""
#include <cstdio>
#include <string>
#include "proof.h"
using namespace agent;
static void Show(const Digest& digest) { for (unsigned char byte : digest) printf("%02x", byte); puts(""); }
static std::string Times(int n, char c) { return std::string(static_cast<size_t>(n), c); }
static void Hash(const std::string& text) { Show(Sha256().Add(text.data(), text.size()).Finish()); }
static void Code(const std::string& key, const std::string& text) {
  Show(HmacSha256(key.data(), key.size()).Add(text.data(), text.size()).Finish());
}
int main() {
  Hash("abc");
  Hash("");
  Hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq");
  Hash(Times(1000000, 'a'));
  Code(Times(20, 0x0b), "Hi There");
  Code("Jefe", "what do ya want for nothing?");
  Code(Times(20, '\xaa'), Times(50, '\xdd'));
  Code(Times(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First");
  Digest key;
  key.fill(7);
  Show(Proof(key, "purpose", {"", "part", Times(300, 'x')}));
  Digest other = key;
  printf("%d", Same(key, other));
  for (size_t i = 0; i < key.size(); ++i) { other = key; other[i] ^= 1; printf("%d", Same(key, other)); }
}
"""
#: FIPS 180-4's examples (NIST), then RFC 4231's cases 1, 2, 3 and 6.
VECTORS = [
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
    "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
    "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
]


@pytest.mark.virtual
def test_the_agents_arithmetic_is_the_standards(tmp_path: Path) -> None:
    source, program = tmp_path / "vectors.cc", tmp_path / "vectors"
    source.write_text(PROGRAM, encoding="utf-8")
    words = ["aarch64-linux-gnu-g++", "-std=c++17", "-O1", "-static", f"-I{sources()[0].parent}", str(source), "-o", str(program)]
    subprocess.run(words, check=True)
    lines = subprocess.run(["qemu-aarch64", str(program)], check=True, capture_output=True, text=True).stdout.split()
    assert lines[:8] == VECTORS
    assert lines[8] == proof(bytes([7] * 32), "purpose", b"", b"part", b"x" * 300).hex()
    assert lines[9] == "1" + "0" * 32


@pytest.mark.virtual
def test_the_agent_is_hardened() -> None:
    """Position-independent, its tables read-only and filled at its start, no stack that runs, and checks in what it imports."""

    def read(option: str) -> str:
        words = ["aarch64-linux-gnu-readelf", "-W", option, str(build_bundle() / AGENT)]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    headers, dynamic, symbols = read("-hl"), read("-d"), read("--dyn-syms")
    assert "DYN (Position-Independent Executable file)" in headers and "GNU_RELRO" in headers
    (stack,) = [line for line in headers.splitlines() if "GNU_STACK" in line]
    assert "RW " in stack and "RWE" not in stack
    assert "BIND_NOW" in dynamic and "Flags: NOW PIE" in dynamic and "TEXTREL" not in dynamic
    assert "__stack_chk_fail" in symbols and "_chk@" in symbols


def test_parts_of_a_proof_cannot_be_moved() -> None:
    key = nonce()
    assert proves(proof(key, "a", b"b", b"c"), key, "a", b"b", b"c")
    for purpose, *parts in (("ab", b"", b"c"), ("a", b"bc"), ("a", b"bc", b""), ("a", b"", b"bc"), ("a", b"b", b"c", b"")):
        assert not proves(proof(key, "a", b"b", b"c"), key, str(purpose), *(part for part in parts if isinstance(part, bytes)))
    assert not proves(b"", key, "a") and not proves(proof(nonce(), "a"), key, "a")


def test_a_message_is_opened_once_by_the_other_end_in_its_order() -> None:
    key, ours, theirs = nonce(), nonce(), nonce()
    client, tracker = (tracker_seal(key, ours, theirs, at_tracker=at) for at in (False, True))
    first, second = client.closed(b"first"), client.closed(b"second")
    assert tracker.opened(first) == b"first"
    for wrong in (first, second[:-1] + b"x", b"", bytes(40)):
        with pytest.raises(ValueError, match="wrong tag"):
            tracker_seal(key, ours, theirs, at_tracker=True).opened(second)
        with pytest.raises(ValueError, match="wrong tag"):
            tracker.opened(wrong)
    with pytest.raises(ValueError, match="wrong tag"):  # sent back to its sender
        tracker_seal(key, ours, theirs, at_tracker=False).opened(first)


@pytest.mark.parametrize("secret", ["", "00", "0" * 62, "0" * 66])
def test_a_tracker_without_a_whole_secret_does_not_start(secret: str) -> None:
    import selectors

    with selectors.DefaultSelector() as selector, pytest.raises(ValueError, match="secret has 64 digits"):
        Tracker(selector, secret)
