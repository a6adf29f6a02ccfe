"""Reading lists that the kernel leaves elements out of."""

from ipaddress import ip_address

from nexus_netd.linux import nft, tables
from nexus_netd.rules.ruleset import Element, Family

HEADER = bytes(16)


class Restless:
    """Lists as a kernel whose hash table is given more room: each time without some elements."""

    def __init__(self, *passes):
        self._passes = list(passes)
        self.asked = 0

    def dump(self, request):
        if b"denials4\0" not in request.body:
            return []
        self.asked += 1
        return self._passes.pop(0) if len(self._passes) > 1 else self._passes[0]


def pieces(*lists):
    found = []
    for addresses in lists:
        elements = [
            Element(
                Family.INET,
                "denials4",
                ip_address(address).packed,
                state=(("counter", (("bytes", 0), ("packets", count))),),
            )
            for address, count in addresses.items()
        ]
        (made,) = tables.new_elements(elements)
        found.append(HEADER + made.body)
    return found


def test_a_list_of_several_pieces_is_asked_for_until_there_is_nothing_new():
    first, second, third = {"10.0.0.1": 1}, {"10.0.0.2": 2}, {"10.0.0.3": 3}
    kernel = Restless(
        pieces(first, second), pieces(first, third), pieces(second, third), pieces(first, second)
    )
    found = {str(address): count for address, count in nft.denied(kernel).items()}
    assert found == first | second | third
    assert kernel.asked == 3


def test_one_piece_is_whole():
    kernel = Restless(pieces({"10.0.0.1": 1}))
    assert nft.denied(kernel) == {ip_address("10.0.0.1"): 1}
    assert kernel.asked == 1


def test_what_counts_on_meanwhile_is_not_waited_for():
    kernel = Restless(*(pieces({"10.0.0.1": n}, {"10.0.0.2": n}) for n in range(20)))
    assert set(nft.denied(kernel).values()) == {4}
    assert kernel.asked == 5
