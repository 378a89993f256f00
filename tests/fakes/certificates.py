"""Certificates made when a test wants them, by the openssl command; none outlives its directory."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# As RFC 5280 wants them, which Python 3.13 and later insist on.
EXTENSIONS = """
subjectAltName = IP:127.0.0.1, DNS:localhost
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def there_is_openssl() -> bool:
    return shutil.which("openssl") is not None


@dataclass(frozen=True, slots=True)
class Pair:
    certificate: Path
    key: Path


class Authority:
    """Signs certificates for 127.0.0.1 and for clients."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self.certificate = directory / f"{name}.pem"
        self._key = directory / f"{name}.key"
        uses = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        _openssl(
            "req", "-x509", *_key(self._key), "-out", self.certificate, "-days", "2", "-subj", f"/CN={name}", *uses
        )

    def sign(self, name: str) -> Pair:
        pair = Pair(self._directory / f"{self._name}-{name}.pem", self._directory / f"{self._name}-{name}.key")
        request, extensions = self._directory / f"{name}.csr", self._directory / f"{name}.ext"
        extensions.write_text(EXTENSIONS)
        _openssl("req", *_key(pair.key), "-out", request, "-subj", f"/CN={name}")
        ours = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *ours, "-out", pair.certificate, "-days", "2", "-extfile", extensions)
        return pair


def _key(file: Path) -> tuple[str | Path, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", file)


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
