"""A Dask cluster with certificates, and somebody without one."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from strangers import strangers_answer

from tvmmobile.pipeline.cluster.pool import _connected
from tvmmobile.system.errors import DeviceUnavailable, ExitCode, UserError

dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")


#: RFC 8446, 5.1 and 6: the record's header, level and description.
TLS_ALERT_BYTES = 7


def certificate(path: Path) -> Path:
    """Return a key and a certificate signed by itself, as docs/devices.md makes them."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tvmmobile")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *form) + signed.public_bytes(serialization.Encoding.PEM),
    )
    return path


def configured(path: Path) -> object:
    """Dask's configuration as docs/devices.md sets it by the environment."""
    ends = {f"distributed.comm.tls.{end}.cert": str(path) for end in ("scheduler", "worker", "client")}
    return dask.config.set({"distributed.comm.require-encryption": True, "distributed.comm.tls.ca-file": str(path), **ends})


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address; it has certificates."""
    folder = tmp_path_factory.mktemp("tls")
    with (
        configured(certificate(folder / "cluster.pem")),  # type: ignore[attr-defined]
        dask.config.set({"temporary-directory": str(folder)}),
        distributed.LocalCluster(
            n_workers=0, dashboard_address=None, host="127.0.0.1", protocol="tls://", security=distributed.Security()
        ) as cluster,
    ):
        yield str(cluster.scheduler_address)


def test_who_has_the_certificate_is_served(scheduler: str) -> None:
    assert scheduler.startswith("tls://")
    with _connected(scheduler, 10) as client:
        assert client.sync(client.scheduler.ncores) == {}


SAYS = """
import ssl
port, heard = sys.argv[1], []
for wrap in (False, True):
    with dial(port) as sock:
        try:
            if wrap:
                context = ssl._create_unverified_context()
                sock = context.wrap_socket(sock)
            sock.sendall(struct.pack("<QQ", 1, 8) + os.urandom(8))
        except OSError:
            pass
        heard.append(len(hear(sock, wait=0.5)))
print(max(heard))
"""


def test_a_scheduler_with_certificates_tells_a_stranger_nothing(scheduler: str) -> None:
    assert int(strangers_answer(SAYS, scheduler.rpartition(":")[2])) <= TLS_ALERT_BYTES
    with _connected(scheduler, 10) as client:
        assert client.sync(client.scheduler.ncores) == {}


def test_another_certificate_is_none(scheduler: str, tmp_path: Path) -> None:
    """A certificate of the scheduler that is unknown here is refused, so is one of ours that is unknown there, and so is a file that is no
    certificate.
    """
    other = str(certificate(tmp_path / "other.pem"))
    message = r"cannot be reached: it has another certificate: .*verify failed"
    with configured(Path(other)), pytest.raises(UserError, match=message) as caught:  # type: ignore[attr-defined]
        _connected(scheduler, 10)
    assert caught.value.exit_code == ExitCode.USAGE and "distributed.comm.tls" in caught.value.remedy
    ours, authority = "distributed.comm.tls.client.cert", "distributed.comm.tls.ca-file"
    known = dask.config.get(authority)
    for setting, reason in (
        ({ours: other, authority: known}, r"does not know the certificate\."),
        ({ours: other, authority: str(tmp_path / "gone.pem")}, r"cannot be loaded: .*No such file or directory"),
        ({ours: other, authority: __file__}, r"cannot be loaded: .*no certificate"),
    ):
        with dask.config.set(setting), pytest.raises(UserError, match=reason):
            _connected(scheduler, 10)
    with configured(Path(other)), pytest.raises(DeviceUnavailable, match="did not answer within 1 s"):  # type: ignore[attr-defined]
        _connected("tls://127.0.0.1:9", 1)  # nobody is there
