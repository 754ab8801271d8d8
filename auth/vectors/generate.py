#!/usr/bin/env python3
"""Writes vectors.json and transcripts.json beside this file; README.md says what they contain.

Nothing but the standard library is used, and nothing is shared with the Rust code: this is the
other implementation that the Rust one is compared with. It is not for use with real secrets.
"""

import base64
import functools
import hashlib
import hmac
import json
import pathlib
import struct
import zlib

HASHES = {1: hashlib.sha256, 2: hashlib.sha384, 3: hashlib.sha512}
LENGTHS = (32, 48, 64)
HOST_NQN = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001"
SUBSYSTEM_NQN = "nqn.test:s1"
LONG_HOST_NQN = "nqn." + "h" * 219
LONG_SUBSYSTEM_NQN = "nqn." + "s" * 219

# Per group: bits of the modulus, the constant of its formula, bytes of our exponents.
GROUPS = {
    1: (2048, 560316, 32),
    2: (3072, 2625351, 36),
    3: (4096, 5736041, 44),
    4: (6144, 15705020, 48),
    5: (8192, 10965728, 52),
}


def random_bytes(label, length):
    """The same bytes for the same label, and bytes that look random."""
    return hashlib.shake_256(label.encode()).digest(length)


# Groups: RFC 7919.


def floor_of_shifted_e(shift):
    term, total, k = 1 << (shift + 128), 0, 1
    while term:
        total += term
        term //= k
        k += 1
    return total >> 128


def prime(group):
    bits, x, _ = GROUPS[group]
    middle = floor_of_shifted_e(bits - 130) + x
    return (1 << bits) - (1 << (bits - 64)) + (middle << 64) - 1


PRIMES = {group: prime(group) for group in GROUPS}


def exponent(group, random):
    length = GROUPS[group][2]
    return int.from_bytes(random[:length], "big") | 1 << (8 * length - 1)


