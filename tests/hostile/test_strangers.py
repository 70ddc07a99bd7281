"""Another user of this machine against a run: he learns nothing, gets nobody's code run, and costs next to nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from served_tracker import served_tracker
from strangers import NOBODY, line_of, stranger, strangers_answer
from virtual_libraries import build_library

from tvmmobile.devices.agents.proof import new_secret
from tvmmobile.devices.agents.rpc import LinkError, TrackerLink, open_session
from tvmmobile.devices.agents.tracker import PUT, SUCCESS
from tvmmobile.devices.protocol import Endpoint
from tvmmobile.devices.registry import find_device
from tvmmobile.running.measure import Agents

DEVICE = find_device("pi4")
#: What a client says to an agent before the agent has proved itself: a number and a nonce.
GREETING_BYTES = 36
#: Another one, and this one, who could read this process's memory and does not.
USERS = [pytest.param(NOBODY, id="another"), pytest.param(os.geteuid(), id="the same")]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with DEVICE.started(1) as started:
        yield started


@pytest.fixture
def tracker() -> Iterator[Endpoint]:
    """A tracker without agents."""
    with served_tracker() as served:
        yield served


def agents_of_this_process() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "qemu" in process.name():
                found.append(process)
    return found


def run_folder() -> Path:
    """Return the folder in which this process's agents work."""
    agent = next(process for process in agents_of_this_process() if Path(process.cwd()).name.startswith("agent-"))
    return Path(agent.cwd()).parent


def agent_port() -> int:
    """Return the port of the only agent, which anybody can see in /proc/net/tcp."""
    ports = set()
    for process in agents_of_this_process():
        with suppress(psutil.NoSuchProcess):  # a session that has just ended
            ports |= {connection.laddr.port for connection in process.net_connections("tcp") if connection.status == psutil.CONN_LISTEN}
    assert len(ports) == 1
    return ports.pop()


def offered(tracker: Endpoint, port: int, offer: str) -> TrackerLink:
    """Return an agent of the run's own that has made an offer."""
    link = TrackerLink(tracker, time.monotonic() + 10)
    assert link.ask([PUT, tracker.key, [port, offer], "127.0.0.1"]) == SUCCESS
    return link


ASKS = """
port, heard = sys.argv[1], set()
put = [3, "pi4", [1, "pi4:1"], "127.0.0.1"]
for message in ([6], [4, "pi4", "", 1], put, [5, {"key": "server:pi4"}], [7], [1]):
    for start in (struct.pack("<i", OLD) + told(message), struct.pack("<i", TRACKER) + os.urandom(32) + told(message),
                  struct.pack("<i", TRACKER) + os.urandom(32) + tagged(message)):
        with dial(port) as sock:
            sock.sendall(start)
            heard.add(len(hear(sock)))
    with dial(port) as sock:  # the tracker's own proof, sent back as a tag
        sock.sendall(struct.pack("<i", TRACKER) + os.urandom(32))
        proof = hear(sock, 68)[36:]
        sock.sendall(tagged(message, proof))
        heard.add(len(hear(sock)))
print(sorted(heard))
"""


def test_the_tracker_tells_a_stranger_nothing(tracker: Endpoint) -> None:
    with offered(tracker, 9, "pi4:offer"):
        # Its greeting and proof where he begins as he should, and not a byte for any question.
        assert strangers_answer(ASKS, tracker.port) == "[0, 68]"
        with TrackerLink(tracker, time.monotonic() + 5) as link:
            assert link.ask([6])[1]["queue_info"] == {"pi4": {"free": 1, "pending": 0}}


THEFT = """
port, number, thefts = sys.argv[1], 0, 0
trap = socket.create_server(("127.0.0.1", 0))
trap.settimeout(0.02)
while not select.select([sys.stdin], [], [], 0)[0]:
    number += 1
    place = [3, "pi4", [trap.getsockname()[1], "pi4:%d" % number], "127.0.0.1"]
    magic, frame = ((OLD, told), (TRACKER, tagged))[number % 2]
    with dial(port) as sock:
        nonce = os.urandom(32) if magic == TRACKER else b""
        sock.sendall(struct.pack("<i", magic) + nonce + frame([5, {"key": "server:pi4"}]) + frame(place))
        try:
            trap.accept()
            thefts += 1
        except OSError:
            pass
print(thefts if number > 10 else "too few tries")
"""


