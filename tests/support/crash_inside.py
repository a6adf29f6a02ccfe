"""Does in the dev host what the crash matrix asks for: its end there, with Python alone.

Started with the texts of crash_look and crash_strike as arguments. It reads requests as JSON, a
line each: a number, a function of those, its arguments; and answers with the number and what the
function returned. Requests do not wait for one another.
"""

import json
import sys
from threading import Lock, Thread

_lock = Lock()


def _answer(number, function, arguments):
    line = json.dumps([number, function(*arguments)])
    with _lock:
        print(line, flush=True)


def main(texts):
    known = {}
    for text in texts:
        module = {}
        exec(text, module)  # our own files
        known |= module
    print("ready", flush=True)
    for line in sys.stdin:
        number, name, *arguments = json.loads(line)
        Thread(target=_answer, args=(number, known[name], arguments), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
