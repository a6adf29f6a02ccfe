"""Clients of netd that call at random, from a seed, and know what they were answered.

Each caller has VMs of its own, so that what it knows stays true while others call.
"""

import base64

import grpc

from nexus.netd.v1 import netd_pb2 as pb

SECONDS = 20
SUBNETS = ("172.16.0.0/12", "10.64.0.0/16", "10.65.0.0/24")
SIDE = "side"
"""The network that comes and goes."""

_MAY_FAIL = {
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class Gone(Exception):
    """netd died under a call; `call` is to be made again."""

    def __init__(self, call):
        super().__init__(call.name)
        self.call = call


class Call:
    """One request, with what it does to what is known once it is answered."""

    def __init__(self, name, request, learn):
        self.name = name
        self.request = request
        self.learn = learn
        self.outcome = "no answer"

    async def make(self, stub):
        """Make it. Raises Gone."""
        try:
            answer = await getattr(stub, self.name)(self.request, timeout=SECONDS)
        except grpc.aio.AioRpcError as error:
            self.outcome = f"{error.code().name} {error.details()}"
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise Gone(self) from None
            if error.code() not in _MAY_FAIL:
                raise AssertionError(str(self)) from None
            return None
        self.outcome = "answered"
        self.learn(answer)
        return answer

    @property
    def vms(self):
        """The VMs that it is about; None: any."""
        fields = {field.name: value for field, value in self.request.ListFields()}
        for message in (self.request, fields.get("link"), fields.get("publication")):
            if message is not None:
                found = {getattr(message, name, "") for name in ("vm_id", "from_vm_id", "to_vm_id")}
                if found - {""}:
                    return found - {""}
        return None

    def __str__(self):
        return f"{self.name}({str(self.request).strip()!r}): {self.outcome}"


def vm_ids(random, count):
    raw = [(random.getrandbits(63) << 1).to_bytes(8, "big") for _ in range(count)]
    return [base64.b32encode(each).decode().rstrip("=").lower() for each in raw]


class Known:
    """What was answered: ports by VM, links, publications."""

    def __init__(self):
        self.ports = {}
        self.links = {}
        self.publications = {}
        self.detached = set()
        self.stale = False
        """Whether a network's defaults changed, and with them what its ports have."""

    def attach(self, port):
        self.ports[port.vm_id] = port
        self.detached.discard(port.vm_id)

    def detach(self, vm_id):
        self.ports.pop(vm_id, None)
        self.detached.add(vm_id)
        for links in (self.links, self.publications):
            for key in [key for key, one in links.items() if vm_id in _vms(one)]:
                del links[key]

    def renew(self, told):
        """Take what is told of the ports that are known."""
        self.ports = {vm_id: port for vm_id, port in told.ports.items() if vm_id in self.ports}
        self.stale = False

    def cleanup(self):
        for vm_id in list(self.ports):
            self.detach(vm_id)

    def check(self, told, unsure=frozenset()):
        """Compare with what is told. `unsure` are VMs whose call was not answered."""
        mine = {vm_id: port for vm_id, port in self.ports.items() if vm_id not in unsure}
        for vm_id, port in mine.items():
            assert vm_id in told.ports, f"the port of {vm_id} was answered and is lost"
            _same(told.ports[vm_id], port, stale=self.stale)
        back = (self.detached - unsure) & told.ports.keys()
        assert not back, f"detached, and there again: {back}"
        for mine, theirs, key in (
            (self.links, told.links, link_key),
            (self.publications, told.publications, publication_key),
        ):
            found = {key(one): one for one in theirs}
            assert len(found) == len(theirs), "told twice"
            for name, one in mine.items():
                if not unsure & _vms(one):
                    assert found.get(name) == one, f"answered and lost: {one}"
            for name, one in found.items():
                owned = _vms(one) <= self.ports.keys() | self.detached
                if owned and not unsure & _vms(one):
                    assert name in mine, f"taken away, and there again: {one}"


def _same(told, known, *, stale):
    fields = ["tap", "mac", "ipv4", "ipv6", "network", "bridge", "own_policy"]
    for field in fields if stale else [*fields, "policy", "limits"]:
        values = getattr(told, field), getattr(known, field)
        assert values[0] == values[1], f"{known.vm_id}: {field} was {values[1]} and is {values[0]}"


def _vms(one):
    if isinstance(one, pb.Link):
        return {one.from_vm_id, one.to_vm_id}
    return {one.vm_id}


def link_key(link):
    return (link.from_vm_id, link.to_vm_id, link.protocol, tuple(link.ports))


def publication_key(one):
    return (one.host_ip, one.host_port, one.protocol)


class Caller:
    """One client: makes up calls on its own VMs."""

    def __init__(self, random, known, *, vms=6, first_port=20_000, alone=True):
        self._random = random
        self.known = known
        self._vms = vm_ids(random, vms)
        self._host_ports = range(first_port, first_port + 6)
        self._calls = {
            self._attach: 10,
            self._detach: 5,
            self._publish: 3,
            self._unpublish: 2,
            self._link: 3,
            self._unlink: 2,
            self._set_policy: 4,
            self._set_limits: 2,
        }
        if alone:  # they concern the VMs of all callers
            self._calls |= {
                self._migrate: 1.5,
                self._update: 2,
                self.create_network: 1.5,
                self._delete_network: 1,
                self._cleanup: 0.7,
                self._ensure: 0.5,
            }

    def next(self):
        """Return the next call."""
        (make,) = self._random.choices(list(self._calls), self._calls.values())
        return make()

    def _call(self, name, request, learn):
        if self._random.random() < 0.6:
            request.request_id = f"{self._random.getrandbits(64):016x}"
        return Call(name, request, learn)

    def _vm(self):
        held = [vm_id for vm_id in self._vms if vm_id in self.known.ports]
        if held and self._random.random() < 0.9:
            return self._random.choice(held)
        return self._random.choice(self._vms)

    def _attach(self):
        free = [vm_id for vm_id in self._vms if vm_id not in self.known.ports] or self._vms
        request = pb.AttachPortRequest(vm_id=self._random.choice(free))
        if self._random.random() < 0.3:
            request.network = SIDE
        if self._random.random() < 0.3:
            request.policy.CopyFrom(self._policy())
        if self._random.random() < 0.2:
            request.limits.CopyFrom(self._limits())
        return self._call("AttachPort", request, lambda answer: self.known.attach(answer.port))

    def _detach(self):
        vm_id = self._vm()
        request = pb.DetachPortRequest(vm_id=vm_id)
        return self._call("DetachPort", request, lambda _answer: self.known.detach(vm_id))

    def _publish(self):
        random = self._random
        request = pb.PublishPortRequest(
            publication=pb.Publication(
                vm_id=self._vm(),
                host_ip=random.choice(["127.0.0.1", "0.0.0.0"]),
                host_port=random.choice(self._host_ports),
                guest_port=random.choice([0, 80, 443]),
                protocol=random.choice([pb.PROTOCOL_TCP, pb.PROTOCOL_UDP]),
            )
        )

        def learn(answer):
            self.known.publications[publication_key(answer.publication)] = answer.publication

        return self._call("PublishPort", request, learn)

    def _unpublish(self):
        mine = [
            one for one in self.known.publications.values() if one.host_port in self._host_ports
        ]
        one = (
            self._random.choice(mine)
            if mine
            else pb.Publication(
                host_ip="127.0.0.1", host_port=self._host_ports[0], protocol=pb.PROTOCOL_TCP
            )
        )
        request = pb.UnpublishPortRequest(
            host_ip=one.host_ip, host_port=one.host_port, protocol=one.protocol
        )
        key = publication_key(one)
        return self._call(
            "UnpublishPort", request, lambda _answer: self.known.publications.pop(key, None)
        )

    def _link(self):
        random = self._random
        one, other = random.sample(self._vms, 2)
        link = pb.Link(from_vm_id=one, to_vm_id=other, protocol=random.randrange(4))
        if link.protocol in (pb.PROTOCOL_TCP, pb.PROTOCOL_UDP):
            link.ports.extend(sorted(random.sample(range(1, 9), random.randrange(4))))

        def learn(answer):
            self.known.links[link_key(answer.link)] = answer.link

        return self._call("CreateLink", pb.CreateLinkRequest(link=link), learn)

    def _unlink(self):
        mine = [one for one in self.known.links.values() if one.from_vm_id in self._vms]
        if not mine:
            return self._link()
        link = self._random.choice(mine)
        return self._call(
            "DeleteLink",
            pb.DeleteLinkRequest(link=link),
            lambda _answer: self.known.links.pop(link_key(link), None),
        )

    def _policy(self):
        random = self._random
        has_rules = random.random() < 0.6
        mode = random.choice([pb.EGRESS_MODE_OPEN, pb.EGRESS_MODE_NONE])
        mode = pb.EGRESS_MODE_RULES if has_rules else mode
        rules = [self._rule() for _ in range(random.randint(0, 4))] if has_rules else []
        return pb.EgressPolicy(mode=mode, rules=rules)

    def _rule(self):
        random = self._random
        rule = pb.EgressRule(protocol=random.randrange(4))
        kind = random.randrange(3)
        if kind == 0:
            rule.cidr = random.choice(["198.51.100.0/24", "10.0.0.0/8", "2001:db8::/32"])
            rule.action = random.choice([pb.ACTION_ALLOW, pb.ACTION_DENY])
        elif kind == 1:
            rule.domain = random.choice(["pypi.org", "*.example.com"])
        if rule.protocol in (pb.PROTOCOL_TCP, pb.PROTOCOL_UDP) and random.random() < 0.6:
            rule.first_port = random.choice([53, 80, 443])
            rule.last_port = rule.first_port + random.randrange(3)
        return rule

    def _set_policy(self):
        request = pb.SetPolicyRequest(vm_id=self._vm())
        if self._random.random() < 0.8:
            request.policy.CopyFrom(self._policy())
        return self._call("SetPolicy", request, lambda answer: self.known.attach(answer.port))

    def _limits(self):
        random = self._random
        return pb.Limits(
            egress_bytes=random.choice([0, 1_000_000]),
            ingress_bytes=random.choice([0, 2_000_000]),
            egress_packets=random.choice([0, 1_000]),
            ingress_packets=random.choice([0, 2_000]),
            connections=random.choice([0, 100]),
        )

    def _set_limits(self):
        request = pb.SetLimitsRequest(vm_id=self._vm(), limits=self._limits())
        return self._call("SetLimits", request, lambda answer: self.known.attach(answer.port))

    def _migrate(self):
        request = pb.MigrateNetworkRequest(name="default", subnet=self._random.choice(SUBNETS))

        def learn(answer):
            for port in answer.ports:
                before = self.known.ports.get(port.vm_id, port)
                assert (port.mac, port.tap) == (before.mac, before.tap), "a migration keeps these"
                self.known.attach(port)

        return self._call("MigrateNetwork", request, learn)

    def _update(self):
        name = self._random.choice(["default", "default", SIDE])
        request = pb.UpdateNetworkRequest(network=pb.Network(name=name))
        if self._random.random() < 0.7:
            request.network.default_policy.CopyFrom(self._policy())
        else:
            request.clear.append("default_policy")
        if self._random.random() < 0.3:
            request.network.default_limits.CopyFrom(self._limits())
        if self._random.random() < 0.3:
            request.network.host_ports.add(protocol=pb.PROTOCOL_TCP, port=8080)

        def learn(_answer):
            self.known.stale = True

        return self._call("UpdateNetwork", request, learn)

    def create_network(self):
        """Return the call that makes the network beside "default"."""
        network = pb.Network(name=SIDE, subnet="10.99.0.0/24", ipv6_subnet="fd6e:6578:7573:1::/64")
        request = pb.CreateNetworkRequest(network=network)
        return self._call("CreateNetwork", request, lambda _answer: None)

    def _delete_network(self):
        request = pb.DeleteNetworkRequest(name=SIDE)
        return self._call("DeleteNetwork", request, lambda _answer: None)

    def _cleanup(self):
        request = pb.CleanupNetworkRequest(force=True)
        return self._call("CleanupNetwork", request, lambda _answer: self.known.cleanup())

    def _ensure(self):
        return self._call("EnsureNetwork", pb.EnsureNetworkRequest(), lambda _answer: None)
