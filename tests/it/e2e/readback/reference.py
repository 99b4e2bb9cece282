"""What a table holds, told by the database's own client: psql, mariadb, Python's sqlite3. Nothing of Rowgate's is used.

Values are None, bool, int, float, decimal.Decimal (or the words for what is none), str, bytes, list; dates as days, times as
microseconds, timestamps as microseconds since 1970; infinite ones as the extremes of their integers, as Arrow has them.
"""
import decimal, json, os, re, sqlite3, struct, subprocess, urllib.parse
from decimal import Decimal

DAY_US = 86_400_000_000
INFINITE_DAYS = {"infinity": 2**31 - 1, "-infinity": -(2**31)}
INFINITE_US = {"infinity": 2**63 - 1, "-infinity": -(2**63)}


def rows(source, columns):
    """Rows in the order of `source["order"]`, as lists in the order of the columns."""
    cells = {"postgres": postgres, "mariadb": mariadb, "sqlite": sqlite}[source["kind"]](source, columns)
    parsers = [parser(column["kind"]) for column in columns]
    for row in cells:
        assert len(row) == len(columns), row
        yield [None if cell is None else parse(cell) for parse, cell in zip(parsers, row)]


def tail(source):
    where = f" where {source['where']}" if source.get("where") else ""
    limit = f" limit {source['limit']}" if source.get("limit") else ""
    return f" from {source['table']}{where} order by {source['order']}{limit}"


def expression(column):
    return column.get("sql", column["name"])


def lines(command, **options):
    with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as process:
        for line in process.stdout:
            assert line.endswith(b"\n"), line
            yield line[:-1].decode()
    assert process.returncode == 0, command


def postgres(source, columns):
    settings = "set timezone = 'UTC'; set datestyle = 'ISO'; set bytea_output = 'hex'; set extra_float_digits = 1"
    query = "select " + ", ".join(expression(column) for column in columns) + tail(source)
    command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", source["url"], "-c", settings, "-c", f"copy ({query}) to stdout"]
    escapes = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
    for line in lines(command, env=dict(os.environ, PGCLIENTENCODING="UTF8")):
        yield [None if cell == "\\N" else re.sub(r"\\(.)", lambda found: escapes[found[1]], cell) for cell in line.split("\t")]


def mariadb(source, columns):
    """In hex: the client's own escapes don't tell NULL from the text 'NULL'."""
    url = urllib.parse.urlparse(source["url"])
    whole = [expression(column) if column["kind"] == "bytes" else f"convert({expression(column)} using utf8mb4)" for column in columns]
    query = "set time_zone = '+00:00'; select " + ", ".join(f"hex({one})" for one in whole) + tail(source)
    command = ["mariadb", "--no-defaults", "--quick", "--batch", "--skip-column-names", "--default-character-set=utf8mb4",
               "-h", url.hostname, "-P", str(url.port), "-u", url.username, "-D", url.path[1:], "-e", query]
    for line in lines(command, env=dict(os.environ, MYSQL_PWD=urllib.parse.unquote(url.password or ""))):
        cells = [None if cell == "NULL" else bytes.fromhex(cell) for cell in line.split("\t")]
        yield [cell if cell is None or column["kind"] == "bytes" else cell.decode() for cell, column in zip(cells, columns)]


def sqlite(source, columns):
    db = sqlite3.connect(f"file:{urllib.parse.quote(source['url'].removeprefix('sqlite://'))}?mode=ro", uri=True)
    yield from db.execute("select " + ", ".join(expression(column) for column in columns) + tail(source))
    db.close()


def parser(kind):
    name, _, detail = kind.partition(":")
    return {
        "int": int, "float": float, "float4": lambda cell: narrow(float(cell)), "text": as_text, "uuid": as_text, "json": as_text,
        "decimal": lambda cell: scaled(cell, int(detail)),
        "numeric": lambda cell: cell if cell in ("NaN", "Infinity", "-Infinity") else Decimal(str(cell)),
        "bool": lambda cell: {"t": True, "f": False, "1": True, "0": False}[str(cell)[0].lower()],
        "bytes": lambda cell: cell if isinstance(cell, bytes) else bytes.fromhex(cell.removeprefix("\\x")),
        "date": lambda cell: INFINITE_DAYS[cell] if cell in INFINITE_DAYS else days(cell),
        "time": clock, "timestamp": instant, "timestamptz": instant,
        "list": lambda cell: [None if item is None else parser(detail)(item) for item in json.loads(cell, parse_float=str)],
    }[name]


def as_text(cell):
    assert isinstance(cell, str), cell
    return cell


def narrow(number):
    return struct.unpack("f", struct.pack("f", number))[0]


def scaled(cell, scale):
    """With the column's scale, which SQLite does not keep."""
    return Decimal(str(cell)).quantize(Decimal(1).scaleb(-scale), context=EXACT)


EXACT = decimal.Context(prec=1000, traps=[decimal.InvalidOperation, decimal.Inexact])


def days(text):
    """Of `0044-03-15 BC` and `12345-01-01`, too, which datetime can't hold."""
    year, month, day = map(int, re.fullmatch(r"(\d+)-(\d\d)-(\d\d)(?: BC)?", text).groups())
    if text.endswith(" BC"):
        year = 1 - year
    shifted = year - (month <= 2)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    era, of_era = divmod(shifted, 400)
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def clock(text):
    hours, minutes, seconds, fraction = re.fullmatch(r"(\d+):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?", text).groups()
    whole = (int(hours) * 60 + int(minutes)) * 60 + int(seconds or 0)
    return whole * 1_000_000 + int((fraction or "").ljust(6, "0"))


def instant(text):
    if text in INFINITE_US:
        return INFINITE_US[text]
    date, time, offset, era = re.fullmatch(r"(\d+-\d\d-\d\d)[ T]([\d:.]+)(\+00(?::00)?|Z)?( BC)?", text).groups()
    return days(date + (era or "")) * DAY_US + clock(time)
