"""The table `orders` of benches/orders.sql with rows of NULLs and extremes, in one database or in all three.

    tables.py FOLDER ROWS POSTGRES_URL [MARIADB_URL] [SQLITE_PATH]

PostgreSQL makes it, the others copy it; what they then hold is asked of them.
"""
import os, pathlib, re, sqlite3, subprocess, sys, urllib.parse

ORDERS = pathlib.Path(__file__).resolve().parents[4] / "benches" / "orders.sql"
NOT_NULL = "order_no customer_name email status amount quantity is_paid created_at note".split()

TEXTS = [
    "", " ", "  both ends  ", "NULL", "\\N", "null", '"', '""', '"quoted", with comma', "a,b;c|d\te", "semi;colon", "\ttab first",
    "\r", "a\rb", "a\r\nb", "\n", "line\n\nline\n", "\\", "\\\\n", "it's", "=1+1", "+1", "-1", "@a", "'=1", "\u00a0nbsp", "\u2028\u2029",
    "\ufeffmark", "\x01\x0b\x1f\x7f", "\x0c", "_x0041_", "_x005F_", "😀 👩‍👩‍👧 𠀀", "e\u0301 ﬁ ﷺ", "\uffff\ufffe", "true", "1e5", "007", "1,5",
    "2024-02-29", "http://example.com/?a=b&c=<d>", "mailto:a@b.c", "x" * 300, "y" * 32_767, "z" * 32_766 + "😀 and more", "ß" * 40_000,
]
MOMENTS = [
    "1000-01-01 00:00:00", "1582-10-10 01:02:03.000004", "1899-12-31 23:59:59.999999", "1900-01-01 00:00:00", "1900-01-01 06:00:00.5",
    "1900-02-28 23:59:59.999999", "1900-03-01 00:00:00", "1927-12-31 15:54:07", "1969-12-31 23:59:59.999999", "1970-01-01 00:00:00",
    "1986-05-03 18:00:00", "2000-02-29 12:34:56.789", "2023-10-29 00:59:59.999999", "2023-10-29 01:00:00", "2024-03-31 00:59:59.9",
    "2024-03-31 01:00:00", "2038-01-19 03:14:08", "2079-06-04 11:59:59.999999", "2079-06-05 00:00:00.000001", "2079-06-06 00:00:00.123456", "9999-12-31 23:59:59.999999",
]
NUMBERS = [  # status, amount, quantity, discount
    (-32768, "-9999999999.99", -2147483648, "-1.7976931348623157e308"), (32767, "9999999999.99", 2147483647, "1.7976931348623157e308"),
    (0, "0.00", 0, "0"), (1, "-0.01", 1, "5e-324"), (2, "0.10", 2, "0.1"), (3, "1234567890.10", 3, "0.30000000000000004"),
    (4, "100.00", 4, "1e16"), (5, "99.90", 5, "123456789012345680"), (6, "1.00", 6, "-1e-7"), (7, "1.00", 7, "1e21"),
    (8, "1.00", 8, "2.2250738585072014e-308"), (9, "1.00", 9, "9007199254740993"), (10, "1.00", 10, "1e300"),
]
DATES = ["1000-01-01", "1899-12-31", "1900-01-01", "1900-02-28", "1900-03-01", "1970-01-01", "2024-02-29", "9999-12-31"]
IDS = [-(2**63), -(10**15), -(10**15) + 1, -1, 0, 10**15 - 1, 10**15, 2**53, 2**53 + 1, 2**63 - 1]


def extremes(kind):
    """Rows in the order of the table; None is NULL."""
    usual = [None, "ORD-X", "Zoë 王", "a@b.c", "1", "1.50", "2", "0.25", "t", "2024-02-29 12:00:00.5", "2024-02-29", "note"]
    changes = [{"1 to 11": None}]
    changes += [{11: text, 2: text[:90]} for text in TEXTS]
    changes += [{9: moment} for moment in MOMENTS]
    changes += [dict(zip((4, 5, 6, 7), map(str, numbers))) for numbers in NUMBERS]
    changes += [{10: date} for date in DATES]
    changes += [{8: "f"}]
    changes += [{7: word} for word in ("NaN", "Infinity", "-Infinity", "-0")] if kind == "postgres" else []
    changes += [{9: word} for word in ("infinity", "-infinity", "10000-01-01 00:00:00", "294246-12-31 23:59:59.999999")] if kind == "postgres" else []
    changes += [{10: word} for word in ("infinity", "-infinity", "10000-01-01")] if kind == "postgres" else []
    rows = [[None if "1 to 11" in change else change.get(index, cell) for index, cell in enumerate(usual)] for change in changes]
    for number, row in enumerate(rows):
        row[0] = str(10_000_000 + number)
    return rows + [[str(number)] + usual[1:] for number in IDS]


