"""Stands for the process that works out money, and misbehaves as its first argument says."""

import sys
import time

import orjson


def main() -> None:
    how, plan = sys.argv[1], orjson.loads(sys.stdin.buffer.readline())
    if how == "ends":
        sys.exit(3)
    print('{"ready": true}', flush=True)
    if how == "babbles":
        print("no JSON", flush=True)
    elif how == "floods":
        print('{"alive": "' + "x" * (2 << 20) + '"}', flush=True)
    elif how == "names":
        for number in range(1_000):
            told = {"job": f"job-{number}", "at_ms": 1, "error": "", "backlog": 0, "problems": []}
            print(orjson.dumps(told).decode(), flush=True)
        print('{"job": "job-0", "at_ms": 2, "error": "no disk", "backlog": 0, "problems": []}', flush=True)
    elif how == "plan":
        told = {"job": "plan", "at_ms": 1, "error": "", "backlog": 0, "problems": [plan["state_dir"]]}
        print(orjson.dumps(told).decode(), flush=True)
    if how != "stuck":
        sys.stdin.buffer.read()
    time.sleep(3600)


main()
