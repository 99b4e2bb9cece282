#!/usr/bin/env python3
"""Measures whole exports: see benches/run, which starts it beside throw-away servers.

Elapsed time is from the client's start to its end, the client's own start-up included (some 10 ms). CPU is user + system
time of the server process; peak memory is its VmHWM, reset before each export. Each round runs the peer and then each
of ours; a ratio is the median over the rounds of peer's seconds / our seconds.
"""
import json, os, pathlib, re, shutil, signal, sqlite3, statistics, subprocess, sys, tempfile, time, urllib.parse

ROWS = int(os.environ.get("ROWS", "1000000"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
FORMATS = os.environ.get("FORMATS", "csv,jsonl,xlsx,parquet,arrow").split(",")
ENCODINGS = os.environ.get("ENCODINGS", "arrow,json,values").split(",")
ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PROFILE = os.environ.get("PROFILE", "release")
ROWGATE = TARGET / PROFILE / "rowgate"
COUNT = TARGET / PROFILE / "examples" / "count_rows"
TICKS = os.sysconf("SC_CLK_TCK")
POSTGRES = os.environ["ROWGATE_TEST_POSTGRES_URL"]
MARIADB = os.environ["ROWGATE_TEST_MARIADB_URL"]


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def psql(url, *words):
    return run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", url, *words)


def with_database(url, name):
    return urllib.parse.urlunparse(urllib.parse.urlparse(url)._replace(path="/" + name))


def load(folder, sources):
    """The same table in each database; PostgreSQL makes it, the others copy it."""
    postgres = with_database(POSTGRES, "rowgate_bench")
    psql(POSTGRES, "-c", "drop database if exists rowgate_bench", "-c", "create database rowgate_bench")
    psql(postgres, "-v", f"rows={ROWS}", "-f", ROOT / "benches" / "orders.sql")
    urls = {"postgres": postgres}
    copy = folder / "orders.tsv"
    if "mariadb" in sources or "sqlite" in sources:
        psql(postgres, "-c", "set timezone = 'UTC'", "-c", f"\\copy orders to '{copy}'")
    if "mariadb" in sources:
        urls["mariadb"] = load_mariadb(copy)
    if "sqlite" in sources:
        urls["sqlite"] = load_sqlite(copy, folder / "orders.db")
    copy.unlink(missing_ok=True)
    return urls


def load_mariadb(copy):
    url = urllib.parse.urlparse(MARIADB)
    login = ["mariadb", "--no-defaults", "-h", url.hostname, "-P", str(url.port), "-u", url.username, "--local-infile=1"]
    env = dict(os.environ, MYSQL_PWD=urllib.parse.unquote(url.password or ""))
    sql = f"""
        drop database if exists rowgate_bench; create database rowgate_bench character set utf8mb4; use rowgate_bench;
        set sql_mode = '', time_zone = '+00:00';
        create table orders(id bigint not null, order_no varchar(20) not null, customer_name varchar(100) not null,
          email varchar(100) not null, status smallint not null, amount decimal(12,2) not null, quantity int not null,
          discount double, is_paid bool not null, created_at datetime(6) not null, ship_date date,
          note varchar(300) not null);
        load data local infile '{copy}' into table orders character set utf8mb4
          (id, order_no, customer_name, email, status, amount, quantity, discount, @paid, @created, ship_date, note)
          set is_paid = @paid = 't', created_at = left(@created, length(@created) - 3);
        alter table orders add primary key(id); analyze table orders;"""
    run(*login, "-e", sql, env=env, stdout=subprocess.DEVNULL)
    return with_database(MARIADB, "rowgate_bench")


def load_sqlite(copy, path):
    db = sqlite3.connect(path)
    db.execute("pragma journal_mode = off")
    db.execute("pragma synchronous = off")
    db.execute("""create table orders(id integer primary key, order_no text not null, customer_name text not null,
        email text not null, status smallint not null, amount decimal(12,2) not null, quantity int not null,
        discount double, is_paid boolean not null, created_at timestamp not null, ship_date date, note text not null)""")

    def rows():
        unescape = {"\\n": "\n", "\\t": "\t", "\\\\": "\\", "\\r": "\r"}
        with open(copy, encoding="utf-8", newline="\n") as lines:
            for line in lines:
                cells = [None if cell == "\\N" else re.sub(r"\\[nrt\\]", lambda m: unescape[m[0]], cell)
                         for cell in line.rstrip("\n").split("\t")]
                cells[8] = 1 if cells[8] == "t" else 0
                cells[9] = cells[9][:-3]
                yield cells
    db.executemany("insert into orders values (" + ",".join("?" * 12) + ")", rows())
    db.commit()
    db.close()
    return f"sqlite://{path}"


class Server:
    def __init__(self, folder, urls):
        config = [f'[server]\nlisten = "127.0.0.1:0"\n[queue]\nurl = "sqlite://{folder}/queue.db"',
                  f'[storage]\nurl = "file://{folder}/results"']
        for name, url in urls.items():
            mysql = url.replace("mariadb://", "mysql://")
            config.append(f'[sources.{name}]\nurl = "{mysql}"\nallow_tables = ["*"]\nexpected_rows_per_second = 100000000')
        path = folder / "rowgate.toml"
        path.write_text("\n".join(config))
        self.log = open(folder / "server.log", "wb")
        self.process = subprocess.Popen([ROWGATE, "serve", "--config", path], stderr=self.log)
        self.address = self.wait_for_address(folder / "server.log")

    def wait_for_address(self, log):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            found = re.search(r"address=(127\.0\.0\.1:\d+)", re.sub(r"\x1b\[[0-9;]*m", "", log.read_text()))
            if found:
                return "http://" + found[1]
            time.sleep(0.05)
        raise SystemExit("the server did not start:\n" + log.read_text())

    def cpu_seconds(self):
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(stat[11]) + int(stat[12])) / TICKS

    def reset_peak(self):
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


def measured(server, *command):
    server.reset_peak()
    cpu, started = server.cpu_seconds(), time.monotonic()
    out = run(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()
    return {"seconds": time.monotonic() - started, "cpu": server.cpu_seconds() - cpu, "peak": server.peak_mib(), "out": out}


def peer(postgres, what, target):
    started = time.monotonic()
    options = f"format {what}, header" if what == "csv" else f"format {what}"
    with open(target, "wb") as out:
        run("psql", "-X", "-q", postgres, "-c", f"copy orders to stdout ({options})", stdout=out)
    return time.monotonic() - started


def file_export(server, source, format):
    found = measured(server, ROWGATE, "--server", server.address, "submit", "--source", source, "--table", "orders",
                     "--format", format, "--execution", "inline", "--wait", "-o", "json")
    export = json.loads(found["out"])
    export = export[0] if isinstance(export, list) else export
    result = export["result"]
    assert int(result["rows"]) == ROWS, export
    found["bytes"] = int(result["size_bytes"] if "size_bytes" in result else result["sizeBytes"])
    found["slowest"] = export.get("progress", {}).get("slowest_stage", "")
    return found


def stream_export(server, source, encoding):
    found = measured(server, COUNT, server.address, source, "orders", encoding)
    rows, size, _ = found["out"].split()
    assert int(rows) == ROWS, found
    found["bytes"] = int(size)
    return found


def main():
    sources = sys.argv[1:] or ["postgres", "mariadb", "sqlite"]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rowgate-bench-", dir=os.environ.get("ROWGATE_TEST_DIR")))
    os.chmod(folder, 0o755)
    urls = load(folder, sources)
    server = Server(folder, {name: urls[name] for name in sources})
    found, peers = {}, {"csv": [], "binary": []}
    try:
        for _ in range(ROUNDS):
            peers["csv"].append(peer(urls["postgres"], "csv", folder / "peer.csv"))
            peers["binary"].append(peer(urls["postgres"], "binary", "/dev/null"))
            for source in sources:
                for format in FORMATS:
                    found.setdefault((source, format), []).append(file_export(server, source, format))
                    shutil.rmtree(folder / "results", ignore_errors=True)
                    (folder / "results").mkdir()
                for encoding in ENCODINGS:
                    found.setdefault((source, "stream " + encoding), []).append(stream_export(server, source, encoding))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    report(found, peers)


def report(found, peers):
    median = statistics.median
    lines = [f"{ROWS} rows, medians of {ROUNDS} rounds; ratio: seconds of psql copy (csv to a file for files, binary to nothing "
             "for streams) / ours, in the same round", "",
             "| source | what | seconds | rows/s | server CPU s | peak MiB | MB | ratio |", "|---|---|---|---|---|---|---|---|"]
    for name, seconds in peers.items():
        lines.append(f"| postgres | psql copy {name} | {median(seconds):.2f} | {ROWS / median(seconds):,.0f} | | | | 1.00 |")
    for (source, what), rounds in found.items():
        seconds = median([one["seconds"] for one in rounds])
        other = peers["binary" if what.startswith("stream") else "csv"]
        ratio = median([theirs / one["seconds"] for theirs, one in zip(other, rounds)])
        lines.append(f"| {source} | {what} | {seconds:.2f} | {ROWS / seconds:,.0f} | {median([one['cpu'] for one in rounds]):.2f} | "
                     f"{max(one['peak'] for one in rounds):.0f} | {rounds[0]['bytes'] / 1e6:.0f} | {ratio:.2f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    target = TARGET / "bench"
    target.mkdir(parents=True, exist_ok=True)
    (target / "table.md").write_text(text)


if __name__ == "__main__":
    main()
