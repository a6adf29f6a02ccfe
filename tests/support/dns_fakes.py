"""Stand-ins for what the resolver asks: the world's servers, and netd."""

import dns.message
from dns_doubles import question_of, reply

from nexus_dns.upstream import NoAnswer


class FakeUpstream:
    """Knows what it is told, as `dns_doubles.NameServer` is; silence and failures are NoAnswer."""

    def __init__(self):
        self.answers = {}
        self.asked = []

    async def ask(self, servers, question):
        """See nexus_dns.upstream.Upstream."""
        self.asked.append((tuple(servers), question))
        query = dns.message.make_query(question.name, question.kind)
        answer = self.answers.get(question_of(query), ...)
        if callable(answer):
            answer = answer(query)
        elif answer is ...:
            answer = reply(query, code=dns.rcode.NXDOMAIN)
        else:
            answer = reply(query, *answer)
        if answer is None or answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise NoAnswer
        return answer.to_wire()


class FakeNetd:
    """Makes all pins, or none."""

    def __init__(self):
        self.makes_pins = True
        self.pins = []
        self.denials = []

    async def pin(self, pin):
        """See nexus_dns.resolver.Policing."""
        self.pins.append(pin)
        return self.makes_pins

    def deny(self, denial):
        """See nexus_dns.resolver.Policing."""
        self.denials.append(denial)
