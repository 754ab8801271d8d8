#!/usr/bin/env python3
"""Computes again every value of the files of vectors, from the inputs that stand in them.

    check.py [FILE...]            checks vectors.json, transcripts.json and live.json, or FILEs
    check.py --collect LOG        makes a file as live.json of the rows in a test's output

Shares nothing with the Rust code but the recorded bytes; the arithmetic is generate.py's.
"""

import base64
import json
import pathlib
import struct
import sys
import zlib

import generate as g

FILES = ("vectors.json", "transcripts.json", "live.json")


def secret(text):
    """Reads the DHHC-1 form as strictly as it is written."""
    prefix, hash_id, payload, rest = text.split(":")
    data = base64.b64decode(payload, validate=True)
    assert (prefix, rest) == ("DHHC-1", "") and hash_id in ("00", "01", "02", "03")
    assert len(data) - 4 in g.LENGTHS
    assert struct.unpack("<I", data[-4:])[0] == zlib.crc32(data[:-4])
    return int(hash_id, 16), data[:-4]


def is_refused(text):
    try:
        secret(text)
    except (AssertionError, ValueError, struct.error):
        return True
    return False


def check_vectors(file):
    shared = {}
    for row in file["key_exchanges"]:
        group = row["group"]
        host, controller = (bytes.fromhex(row[side + "_random"]) for side in ("host", "controller"))
        publics = g.public_value(group, host), g.public_value(group, controller)
        assert [one.hex() for one in publics] == [row["host_public"], row["controller_public"]]
        secrets = (g.shared_secret(group, host, publics[1]),
                   g.shared_secret(group, controller, publics[0]))
        assert {one.hex() for one in secrets} == {row["shared_secret"]}
        shared[group, row["name"]] = secrets[0]
    for row in file["refused_secrets"]:
        assert is_refused(row["text"]), row["note"]
    for row in file["cases"]:
        check_case(row, shared.get((row["group"], row["key_exchange"]), b""))
    return len(file["cases"])


def check_case(row, shared):
    hash_id, t_id = row["hash"], row["transaction_id"]
    names = row["host_nqn"], row["subsystem_nqn"]
    key = g.transform(*secret(row["host_secret"]), names[0])
    augmented = g.augment(hash_id, bytes.fromhex(row["c1"]), shared)
    answer = g.response(hash_id, key, augmented, row["s1"], t_id, b"HostHost", *names)
    found = [row[name] for name in ("host_key", "augmented_c1", "host_response")]
    assert [one.hex() for one in (key, augmented, answer)] == found, row["number"]
    other = row["controller"]
    if other:
        key = g.transform(*secret(other["secret"]), names[1])
        augmented = g.augment(hash_id, bytes.fromhex(other["c2"]), shared)
        names = reversed(names)
        answer = g.response(hash_id, key, augmented, other["s2"], t_id, b"Controller", *names)
        found = [other[name] for name in ("key", "augmented_c2", "response")]
        assert [one.hex() for one in (key, augmented, answer)] == found, row["number"]


def check_transcripts(file):
    """Of exchanges that fail, the messages are of interest, and not computed again here."""
    good = [row for row in file["transcripts"] if "authenticated" in row["outcome"]]
    for row in good:
        try:
            check_transcript(row)
        except AssertionError as error:
            raise AssertionError("%s: %s" % (row["note"], error or "differs")) from error
    return len(good)


def check_transcript(row):
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
    assert reply[16 : 16 + length] == ours, "the host's response"

    assert success1[:2] == b"\1\3" and success1[6] == length and success1[8] == two_way
    if two_way:
        c2 = reply[16 + length : 16 + 2 * length]
        assert c2 == bytes.fromhex(row["challenge_random"])[:length]
        key = g.transform(*secret(row["controller_secret"]), subsystem_nqn)
        augmented = g.augment(hash_id, c2, shared)
        theirs = g.response(
            hash_id, key, augmented, s2, t_id, b"Controller", subsystem_nqn, host_nqn
        )
        assert success1[16:] == theirs, "the controller's response"
        assert rest == [struct.pack("<BBHHHQ", 1, 4, 0, t_id, 0, 0)]
    else:
        assert not any(success1[16:]) and rest == []
    proved = {"hash": hash_id, "group": group, "controller_proved": two_way}
    assert row["outcome"] == {"authenticated": proved}


def collect(log):
    marker = "TRANSCRIPT "
    rows = [line.split(marker, 1)[1] for line in log if marker in line]
    print('{\n  "version": 1,\n  "transcripts": [')
    print(",\n".join("    " + json.dumps(json.loads(row)) for row in rows))
    print("  ]\n}")


def main(arguments):
    if arguments[:1] == ["--collect"]:
        with open(arguments[1], encoding="utf-8", errors="replace") as log:
            return collect(log)
    for path in arguments or [pathlib.Path(__file__).with_name(name) for name in FILES]:
        with open(path, encoding="utf-8") as text:
            file = json.load(text)
        assert file["version"] == 1
        is_vectors = "cases" in file
        try:
            count = check_vectors(file) if is_vectors else check_transcripts(file)
        except AssertionError as error:
            sys.exit("%s: %s" % (path, error or "a value differs"))
        what = "cases" if is_vectors else "exchanges"
        print("%s: %d %s are right" % (pathlib.Path(path).name, count, what))


if __name__ == "__main__":
    main(sys.argv[1:])
