"""How API.md says that a value is written, in Python: nothing here looks at how Rowgate does it.

Each `same_*` compares what a reader got with a value of reference.py.
"""
import base64, json, math, re, zoneinfo
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

from reference import DAY_US, INFINITE_DAYS, INFINITE_US, narrow

EXTREMES = {number: word for words in (INFINITE_DAYS, INFINITE_US) for word, number in words.items()}
# Excel's day 0 is 1899-12-31, and it counts a 29 February 1900 that never was.
EXCEL_FIRST, EXCEL_SHIFT, EXCEL_END = -25_567, -25_508, 2_932_897
# From 2079-06-05 on a double's steps are wider than a microsecond; 41 of them in 9999, whose last
# millisecond loses its microseconds so that no reader rounds it out of the calendar.
EXCEL_EXACT_UNTIL_US = 39_967 * DAY_US


def date_text(days):
    if days in (2**31 - 1, -(2**31)):
        return EXTREMES[days]
    shifted = days + 719_468
    era, of_era = divmod(shifted, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year += era * 400 + (month <= 2)
    sign = "" if 0 <= year <= 9999 else "-" if year < 0 else "+"
    return f"{sign}{abs(year):04}-{month:02}-{day:02}"


def clock_text(us):
    seconds, fraction = divmod(us, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return text + (f".{fraction:06}".rstrip("0") if fraction else "")


def stamp_text(us):
    return f"{date_text(us // DAY_US)}T{clock_text(us % DAY_US)}"


def offset_minutes(us, zone):
    """Of the wall clock to UTC; beyond datetime's years, that of the nearest year it knows."""
    if zone == "UTC":
        return 0
    known = min(max(us // 1_000_000, -62_135_510_400), 253_402_214_400)
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=known)
    seconds = moment.astimezone(zoneinfo.ZoneInfo(zone)).utcoffset().total_seconds()
    return math.trunc(seconds / 60)


def zoned_text(us, zone):
    minutes = offset_minutes(us, zone)
    sign = "-" if minutes < 0 else "+"
    return f"{stamp_text(us + minutes * 60_000_000)}{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def float_text(value):
    return {True: "NaN"}.get(math.isnan(value)) or ("Infinity" if value > 0 else "-Infinity")


def text(kind, value, zone):
    """As csv has it, unquoted. Not of floats: their text is compared by what it reads back as."""
    name, _, detail = kind.partition(":")
    if name in ("timestamp", "timestamptz") and value in (2**63 - 1, -(2**63)):
        return EXTREMES[value]
    return {
        "int": str, "text": str, "uuid": str, "json": str, "numeric": lambda v: v if isinstance(v, str) else format(v, "f"),
        "decimal": lambda v: format(v, "f"), "bool": lambda v: "true" if v else "false",
        "bytes": lambda v: "\\x" + v.hex(), "date": date_text, "time": clock_text,
        "timestamp": stamp_text, "timestamptz": lambda v: zoned_text(v, zone),
    }[name](value)


def is_guarded(kind, value):
    return kind == "text" and value[:1] in ("=", "+", "-", "@", "\t", "\r") and value != ""


def digits_of(number):
    """Significant ones."""
    mantissa = re.split("[eE]", number.lstrip("-"))[0].replace(".", "").lstrip("0").rstrip("0")
    return len(mantissa)


def same_float_text(kind, value, got):
    if not math.isfinite(value):
        return got == float_text(value)
    try:
        number = float(got)
    except ValueError:
        return False
    back = narrow(number) if kind == "float4" else number
    shortest = 9 if kind == "float4" else digits_of(repr(value))
    return back == value and math.copysign(1, back) == math.copysign(1, value) and digits_of(got) <= shortest


def same_csv(kind, value, got, options):
    if value is None:
        return got in (None, options.get("null_text", ""))
    if kind in ("float", "float4"):
        return got is not None and same_float_text(kind, value, got)
    if kind.startswith("list:"):
        return got is not None and same_json(kind, value, loads(got), options)
    want = text(kind, value, options["zone"])
    if options.get("guard_formulas") and is_guarded(kind, value):
        want = "'" + want
    return got == want


class Number(str):
    """A JSON number as it is written."""


def loads(line):
    return json.loads(line, parse_float=Number, parse_int=Number, parse_constant=refuse, object_pairs_hook=list)


def refuse(word):
    raise ValueError(f"{word} is not JSON")


def same_json(kind, value, got, options):
    name, _, detail = kind.partition(":")
    if value is None:
        return got is None
    if name == "bool":
        return got is value
    if name == "list":
        return isinstance(got, list) and len(got) == len(value) and all(same_json(detail, *two, options) for two in zip(value, got))
    if name == "json":
        return got == loads(value)
    if name in ("float", "float4"):
        return isinstance(got, Number) == math.isfinite(value) and same_float_text(kind, value, got)
    if name == "bytes":
        return type(got) is str and got == base64.b64encode(value).decode()
    is_number = name in ("int", "decimal") or name == "numeric" and not isinstance(value, str)
    return isinstance(got, Number) == is_number and got == text(kind, value, options["zone"])


def same_plain(kind, value, got, options):
    """Of a reader that turns other numbers into floats; another one compares those."""
    return kind not in ("int", "text", "uuid", "bool") or type(got) is type(value) and got == value


def same_values(kind, value, got, options):
    """`got` is what google.protobuf.Value holds: None, bool, float, str or list."""
    name, _, detail = kind.partition(":")
    if value is None or name == "bool":
        return got is value
    if name == "list":
        return isinstance(got, list) and len(got) == len(value) and all(same_values(detail, *two, options) for two in zip(value, got))
    if name in ("float", "float4"):
        same = got == value and type(got) is float and math.copysign(1, got) == math.copysign(1, value)
        return same if math.isfinite(value) else got == float_text(value)
    if name == "int" and type(got) is float:
        return got == value and abs(value) < 2**32 and options["type"] not in ("int64", "uint64")
    if name == "bytes":
        return got == base64.b64encode(value).decode()
    return got == text(kind, value, options["zone"])


def same_arrow(kind, value, got, options):
    """Temporal values arrive as their integers."""
    name, _, detail = kind.partition(":")
    if value is None:
        return got is None
    if name == "list":
        return isinstance(got, list) and len(got) == len(value) and all(same_arrow(detail, *two, options) for two in zip(value, got))
    if name in ("float", "float4"):
        return type(got) is float and (got == value and math.copysign(1, got) == math.copysign(1, value) or got != got and value != value)
    if name in ("numeric", "decimal"):
        got = str(got) if isinstance(got, str) else format(got, "f")
        return got == text(kind, value, "UTC")
    return type(got) is type(value) and got == value


def excel_days(days):
    return days + 25_569 - (days < EXCEL_SHIFT)


def same_xlsx(kind, value, cell, options):
    """`cell` is openpyxl's value, unescaped, and the text of the cell's number where it has one."""
    got, raw = cell
    name, _, detail = kind.partition(":")
    number = None if raw is None else float(raw)
    if value is None or value == "" and name == "text":
        return got is None and raw is None
    if name == "bool":
        return got is value
    if name in ("text", "uuid", "json"):
        return type(got) is str and got == cut(value)
    if name in ("int", "decimal", "numeric") and not isinstance(value, str):
        plain = format(Decimal(value), "f")
        whole, _, fraction = plain.lstrip("-").partition(".")
        if len((whole.lstrip("0") + fraction.rstrip("0")).lstrip("0")) <= 15:
            return number == float(value)
        return got == plain and raw is None
    if name in ("float", "float4"):
        if not math.isfinite(value):
            return got == float_text(value) and raw is None
        return number is not None and (narrow(number) if name == "float4" else number) == value
    if name in ("date", "timestamp", "timestamptz") and value not in EXTREMES:
        us = value * DAY_US if name == "date" else value
        if name == "timestamptz":
            us += offset_minutes(value, options["zone"]) * 60_000_000
        if EXCEL_FIRST * DAY_US <= us < EXCEL_END * DAY_US:
            return same_moment(us, got, number)
    if name == "time":
        return number is not None and round(Fraction(number) * DAY_US) == value
    if name == "list":
        return type(got) is str and same_json(kind, value, loads(got), options)
    return got == text(kind, value, options["zone"]) and raw is None


def same_moment(us, got, number):
    if number is None or not isinstance(got, datetime):
        return False
    off = abs(excel_days(us // DAY_US) * DAY_US + us % DAY_US - round(Fraction(number) * DAY_US))
    shown = got - datetime(1970, 1, 1)
    shown_us = (shown.days * 86_400 + shown.seconds) * 1_000_000 + shown.microseconds
    return off <= (0 if us < EXCEL_EXACT_UNTIL_US else 1 if us < 2 * EXCEL_EXACT_UNTIL_US else 1_020) and abs(shown_us - us) <= 1_000


def cut(value):
    """32,767 UTF-16 units, no character halved."""
    units = value.encode("utf-16-le")
    return value if len(units) <= 2 * 32_767 else units[: 2 * 32_767].decode("utf-16-le", errors="ignore")