def value_bytes(group, value):
    return value.to_bytes(GROUPS[group][0] // 8, "big")


def public_value(group, random):
    return value_bytes(group, pow(2, exponent(group, random), PRIMES[group]))


def shared_secret(group, random, public):
    peer = int.from_bytes(public, "big")
    return value_bytes(group, pow(peer, exponent(group, random), PRIMES[group]))


# Secrets and calculations: NVMe Base Specification 2.2, section 8.3.4.


def secret_text(hash_id, secret):
    checksum = struct.pack("<I", zlib.crc32(secret))
    return "DHHC-1:%02x:%s:" % (hash_id, base64.b64encode(secret + checksum).decode())


def mac(hash_id, key, message):
    return hmac.new(key, message, HASHES[hash_id]).digest()


def transform(hash_id, secret, nqn):
    if hash_id == 0:
        return secret
    return mac(hash_id, secret, nqn.encode() + b"NVMe-over-Fabrics")


def augment(hash_id, challenge, shared):
    if not shared:
        return challenge
    return mac(hash_id, HASHES[hash_id](shared).digest(), challenge)


def response(hash_id, key, augmented, sequence, transaction, role, own, other):
    numbers = struct.pack("<IHB", sequence, transaction, 0)
    names = role + own.encode() + b"\0" + other.encode()
    return mac(hash_id, key, augmented + numbers + names)


def digest_length(hash_id):
    return HASHES[hash_id]().digest_size


# vectors.json


def key_exchange(name, group, host_random, controller_random):
    host, controller = public_value(group, host_random), public_value(group, controller_random)
    shared = shared_secret(group, host_random, controller)
    assert shared == shared_secret(group, controller_random, host)
    return {
        "name": name,
        "group": group,
        "host_random": host_random,
        "controller_random": controller_random,
        "host_public": host,
        "controller_public": controller,
        "shared_secret": shared,
    }


def random_for(group, label, wanted):
    """Random bytes for an exponent, the first that are as wanted."""
    for count in range(100000):
        random = random_bytes("%s %d %d" % (label, group, count), 52)
        if wanted(random):
            return random
    raise ValueError(label)


def key_exchanges():
    for group in GROUPS:
        any_host = random_bytes("host %d" % group, 52)
        any_controller = random_bytes("controller %d" % group, 52)
        low = lambda random: public_value(group, random)[0] == 0
        low_host = random_for(group, "low public host", low)
        low_controller = random_for(group, "low public controller", low)
        host = public_value(group, any_host)
        low = lambda random: shared_secret(group, random, host)[0] == 0
        low_shared = random_for(group, "low shared", low)
        yield key_exchange("ordinary", group, any_host, any_controller)
        yield key_exchange("host's public value begins with 00", group, low_host, any_controller)
        name = "controller's public value begins with 00"
        yield key_exchange(name, group, any_host, low_controller)
        yield key_exchange("shared secret begins with 00", group, any_host, low_shared)


@functools.cache
def exchanges():
    """By group and name. Looking for the odd ones takes a minute."""
    return {(one["group"], one["name"]): one for one in key_exchanges()}


def odd_exchanges():
    return sorted({name for _, name in exchanges()} - {"ordinary"})


def secret_pair(label, hash_id, length):
    return hash_id, random_bytes("%s secret %d %d" % (label, hash_id, length), length)


def case(number, note, host, controller, hash_id, group, **options):
    """One calculation. Each side is a hash id and a secret; the controller may be None."""
    exchange = exchanges().get((group, options.get("exchange", "ordinary")))
    shared = exchange["shared_secret"] if exchange else b""
    host_nqn = options.get("host_nqn", HOST_NQN)
    subsystem_nqn = options.get("subsystem_nqn", SUBSYSTEM_NQN)
    transaction = options.get("transaction_id", number % 0x10000)
    s1, s2 = options.get("s1", 2 * number + 1), options.get("s2", 0x80000000 + number)
    c1 = random_bytes("C1 %d" % number, digest_length(hash_id))
    host_key, ca1 = transform(*host, host_nqn), augment(hash_id, c1, shared)
    r1 = response(hash_id, host_key, ca1, s1, transaction, b"HostHost", host_nqn, subsystem_nqn)
    result = {
        "number": number,
        "note": note,
        "hash": hash_id,
        "group": group,
        "key_exchange": exchange and exchange["name"],
        "host_secret": secret_text(*host),
        "host_nqn": host_nqn,
        "subsystem_nqn": subsystem_nqn,
        "transaction_id": transaction,
        "s1": s1,
        "c1": c1,
        "host_key": host_key,
        "augmented_c1": ca1,
        "host_response": r1,
        "controller": None,
    }
    if controller:
        c2 = random_bytes("C2 %d" % number, digest_length(hash_id))
        key, ca2 = transform(*controller, subsystem_nqn), augment(hash_id, c2, shared)
        role = b"Controller"
        result["controller"] = {
            "secret": secret_text(*controller),
            "s2": s2,
            "c2": c2,
            "key": key,
            "augmented_c2": ca2,
            "response": response(
                hash_id, key, ca2, s2, transaction, role, subsystem_nqn, host_nqn
            ),
        }
    return result


def every_combination():
    """Hash id and length of the secret, hash of the response, group, one-way and two-way."""
    for hash_id in (0, 1, 2, 3):
        for length in LENGTHS:
            host = secret_pair("host", hash_id, length)
            # The controller's secret has another hash id and length than the host's.
            other_length = LENGTHS[(LENGTHS.index(length) + 1) % 3]
            controller = secret_pair("controller", (hash_id + 1) % 4, other_length)
            for response_hash in HASHES:
                for group in (0, 1, 2, 3, 4, 5):
                    yield "one-way", host, None, response_hash, group, {}
                    yield "two-way", host, controller, response_hash, group, {}


def oddities():
    host, controller = secret_pair("host", 1, 48), secret_pair("controller", 2, 64)
    names = {"host_nqn": LONG_HOST_NQN, "subsystem_nqn": LONG_SUBSYSTEM_NQN}
    common = [
        ("names of 223 bytes", names),
        ("name of one byte, and not ASCII", {"host_nqn": "h", "subsystem_nqn": "nqn.\u00e4\u20ac"}),
        ("last T_ID before the wrap", {"transaction_id": 0xFFFF}),
        ("first T_ID after the wrap", {"transaction_id": 0}),
        ("T_ID of two unequal bytes", {"transaction_id": 0x0102}),
        ("smallest sequence numbers", {"s1": 1, "s2": 1}),
        ("largest sequence numbers", {"s1": 0xFFFFFFFF, "s2": 0xFFFFFFFF}),
        ("sequence numbers of unequal bytes", {"s1": 0x01020304, "s2": 0xFFFEFDFC}),
    ]
    for note, options in common:
        for response_hash in HASHES:
            for group in (0, 2):
                yield note, host, controller, response_hash, group, options
    for name in odd_exchanges():
        for response_hash in HASHES:
            for group in GROUPS:
                yield name, host, controller, response_hash, group, {"exchange": name}


def refused_secrets():
    good = secret_text(1, random_bytes("refused", 32))
    prefix, hash_id, payload, _ = good.split(":")
    wrong = base64.b64encode(random_bytes("refused", 32) + b"\0\0\0\0").decode()
    big = random_bytes("refused", 32)
    big = base64.b64encode(big + struct.pack(">I", zlib.crc32(big))).decode()
    yield "no final colon", good[:-1]
    yield "line break behind", good + "\n"
    yield "space in front", " " + good
    yield "lower case prefix", good.replace("DHHC", "dhhc")
    yield "other version", good.replace("DHHC-1", "DHHC-2")
    for hash_text in ("", "1", "001", "+1", "0g", "04", "ff"):
        yield "hash id %r" % hash_text, ":".join((prefix, hash_text, payload, ""))
    for length in (0, 16, 31, 33, 47, 49, 63, 65, 128):
        yield "%d bytes" % length, secret_text(0, random_bytes("refused", length))
    yield "wrong checksum", ":".join((prefix, hash_id, wrong, ""))
    yield "big-endian checksum", ":".join((prefix, hash_id, big, ""))
    yield "no checksum", ":".join(
        (prefix, hash_id, base64.b64encode(random_bytes("refused", 32)).decode(), "")
    )
    yield "no padding", secret_text(0, random_bytes("refused", 64)).replace("=", "")
    yield "URL alphabet", ":".join((prefix, hash_id, "_" + payload[1:], ""))
    yield "no payload", "DHHC-1:00::"
    yield "empty", ""


# transcripts.json


class Host:
    """A host as it should be."""

    def __init__(self, inputs):
        self.__dict__.update(inputs)

    def negotiate(self):
        hashes = [one for one in (3, 2, 1) if one >= self.hash_min]
        groups = [one for one in (5, 4, 3, 2, 1, 0) if one >= self.group_min]
        head = struct.pack("<BBHHBB", 0, 0, 0, self.transaction_id, 0, 1)
        lengths = struct.pack("<BBBB", 1, 0, len(hashes), len(groups))
        return head + lengths + struct.pack("30s30s", bytes(hashes), bytes(groups))

    def reply(self, challenge):
        hl, _, hash_id, group, dhvlen, s1 = struct.unpack_from("<BBBBHI", challenge, 6)
        c1, value = challenge[16 : 16 + hl], challenge[16 + hl : 16 + hl + dhvlen]
        shared = shared_secret(group, self.exponent_random, value) if group else b""
        public = public_value(group, self.exponent_random) if group else b""
        names = (self.host_nqn, self.subsystem_nqn)
        key, ca1 = transform(*self.host, self.host_nqn), augment(hash_id, c1, shared)
        r1 = response(hash_id, key, ca1, s1, self.transaction_id, b"HostHost", *names)
        c2 = self.challenge_random[:hl] if self.controller else bytes(hl)
        head = struct.pack(
            "<BBHHBBBBHI", 1, 2, 0, self.transaction_id,
            hl, 0, bool(self.controller), 0, len(public), self.s2,
        )
        return head + r1 + c2 + public

    def success2(self):
        return struct.pack("<BBHH10x", 1, 4, 0, self.transaction_id)

    def failure2(self, explanation):
        return struct.pack("<BBHHBB", 0, 0xF0, 0, self.transaction_id, 1, explanation)


class Controller:
    """A controller as it should be: it has secrets of its own and checks the host."""

    def __init__(self, inputs, host, controller):
        self.__dict__.update(inputs)
        self.host, self.controller = host, controller
        self.c1 = random_bytes("transcript C1 %d" % self.number, digest_length(self.hash))
        self.random = self.controller_random

    def challenge(self, **changes):
        public = public_value(self.group, self.random) if self.group else b""
        fields = {"t_id": self.transaction_id, "hl": len(self.c1), "hash": self.hash,
                  "group": self.group, "s1": self.s1, "c1": self.c1, "public": public}
        fields.update(changes)
        head = struct.pack(
            "<BBHHBBBBHI", 1, 1, 0, fields["t_id"],
            fields["hl"], 0, fields["hash"], fields["group"], len(fields["public"]), fields["s1"],
        )
        return head + fields["c1"] + fields["public"]

    def success1(self, reply):
        """Success1, or Failure1 if the host is not what it says."""
        hl, _, cvalid, _, dhvlen, s2 = struct.unpack_from("<BBBBHI", reply, 6)
        r1, c2, public = reply[16 : 16 + hl], reply[16 + hl : 16 + 2 * hl], reply[16 + 2 * hl :]
        assert len(public) == dhvlen and hl == digest_length(self.hash) and s2 != 0
        shared = shared_secret(self.group, self.random, public) if self.group else b""
        names = (self.host_nqn, self.subsystem_nqn)
        ca1, ca2 = augment(self.hash, self.c1, shared), augment(self.hash, c2, shared)
        key = transform(*self.host, self.host_nqn)
        expected = response(self.hash, key, ca1, self.s1, self.transaction_id, b"HostHost", *names)
        if not hmac.compare_digest(r1, expected) or (cvalid and not self.controller):
            return self.failure1(1)
        head = struct.pack("<BBHHBBB7x", 1, 3, 0, self.transaction_id, hl, 0, cvalid)
        if not cvalid:
            return head
        key = transform(*self.controller, self.subsystem_nqn)
        role = b"Controller"
        return head + response(self.hash, key, ca2, s2, self.transaction_id, role, *reversed(names))

    def failure1(self, explanation):
        return struct.pack("<BBHHBB", 0, 0xF1, 0, self.transaction_id, 1, explanation)


def transcript(number, note, hash_id, group, two_way, **options):
    host = secret_pair("transcript host", number % 4, LENGTHS[number % 3])
    controller = secret_pair("transcript controller", (number + 1) % 4, LENGTHS[(number + 1) % 3])
    exchange = exchanges().get((group, options.get("exchange", "ordinary")))
    inputs = {
        "number": number,
        "note": note,
        "hash": hash_id,
        "group": group,
        "hash_min": options.get("hash_min", 1),
        "group_min": options.get("group_min", 0),
        "host_nqn": options.get("host_nqn", HOST_NQN),
        "subsystem_nqn": options.get("subsystem_nqn", SUBSYSTEM_NQN),
        "transaction_id": options.get("transaction_id", 0x1000 + number),
        "s1": options.get("s1", 0x01020300 + number),
        "s2": options.get("s2", 0xF1F2F300 + number),
        "challenge_random": random_bytes("transcript C2 %d" % number, 64),
        "exponent_random": exchange["host_random"] if exchange else random_bytes("unused", 52),
    }
    one = Host({**inputs, "host": host, "controller": controller if two_way else None})
    other = Controller(
        {**inputs, "controller_random": exchange and exchange["controller_random"]},
        options.get("their_host", host),
        options.get("their_controller", controller),
    )
    messages, error = exchange_messages(one, other, options)
    proved = {"hash": hash_id, "group": group, "controller_proved": two_way}
    public = {name: inputs[name] for name in inputs if name not in ("hash", "group")}
    return {
        **public,
        "host_secret": secret_text(*host),
        "controller_secret": secret_text(*controller) if two_way else None,
        "messages": messages,
        "outcome": {"error": error} if error else {"authenticated": proved},
    }


def exchange_messages(host, controller, options):
    """All messages, and the name of the error the exchange must end with, None if it succeeds."""
    error, explanation = options.get("error", (None, None))
    messages = [host.negotiate()]

    def failed():
        if explanation is not None:
            messages.append(host.failure2(explanation))
        return messages, error

    if "challenge" in options:
        messages.append(options["challenge"](controller))
        return failed()
    messages.append(controller.challenge())
    messages.append(host.reply(messages[-1]))
    honest = controller.success1(messages[-1])
    change = options.get("success1", lambda controller, reply, honest: honest)
    messages.append(change(controller, messages[-1], honest))
    if error:
        return failed()
    if host.controller:
        messages.append(host.success2())
    return messages, None


def successes():
    for hash_id in HASHES:
        for group in (0, 1, 2, 3, 4, 5):
            for two_way in (False, True):
                yield "success", hash_id, group, two_way, {}
    for name in odd_exchanges():
        for group in GROUPS:
            yield name, 1, group, True, {"exchange": name}
    names = {"host_nqn": LONG_HOST_NQN, "subsystem_nqn": LONG_SUBSYSTEM_NQN}
    yield "names of 223 bytes", 3, 5, True, names
    yield "last T_ID before the wrap", 2, 1, True, {"transaction_id": 0xFFFF}
    yield "first T_ID after the wrap", 2, 1, True, {"transaction_id": 0}
    yield "largest sequence numbers", 1, 0, True, {"s1": 0xFFFFFFFF, "s2": 0xFFFFFFFF}
    yield "floors just met", 2, 2, True, {"hash_min": 2, "group_min": 2}
    yield "buffer filled with zeros", 1, 1, False, {
        "success1": lambda controller, reply, honest: honest + bytes(4096 - len(honest))
    }


def failures():
    """Exchanges that must fail, with the name of the error and the explanation of Failure2."""
    low, high = b"\0" * 255 + b"\1", value_bytes(1, PRIMES[1] - 1)
    challenges = [
        ("S1 is zero", 0, {}, {"s1": 0}, "SequenceNumberZero", 6),
        ("another T_ID", 0, {}, {"t_id": 1}, "TransactionId", 6),
        ("group below the floor", 1, {"group_min": 2}, {}, "GroupBelowMinimum", 5),
        ("null group below the floor", 0, {"group_min": 1}, {}, "GroupBelowMinimum", 5),
        ("hash below the floor", 0, {"hash_min": 2}, {}, "HashBelowMinimum", 4),
        ("group of TP4201", 0, {}, {"group": 0x20}, "GroupUnsupported", 5),
        ("unknown group", 0, {}, {"group": 0x77}, "GroupNotOffered", 5),
        ("unknown hash", 0, {}, {"hash": 4}, "HashNotOffered", 4),
        ("HL of another hash", 0, {}, {"hl": 48, "c1": bytes(48)}, "HashLength", 6),
        ("public value 1", 1, {}, {"public": low}, "PublicValue", 6),
        ("public value p-1", 1, {}, {"public": high}, "PublicValue", 6),
        ("short public value", 1, {}, {"public": high[1:]}, "PublicValue", 6),
        ("public value without group", 0, {}, {"public": b"\2"}, "PublicValue", 6),
    ]
    for note, group, options, changes, error, explanation in challenges:
        make = lambda controller, changes=changes: controller.challenge(**changes)
        yield note, group, True, {**options, "challenge": make, "error": (error, explanation)}
    for explanation in (1, 2, 3, 4, 5, 6, 7, 0x99):
        make = lambda controller, explanation=explanation: controller.failure1(explanation)
        options = {"challenge": make, "error": ("Refused", None)}
        yield "refused with %d" % explanation, 0, True, options
    ends = lambda change: {"challenge": change}
    early = lambda one: struct.pack("<BBHHBBB7x", 1, 3, 0, one.transaction_id, 32, 0, 0)
    yield "Success1 where Challenge is due", 0, False, {**ends(early), "error": ("OutOfOrder", 7)}
    yield "Challenge cut short", 1, False, {
        **ends(lambda controller: controller.challenge()[:-1]), "error": ("Malformed", 6)
    }
    yield "Challenge with a byte too many", 1, False, {
        **ends(lambda controller: controller.challenge() + b"\1"), "error": ("Malformed", 6)
    }
    yield "our own challenge as C1", 0, True, {
        **ends(lambda controller: controller.challenge(c1=controller.challenge_random[:32])),
        "error": ("ChallengeReflected", 1),
    }
    yield "our own public value", 1, True, {
        **ends(lambda one: one.challenge(public=public_value(1, one.exponent_random))),
        "error": ("PublicValueReflected", 1),
    }
    wrong = secret_pair("wrong", 1, 32)
    yield "wrong host secret", 1, True, {"their_host": wrong, "error": ("Refused", None)}
    nothing = {"their_controller": None, "error": ("Refused", None)}
    yield "no controller secret there", 1, True, nothing
    other = {"their_controller": wrong, "error": ("ResponseWrong", 1)}
    yield "wrong controller secret", 1, True, other
    head = lambda honest, rvalid: honest[:8] + bytes([rvalid]) + honest[9:16]
    no_response = lambda reply, honest: head(honest, 0)
    odd_flag = lambda reply, honest: head(honest, 2) + honest[16:]
    unexpected = lambda reply, honest: head(honest, 1) + bytes(32)
    own_response = lambda reply, honest: honest[:16] + reply[16:48]
    own_challenge = lambda reply, honest: honest[:16] + reply[48:80]
    other_length = lambda reply, honest: honest[:6] + b"\x30" + honest[7:]
    behind = lambda reply, honest: honest + bytes(9) + b"\1"
    cut_short = lambda reply, honest: honest[:-1]
    other_t_id = lambda reply, honest: honest[:4] + b"\0\0" + honest[6:]
    answers = [
        ("RVALID is 0 though asked", True, no_response, "ResponseMissing", 1),
        ("RVALID is 2", True, odd_flag, "Malformed", 6),
        ("response unexpected", False, unexpected, "ResponseUnexpected", 6),
        ("our own response", True, own_response, "ResponseReflected", 1),
        ("our own challenge", True, own_challenge, "ChallengeReflected", 1),
        ("HL of another hash", False, other_length, "HashLength", 6),
        ("byte behind Success1", True, behind, "Malformed", 6),
        ("Success1 cut short", True, cut_short, "Malformed", 6),
        ("T_ID of another exchange", True, other_t_id, "TransactionId", 6),
        ("Reply returned", True, lambda reply, honest: reply, "OutOfOrder", 7),
    ]
    for note, two_way, change, error, explanation in answers:
        make = lambda controller, reply, honest, change=change: change(reply, honest)
        yield note, 0, two_way, {"success1": make, "error": (error, explanation)}


# Output


def plain(value):
    """Bytes become hexadecimal; everything else stays."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


def write(name, tables):
    """One row a line, so that a change shows as one."""
    rows = {
        title: ",\n".join("    " + json.dumps(plain(row)) for row in table)
        for title, table in tables.items()
    }
    body = ",\n".join('  "%s": [\n%s\n  ]' % pair for pair in rows.items())
    path = pathlib.Path(__file__).with_name(name)
    path.write_text('{\n  "version": 1,\n%s\n}\n' % body)


def main():
    combinations = list(every_combination()) + list(oddities())
    write("vectors.json", {
        "refused_secrets": [{"note": note, "text": text} for note, text in refused_secrets()],
        "key_exchanges": exchanges().values(),
        "cases": [
            case(number, *arguments[:-1], **arguments[-1])
            for number, arguments in enumerate(combinations)
        ],
    })
    played = list(successes()) + [
        (note, 1, group, two_way, options) for note, group, two_way, options in failures()
    ]
    write("transcripts.json", {
        "transcripts": [
            transcript(number, *arguments[:-1], **arguments[-1])
            for number, arguments in enumerate(played)
        ],
    })


if __name__ == "__main__":
    main()
