"""Runs rules over a made-up packet, as nf_tables would: expressions, registers, verdicts.

Written from the kernel's net/netfilter/nft_*.c, apart from the code that makes the rules.
"""

from dataclasses import dataclass, field

_META = {6: "iifname", 7: "oifname", 15: "nfproto", 16: "l4proto"}
_CT = {0: "ct_state", 2: "ct_status"}
_COMPARE = {
    0: lambda held, value: held == value,
    1: lambda held, value: held != value,
    2: lambda held, value: held < value,
    3: lambda held, value: held <= value,
    4: lambda held, value: held > value,
    5: lambda held, value: held >= value,
}
_JUMP, _GOTO = -3, -4
_VERDICTS = {0: "drop", 1: "accept"}
_MOST = 1_000


@dataclass
class Packet:
    """What rules look at; `known` is what the kernel knows of it, the others are its bytes."""

    network: bytes
    transport: bytes | None
    known: dict = field(default_factory=dict)
    link: bytes | None = None


@dataclass
class Outcome:
    """The verdict, the comments of the rules that took part, and what was logged."""

    verdict: str
    path: list
    logged: list


class _Break(Exception):
    pass


class Machine:
    """`chains` are rules by chain, `sets` are elements by set: keys, and a map's values.

    Elements named in `spent` have a state that ends a rule.
    """

    def __init__(self, rules, elements=(), spent=()):
        self._chains, self._sets, self._spent = {}, {}, set(spent)
        for rule in rules:
            self._chains.setdefault(rule.chain, []).append(rule)
        for element in elements:
            self._sets.setdefault(element.set, {})[element.key] = element.data

    def run(self, chain, packet):
        outcome = Outcome("accept", [], [])
        stack, rules = [], iter(self._chains[chain])
        for _ in range(_MOST):
            rule = next(rules, None)
            if rule is None:
                if not stack:
                    return outcome
                rules = stack.pop()
                continue
            verdict = self._rule(rule, packet, outcome)
            if verdict is None:
                continue
            outcome.path.append((rule.chain, rule.comment))
            if isinstance(verdict, str):
                outcome.verdict = verdict
                return outcome
            code, target = verdict
            if code == _JUMP:
                stack.append(rules)
            rules = iter(self._chains[target])
        raise AssertionError("the rules do not end")

    def _rule(self, rule, packet, outcome):
        registers = bytearray(24 * 4)
        try:
            for name, arguments in rule.expressions:
                given = dict(arguments)
                verdict = getattr(self, f"_{name}")(given, registers, packet, outcome)
                if verdict is not None:
                    return verdict
        except _Break:
            pass
        return None

    def _store(self, registers, register, value):
        padded = value + bytes(-len(value) % 4)
        registers[register * 4 : register * 4 + len(padded)] = padded

    def _load(self, registers, register, length):
        return bytes(registers[register * 4 : register * 4 + length])

    def _meta(self, given, registers, packet, outcome):
        value = packet.known.get(_META[given["key"]])
        if value is None:
            raise _Break
        self._store(registers, given["dreg"], value)

    def _ct(self, given, registers, packet, outcome):
        self._store(registers, given["dreg"], packet.known.get(_CT[given["key"]], bytes(4)))

    def _payload(self, given, registers, packet, outcome):
        data = {0: packet.link, 1: packet.network, 2: packet.transport}[given["base"]]
        end = given["offset"] + given["len"]
        if data is None or len(data) < end:
            raise _Break
        self._store(registers, given["dreg"], data[given["offset"] : end])

    def _fib(self, given, registers, packet, outcome):
        self._store(registers, given["dreg"], packet.known["address_type"])

    def _cmp(self, given, registers, packet, outcome):
        held = self._load(registers, given["sreg"], len(given["data"]))
        if not _COMPARE[given["op"]](held, given["data"]):
            raise _Break

    def _bitwise(self, given, registers, packet, outcome):
        held = self._load(registers, given["sreg"], given["len"])
        parts = zip(held, given["mask"], given["xor"], strict=True)
        self._store(registers, given["dreg"], bytes(a & mask ^ xor for a, mask, xor in parts))

    def _lookup(self, given, registers, packet, outcome):
        elements = self._sets.get(given["set"], {})
        length = len(next(iter(elements), b""))
        key = self._load(registers, given["sreg"], length)
        found = key in elements
        if found == bool(given.get("flags")):
            raise _Break
        if not found:
            return None
        data, target = elements[key], given.get("dreg")
        if target == 0:
            return (_GOTO, data)
        if target is not None:
            self._store(registers, target, data)
        if (given["set"], key) in self._spent:
            raise _Break
        return None

    def _immediate(self, given, registers, packet, outcome):
        if given["dreg"]:
            self._store(registers, given["dreg"], given["data"])
            return None
        code, chain = given["data"]
        return _VERDICTS.get(code, (code, chain))

    def _log(self, given, registers, packet, outcome):
        outcome.logged.append(given["prefix"])

    def _reject(self, given, registers, packet, outcome):
        return "reset" if given["type"] == 1 else "prohibited"