def copied(rows, zone=""):
    """As COPY and LOAD DATA read it."""
    def cell(index, value):
        if value is None:
            return "\\N"
        value = value.translate({92: "\\\\", 10: "\\n", 13: "\\r", 9: "\\t"})
        return value + zone if index == 9 and value[0].isdigit() else value
    return "".join("\t".join(cell(*pair) for pair in enumerate(row)) + "\n" for row in rows)


def run(*command, **options):
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, **options)


def psql(url, *words):
    run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", url, *words, env=dict(os.environ, PGCLIENTENCODING="UTF8"))


def load_postgres(folder, rows, url):
    psql(url, "-v", f"rows={rows}", "-f", ORDERS)
    psql(url, "-c", "set timezone = 'UTC'", "-c", f"\\copy orders to '{folder}/orders.tsv'")
    (folder / "extremes.tsv").write_text(copied(extremes("postgres"), "+00"), encoding="utf-8", newline="")
    nullable = ", ".join(f"alter {name} drop not null" for name in NOT_NULL)
    psql(url, "-c", f"alter table orders {nullable}", "-c", f"\\copy orders from '{folder}/extremes.tsv'")


def load_mariadb(folder, url):
    (folder / "extremes.tsv").write_text(copied(extremes("mariadb"), "+00"), encoding="utf-8", newline="")
    parts = urllib.parse.urlparse(url)
    login = ["mariadb", "--no-defaults", "-h", parts.hostname, "-P", parts.port, "-u", parts.username, "-D", parts.path[1:], "--local-infile=1"]
    create = """set time_zone = '+00:00';
        create table orders(id bigint primary key, order_no varchar(20), customer_name varchar(100), email varchar(100),
          status smallint, amount decimal(12,2), quantity int, discount double, is_paid bool, created_at datetime(6),
          ship_date date, note mediumtext) character set utf8mb4;"""
    load = "".join(f"""load data local infile '{folder}/{name}.tsv' into table orders character set utf8mb4
          (id, order_no, customer_name, email, status, amount, quantity, discount, @paid, @created, ship_date, note)
          set is_paid = @paid = 't', created_at = left(@created, length(@created) - 3);""" for name in ("orders", "extremes"))
    run(*login, "-e", create + load, env=dict(os.environ, MYSQL_PWD=urllib.parse.unquote(parts.password or "")))


def load_sqlite(folder, path):
    db = sqlite3.connect(path)
    db.execute("""create table orders(id integer primary key, order_no text, customer_name text, email text, status smallint,
        amount decimal(12,2), quantity int, discount double, is_paid boolean, created_at timestamp, ship_date date, note text)""")
    unescape = {"\\n": "\n", "\\t": "\t", "\\\\": "\\", "\\r": "\r"}

    def rows():
        with open(folder / "orders.tsv", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                cells = [None if cell == "\\N" else re.sub(r"\\[nrt\\]", lambda found: unescape[found[0]], cell)
                         for cell in line.rstrip("\n").split("\t")]
                cells[9] = cells[9].removesuffix("+00")
                yield cells
        yield from extremes("sqlite")
    paid = {"t": 1, "f": 0, None: None}
    db.executemany(f"insert into orders values ({','.join('?' * 12)})", ([*row[:8], paid[row[8]], *row[9:]] for row in rows()))
    db.commit()
    db.close()


def main():
    folder, rows = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    for url in sys.argv[3:]:
        if url.startswith("postgres"):
            load_postgres(folder, rows, url)
        elif url.startswith("mysql"):
            load_mariadb(folder, url)
        else:
            load_sqlite(folder, url)


if __name__ == "__main__":
    main()
