"""Prints a workbook as JSON, as openpyxl reads it, with the raw text of each number beside it."""
import datetime, json, re, sys, zipfile
from xml.etree import ElementTree
import openpyxl
from openpyxl.utils.escape import unescape

NS = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def plain(value):
    if isinstance(value, datetime.datetime):
        return ["datetime", value.isoformat()]
    if isinstance(value, datetime.date):
        return ["date", value.isoformat()]
    if isinstance(value, datetime.time):
        return ["time", value.isoformat()]
    if isinstance(value, bool) or value is None:
        return [type(value).__name__, value]
    if isinstance(value, (int, float)):
        return ["number", value]
    return ["str", unescape(value)]


def raw_numbers(path, index):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        tree = ElementTree.fromstring(archive.read(f"xl/worksheets/sheet{index}.xml"))
    return {cell.get("r"): cell.find(f"{NS}v").text for cell in tree.iter(f"{NS}c") if cell.find(f"{NS}v") is not None}


path = sys.argv[1]
book = openpyxl.load_workbook(open(path, "rb"))
sheets = []
for index, sheet in enumerate(book.worksheets, 1):
    raw = raw_numbers(path, index)
    widths = {letter: column.width for letter, column in sheet.column_dimensions.items()}
    sheets.append({
        "name": sheet.title,
        "freeze": sheet.freeze_panes,
        "widths": widths,
        "titles": [[cell.value, cell.font.bold, cell.fill.fill_type] for cell in sheet[1]],
        "hyperlinks": sum(1 for row in sheet.iter_rows() for cell in row if cell.hyperlink),
        "rows": [
            [plain(cell.value) + [cell.data_type, cell.number_format, raw.get(cell.coordinate)] for cell in row]
            for row in sheet.iter_rows(min_row=2)
        ],
    })
json.dump(sheets, sys.stdout)
