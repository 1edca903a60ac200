"""The example for authors of monitors in tests/vectors, checked with three implementations."""

import base64
import hashlib
import json
import subprocess

import pytest
from nacl.signing import SigningKey, VerifyKey

from monitor import Monitor
from stack import ROOT, wait_for

FOLDER = ROOT / "tests" / "vectors"
PKCS8_PREFIX = bytes.fromhex("302e020100300506032b657004220420")


@pytest.fixture(scope="module")
def vector():
    return json.loads((FOLDER / "vector.json").read_text())


@pytest.fixture(scope="module")
def body():
    return (FOLDER / "body.json").read_bytes()


def test_the_forms_of_each_value_agree(vector, body):
    seed = bytes.fromhex(vector["seed_hex"])
    assert len(seed) == 32 and base64.b64decode(vector["seed_base64"]) == seed
    public = base64.b64decode(vector["public_key_base64"])
    assert base64.b64decode(vector["public_key_spki_base64"]) == bytes.fromhex("302a300506032b6570032100") + public
    assert base64.b64decode(vector["body_base64"]) == body and vector["body_length"] == len(body)
    assert hashlib.sha256(body).hexdigest() == vector["body_sha256_hex"]
    assert base64.b64decode(vector["signature_base64"]).hex() == vector["signature_hex"]
    assert len(vector["signature_base64"]) == 88


def test_nacl_computes_the_same_key_and_signature(vector, body):
    key = SigningKey(bytes.fromhex(vector["seed_hex"]))
    assert base64.b64encode(bytes(key.verify_key)).decode() == vector["public_key_base64"]
    assert base64.b64encode(key.sign(body).signature).decode() == vector["signature_base64"]
    VerifyKey(base64.b64decode(vector["public_key_base64"])).verify(body, base64.b64decode(vector["signature_base64"]))


def test_openssl_computes_the_same_key_and_signature(vector, tmp_path):
    private = tmp_path / "key.der"
    private.write_bytes(PKCS8_PREFIX + bytes.fromhex(vector["seed_hex"]))
    signature = subprocess.run(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", str(private), "-keyform", "DER", "-in",
                                str(FOLDER / "body.json")], check=True, capture_output=True).stdout
    assert base64.b64encode(signature).decode() == vector["signature_base64"]
    public = subprocess.run(["openssl", "pkey", "-inform", "DER", "-in", str(private), "-pubout", "-outform", "DER"],
                            check=True, capture_output=True).stdout
    assert base64.b64encode(public).decode() == vector["public_key_spki_base64"]


def test_the_server_accepts_it_unchanged(stack, db, client, vector, body):
    stack.steepctl("monitor", "add", vector["source"], vector["public_key_base64"])
    headers = {"X-Source-ID": vector["source"], "X-Signature": vector["signature_base64"], "Content-Type": "application/json"}
    wait_for(lambda: client.post("/functions/v1/ingest", content=body, headers=headers).status_code == 200, "the key")
    ids = [event["id"] for event in json.loads(body)]
    rows = db.execute("SELECT id FROM public.events WHERE id = ANY(%s) AND source = %s", (ids, vector["source"])).fetchall()
    assert len(rows) == len(ids) == 2
    assert Monitor(vector["source"], bytes.fromhex(vector["seed_hex"])).post(client, body).json()["duplicates"] == 2
