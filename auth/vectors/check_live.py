#!/usr/bin/env python3
"""Computes again what both sides said in exchanges recorded with a kernel.

    check_live.py FILE...         checks files as live.json
    check_live.py --collect LOG   makes such a file of the rows in a test's output

Shares nothing with the Rust code but the recorded bytes; the arithmetic is generate.py's.
"""

import base64
import json
import struct
import sys
import zlib

import generate as g  # which takes a minute to look for its odd key exchanges


def secret(text):
    prefix, hash_id, payload, rest = text.split(":")
    data = base64.b64decode(payload, validate=True)
    assert (prefix, rest) == ("DHHC-1", "")
    assert struct.unpack("<I", data[-4:])[0] == zlib.crc32(data[:-4])
    return int(hash_id, 16), data[:-4]


def check(row):
    negotiate, challenge, reply, success1, *rest = [bytes.fromhex(m) for m in row["messages"]]
    host_nqn, subsystem_nqn, t_id = row["host_nqn"], row["subsystem_nqn"], row["transaction_id"]
    for message in (negotiate, challenge, reply, success1, *rest):
        assert struct.unpack_from("<H", message, 4)[0] == t_id

    length, _, hash_id, group = challenge[6:10]
    value_length, s1 = struct.unpack_from("<HI", challenge, 10)
    assert challenge[:2] == b"\1\1" and length == g.digest_length(hash_id) and s1 != 0
    c1, value = challenge[16 : 16 + length], challenge[16 + length :]
    assert len(value) == value_length

    exponent_random = bytes.fromhex(row["exponent_random"])
    shared = b""
    if group:
        shared = g.shared_secret(group, exponent_random, value)
        assert reply[16 + 2 * length :] == g.public_value(group, exponent_random)
    two_way = row["controller_secret"] is not None
    assert reply[:2] == b"\1\2" and reply[6] == length and reply[8] == two_way
    s2 = struct.unpack_from("<I", reply, 12)[0]
    assert s2 == row["s2"]

    key = g.transform(*secret(row["host_secret"]), host_nqn)
    ours = g.response(
        hash_id, key, g.augment(hash_id, c1, shared), s1, t_id, b"HostHost", host_nqn, subsystem_nqn
    )
    assert reply[16 : 16 + length] == ours, "our response"

    assert success1[:2] == b"\1\3" and success1[6] == length and success1[8] == two_way
    if two_way:
        c2 = reply[16 + length : 16 + 2 * length]
        assert c2 == bytes.fromhex(row["challenge_random"])[:length]
        key = g.transform(*secret(row["controller_secret"]), subsystem_nqn)
        augmented = g.augment(hash_id, c2, shared)
        theirs = g.response(
            hash_id, key, augmented, s2, t_id, b"Controller", subsystem_nqn, host_nqn
        )
        assert success1[16:] == theirs, "the kernel's response"
        assert rest == [struct.pack("<BBHHHQ", 1, 4, 0, t_id, 0, 0)]
    else:
        assert rest == []
    proved = {"hash": hash_id, "group": group, "controller_proved": two_way}
    assert row["outcome"] == {"authenticated": proved}


def collect(log):
    marker = "TRANSCRIPT "
    rows = [line.split(marker, 1)[1] for line in log if marker in line]
    print('{\n  "version": 1,\n  "transcripts": [')
    print(",\n".join("    " + json.dumps(json.loads(row)) for row in rows))
    print("  ]\n}")


def main(arguments):
    if arguments[0] == "--collect":
        with open(arguments[1], encoding="utf-8", errors="replace") as log:
            return collect(log)
    for name in arguments:
        with open(name, encoding="utf-8") as file:
            rows = json.load(file)["transcripts"]
        for row in rows:
            try:
                check(row)
            except AssertionError as error:
                sys.exit("%s: %s: %s" % (name, row["note"], error or "differs"))
        print("%s: %d exchanges are right" % (name, len(rows)))


if __name__ == "__main__":
    main(sys.argv[1:] or ["live.json"])
