"""A fingerprint is that of the bytes, however they are cut into parts."""

import hashlib

from gensupcon_jax.fingerprints import fingerprint


def test_a_fingerprint_is_the_beginning_of_the_sha256_of_all_parts():
    assert fingerprint(["ab", b"c"]) == fingerprint(["a", memoryview(b"bc")]) == hashlib.sha256(b"abc").hexdigest()[:16]
    assert fingerprint([]) == "e3b0c44298fc1c14"  # of nothing, as everybody has it
    assert fingerprint(["abd"]) != fingerprint(["abc"])
