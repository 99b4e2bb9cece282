#!/usr/bin/env python3
"""Peak memory of the server against the number of rows: benches/memory starts it beside throw-away servers.

Exports the first tenth of a table, then all of it, to csv and as a row stream in each encoding, and once to a client
that stops reading for PAUSE seconds after the first batch. Prints VmHWM of the server for each, and fails when a peak of
all rows is more than 1.15 times that of a tenth, or 256 MiB. ROWS (5000000), PAUSE (60), WHAT (a list, with semicolons).
"""
import os, pathlib, shutil, sys, tempfile

import run as bench

ROWS = int(os.environ.get("ROWS", "5000000"))
PAUSE = os.environ.get("PAUSE", "60")
RATIO_MAX, PEAK_MIB_MAX = 1.15, 256
WHAT = os.environ.get("WHAT", "csv;stream arrow;stream json;stream values;stream arrow, paused").split(";")


def main():
    bench.ROWS = ROWS
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rowgate-memory-", dir=os.environ.get("ROWGATE_TEST_DIR")))
    os.chmod(folder, 0o755)
    urls = bench.load(folder, ["postgres"])
    bench.psql(urls["postgres"], "-c", f"create table tenth as select * from orders where id <= {ROWS // 10}")
    wrong = []
    print("| what | rows | peak MiB |\n|---|---|---|", flush=True)
    for what in WHAT:
        peaks = []
        for table, rows in [("tenth", ROWS // 10), ("orders", ROWS)]:
            # A server of its own for each: what one export left in the allocator is not the next one's.
            home = folder / f"{what.replace(' ', '-').replace(',', '')}-{table}"
            home.mkdir()
            server = bench.Server(home, urls)
            try:
                command = client(server, what, table)
                peaks.append(bench.measured(server, *command)["peak"])
            finally:
                server.stop()
                shutil.rmtree(home, ignore_errors=True)
            print(f"| {what} | {rows} | {peaks[-1]:.0f} |", flush=True)
        if peaks[1] > peaks[0] * RATIO_MAX or peaks[1] > PEAK_MIB_MAX:
            wrong.append(f"{what}: {peaks[0]:.0f} MiB, then {peaks[1]:.0f} MiB")
    shutil.rmtree(folder, ignore_errors=True)
    if wrong:
        raise SystemExit("memory grows with the rows, or is too much:\n" + "\n".join(wrong))


def client(server, what, table):
    if what == "csv":
        return [bench.ROWGATE, "--server", server.address, "submit", "--source", "postgres", "--table", table,
                "--format", "csv", "--wait", "-o", "json"]
    encoding = what.split()[1].rstrip(",")
    pause = [PAUSE] if what.endswith("paused") else []
    return [bench.COUNT, server.address, "postgres", table, encoding, *pause]


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    main()