def thefts(endpoint: Endpoint, sessions: int, user: int) -> str:
    """Return how often a client was led to a stranger that registers continuously while the client opens sessions."""
    with stranger(THEFT, endpoint.port, user=user) as process:
        for _ in range(sessions):
            with open_session(endpoint, 10):
                time.sleep(0.05)
        out, _ = process.communicate("enough\n", timeout=30)
        return out.strip()


@pytest.mark.virtual
@pytest.mark.parametrize("user", USERS)
def test_no_client_is_led_to_a_stranger(endpoint: Endpoint, user: int) -> None:
    assert thefts(endpoint, 3, user) == "0"


@pytest.mark.long
@pytest.mark.virtual
@pytest.mark.parametrize("user", USERS)
def test_no_client_is_led_to_a_stranger_in_a_hundred_sessions(endpoint: Endpoint, user: int) -> None:
    assert thefts(endpoint, 100, user) == "0"


#: Plays the agent: a proof that is none, then TVM's own greeting, and a call of a function in the client.
PLAYS = """
trap = socket.create_server(("127.0.0.1", 0))
print(trap.getsockname()[1], flush=True)
sock, _ = trap.accept()
heard = hear(sock, 36)
for answer in (os.urandom(64), struct.pack("<ii", RPC, 10) + b"server:pi4", struct.pack("<Qi", 4, 2), struct.pack("<Qi", 4, 3)):
    try:
        sock.sendall(answer)
    except OSError:
        break
heard += hear(sock, wait=1)
print(len(heard), flush=True)
"""


def test_whoever_has_the_port_of_a_dead_agent_gets_nothing(tracker: Endpoint) -> None:
    with stranger(PLAYS) as process, offered(tracker, int(line_of(process)), "pi4:dead"):
        with pytest.raises(LinkError, match="did not prove that it belongs to this run"), open_session(tracker, 5):
            pass
        assert line_of(process) == str(GREETING_BYTES)


def test_whoever_has_the_port_of_a_dead_tracker_gets_nothing() -> None:
    with stranger(PLAYS) as process:
        dead = Endpoint("127.0.0.1", int(line_of(process)), "pi4", new_secret())
        with pytest.raises(LinkError, match="it is not a tracker"), open_session(dead, 5, wait_s=5):
            pass
        assert line_of(process) == str(GREETING_BYTES)


RELAYS = """
trap = socket.create_server(("127.0.0.1", 0))
print(trap.getsockname()[1], flush=True)
client, _ = trap.accept()
with dial(sys.argv[1]) as agent:
    agent.sendall(hear(client, 36))
    client.sendall(hear(agent, 64))
    print(len(hear(client, wait=1)), flush=True)
"""


@pytest.mark.virtual
def test_one_agents_proof_is_not_anothers(endpoint: Endpoint) -> None:
    """A stranger on a dead agent's port leads the client to a living one of the same run."""
    with (
        served_tracker(endpoint.secret) as place,
        stranger(RELAYS, agent_port()) as process,
        offered(place, int(line_of(process)), "pi4:dead"),
    ):
        with pytest.raises(LinkError, match="did not prove that it belongs to this run"), open_session(place, 5):
            pass
        assert line_of(process) == "0"


