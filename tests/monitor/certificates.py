"""Certificates for the scripted servers: an authority like deploy/run's, and certificates that no sender may trust."""

import ssl
import subprocess

from stack import ROOT, wait_for

AUTHORITY = """
set -eu
. {deploy}/common/keys.sh
. {deploy}/demo/certificate.sh
mkdir tls
make_certificates
"""

EXTENSIONS = "basicConstraints = critical, CA:FALSE\nextendedKeyUsage = serverAuth\nsubjectAltName = {names}\n"


class Certificates:
    """An authority in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.openssl_shell(AUTHORITY.format(deploy=ROOT / "deploy"))
        self.authority = folder / "tls" / "ca.crt"
        self.good = folder / "tls" / "server.crt", folder / "tls" / "server.key"

    def openssl_shell(self, script):
        subprocess.run(["sh", "-c", script], cwd=self.folder, check=True, stdin=subprocess.DEVNULL, capture_output=True)

    def signed(self, name, names, days=30):
        """A certificate for these names; expired if days is 0."""
        (self.folder / f"{name}.conf").write_text(EXTENSIONS.format(names=names))
        self.openssl_shell(
            f"set -eu; openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key\n"
            f"openssl req -new -key {name}.key -subj /CN={name} -out {name}.csr\n"
            f"openssl x509 -req -in {name}.csr -CA tls/ca.crt -CAkey tls/ca.key -set_serial 0x$(openssl rand -hex 16)"
            f" -days {days} -extfile {name}.conf -out {name}.crt")
        if days == 0:
            # OpenSSL 3.5 makes no certificate that ends before it begins.
            check = ["openssl", "x509", "-noout", "-checkend", "0", "-in", self.folder / f"{name}.crt"]
            wait_for(lambda: subprocess.run(check, capture_output=True).returncode == 1, "the certificate to expire")
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"


def server_context(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
