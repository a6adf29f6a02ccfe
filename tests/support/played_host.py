"""A host's firewall programs, played: for tests of what nexusctl makes of their answers."""

import json

from nexusctl.firewall.host import MISSING, Done


class PlayedHost:
    """Programs by the words they are called with; others fail, as a check of what is not there."""

    def __init__(self, **programs):
        self.programs = programs
        self.answers = {}
        self.changes = []

    def answer(self, line, out="", code=0):
        self.answers[line] = Done(code, out)
        return self

    async def run(self, *argv):
        line = " ".join(argv)
        if line in self.answers:
            return self.answers[line]
        if argv[0] == "nft" and argv[1] == "--json":
            return Done(0, json.dumps({"nftables": self.programs.get("nft", [])}))
        if argv[0] not in self.programs:
            return Done(MISSING)
        if {"-C", "-S", "status", "--state"} & set(argv) or "--query" in line:
            return Done(1)
        self.changes.append(line)
        return Done(0)