ATTACKS = """
port, served = sys.argv[1], 0
init = struct.pack("<QiQ", 12, 2, 0)
frame = struct.pack("<QIIqQ", 0xF674766D62756C6B, 3, 4, 0, 3) + b"a.so" + b"ELF"
hello = struct.pack("<i", AGENT) + os.urandom(32)
limit = struct.pack("<Q", 5000)
old = b"client:pi4:1 -timeout=9 -token=" + b"0" * 32
with dial(port) as sock:  # the agent's own proof, sent back
    sock.sendall(hello)
    reflected = hear(sock, 64)[32:]
for start in (struct.pack("<ii", RPC, len(old)) + old, hello + limit + bytes(32), hello + limit + os.urandom(32), hello + limit + reflected,
              init, frame, b"GET / HTTP/1.0\\r\\n\\r\\n", os.urandom(4000)):
    with dial(port) as sock:
        try:
            sock.sendall(start + init + frame)
        except OSError:
            pass
        served += len(hear(sock)) > 64
print(served)
"""


@pytest.mark.virtual
def test_an_agent_serves_no_stranger(endpoint: Endpoint) -> None:
    folder = run_folder()
    assert strangers_answer(ATTACKS, agent_port()) == "0"
    assert list(folder.rglob("a.so")) == []
    with open_session(endpoint, 10) as session:
        session.upload(bytearray(b"ours"), "a.so")
        assert len(list(folder.rglob("a.so"))) == 1  # where it would have been


CROWD = """
socks = []
for port in sys.argv[1:]:
    for _ in range(50):
        socks.append(dial(port))
        socks[-1].sendall(struct.pack("<i", TRACKER if port == sys.argv[1] else AGENT) + os.urandom(7))
print("here", flush=True)
sys.stdin.read()
"""


@pytest.mark.virtual
def test_a_crowd_that_says_nothing_keeps_nobody_waiting(endpoint: Endpoint) -> None:
    with stranger(CROWD, endpoint.port, agent_port()) as process:
        assert line_of(process) == "here"
        begin = time.monotonic()
        for _ in range(3):
            with open_session(endpoint, 10):
                pass
        assert time.monotonic() - begin < 4  # less than one of them may take


FAKES = """
socks = []
while True:
    for number in range(50):
        with dial(sys.argv[1]) as sock:
            greeting = struct.pack("<i", TRACKER) + os.urandom(32)
            sock.sendall(greeting + tagged([5, {"key": "server:pi4"}]) + tagged([3, "pi4", [9, "pi4:9"]]))
    for port in sys.argv[1:]:
        socks.append(dial(port))
    del socks[:-50]
    time.sleep(0.2)
"""


@pytest.mark.long
@pytest.mark.virtual
def test_tuning_beside_fifty_fake_agents_keeps_its_rate(endpoint: Endpoint, tmp_path: Path) -> None:
    library, x = build_library(tmp_path), np.ones(1000, "float32")

    def rate() -> float:
        begin = time.monotonic()
        for _ in range(50):
            Agents(DEVICE.profile, endpoint).measure_kernel(library, "scale", [x, x], 10)
        return 50 / (time.monotonic() - begin)

    rate()
    before = rate()
    with stranger(FAKES, endpoint.port, agent_port()) as process:
        beside = rate()
        assert process.poll() is None
    after = rate()
    print(f"{before:.2f} a second before, {beside:.2f} beside fifty fake agents, {after:.2f} after")
    assert beside > 0.7 * min(before, after)


@pytest.mark.virtual
def test_nobody_else_can_read_the_secret(endpoint: Endpoint) -> None:
    """Not in a command line, an environment or a file of the run's processes; the folder is the user's own."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    wanted = (endpoint.secret.encode(), bytes.fromhex(endpoint.secret))
    looked_at = 0
    for process in family:
        with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):  # a session that has just ended
            shown = b"".join(Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
            assert not any(secret in shown for secret in wanted)
            looked_at += 1
    assert looked_at >= 3  # this process, the tracker's and the agent
    folder = run_folder()
    assert folder.stat().st_mode & 0o077 == 0
    for path in folder.rglob("*"):
        if path.is_file() and "bundle" not in path.parts:
            assert not any(secret in path.read_bytes() for secret in wanted), path


@pytest.mark.virtual
def test_nothing_listens_beyond_loopback(endpoint: Endpoint) -> None:
    listening = set()
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            listening |= {c.laddr for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert endpoint.port in {address.port for address in listening}
